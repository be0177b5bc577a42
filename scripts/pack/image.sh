# shellcheck shell=bash disable=SC2154,SC2016,SC2034
# dist/deskbridge-VERSION-oci.tar, the image of the Dockerfile: its settings, and a Debian 12 of the
# essential packages and the certificates. Needs no container engine and no registry. Sourced by
# scripts/pack.sh.

IMAGE_SUITE=bookworm

pack_image() {
    needs mmdebstrap mmdebstrap
    needs python3 python3
    base "$work/base"
    root=$work/image
    put 755 "$binary" usr/local/bin/deskbridge
    put 644 config/docker.toml opt/deskbridge/config/deskbridge.toml
    put_licences usr/share/doc/deskbridge/licences.txt
    layer "$work/base"
    layer "$work/image"
    python3 scripts/pack/image.py "$version" "$(git rev-parse HEAD)" \
        "$dist/deskbridge-$version-oci.tar" "$work/base.tar" "$work/image.tar"
}

# layer DIRECTORY: DIRECTORY.tar, with owners and rights, and dates that are not later than the commit.
layer() {
    tar --create --file="$1.tar" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime --numeric-owner \
        --format=gnu --directory="$1" .
}

# The root file system in a directory, with the user and the journal's directory of the Dockerfile.
# Documentation is left out, except for the licences. The list of packages stays, for scanners. What
# differs from run to run, or names this machine, is deleted.
base() {
    sources >"$work/sources.list"
    mmdebstrap --mode=root --variant=essential --include=ca-certificates --format=directory --quiet \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' "$IMAGE_SUITE" "$1" - <"$work/sources.list"
    (
        cd "$1" || exit
        rm -rf dev etc/apt etc/dpkg/dpkg.cfg.d etc/hostname etc/resolv.conf etc/*- var/cache/* var/log/*
        mkdir dev
        echo deskbridge:x:10001: >>etc/group
        echo deskbridge:x:10001:10001::/opt/deskbridge:/usr/sbin/nologin >>etc/passwd
        install --directory --owner=10001 --group=10001 --mode=0700 var/lib/deskbridge
    )
}

# The sources of this machine, security updates included, if it is a Debian of the same release.
sources() {
    local lines
    lines=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' | grep -E " $IMAGE_SUITE(-[a-z]+)? " | sort -u) || lines=
    echo "${lines:-deb $(scripts/mirror.sh) $IMAGE_SUITE main}"
}
