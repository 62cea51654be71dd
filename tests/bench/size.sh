#!/bin/sh
# How large a recording is beside perf's of the same load: both sample the whole machine at once, as often.
# Usage: size.sh XENOSCOPE [SECONDS [HZ]]; needs root, perf and zstd.
set -eu
xenoscope=$1 seconds=${2:-10} hz=${3:-4000}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

load() { while :; do find /usr -type f 2>/dev/null | sort | md5sum; ls -lR /usr/lib | gzip; done >/dev/null; }
load & load=$!
perf record -q -a -F "$hz" -e cpu-clock -o "$out/perf.data" -- sleep "$seconds" & perf=$!
"$xenoscope" record -a -F "$hz" --max-overhead 0 --duration "$seconds" -o "$out/xsr" 2>"$out/log"
wait $perf
kill $load

a_sample() { awk -v bytes="$1" -v samples="$2" 'BEGIN { printf "%.2f\n", bytes / samples }'; }
in_perf=$(perf script -i "$out/perf.data" -F comm 2>/dev/null | wc -l)
in_xsr=$("$xenoscope" info -i "$out/xsr" | sed -n 's/^Samples *\([0-9]*\),.*/\1/p')
plain=$(a_sample "$(stat -c %s "$out/perf.data")" "$in_perf")
packed=$(a_sample "$(zstd -q -c "$out/perf.data" | wc -c)" "$in_perf")
ours=$(a_sample "$(stat -c %s "$out/xsr")" "$in_xsr")
echo "perf.data        $plain bytes a sample ($in_perf samples)"
echo "perf.data, zstd  $packed bytes a sample"
echo "recording        $ours bytes a sample ($in_xsr samples)"
awk -v a="$ours" -v b="$plain" -v c="$packed" 'BEGIN { exit !(a * 4 <= b && a <= c) }' ||
    { echo "the recording is larger than a quarter of perf.data, or than perf.data packed" >&2; exit 1; }
