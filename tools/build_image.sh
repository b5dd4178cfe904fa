#!/bin/sh
# Build one target of the Dockerfile with docker, podman or buildah, the first that is there:
#   tools/build_image.sh TARGET TAG [OPTIONS OF THE BUILD...]
# ENGINE names one of the three. Two builds of one commit with podman or buildah have the same layers, and one digest when
# they are pushed in the format of OCI.
set -eu

target=$1
tag=$2
shift 2

has_docker() {
    docker version >/dev/null 2>&1 # the client alone builds nothing
}

find_engine() {
    if has_docker; then
        echo docker
    elif command -v podman >/dev/null; then
        echo podman
    elif command -v buildah >/dev/null; then
        echo buildah
    fi
}

engine=${ENGINE:-$(find_engine)}
epoch=$(git log -1 --format=%ct 2>/dev/null || echo 0)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
set -- --target "$target" --tag "$tag" --build-arg "SOURCE_DATE_EPOCH=$epoch" --build-arg "REVISION=$revision" "$@" .

case $engine in
docker) exec docker build "$@" ;;
# The format of OCI has no health check. Debian's podman builds with crun, which not every kernel allows: a change of
# root is enough for a build.
podman) exec podman build --format docker --isolation chroot --timestamp "$epoch" "$@" ;;
buildah) exec buildah build --format docker --isolation chroot --timestamp "$epoch" "$@" ;;
*)
    echo "forebay: no docker engine answers, and podman and buildah are not installed: apt install buildah" >&2
    exit 1
    ;;
esac
