#!/usr/bin/env bash
# The baseline that the released network is held against: RetinaNet on a ResNet-50, trained on the same photos and
# corrected labels, with the same augmentation, and judged on the test photos. It is too large for the repository:
# what is kept is this script, configs/baseline.toml, its seed, and the stamped results.
#
#   benchmarks/baseline.sh DRINKS_FOLDER
#
# It starts from random weights, which 180 photos cannot teach to see: synthetic shelves come first, then the photos
# in two sizes. A run that is there already is used as it is, and one that was killed goes on where it stopped.
# benchmarks/drinks.sh compares the two.
set -euo pipefail
cd "$(dirname "$0")/.."
drinks=${1:?folder with train.json, val.json and test.json}
results=benchmarks/results
export PATH="$PWD/.venv/bin:$PATH"
corrections() { echo "--corrections=benchmarks/data/drinks_$1_corrections.json"; }

train() { # run, options
  [ -e "runs/$1/spec.json" ] && return
  local how=--force
  [ -e "runs/$1/checkpoints/last.ckpt" ] && how=--resume
  shelfcount train --out "runs/$1" --config benchmarks/configs/baseline.toml "$how" "${@:2}"
}
photos=(--data "$drinks/train.json" --val "$drinks/val.json" "$(corrections train)" "$(corrections val)")

# Shelves as the coolers are: products of 20 to 45 pixels' width at an input of 416, in more classes than these.
shelves() { # part, photos, seed
  [ -e "runs/baseline-shelves/$1/labels.json" ] ||
    shelfcount synth --out "runs/baseline-shelves/$1" --photos "$2" --classes 60 --size 512x512 --facings 6-12 --seed "$3" --force
}
shelves train 1200 0
shelves val 40 1

train baseline-synthetic --data runs/baseline-shelves/train/labels.json --val runs/baseline-shelves/val/labels.json \
  --set train.epochs=5 --set train.validate_every=1 --set augment.mosaic=0.0
train baseline-384 "${photos[@]}" --set model.weights=runs/baseline-synthetic/model.safetensors
# Few steps with a low rate: the photos' own detail, for what was learnt at 384 pixels.
train baseline "${photos[@]}" --set model.weights=runs/baseline-384/model.safetensors --set model.height=512 --set model.width=512 \
  --set train.epochs=12 --set train.validate_every=3 --set train.lr=5e-5 --set augment.mosaic=0.0

shelfcount evaluate runs/baseline --data "$drinks/test.json" --json "$results/drinks_baseline.json" --force
shelfcount evaluate runs/baseline --data "$drinks/test.json" --json "$results/drinks_baseline_corrected.json" --force "$(corrections test)"
{
  sed -n '1s/^/run,/p' runs/baseline/history.csv
  for run in baseline-synthetic baseline-384 baseline; do sed "1d; s/^/$run,/" "runs/$run/history.csv"; done
} > "$results/drinks_baseline_history.csv"
python benchmarks/readme_tables.py
