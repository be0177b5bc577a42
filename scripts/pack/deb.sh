# shellcheck shell=bash disable=SC2154
# dist/deskbridge_VERSION_ARCH.deb. Sourced by scripts/pack.sh.

pack_deb() {
    local script doc=usr/share/doc/deskbridge architecture
    needs dpkg-deb dpkg
    architecture=$(dpkg --print-architecture)
    staged "$work/deb"
    put 644 "$work/generated/_deskbridge" usr/share/zsh/vendor-completions/_deskbridge
    filled packaging/debian/copyright >"$root/$doc/copyright"
    debian_changelog | packed >"$root/$doc/changelog.gz"
    put 644 packaging/debian/lintian-overrides usr/share/lintian/overrides/deskbridge

    mkdir "$root/DEBIAN"
    for script in postinst prerm postrm; do
        put 755 "packaging/debian/$script" "DEBIAN/$script"
    done
    echo /etc/deskbridge/deskbridge.toml >"$root/DEBIAN/conffiles"
    (cd "$root" && find etc usr -type f ! -path etc/deskbridge/deskbridge.toml -print0 | sort -z |
        xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    filled packaging/debian/control >"$root/DEBIAN/control"
    dated "$root"
    # One thread: xz compresses differently with several.
    dpkg-deb --root-owner-group --threads-max=1 --build "$root" \
        "$dist/deskbridge_${version}_$architecture.deb" >/dev/null
}

# The notes of this version in CHANGELOG.md, in the form of Debian's changelog.
debian_changelog() {
    echo "deskbridge ($version) stable; urgency=medium"
    echo
    awk -v head="## [$version]" '
        index($0, "## ") == 1 { within = index($0, head) == 1 }
        within && /^- / { print "  * " substr($0, 3) }
        within && /^  [^ ]/ { print "    " substr($0, 3) }' CHANGELOG.md | fold -s -w 78 |
        sed -e 's/ *$//' -e '/^  /! s/^/    /'
    echo
    echo " -- $maintainer  $(date --utc --date="@$SOURCE_DATE_EPOCH" -R)"
}

# The newest symbol version of the C library that the binary asks for.
libc_version() {
    { grep --text --only-matching 'GLIBC_2\.[0-9.]*' "$binary" || true; } | cut -d_ -f2 | sort -uV | tail -n 1
}

# filled FILE: the file with its placeholders filled in.
filled() {
    local mit
    mit=$(sed -e '1,/^Permission/ { /^Permission/! d }' -e 's/^$/./' -e 's/^/ /' LICENSE-MIT)
    awk -v version="$version" -v architecture="$architecture" -v maintainer="$maintainer" \
        -v libc="$(libc_version)" -v size="$(du -ks --apparent-size "$root" | cut -f1)" -v mit="$mit" '{
            gsub("@VERSION@", version); gsub("@ARCHITECTURE@", architecture)
            gsub("@MAINTAINER@", maintainer); gsub("@LIBC@", libc); gsub("@SIZE@", size)
            if ($0 == "@MIT@") print mit; else print
        }' "$1"
}
