#!/usr/bin/env bash
# How robust the detectors of the README are, and how much the fix that `shelfcount stress` proposes helps.
#
#   benchmarks/quality/stress.sh DRINKS_FOLDER study        what is released, in int8 and float, on the test photos
#   benchmarks/quality/stress.sh DRINKS_FOLDER baseline     the same beside the trained baseline, on fewer of them
#   benchmarks/quality/stress.sh DRINKS_FOLDER fix          weakest conditions on the validation photos, into a config; a run with it
#   benchmarks/quality/stress.sh DRINKS_FOLDER short        all of it on few photos and with one epoch: shows that it works; stores nothing
#
# benchmarks/quality/drinks.sh makes the run, the bundle and the weights. RUN, BUNDLE, RELEASED, BASELINE, FIXED, SETTINGS and WEIGHTS name
# others. The test photos choose nothing.
# A config that was chosen (configs/drinks_robust.toml) and a run that was trained stay; remove them to choose and train anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
drinks=${1:?folder with train.json, val.json and test.json}
what=${2:?study, baseline, fix or short}
run=${RUN:-runs/drinks} fixed=${FIXED:-runs/robust} released=${RELEASED:-runs/released} bundle=${BUNDLE:-runs/drinks-int8} baseline=${BASELINE:-runs/baseline}
results=benchmarks/results labels=benchmarks/data pages=runs few=() brief=()
# What the run was trained with: the fix adds to these settings, and starts from the same weights.
settings=${SETTINGS:-benchmarks/configs/drinks_fused.toml} weights=${WEIGHTS:-runs/fused.safetensors}
robust=benchmarks/configs/drinks_robust.toml
export PATH="$PWD/.venv/bin:$PATH"

on() { # split, further arguments: on its photos with the corrected labels
  local split=$1
  shift
  shelfcount stress "$@" --data "$drinks/$split.json" --corrections "$labels/drinks_${split}_corrections.json" --threads 1 "${few[@]}"
}

study() {
  on test "$bundle" "$released" --json "$results/stress.json" --picture "$results/stress.png" --html "$pages/stress.html" --force
}

against_baseline() { # the float run, where it is at hand, stands between the two
  local detectors=("$bundle")
  [ -e "$released/spec.json" ] && detectors+=("$released")
  # Seconds a photo: fewer photos and severities, the same for all.
  on test "${detectors[@]}" "$baseline" --photos 10 --severities 1,3,5 --json "$results/stress_baseline.json" --force
}

fix() {
  [ -e "$robust" ] || on val "$run" --fix "$robust" --config "$settings" --json "$results/stress_validation.json" --force
  [ -e "$fixed/spec.json" ] || shelfcount train --data "$drinks/train.json" --val "$drinks/val.json" --out "$fixed" --config "$robust" \
    --set model.weights="$weights" "${brief[@]}" \
    --corrections "$labels/drinks_train_corrections.json" --corrections "$labels/drinks_val_corrections.json"
  # Side by side on photos that neither chose: what was covered, what was not, and the photos as they are.
  on test "$run" "$fixed" --json "$results/stress_fixed.json" --force
}

thin() { python benchmarks/quality/thin.py "$results"/stress*.json; }

case "$what" in
  study) study && thin ;;
  baseline) against_baseline && thin ;;
  fix) fix && thin ;;
  short)
    results=$(mktemp -d) few=(--photos 3 --severities 3) brief=(--set train.epochs=1)
    trap 'rm -r "$results"' EXIT
    pages=$results robust=$results/robust.toml fixed=$results/robust released=$results/robust
    fix
    study
    ;;
  *)
    echo "study, baseline, fix or short; got '$what'" >&2
    exit 2
    ;;
esac
