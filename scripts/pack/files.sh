# shellcheck shell=bash disable=SC2154
# The files that the packages have in common. Sourced by scripts/pack.sh.

# put MODE FILE TARGET: copies a file into the package.
put() { install -D --mode="$1" "$2" "$root/$3"; }
packed() { gzip -9 --no-name; }
# put_licences TARGET: the licences of the crates in the binary, if they were collected.
put_licences() { [ -z "$licences" ] || put 644 "$licences" "$1"; }
# dated DIRECTORY: everything in it gets the one date.
dated() { find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +; }

# generated DIRECTORY: manual pages and completions, which the binary prints.
generated() {
    mkdir -p "$1/man"
    "$binary" man "$1/man"
    "$binary" completions bash >"$1/deskbridge.bash"
    "$binary" completions zsh >"$1/_deskbridge"
    "$binary" completions fish >"$1/deskbridge.fish"
}

# staged DIRECTORY: what is the same in the Debian package and the rpm; sets root.
staged() {
    root=$1
    local page
    put 755 "$binary" usr/bin/deskbridge
    put 644 packaging/deskbridge.service usr/lib/systemd/system/deskbridge.service
    put 644 packaging/deskbridge.socket usr/lib/systemd/system/deskbridge.socket
    put 755 packaging/advice.sh usr/lib/deskbridge/advice
    put 644 packaging/deskbridge.sysusers usr/lib/sysusers.d/deskbridge.conf
    put 644 packaging/deskbridge.toml etc/deskbridge/deskbridge.toml
    install --directory --mode=700 "$root/etc/deskbridge/secrets"
    put 644 config/default.toml usr/share/doc/deskbridge/default.toml
    put_licences usr/share/doc/deskbridge/licences.txt
    put 644 config/prometheus/alerts.yml usr/share/doc/deskbridge/examples/alerts.yml
    mkdir -p "$root/usr/share/man/man1"
    for page in "$work"/generated/man/*.1; do
        packed <"$page" >"$root/usr/share/man/man1/${page##*/}.gz"
    done
    put 644 "$work/generated/deskbridge.bash" usr/share/bash-completion/completions/deskbridge
    put 644 "$work/generated/deskbridge.fish" usr/share/fish/vendor_completions.d/deskbridge.fish
}
