#!/bin/sh
# Stand-in for npm in the Node.js image: `ci` copies packages that were downloaded outside,
# `run build` compiles with them.
set -eu
echo "stand-in: npm $*"
case $1 in
    ci) cp -r /stand-in/node_modules node_modules ;;
    run) node node_modules/typescript/bin/tsc ;;
    prune) rm -rf node_modules/typescript node_modules/@types ;;
    *) echo "stand-in: npm does not know '$1'" >&2 && exit 1 ;;
esac
