#!/usr/bin/env bash
# Make the released bundle from a run that was trained on the drinks photos, for example by
# benchmarks/quality/drinks.sh. The photos are CC BY 4.0: MODEL_CARD.md and the metadata of the labels
# contain their attribution.
#
#   export/release.sh RUN FLOAT_RUN DRINKS_FOLDER
#
# FLOAT_RUN is the run that RUN was fine-tuned from, without quantization-aware training. It is stored
# beside the bundle, for other formats and as starting weights, without data.json, whose paths are
# valid on one machine only.
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:?run folder} float=${2:?run folder of the float network} drinks=${3:?folder with test.json}
export PATH="$PWD/.venv/bin:$PATH"

shelfcount export "$run" --out export/release/drinks-int8 --recipe int8 --test "$drinks/test.json" --force
shelfcount verify export/release/drinks-int8
mkdir -p export/release/drinks-float
cp "$float"/{spec.json,config.toml,history.csv,model.safetensors} export/release/drinks-float
