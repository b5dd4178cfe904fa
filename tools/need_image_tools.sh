#!/bin/sh
# Check that programs of Debian are installed, and that root asks:
#   tools/need_image_tools.sh PROGRAM...
# Each has the name of its package. Says in one line how to install the missing ones.
set -eu

missing=
for program; do command -v "$program" >/dev/null 2>&1 || missing="$missing $program"; done
if [ -n "$missing" ]; then
    echo "forebay: not installed:$missing; on Debian or Ubuntu: sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "forebay: a base made of Debian's packages needs root: run the same command with sudo" >&2
    exit 1
fi
