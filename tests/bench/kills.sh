#!/bin/sh
# What is left when a recorder is killed, or its disk is full: a file that is read up to its last whole chunk.
# Usage: kills.sh XENOSCOPE [TIMES]; needs root (for a small file system).
set -eu
xenoscope=$(realpath "$1") times=${2:-200}
out=$(mktemp -d)
trap 'umount "$out/small" 2>/dev/null || true; rm -rf "$out"' EXIT
cd "$out"
time=0 none=0 torn=0
while [ "$time" -lt "$times" ]; do
    time=$((time + 1))
    "$xenoscope" record -F 5000 --max-overhead 0 --duration 60 -o killed.xsr 2>/dev/null &
    # Most while it writes, some before that.
    if [ $((time % 10)) -ne 0 ]; then until [ -s killed.xsr ]; do sleep 0.02; done; fi
    sleep "$(shuf -i 0-1 -n 1).$(shuf -i 00-99 -n 1)"
    kill -9 $!
    wait $! 2>/dev/null || true
    status=0
    "$xenoscope" report -i killed.xsr --json >report 2>errors || status=$?
    if [ "$status" -eq 0 ]; then
        grep -q '"complete":false' report || { echo "a killed recorder's file passes for whole" >&2; exit 1; }
        torn=$((torn + 1))
    else
        # Nothing may have been written yet.
        [ "$status" -eq 1 ] || { echo "report ended with $status" >&2; exit 1; }
        none=$((none + 1))
    fi
    rm -f killed.xsr
done
echo "$times times killed: $torn files read up to where they end, $none times nothing had been written"

mkdir small
mount -t tmpfs -o size=64k none small
status=0
"$xenoscope" record -F 5000 --max-overhead 0 --duration 10 -o small/full.xsr 2>errors || status=$?
cat errors
[ "$status" -ne 0 ] && grep -q 'No space left' errors || { echo "a full disk was not told: $status" >&2; exit 1; }
"$xenoscope" report -i small/full.xsr --json | grep -q '"complete":false' ||
    { echo "what was written before the disk was full can't be read" >&2; exit 1; }
