#!/usr/bin/env bash
# Measure the robustness of the detectors, and what the fix of `shelfcount stress` gains.
#
#   benchmarks/quality/stress.sh DRINKS_FOLDER study     released int8 and float models, test photos
#   benchmarks/quality/stress.sh DRINKS_FOLDER baseline  the same and the baseline, on fewer photos
#   benchmarks/quality/stress.sh DRINKS_FOLDER fix       choose the weakest conditions on the
#                                                        validation photos, and train with them
#   benchmarks/quality/stress.sh DRINKS_FOLDER short     all of it with few photos and one epoch, to
#                                                        see that it works; writes no result
#
# drinks.sh makes the run, the bundle and the weights. The variables RUN, BUNDLE, RELEASED, BASELINE,
# FIXED, SETTINGS and WEIGHTS name others. The test photos choose nothing. A configuration that was
# chosen (configs/drinks_robust.toml) and a trained run are kept; remove them to make them anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
drinks=${1:?folder with train.json, val.json and test.json}
what=${2:?study, baseline, fix or short}
run=${RUN:-runs/drinks} fixed=${FIXED:-runs/robust} released=${RELEASED:-runs/released} bundle=${BUNDLE:-runs/drinks-int8} baseline=${BASELINE:-runs/baseline}
results=benchmarks/results labels=benchmarks/data pages=runs few=() brief=()
# Settings of the run. The fix adds to them, and starts from the same weights.
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
  # The baseline takes seconds per photo, so all detectors get fewer photos and severities.
  on test "${detectors[@]}" "$baseline" --photos 10 --severities 1,3,5 --json "$results/stress_baseline.json" --force
}

fix() {
  [ -e "$robust" ] || on val "$run" --fix "$robust" --config "$settings" --json "$results/stress_validation.json" --force
  [ -e "$fixed/spec.json" ] || shelfcount train --data "$drinks/train.json" --val "$drinks/val.json" --out "$fixed" --config "$robust" \
    --set model.weights="$weights" "${brief[@]}" \
    --corrections "$labels/drinks_train_corrections.json" --corrections "$labels/drinks_val_corrections.json"
  # Compare on photos that chose neither: covered conditions, other conditions, unchanged photos.
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
