# shellcheck shell=bash
# Sourced first by every script: the first command that fails ends the script and is reported on
# standard error, even if it printed nothing itself.

set -Eeuo pipefail
shopt -s inherit_errexit

# A failure in a subshell, `$(…)` or `(…)`, is reported once: by the main shell.
failed() { # STATUS LINE COMMAND
    [ "$BASH_SUBSHELL" != 0 ] \
        || echo "${0##*/}: line $2: exit code $1 of: ${3%%$'\n'*}" >&2
}
trap 'failed $? "$LINENO" "$BASH_COMMAND"' ERR
