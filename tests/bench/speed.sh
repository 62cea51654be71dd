#!/bin/sh
# Report and flame graph from ten million samples beside perf's: `perf report --stdio` and `perf script | inferno-collapse-perf`.
# One load is sampled by both, then both files are repeated until they hold as many samples.
# Usage: speed.sh XENOSCOPE [SAMPLES]; needs root, perf, python3 and inferno (cargo install inferno).
set -eu
xenoscope=$(realpath "$1") wanted=${2:-10000000}
here=$(dirname "$(realpath "$0")")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd "$out"

load() { while :; do find /usr -type f 2>/dev/null | sort | md5sum; ls -lR /usr/lib | gzip; done >/dev/null; }
load & load=$!
perf record -q -a -F 4000 -e cpu-clock -o perf.data -- sleep 15 & perf=$!
"$xenoscope" record -a -F 4000 --max-overhead 0 --duration 15 -o one.xsr 2>/dev/null
wait $perf
kill $load

count() { "$xenoscope" info -i "$1" | sed -n 's/^Samples *\([0-9]*\),.*/\1/p'; }
times=$((wanted / $(count one.xsr) + 1))
"$xenoscope" merge -o many.xsr $(yes one.xsr | head -n "$times")
in_perf=$(perf script -i perf.data -F comm 2>/dev/null | wc -l)
python3 "$here/repeat_perf.py" perf.data many.data $((wanted / in_perf + 1)) >/dev/null
echo "$(count many.xsr) samples in $(stat -c %s many.xsr) bytes; perf: $((in_perf * (wanted / in_perf + 1))) in $(stat -c %s many.data)"

# Processor time, which other work on the machine leaves alone, and memory at its peak.
measure() {
    what=$1; shift
    python3 - "$what" "$@" <<'PYTHON'
import resource, subprocess, sys, time
began = time.monotonic()
subprocess.run(["sh", "-c", sys.argv[2]], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
seconds = used.ru_utime + used.ru_stime
print(f"{sys.argv[1]:<40} {seconds:8.2f} s of CPU, {time.monotonic() - began:8.2f} s, {used.ru_maxrss / 1024:7.0f} MB", file=sys.stderr)
print(seconds, used.ru_maxrss // 1024)
PYTHON
}
report=$(measure 'xenoscope report' "$xenoscope report -i many.xsr > report.txt")
graph=$(measure 'xenoscope flamegraph' "$xenoscope flamegraph -i many.xsr -o many.svg 2>/dev/null")
perf_report=$(measure 'perf report --stdio' 'perf report --stdio -i many.data > perf.txt 2>/dev/null')
perf_graph=$(measure 'perf script | inferno-collapse-perf' \
    'perf script -i many.data 2>/dev/null | inferno-collapse-perf > perf.folded 2>/dev/null')
awk -v a="$report" -v b="$graph" -v c="$perf_report" -v d="$perf_graph" 'BEGIN {
    split(a, ours); split(b, our_graph); split(c, theirs); split(d, their_graph)
    printf "report: %.0f times faster, flame graph: %.0f times\n", theirs[1] / ours[1], their_graph[1] / our_graph[1]
    exit !(theirs[1] >= 20 * ours[1] && their_graph[1] >= 20 * our_graph[1] && ours[2] < 500 && our_graph[2] < 500)
}'
