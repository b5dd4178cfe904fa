#!/bin/sh
# Build the image forebay:cpu where no registry answers, with buildah and as root: the bases from Debian's packages
# (make_base_image.sh), the Python packages through this machine's own pip and its settings.
#   tools/build_image_offline.sh TAG [OPTIONS OF THE BUILD...]
# Keeps the bases and the wheels in .cache/image; remove the folder for newer packages of Debian.
set -eu

tag=$1
shift
parts=.cache/image
machine=$(uname -m)

tools/need_image_tools.sh buildah mmdebstrap

[ -f "$parts/build-base.tar" ] || tools/make_base_image.sh "$parts"
for name in base build-base; do
    printf 'FROM scratch\nADD %s.tar /\n' "$name" |
        buildah build --quiet --isolation chroot --layers --timestamp 0 --tag "localhost/forebay-$name" --file - "$parts" >/dev/null
done

platforms=
for glibc in 2_28 2_27 2_26 2_24 2_17 2_12 2_5; do platforms="$platforms --platform manylinux_${glibc}_$machine"; done
# shellcheck disable=SC2086  # the options are words of their own
.venv/bin/python -m pip --no-input download --quiet --dest "$parts/wheels" --no-deps --only-binary=:all: --require-hashes \
    --python-version 3.13 --implementation cp $platforms --platform "manylinux2014_$machine" \
    --requirement locks/cpu.txt --requirement locks/setuptools.txt 2>"$parts/pip.log" || {
    tail -n 15 "$parts/pip.log" >&2
    exit 1
}

ENGINE=buildah exec tools/build_image.sh cpu "$tag" --build-context "wheels=$parts/wheels" \
    --build-arg BASE=localhost/forebay-base --build-arg BUILD_BASE=localhost/forebay-build-base \
    --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheels "$@"
