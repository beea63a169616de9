#!/usr/bin/env bash
# Make the released bundle of a run that was trained on the drinks photos, by benchmarks/quality/drinks.sh for one.
# The photos are CC BY 4.0: their attribution goes along in MODEL_CARD.md and in the labels' metadata.
#
#   export/release.sh RUN FLOAT_RUN DRINKS_FOLDER
#
# FLOAT_RUN is what RUN was fine-tuned from, without the rounding of int8. It is kept beside the bundle, for other forms and
# as a start, without data.json, whose paths hold on one machine only.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:?run folder} float=${2:?run folder of the float network} drinks=${3:?folder with test.json}
export PATH="$PWD/.venv/bin:$PATH"

shelfcount export "$run" --out export/release/drinks-int8 --recipe int8 --test "$drinks/test.json" --force
shelfcount verify export/release/drinks-int8
mkdir -p export/release/drinks-float
cp "$float"/{spec.json,config.toml,history.csv,model.safetensors} export/release/drinks-float
