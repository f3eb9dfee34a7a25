#!/usr/bin/env bash
# ONE COMMAND: make the virtual environment, install everything, run the whole suite.
#   bash tests/run_tests.sh                  everything
#   bash tests/run_tests.sh -m "not slow"    the everyday tests
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash src/demo/set_up_venv.sh requirements.txt tests/requirements.txt
exec .venv/bin/python -m pytest "$@"
