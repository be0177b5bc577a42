#!/bin/sh
# Run by deskbridge.service after it has ended: what to type after findings in the configuration. It
# stands below them in `systemctl status`.

[ "$EXIT_STATUS" != 2 ] ||
    echo "correct /etc/deskbridge/deskbridge.toml, or put the missing secret into /etc/deskbridge/secrets;" \
        "then type: systemctl restart deskbridge"
