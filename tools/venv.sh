# Sourced by demo.sh, label.sh and test.sh: makes .venv once, installs what a requirements file asks
# for when it has changed, and leaves the environment's Python in $PYTHON.

fail() { echo "error: $*" >&2; exit 2; }

find_python() {
  for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
    if command -v "$candidate" >/dev/null &&
       "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
}

prepare_environment() {  # $1: requirements file, $2: not empty: PyTorch without CUDA
  local stamp=.venv/installed-$1 wanted python index=()
  wanted=$(cat requirements*.txt | cksum)
  PYTHON=.venv/bin/python
  if "$PYTHON" -c '' 2>/dev/null; then
    # What the tests need includes what the demo needs; one of the stamps may be missing.
    grep -qsx "$wanted" "$stamp" .venv/installed-requirements-dev.txt && return
  else
    python=$(find_python)
    [ -n "$python" ] || fail "no Python 3.10 or newer found: install one and run again"
    "$python" -m venv .venv ||
      fail "$python cannot make a virtual environment: install its venv package (Debian, Ubuntu:" \
        "python3-venv), delete .venv and run again"
  fi
  echo "installing what $1 asks for into .venv (once; PyTorch is large)"
  # A version +cpu is newer to pip than the same version without.
  [ -z "${2:-}" ] || index=(--extra-index-url https://download.pytorch.org/whl/cpu)
  "$PYTHON" -m pip install --quiet --disable-pip-version-check ${index[@]+"${index[@]}"} -r "$1" ||
    fail "pip could not install $1: see above; with a network, run again"
  echo "$wanted" > "$stamp"
}
