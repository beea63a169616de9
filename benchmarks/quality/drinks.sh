#!/usr/bin/env bash
# Train, export and evaluate the released network on the drinks photos, and write stamped results. A
# run or bundle that exists is used as it is.
#
#   benchmarks/quality/drinks.sh DRINKS_FOLDER IMAGENET_WEIGHTS.safetensors
#
# 1. A MobileNetV2 is trained on the published labels. export/distill.py makes from it the starting
#    weights of the smaller and faster network that is released.
# 2. That network is trained on the published and on the corrected labels, to measure what the
#    corrections are worth. export/ship_weights.py ships the second one as starting weights.
# 3. It is trained under the conditions that the second one tolerates least; `stress.sh fix` chose
#    them on the validation photos.
# 4. The released network continues from the shipped weights under these conditions, with copy-paste,
#    and is fine-tuned with quantization-aware training.
set -euo pipefail
cd "$(dirname "$0")/../.."
drinks=${1:?folder with train.json, val.json and test.json}
weights=${2:?MobileNetV2 ImageNet weights, .safetensors with the key names of torchvision}
results=benchmarks/results
export PATH="$PWD/.venv/bin:$PATH"
corrections() { echo "--corrections=benchmarks/data/drinks_$1_corrections.json"; }

train() { # run, config, further options
  [ -e "runs/$1/spec.json" ] || shelfcount train --data "$drinks/train.json" --val "$drinks/val.json" --out "runs/$1" \
    --config "benchmarks/configs/$2.toml" "${@:3}"
}
evaluate() { # run or bundle, result: on the labels as published, and as corrected
  shelfcount evaluate "runs/$1" --data "$drinks/test.json" --json "$results/$2.json" --force
  shelfcount evaluate "runs/$1" --data "$drinks/test.json" --json "$results/$2_corrected.json" --force "$(corrections test)"
}

train drinks-published drinks --set model.weights="$weights"
evaluate drinks-published drinks_published
[ -e runs/fused.safetensors ] || python export/distill.py runs/drinks-published "$drinks/train.json" --out runs/fused.safetensors
OMP_NUM_THREADS=1 train drinks-uncorrected drinks_fused --set model.weights=runs/fused.safetensors &
beside=$!
OMP_NUM_THREADS=1 train drinks drinks_fused --set model.weights=runs/fused.safetensors "$(corrections train)" "$(corrections val)"
wait "$beside"
evaluate drinks-uncorrected drinks_uncorrected
evaluate drinks drinks_plain
OMP_NUM_THREADS=1 train robust drinks_robust --set model.weights=runs/fused.safetensors "$(corrections train)" "$(corrections val)"
evaluate robust drinks_float
OMP_NUM_THREADS=1 train released drinks_released "$(corrections train)" "$(corrections val)"
evaluate released drinks_released
OMP_NUM_THREADS=1 train drinks-qat drinks_qat --set model.weights=runs/released/model.safetensors "$(corrections train)" "$(corrections val)"
[ -e runs/drinks-int8 ] || shelfcount export runs/drinks-qat --out runs/drinks-int8 --test "$drinks/test.json"
[ -e runs/drinks-float32 ] || shelfcount export runs/released --out runs/drinks-float32 --recipe float32 --test "$drinks/test.json"
evaluate drinks-int8 drinks_int8
evaluate drinks-float32 drinks_float32
# The baseline here is untrained, for size and latency at RetinaNet's own input size. baseline.sh
# compares with a trained one.
shelfcount bench runs/drinks-int8 --baseline resnet50 --data "$drinks/test.json" "$(corrections test)" \
  --out runs/drinks-report --force --photo "$drinks/images/test_image_189.jpg"
cp runs/drinks-report/result.json "$results/drinks_bench.json"
cp runs/drinks-report/counted.jpg "$results/counted.jpg"
cp runs/released/history.csv "$results/drinks_history.csv"
python benchmarks/quality/thin.py
python benchmarks/tables/baseline_plots.py
python benchmarks/tables/build_pages.py
