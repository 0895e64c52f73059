#!/usr/bin/env bash
# What a machine with a GPU should be asked, in at most 8 minutes on one H100 and without a download.
#
#   bash tools/gpu_check.sh                      logs and report.md in gpu_check/
#   bash tools/gpu_check.sh --out DIR --python .venv/bin/python
#   bash tools/gpu_check.sh --device cpu         tiny sizes, to try the script itself
#
# Parts: tests marked gpu; the six stages beside the network alone; a list of 582 images (start to
# end); precisions of the network alone; the chain on drawn birds, whose MaxBoxAcc should rise from
# the plain CAM over the fused CAM to SPOL. Each part has a time limit of its own; a part that fails is
# named in the report, and the others run all the same. Exit code 1 if a part failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=gpu_check device=cuda python=python patience=1
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2 ;; --device) device=$2 ;; --python) python=$2 ;;
    *) echo "error: unknown argument $1 (see the head of $0)" >&2; exit 2 ;;
  esac
  shift 2 || { echo "error: $1 needs a value" >&2; exit 2; }
done

mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
report=$out/report.md failed=0
if [ "$device" = cpu ]; then
  patience=10
  lite=timm/tf_efficientnet_lite0 images=8 batch=4 small=16 birds=(--train 4 --val 2 --size 96)
  sizes=(--resize 72 --crop 64 --batch_size 4) epochs=1 bench=(cam/test) net=$lite
else
  lite=timm/tf_efficientnet_lite0 images=2048 batch=64 small=582 birds=(--train 146 --val 20)
  sizes=(--resize 166 --crop 144 --batch_size 16) epochs=12 net=resnet50
  bench=(cls/train cls/test cam/train cam/test seg/train seg/test)
fi
data=$out/data seg_epochs=$(( (epochs + 2) / 3 ))

say() { echo "$@" | tee -a "$report"; }

part() {  # part NAME SECONDS COMMAND...: run it, log it, add a row of the table
  local name=$1 limit=$(($2 * patience)) begin=$SECONDS code result
  shift 2
  timeout --kill-after=10 "$limit" "$@" > "$out/$name.log" 2>&1
  code=$?
  case $code in
    0) result=passed ;; 124|137) result="over $limit s" ;; *) result="exit code $code" ;;
  esac
  [ $code = 0 ] || failed=1
  say "| $name | $result | $((SECONDS - begin)) | $(tail -n 1 "$out/$name.log" | tr '|' ' ' | cut -c 1-150) |"
  return $code
}

stage() {  # stage NAME SECONDS SCRIPT ARGUMENTS...
  local name=$1 limit=$2 script=$3
  shift 3
  part "$name" "$limit" "$python" "$script" --datapath "$data" --device "$device" --clsnum 4 "$@"
}

table() { grep -h '^|' "$out/$1.log" 2>/dev/null | tee -a "$report"; say; }

figure() {  # figure FILE KEYS...: a figure of a results.json
  "$python" -c 'import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2:]:
    value = value[key]
print(f"{100 * value:.1f}")' "$@"
}

: > "$report"
say "# GPU check"
say
say "$("$python" -c 'import os, platform, torch
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
print(f"{gpu}, {os.cpu_count()} cores, Python {platform.python_version()}, PyTorch {torch.__version__}")' 2>&1 | tail -n 1)"
say
say "| part | result | seconds | last line |"
say "| --- | --- | --- | --- |"

if [ "$device" != cpu ]; then
  part tests 120 "$python" -m pytest -q -m gpu -n 0 tests/engine/test_gpu.py
fi
part benchmark 200 "$python" tools/benchmark.py "${bench[@]}" --device "$device" --images "$images" \
  --batch_size "$batch" --backbone "$net"
[ "$device" = cpu ] || part variants 60 "$python" tools/benchmark.py variants --device "$device" \
  --images 1024 --batch_size "$batch" --backbone "$net"

if part data 90 "$python" dataset/make_mini.py --out "$data" --classes 4 "${birds[@]}"; then
  head -n "$small" "$data/train.txt" > "$data/small.txt"
  run=(--backbone "$lite")
  stage cam-train 90 cub200-cam/train.py "${run[@]}" "${sizes[@]}" --epoch "$epochs" --amp off \
    --savepath "$out/cam" --pretrained "${PRETRAINED:-auto}" && {
  stage small-list 40 cub200-cam/test.py "${run[@]}" --list small.txt --savepath "$out/small" \
    --snapshot "$out/cam/model-$epochs" --maskpath "$out/small-mask" --batch_size "$batch"
  stage cam-test 40 cub200-cam/test.py "${run[@]}" --savepath "$out/cam" --resize "${sizes[1]}" \
    --snapshot "$out/cam/model-$epochs" --maskpath "$out/mask" &&
  stage cam-evaluate 40 cub200-cam/test.py "${run[@]}" --savepath "$out/evaluated" --evaluate \
    --snapshot "$out/cam/model-$epochs" --resize "${sizes[1]}" --crop "${sizes[3]}" &&
  stage seg-train 60 cub200-seg/train.py "${run[@]}" "${sizes[@]}" --epoch "$seg_epochs" --amp off \
    --lr 0.1 --savepath "$out/seg" --maskpath "$out/mask" --pretrained "${PRETRAINED:-auto}" &&
  stage seg-test 40 cub200-seg/test.py "${run[@]}" --savepath "$out/seg" --top1top5 none \
    --snapshot "$out/seg/model-$seg_epochs" --resize "${sizes[1]}" --crop "${sizes[3]}"; }
fi

say
say "## Stages beside the network alone"
say
table benchmark
say "## Precisions of the network alone"
say
table variants
say "## MaxBoxAcc, %: to rise from line to line"
say
for kind in deep fused; do
  say "- $kind CAM: $(figure "$out/evaluated/results.json" evaluation "$kind" max_box_acc 2>/dev/null || echo missing)"
done
say "- SPOL: $(figure "$out/seg/results.json" max_box_acc 2>/dev/null || echo missing)"
say
say "report: $report; $SECONDS s"
exit $failed
