#!/usr/bin/env bash
# Train and evaluate the baseline: RetinaNet with a ResNet-50, on the same photos and corrected labels
# as the released network, with the same augmentation. The run is too large for the repository, which
# keeps this script, configs/baseline.toml and the stamped results.
#
#   benchmarks/quality/baseline.sh DRINKS_FOLDER
#
# 180 photos are too few to train a ResNet-50 from random weights. Its backbone therefore first learns
# the features of the package's MobileNetV2 (export/distill.py), which was trained on ImageNet. A
# finished run is used as it is, and an interrupted one is resumed.
set -euo pipefail
cd "$(dirname "$0")/../.."
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

[ -e runs/resnet50.safetensors ] ||
  python export/distill.py shipped "$drinks/train.json" --to resnet50 --out runs/resnet50.safetensors --epochs 30 --crop 192
train baseline-windows "${photos[@]}" --set model.weights=runs/resnet50.safetensors
# Continue twice, with the full learning rate and for longer, to see whether validation still
# improves.
restart=(--set train.epochs=40 --set train.validate_every=8)
train baseline-restart "${photos[@]}" "${restart[@]}" --set model.weights=runs/baseline-windows/model.safetensors
train baseline-again "${photos[@]}" "${restart[@]}" --set model.weights=runs/baseline-restart/model.safetensors
# A few steps on whole photos with a low learning rate: windows do not show the borders of photos,
# and contain fewer products.
train baseline "${photos[@]}" --set model.weights=runs/baseline-again/model.safetensors --set augment.window=0 \
  --set train.epochs=2 --set train.validate_every=1 --set train.lr=5e-5 --set augment.mosaic=0.0

shelfcount evaluate runs/baseline --data "$drinks/test.json" --json "$results/drinks_baseline.json" --force
shelfcount evaluate runs/baseline --data "$drinks/test.json" --json "$results/drinks_baseline_corrected.json" --force "$(corrections test)"
{
  sed -n '1s/^/run,/p' runs/baseline/history.csv
  for run in baseline-windows baseline-restart baseline-again baseline; do sed "1d; s/^/$run,/" "runs/$run/history.csv"; done
} > "$results/drinks_baseline_history.csv"
# Compare the released bundle, the run that it was fine-tuned from, and the baseline. `bench` finds
# that run by the name of its folder. A missed phone budget makes the exit code 1.
[ -e runs/released/spec.json ] || { mkdir -p runs/released && cp export/release/drinks-float/* runs/released; }
rm -f runs/baseline-report/result.json
shelfcount bench export/release/drinks-int8 --run runs/released --baseline runs/baseline --data "$drinks/test.json" "$(corrections test)" \
  --out runs/baseline-report --force --photo "$drinks/images/test_image_189.jpg" \
  --phone pixel4 --phone raspberry_pi4 --phone pixel2_one_core || true
cp runs/baseline-report/result.json "$results/drinks_bench_trained.json"
python benchmarks/quality/thin.py
python benchmarks/tables/baseline_plots.py
python benchmarks/tables/build_pages.py
