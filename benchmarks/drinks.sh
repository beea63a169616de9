#!/usr/bin/env bash
# The figures of the README: trains on the drinks photos, exports, evaluates on the test
# photos, and leaves stamped results. A run or bundle that is there already is used as it is.
#
#   benchmarks/drinks.sh DRINKS_FOLDER IMAGENET_WEIGHTS.safetensors
#
# Three trainings, each at most 50 minutes on 2 cores: a MobileNetV2 on the labels as published and one on
# the corrected labels, to see what those are worth, and from the second, by export/fuse_early.py, the
# smaller and faster network that is released.
set -euo pipefail
cd "$(dirname "$0")/.."
drinks=${1:?folder with train.json, val.json and test.json}
weights=${2:?MobileNetV2 ImageNet weights, .safetensors with the key names of torchvision}
results=benchmarks/results
export PATH="$PWD/.venv/bin:$PATH"
corrections() { echo "--corrections=benchmarks/data/drinks_$1_corrections.json"; }

train() { # run, config, further options
  [ -e "runs/$1/spec.json" ] || shelfcount train --data "$drinks/train.json" --val "$drinks/val.json" --out "runs/$1" \
    --config "benchmarks/configs/$2.toml" "${@:3}"
}
judge() { # run or bundle, result: on the labels as published, and as corrected
  shelfcount evaluate "runs/$1" --data "$drinks/test.json" --json "$results/$2.json" --force
  shelfcount evaluate "runs/$1" --data "$drinks/test.json" --json "$results/$2_corrected.json" --force "$(corrections test)"
}

train drinks-published drinks --set model.weights="$weights"
judge drinks-published drinks_published
train drinks-large drinks --set model.weights="$weights" "$(corrections train)" "$(corrections val)"
judge drinks-large drinks_large
[ -e runs/fused.safetensors ] || python export/fuse_early.py runs/drinks-large "$drinks/train.json" --out runs/fused.safetensors
train drinks drinks_fused --set model.weights=runs/fused.safetensors "$(corrections train)" "$(corrections val)"
judge drinks drinks_float
for recipe in int8 float32; do
  [ -e "runs/drinks-$recipe" ] || shelfcount export runs/drinks --out "runs/drinks-$recipe" --recipe "$recipe" --test "$drinks/test.json"
  judge "drinks-$recipe" "drinks_$recipe"
done
shelfcount bench runs/drinks-int8 --baseline resnet50 --data "$drinks/test.json" --out runs/drinks-report --force \
  --photo "$drinks/images/test_image_189.jpg"
cp runs/drinks-report/result.json "$results/drinks_bench.json"
cp runs/drinks-report/counted.jpg "$results/counted.jpg"
cp runs/drinks/history.csv "$results/drinks_history.csv"
python benchmarks/readme_tables.py
