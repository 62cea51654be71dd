#!/bin/sh
# The exports of a recording in the programs that they are for.
# Usage: readers.sh XENOSCOPE RECORDING [FOLDER]
# Needs go, node and npm, python3 with duckdb (pip), perf's inferno-collapse-perf if there, chromium. What they fetch and the
# pictures are left in FOLDER.
set -eu
xenoscope=$(realpath "$1") recording=$(realpath "$2") here=$(dirname "$(realpath "$0")")
folder=${3:-$(mktemp -d)}
mkdir -p "$folder"
cd "$folder"
samples=$("$xenoscope" info -i "$recording" | sed -n 's/^Samples *\([0-9]*\),.*/\1/p')
echo "$samples samples"

"$xenoscope" export -i "$recording" --to pprof -o x.pb.gz
counted=$(go tool pprof -sample_index=samples -top -nodecount=3 x.pb.gz 2>/dev/null | tee pprof.txt |
    sed -n 's/.*accounting for .* of \([0-9]*\) total.*/\1/p')
cat pprof.txt
[ "$counted" = "$samples" ] || { echo "pprof counts $counted samples" >&2; exit 1; }

"$xenoscope" export -i "$recording" --to speedscope -o x.speedscope.json
"$xenoscope" export -i "$recording" --to firefox -o x.firefox.json.gz
[ -d node_modules/speedscope ] || npm install --prefix . --silent speedscope@1 puppeteer-core@24 >/dev/null
cp "$here/readers.mjs" .
"$xenoscope" export -i "$recording" --to parquet -o x.parquet
"$xenoscope" export -i "$recording" --to csv -o x.csv
python3 - "$samples" <<'PYTHON'
import sys, duckdb
for file in ("x.parquet", "x.csv"):
    count, weight = duckdb.sql(f"select count(*), sum(weight) from '{file}'").fetchall()[0]
    print(f"duckdb, {file}: {count} samples, {weight / 1e9:.3f} s")
    assert count == int(sys.argv[1]), count
print(duckdb.sql("""select domain, mode, function, round(sum(weight) / 1e9, 3) as seconds from 'x.parquet'
                    group by all order by seconds desc limit 5"""))
PYTHON

"$xenoscope" export -i "$recording" --to script -o x.script
if command -v inferno-collapse-perf >/dev/null; then
    inferno-collapse-perf x.script 2>/dev/null | awk '{ n += $NF } END { print "inferno-collapse-perf:", n, "samples" }'
fi
"$xenoscope" flamegraph -i "$recording" -o x.html
"$xenoscope" flamegraph -i "$recording" --baseline "$recording" -o diff.html
node readers.mjs
