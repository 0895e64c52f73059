# Sourced by demo.sh and test.sh: makes .venv once, installs what a requirements file asks for
# when it has changed, and leaves the environment's Python in $PYTHON.

fail() { echo "error: $*" >&2; exit 2; }

find_python() {
  for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
    if command -v "$candidate" >/dev/null &&
       "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
}

prepare_environment() {  # $1: requirements file
  local stamp=.venv/installed-$1 wanted python
  wanted=$(cat requirements*.txt | cksum)
  PYTHON=.venv/bin/python
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$PYTHON" -c '' 2>/dev/null && return
  python=$(find_python)
  [ -n "$python" ] || fail "no Python 3.10 or newer found: install one and run again"
  "$python" -m venv .venv ||
    fail "$python cannot make a virtual environment: install its venv package (Debian, Ubuntu: python3-venv), delete .venv and run again"
  echo "installing what $1 asks for into .venv (once; PyTorch is large)"
  "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$1" ||
    fail "pip could not install $1: see above; with a network, run again"
  echo "$wanted" > "$stamp"
}
