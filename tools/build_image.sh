#!/bin/sh
# Build one target of the Dockerfile with docker, podman or buildah, the first that is there:
#   tools/build_image.sh TARGET TAG [OPTIONS OF THE BUILD...]
# ENGINE names one of the three, SOURCE_DATE_EPOCH another time than the commit's. Two builds of one commit with podman or
# buildah have the same layers, and one digest when they are pushed in the format of OCI.
set -eu

fail() {
    echo "forebay: $1" >&2
    exit 1
}

[ $# -ge 2 ] || fail "give a target and a tag: tools/build_image.sh cpu forebay:cpu"
target=$1
tag=$2
shift 2

is_there() {
    command -v "$1" >/dev/null 2>&1
}

# The package podman-docker installs podman under the name of docker, without docker's options.
is_podman() {
    case $(docker --version 2>/dev/null) in *[Pp]odman*) true ;; *) false ;; esac
}

has_docker() {
    is_there docker && ! is_podman && docker version >/dev/null 2>&1 # the client alone builds nothing
}

find_engine() {
    if has_docker; then
        echo docker
    elif is_there podman; then
        echo podman
    elif is_there buildah; then
        echo buildah
    fi
}

engine=${ENGINE:-$(find_engine)}
case $engine in
docker | podman | buildah)
    is_there "$engine" || fail "ENGINE is $engine, which is not installed"
    if [ "$engine" = docker ] && is_podman; then engine=podman; fi
    ;;
'') fail "no docker engine answers, and podman and buildah are not installed: sudo apt-get install buildah" ;;
*) fail "ENGINE is '$engine'; give docker, podman or buildah, or leave it out" ;;
esac

epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
unset SOURCE_DATE_EPOCH # newer buildah reads it, and refuses it beside --timestamp
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
set -- --target "$target" --tag "$tag" --build-arg "SOURCE_DATE_EPOCH=$epoch" --build-arg "REVISION=$revision" "$@" .

case $engine in
# Docker before 23 has BuildKit, which mounts need, and does not use it by itself.
docker) DOCKER_BUILDKIT=1 exec docker build "$@" ;;
# The format of OCI has no health check. Debian's podman builds with crun, which not every kernel allows: a change of
# root is enough for a build.
*) exec "$engine" build --format docker --isolation chroot --timestamp "$epoch" "$@" ;;
esac
