#!/bin/sh
# The gate on real runs: how often it alarms where nothing changed, and whether it finds what did.
# Usage: gate.sh XENOSCOPE [RUNS [SPLITS]]; needs a C compiler, and to be allowed to sample.
set -eu
xenoscope=$(realpath "$1") runs=${2:-20} splits=${3:-200}
here=$(dirname "$(realpath "$0")")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd "$out"
cc -O1 -g -o phases "$here/../programs/phases.c"
cat >rules.toml <<'RULES'
[[function]]
max-increase = "0%"
[[process]]
max-increase = "0%"
[[mode]]
max-increase = "0%"
RULES
cat >one.toml <<'RULES'
[[function]]
name = "look_up"
max-increase = "5%"
detect = "50%"
RULES

for run in $(seq "$runs"); do
    "$xenoscope" record -F 1000 -o "same-$run.xsr" -- ./phases 1 2 >/dev/null 2>&1
    # A slowed run after every second, so that what else the machine does falls on both.
    [ $((run % 2)) -ne 0 ] || "$xenoscope" record -F 1000 -o "slow-$run.xsr" -- ./phases 2 2 >/dev/null 2>&1
done

status=0
"$xenoscope" gate --baseline same-*.xsr --candidate slow-*.xsr --rules one.toml >verdict || status=$?
cat verdict
[ "$status" -eq 3 ] && grep -q look_up verdict || { echo "the slowdown was not found: $status" >&2; exit 1; }

alarms=0 split=0
while [ "$split" -lt "$splits" ]; do
    split=$((split + 1))
    shuffled=$(ls same-*.xsr | shuf --random-source=/dev/urandom)
    half=$((runs / 2))
    status=0
    "$xenoscope" gate --baseline $(echo "$shuffled" | head -n "$half") \
        --candidate $(echo "$shuffled" | tail -n +$((half + 1))) --rules rules.toml >verdict || status=$?
    case $status in 0) ;; 3) alarms=$((alarms + 1)) ;; *) cat verdict >&2; exit 1 ;; esac
done
grep -m1 'minimum detectable' verdict
echo "$alarms false alarms in $splits splits of $runs runs that are alike"
# Of splits with a chance of one in twenty; three standard deviations more are one case in a thousand.
awk -v n="$splits" -v a="$alarms" 'BEGIN { exit !(a <= n * 0.05 + 3 * sqrt(n * 0.05 * 0.95)) }'

status=0
"$xenoscope" gate --baseline same-1.xsr --candidate slow-2.xsr --rules one.toml >/dev/null || status=$?
[ "$status" -eq 4 ] || { echo "one run a side was judged: $status" >&2; exit 1; }
