#!/usr/bin/env bash
# The tests: makes .venv, installs, runs pytest in two processes with the arguments given.
#
#   bash test.sh                             all
#   bash test.sh -m 'not end_to_end'         the fast ones
#   bash test.sh -m end_to_end               whole stages on tiny data
#   bash test.sh -m gpu                      what needs a CUDA device
#   bash test.sh -n 0 tests/test_boxes.py    a file, in one process
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. tools/venv.sh
prepare_environment requirements-dev.txt
exec "$PYTHON" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
