#!/bin/sh
# Run the tests of one target of the Makefile, which keeps a list of its own of what failed:
#   tools/run_tests.sh NAME COMMAND...
# With --lf in the command, run what failed the last time: nothing where all tests had passed, all where the last run
# broke off before it could say what failed. pytest alone runs all tests of a target where nothing failed in it.
# KEPT is the folder of these lists.
set -u

name=$1
shift
kept=${KEPT:-.cache/tests}/$name
mkdir -p "$kept" || exit 1
case " $* " in
*" --lf "*)
    if [ -e "$kept/passed" ]; then
        echo "$name: no test failed"
        exit 0
    fi
    ;;
esac
rm -f "$kept/passed"
"$@" -o "cache_dir=$kept/pytest"
code=$?
case $code in
0 | 5) touch "$kept/passed" ;; # 5: nothing was selected
*) rm -f "$kept/passed" ;;
esac
exit $code
