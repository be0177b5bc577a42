# shellcheck shell=bash
# Sourced first by every script: the first step that fails ends it, and is named on standard error
# even if it said nothing itself.

set -Eeuo pipefail
shopt -s inherit_errexit

# A failure in `$(…)` or `(…)` is reported once, by the script that waits for it.
failed() { # STATUS LINE COMMAND
    [ "$BASH_SUBSHELL" != 0 ] \
        || echo "${0##*/}: line $2: exit code $1 of: ${3%%$'\n'*}" >&2
}
trap 'failed $? "$LINENO" "$BASH_COMMAND"' ERR
