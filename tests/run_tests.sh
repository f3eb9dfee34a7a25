#!/usr/bin/env bash
# ONE COMMAND: make the virtual environment, install everything, run the whole suite.
#   bash tests/run_tests.sh                  everything
#   bash tests/run_tests.sh -m "not slow"    the everyday tests
# Arguments go to pytest (`-n 0`: in one process, for a debugger).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash src/demo/set_up_venv.sh requirements.txt tests/requirements.txt
# A process for each core, four at most: each holds the libraries and a model (1 GiB). A file's tests stay in one process,
# for they share its fixtures; each process computes on one core, so that they do not wait for each other.
export OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
