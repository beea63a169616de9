#!/usr/bin/env bash
# Make the released bundle of a run that was trained on the drinks photos, by benchmarks/drinks.sh for one.
# The photos are CC BY 4.0: their attribution goes along in MODEL_CARD.md and in the labels' metadata.
#
#   export/release.sh RUN DRINKS_FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:?run folder} drinks=${2:?folder with test.json}
export PATH="$PWD/.venv/bin:$PATH"

shelfcount export "$run" --out export/release/drinks-int8 --recipe int8 --test "$drinks/test.json" --force
shelfcount verify export/release/drinks-int8
