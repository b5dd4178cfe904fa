#!/bin/sh
# Make base images from Debian's packages, where no registry answers:
#   tools/make_base_image.sh FOLDER
# writes FOLDER/base.tar, Python 3.13 and what it needs without a package manager, and FOLDER/build-base.tar, the same
# with pip. Needs mmdebstrap and root; MIRROR and SUITE name another archive, such as one of snapshot.debian.org.
set -eu

folder=$1
mirror=${MIRROR:-http://deb.debian.org/debian}
suite=${SUITE:-trixie}
packages=base-files,base-passwd,dash,libc-bin,libstdc++6,netbase,python3.13
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}"

"$(dirname "$0")/need_image_tools.sh" mmdebstrap

# Packages are unpacked and not configured: their scripts would add users, groups, Python's byte code and,
# for pip, the authorities in one file.
make_base() {
    # shellcheck disable=SC2016  # mmdebstrap's shell expands $1
    mmdebstrap --quiet --mode=root --variant=extract --include="$2" \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/lib/*/gconv/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --extract-hook='for deb in "$1"/var/cache/apt/archives/*.deb; do dpkg-deb --field "$deb"; echo; done >"$1/var/lib/dpkg/status"' \
        --extract-hook='cat "$1"/usr/share/ca-certificates/mozilla/*.crt >"$1/etc/ssl/certs/ca-certificates.crt" 2>/dev/null || true' \
        --extract-hook='cp "$1/usr/share/base-passwd/passwd.master" "$1/etc/passwd"' \
        --dpkgopt='path-exclude=/usr/lib/python3.13/test/*' --dpkgopt='path-exclude=/usr/lib/python3.13/idlelib/*' \
        --extract-hook='[ ! -e "$1/usr/bin/busybox" ] || ln -s busybox "$1/usr/bin/install"' \
        --extract-hook='chroot "$1" python3.13 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.13' \
        --extract-hook='cp "$1/usr/share/base-passwd/group.master" "$1/etc/group"' \
        "$suite" - "$mirror" >"$1.part"
    mv "$1.part" "$1"
}

mkdir -p "$folder"
make_base "$folder/base.tar" "$packages,busybox"
make_base "$folder/build-base.tar" "$packages,coreutils,python3.13-venv,ca-certificates"
