#!/bin/sh
# Ends what a test process has left behind, even if that process was killed.
#
# Reads lines from standard input, `+PID` (kill it when I end) and `-PID` (it has ended); at the
# end of the input, which comes when the test process is gone for whatever reason, kills the rest.

trap '' INT TERM HUP
pids=" "
while read -r line; do
    pid=${line#?}
    case $line in
        +*) pids="$pids$pid " ;;
        -*) pids="${pids%% "$pid" *} ${pids#* "$pid" }" ;;
    esac
done
for pid in $pids; do
    kill -9 "$pid" 2>/dev/null
done
