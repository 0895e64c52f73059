#!/usr/bin/env bash
# The tests: makes .venv, installs, runs pytest with the arguments given.
#
#   bash test.sh                             all
#   bash test.sh -m 'not end_to_end'         the fast ones
#   bash test.sh -m end_to_end               whole stages on tiny data
#   bash test.sh -m gpu                      what needs a CUDA device
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. tools/venv.sh
prepare_environment requirements-dev.txt
exec "$PYTHON" -m pytest "$@"
