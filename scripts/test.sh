#!/usr/bin/env bash
# Checks and tests, in tiers with a time budget each (for two cores). Makes its own environment in .venv.
#   bash scripts/test.sh          what every change must pass
#   bash scripts/test.sh --all    the full products, soak and slow tests as well
#   bash scripts/test.sh -k NAME  further arguments go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

all=false
if [[ "${1:-}" == "--all" ]]; then
  all=true
  shift
fi
extra=("$@")
failed=()
over=()

# tier NAME BUDGET_S COMMAND...: runs it, prints the time it took against its budget. A tier is stopped at twice its
# budget (with --all: never), so that a hang ends; one that is merely over it is named at the end. A tier in which no
# test is selected fails, unless arguments for pytest choose the tests.
tier() {
  local name=$1 budget=$2 began=$SECONDS status=0
  shift 2
  echo "== $name (budget $budget s)"
  if $all; then "$@" || status=$?; else timeout --kill-after=10 $((2 * budget)) "$@" || status=$?; fi
  local took=$((SECONDS - began))
  if ((status == 5 && ${#extra[@]} > 0)); then status=0; fi # pytest: nothing selected
  if ((status != 0)); then failed+=("$name (exit status $status)"); fi
  if ! $all && ((took > budget)); then over+=("$name: $took s of $budget s"); fi
  echo "== $name took $took s of $budget s"
}

# Makes .venv once; only its use is timed in the tiers.
source scripts/environment.sh test

checks() {
  .venv/bin/ruff check . && .venv/bin/ruff format --check . &&
    .venv/bin/mypy -p heliostat.data -p heliostat.cluster -p heliostat.trainer -p heliostat.scripts
}
export -f checks

slow="and not slow"
$all && slow=""
pytest=(.venv/bin/python -m pytest -q --durations=5)

tier "tier 0: ruff and mypy" 210 bash -c checks
tier "tier 1: pure" 90 "${pytest[@]}" -n 2 -m "not engine and not ray and not faults $slow" "${extra[@]}"
tier "tier 2: engine" 240 "${pytest[@]}" -n 2 -m "engine $slow" "${extra[@]}"
tier "tier 3: real Ray" 240 "${pytest[@]}" -m "ray $slow" "${extra[@]}"
tier "tier 4: faults" 240 "${pytest[@]}" -m "faults $slow" "${extra[@]}"

echo "all tiers: $SECONDS s"
if ((${#over[@]})); then printf 'OVER BUDGET (two idle cores): %s\n' "${over[@]}"; fi
if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "all passed"
