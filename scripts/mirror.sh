#!/usr/bin/env bash
# Prints the Debian mirror that this machine uses, for debootstrap. DEBIAN_MIRROR overrides it.

. "$(dirname "$0")/strict.sh" || exit

mirror=${DEBIAN_MIRROR-}
if [ -z "$mirror" ]; then
    # Ask apt, so that all formats and files of package sources are covered.
    # shellcheck disable=SC2016
    archives=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages') || archives=
    while read -r archive; do
        case ${archive%/} in
            */debian) mirror=$archive && break ;;
        esac
    done <<<"$archives"
fi
if [ -z "$mirror" ]; then
    echo "no Debian mirror among the package sources in /etc/apt; set DEBIAN_MIRROR to the address of one" >&2
    exit 1
fi
echo "$mirror"
