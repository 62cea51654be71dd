#!/bin/sh
# The exports of a recording in the programs that they are for.
# Usage: readers.sh XENOSCOPE RECORDING [FOLDER]
# Needs go, node and npm, python3 with duckdb, duckdb-cli and chdb (pip), chromium; inferno-collapse-perf is used if there.
# FIREFOX_PROFILER names the sources of Firefox Profiler (github.com/firefox-devtools/profiler), which is in no registry: with
# them its own loader reads the export too. What is fetched, and the pictures, are left in FOLDER.
set -eu
xenoscope=$(realpath "$1") recording=$(realpath "$2") here=$(dirname "$(realpath "$0")")
folder=${3:-$(mktemp -d)}
mkdir -p "$folder"
folder=$(realpath "$folder")
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
import chdb, duckdb, json, sys
for file in ("x.parquet", "x.csv"):
    count, weight = duckdb.sql(f"select count(*), sum(weight) from '{file}'").fetchall()[0]
    print(f"duckdb, {file}: {count} samples, {weight / 1e9:.3f} s")
    assert count == int(sys.argv[1]), count
    sums = str(chdb.query(f"select count(), sum(weight) from file('{file}')", "JSONCompact"))
    assert [int(number) for number in json.loads(sums)["data"][0]] == [count, weight], sums
    print(f"clickhouse, {file}: the same")
PYTHON
# The example in the documentation, with two recordings as those of two hosts.
mkdir -p lake/kvm-1 lake/kvm-2 bin
ln -sf "$xenoscope" bin/xenoscope
cp "$here/../../profile/tests/format-2.xsr" lake/kvm-1/
"$xenoscope" cut -i lake/kvm-1/format-2.xsr --mark half -o lake/kvm-2/half.xsr
(cd lake && PATH="$folder/bin:$PATH" python3 "$here/run_example.py" "$here/../../docs/formats.md" '$ for recording')

"$xenoscope" export -i "$recording" --to script -o x.script
if command -v inferno-collapse-perf >/dev/null; then
    inferno-collapse-perf x.script 2>/dev/null | awk '{ n += $NF } END { print "inferno-collapse-perf:", n, "samples" }'
fi
"$xenoscope" flamegraph -i "$recording" -o x.html
"$xenoscope" flamegraph -i "$recording" --baseline "$recording" -o diff.html
if [ -n "${FIREFOX_PROFILER:-}" ]; then
    # What its loader asks for that other formats need.
    needs="esbuild @streamparser/json gecko-profiler-demangle jszip long memoize-immutable memoize-one mixedtuplemap
        namedtuplemap protobufjs valibot common-tags array-range reselect@4 clamp escape-string-regexp@4 url query-string"
    [ -d node_modules/esbuild ] || npm install --prefix . --silent $needs >/dev/null
    echo 'export class ValueSummaryReader {}' >absent-reps.mjs
    echo 'const no = () => false; export { no as isJsonSlabsFile, no as decode, no as encode };' >absent-slabs.mjs
    echo 'export { unserializeProfileOfArbitraryFormat as load } from "firefox-profiler/profile-logic/process-profile";' >loader.ts
    NODE_PATH="$folder/node_modules" node_modules/.bin/esbuild loader.ts --bundle --platform=node --format=esm \
        --outfile=firefox-loader.mjs --log-level=error --loader:.wasm=file '--external:*.wasm' \
        "--alias:firefox-profiler=$FIREFOX_PROFILER/src" "--alias:firefox-profiler-res=$FIREFOX_PROFILER/res" \
        --alias:devtools-reps=./absent-reps.mjs --alias:json-slabs=./absent-slabs.mjs
fi
node readers.mjs "$samples"
