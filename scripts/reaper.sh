#!/bin/sh
# Kills the processes that a test process leaves behind, even if the test process itself was killed.
#
# Reads lines from standard input: `+PID` adds a process, `-PID` removes one that has ended. The input
# ends when the test process ends for any reason; then the script kills the remaining processes.

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
