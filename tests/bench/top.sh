#!/bin/sh
# What drawing the dashboard costs, with 1,000 domains and 100,000 functions, beside bottom and htop (those that are there).
# Usage: top.sh XENOSCOPE [SECONDS]; needs cargo and python3.
set -eu
xenoscope=$(realpath "$1") seconds=${2:-20}
here=$(dirname "$(realpath "$0")")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd "$here/../.."
cargo run -q --release -p xenoscope-tui --example crowd -- "$out/crowd.xsr" $((seconds + 30))
python3 "$here/top.py" "$xenoscope" "$out/crowd.xsr" "$seconds"
