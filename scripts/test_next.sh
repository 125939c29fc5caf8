#!/usr/bin/env bash
# Tiers 1 to 3 with the newest pre-releases of what Heliostat stands on, in an environment of its own: .venv-next.
#   bash scripts/test_next.sh            makes .venv-next anew, says what is in it, runs the tests
#   bash scripts/test_next.sh --keep     with the .venv-next that is there
#   bash scripts/test_next.sh -k NAME    further arguments go to pytest
# A version with which all of it passes goes into the table of docs/reference/versions.md, and with it the bounds in pyproject.toml
# and the versions that errors name (tests/test_versions.py compares them).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
next=.venv-next

keep=false
if [[ "${1:-}" == "--keep" ]]; then
  keep=true
  shift
fi
source scripts/environment.sh test # Heliostat itself is linked from there

# The packages of pyproject.toml: what Heliostat needs (without keras, without upper bounds), or what its tests need.
needs() {
  .venv/bin/python - "$1" <<'PYTHON'
import re, sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
found = project["dependencies"] if sys.argv[1] == "run" else project["optional-dependencies"]["test"]
print(*(re.sub(r",?<[^,]*", "", each) for each in found if not each.startswith("keras")), sep="\n")
PYTHON
}

# TensorFlow's pre-releases require keras-nightly, which has the same folder as keras: it goes in last, and alone.
make_next() {
  local pip=("$next/bin/python" -m pip --disable-pip-version-check --quiet)
  .venv/bin/python -m venv --clear "$next"
  needs test | "${pip[@]}" install -r /dev/stdin
  needs run | "${pip[@]}" install --pre --upgrade -r /dev/stdin
  "${pip[@]}" uninstall --yes keras keras-nightly
  "${pip[@]}" install --pre --no-deps keras-nightly
  cp -r .venv/lib/python*/site-packages/*heliostat-*.{pth,dist-info} "$next"/lib/python*/site-packages/
}

if ! $keep || [[ ! -x $next/bin/python ]]; then
  echo "environment: making $next"
  make_next
fi
"$next/bin/python" - <<'PYTHON'
from importlib.metadata import version
for name in ("tensorflow", "keras-nightly", "ray", "pyarrow", "numpy", "ml-dtypes"):
    print(f"{name} {version(name)}")
PYTHON

failed=()
tier() {
  local name=$1 began=$SECONDS status=0
  shift
  "$@" || status=$?
  if ((status == 5 && num_extra > 0)); then status=0; fi # pytest: nothing selected
  if ((status != 0)); then failed+=("$name (exit status $status)"); fi
  echo "== $name took $((SECONDS - began)) s"
}

num_extra=$#
pytest=("$next/bin/python" -m pytest -q -p no:cacheprovider)
tier "tier 1: pure" "${pytest[@]}" -n 2 -m "not engine and not ray and not faults and not slow" "$@"
tier "tier 2: engine" "${pytest[@]}" -n 2 -m "engine and not slow" "$@"
tier "tier 3: real Ray" "${pytest[@]}" -m "ray and not slow" "$@"

if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "all passed"
