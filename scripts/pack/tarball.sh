# shellcheck shell=bash disable=SC2154
# dist/deskbridge-VERSION-MACHINE-linux.tar.gz. Sourced by scripts/pack.sh.

pack_tarball() {
    local page
    root=$work/deskbridge-$version
    put 755 "$binary" deskbridge
    for page in README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT; do
        put 644 "$page" "$page"
    done
    put_licences licences.txt
    put 644 config/default.toml config/default.toml
    put 644 config/prometheus/alerts.yml config/prometheus/alerts.yml
    put 644 packaging/deskbridge.service systemd/deskbridge.service
    put 644 packaging/deskbridge.socket systemd/deskbridge.socket
    put 644 packaging/deskbridge.toml systemd/deskbridge.toml
    cp -r "$work/generated/man" "$root/man"
    put 644 "$work/generated/deskbridge.bash" completions/deskbridge.bash
    put 644 "$work/generated/_deskbridge" completions/_deskbridge
    put 644 "$work/generated/deskbridge.fish" completions/deskbridge.fish
    tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
        --format=gnu --directory="$work" "deskbridge-$version" |
        packed >"$dist/deskbridge-$version-$(uname -m)-linux.tar.gz"
}
