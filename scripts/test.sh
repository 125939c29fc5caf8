#!/usr/bin/env bash
# Checks and tests, in tiers with a time budget each (for two idle cores). Makes its own environment in .venv.
#   bash scripts/test.sh               what every change must pass
#   bash scripts/test.sh --all         the full products, soak and slow tests as well
#   bash scripts/test.sh --all faults  one part of that alone, or several: checks, pure, engine, ray, faults, reach
#                                      (reach needs root: machines as network namespaces with a disk each)
#   bash scripts/test.sh --slow 6      on a slow or loaded machine: every budget and every wait of a test is six times as long
#   bash scripts/test.sh -k NAME       further arguments go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

all=false slow=1 parts=()
while (($#)); do
  case $1 in
    --all) all=true && shift ;;
    --slow) slow=$2 && shift 2 ;;
    checks | pure | engine | ray | faults | reach) parts+=("$1") && shift ;;
    *) break ;;
  esac
done
if ! [[ $slow =~ ^[1-9][0-9]*$ ]]; then
  echo "test.sh: --slow takes how many times as slow this machine is, such as 6; not '$slow'" >&2
  exit 2
fi
export HELIOSTAT_TEST_SLOW=$slow
extra=("$@")
failed=() over=() ran=()

# tier PART NAME BUDGET_S COMMAND...: runs it, prints the time it took against its budget. One that takes longer is named
# at the end, and goes on; one that takes four times as long is taken for hanging, and is stopped (with --all never: end
# that by hand). On a slow or loaded machine say --slow, which lengthens budgets and thereby this limit. A tier in which
# no test is selected fails, unless arguments for pytest choose the tests.
tier() {
  local part=$1 name=$2 budget=$(($3 * slow)) began=$SECONDS status=0
  shift 3
  if ((${#parts[@]})) && [[ " ${parts[*]} " != *" $part "* ]]; then return; fi
  echo "== $name (budget $budget s)"
  if $all; then "$@" || status=$?; else timeout --kill-after=10 $((4 * budget)) "$@" || status=$?; fi
  local took=$((SECONDS - began))
  if ((status == 5 && ${#extra[@]} > 0)); then status=0; fi # pytest: nothing selected
  if ! $all && ((status != 0 && took >= 4 * budget)); then
    failed+=("$name (stopped after $took s, four times its budget: it hangs, or the machine needs --slow)")
  elif ((status != 0)); then
    failed+=("$name (exit status $status)")
  fi
  if ! $all && ((took > budget)); then over+=("$name: $took s of $budget s"); fi
  ran+=("$name: $took s")
  echo "== $name took $took s of $budget s"
}

# Makes .venv once; only its use is timed in the tiers.
source scripts/environment.sh test,docs

checks() {
  .venv/bin/ruff check . && .venv/bin/ruff format --check . &&
    .venv/bin/mypy -p heliostat.data -p heliostat.cluster -p heliostat.trainer -p heliostat.scripts
}
export -f checks

fast="and not slow"
$all && fast=""
pytest=(.venv/bin/python -m pytest -q --durations=5)

tier checks "tier 0: ruff and mypy" 210 bash -c checks
tier pure "tier 1: pure" 90 "${pytest[@]}" -n 2 -m "not engine and not ray and not faults and not reach $fast" "${extra[@]}"
tier engine "tier 2: engine" 240 "${pytest[@]}" -n 2 -m "engine $fast" "${extra[@]}"
tier ray "tier 3: real Ray" 240 "${pytest[@]}" -m "ray $fast" "${extra[@]}"
tier faults "tier 4: faults" 240 "${pytest[@]}" -m "faults $fast" "${extra[@]}"
if $all; then tier reach "machines that share nothing" 2700 "${pytest[@]}" -m reach "${extra[@]}"; fi

printf '%s\n' "${ran[@]}"
echo "all tiers: $SECONDS s"
idle="two idle cores$( ((slow > 1)) && echo ", $slow times as slow" || true)"
for each in "${over[@]}"; do echo "OVER BUDGET ($idle): $each"; done
if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "all passed"
