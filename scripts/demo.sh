#!/usr/bin/env bash
# Trains the demo's model in three ways and compares them; makes the Python environment first if need be.
#
#     bash scripts/demo.sh [--workers N] [--replicas R] [--loop fit|train_on_batch|custom|all] [--epochs E] [--run-dir DIR]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
source "$root/scripts/environment.sh" ''
exec "$root/.venv/bin/heliostat" demo "$@"
