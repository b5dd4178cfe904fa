#!/bin/sh
# Make a virtual environment with what a file of pinned requirements lists, and this checkout on top:
#   tools/make_venv.sh FOLDER REQUIREMENTS...
# Quick when the environment is there already. Says in one line what to do when something is missing.
set -eu

folder=$1
shift

fail() {
    echo "forebay: $1" >&2
    exit 1
}

# PYTHON wins; else the newest of the usual names that is at least 3.11.
find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

version_of() {
    "$1" -V 2>&1 || true
}

unset PIP_USER PIP_TARGET PIP_PREFIX PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    [ -n "$python" ] || fail "Python 3.11 or newer is needed, and ${PYTHON:-python3} is $(version_of "${PYTHON:-python3}"): install it, or name it: make PYTHON=/path/to/python3.12"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python has no venv module: install it (Debian, Ubuntu: sudo apt install python3-venv)"
    echo "Making $folder with $("$python" -V)"
    "$python" -m venv --clear "$folder" || fail "cannot make $folder: is the disk full or the folder read-only?"
fi

options=
for file; do options="$options -r $file"; done
log="$folder/pip.log"
echo "Installing into $folder (the first time takes a minute or two)"
# shellcheck disable=SC2086  # the options are words of their own
if ! "$folder/bin/python" -m pip install --quiet $options >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    fail "pip could not install $*: check the network and pip's own settings, then try again (all of it: $log)"
fi
# Every installation writes the metadata of the checkout anew: one after the other, where others run at the same time.
if command -v flock >/dev/null 2>&1; then
    exec 9<"$0"
    flock 9
fi
if ! "$folder/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable ./client --editable . >>"$log" 2>&1; then
    tail -n 15 "$log" >&2
    fail "pip could not install this checkout (all of it: $log)"
fi
