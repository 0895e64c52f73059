#!/usr/bin/env bash
# Label a folder of photographs: class folders in, a box and a mask for every photograph out. SPOL
# is trained on the photographs themselves, of which only the class folder is known.
#
#   bash label.sh DIR --out OUT         DIR/<class>/<name>.jpg; two classes or more
#   bash label.sh DIR --out OUT --backbone NAME
#                                       resnet50 | timm/NAME (default: timm/tf_efficientnet_lite0,
#                                       whose ImageNet weights come with the installation)
#   bash label.sh DIR --out OUT --threshold T
#                                       a pixel is foreground where its probability exceeds T
#                                       (default: chosen without boxes, docs/small_data.md)
#   bash label.sh DIR --out OUT --objects all
#                                       every region of at least 1 % of the photograph is an object
#                                       (default: the largest)
#   bash label.sh DIR --out OUT --seed N    another training (default: 0)
#   bash label.sh DIR --out OUT --cpu       installs PyTorch without CUDA
#
# Writes to OUT labels.json (COCO), masks/ and overview.html, as `tools/label.py --help` describes;
# besides, data/ (links to the photographs), cam/ and seg/ (the trained networks). After an
# interruption the same command continues. Photographs that are added to DIR later are labelled by
# the same command, without another training.
set -euo pipefail
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/tools/venv.sh"
. "$here/tools/recipe.sh"

dir='' out='' backbone='' threshold='' objects='' seed='' cpu=''
while [ $# -gt 0 ]; do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --cpu) cpu=yes; shift ;;
    --out|--backbone|--threshold|--objects|--seed)
      [ $# -gt 1 ] || fail "$1 needs a value (see --help)"
      declare "${1#--}=$2"; shift 2 ;;
    -*) fail "unknown option $1 (see --help)" ;;
    *) [ -z "$dir" ] || fail "two folders, $dir and $1: give one"
      dir=$1; shift ;;
  esac
done
[ -n "$dir" ] && [ -n "$out" ] || fail "give the folder of the photographs and --out (see --help)"
given=$dir
dir=$(cd "$given" 2>/dev/null && pwd) || fail "no such folder: $given"
out=$(realpath -m -- "$out")
case $out/ in "$dir"/*) fail "--out $out lies in the folder of photographs: give another" ;; esac

# What OUT was started with is kept.
if [ -f "$out/started-with.txt" ]; then
  { read -r old_backbone; read -r old_seed; read -r old_dir; } < "$out/started-with.txt"
  kept="--backbone $old_backbone --seed $old_seed"
  [ "${backbone:-$old_backbone} ${seed:-$old_seed}" = "$old_backbone $old_seed" ] ||
    fail "$out was started with $kept, and its networks are kept: give the same, or another" \
      "--out"
  backbone=$old_backbone seed=$old_seed
fi
backbone=${backbone:-timm/tf_efficientnet_lite0} seed=${seed:-0}

# bash waits for the stage, which saves what it has trained.
trap 'exit 130' INT
trap 'exit 143' TERM

cd "$here"
prepare_environment requirements.txt "$cpu"

step() { printf '\n%s\n' "$1"; "$PYTHON" "${@:2}"; }
stage() {  # $1: what it is, then stage, train or test, and arguments
  step "$1" "cub200-$2/$3.py" --savepath "$out/$2" --datapath "$out/data" --list train.txt \
    --clsnum "$classes" --seed "$seed" --backbone "$backbone" "${@:4}"
}

[ -d "$out/data" ] || step 'preparing the photographs' dataset/prepare_folder.py "$dir" \
  --out "$out/data" --val 0 --skip_bad
[ -f "$out/started-with.txt" ] ||
  printf '%s\n' "$backbone" "$seed" "$dir" > "$out/started-with.txt"
read -r images classes <<<"$(awk -F, '
  $2 + 0 > top { top = $2 + 0 } END { print NR, top + 1 }' "$out/data/train.txt")"
cam_epochs=$(epochs $cam_epochs $cam_steps $batch_size)
seg_epochs=$(epochs $seg_epochs $seg_steps $seg_batch_size)
cam=$out/cam/model-$cam_epochs seg=$out/seg/model-$seg_epochs
if [ ! -f "$seg" ] || { [ -z "$threshold" ] && ! grep -qs threshold_rule "$seg.json"; }; then
  [ "${old_dir:-$dir}" = "$dir" ] ||
    fail "$out was started with the photographs in $old_dir, and its training has not ended:" \
      "move them back there and continue, or give another --out"
  masks=(--maskpath "$out/pseudo-masks")
  if [ ! -f "$seg" ]; then
    [ -f "$cam" ] || stage 'step 1 of 5: training the network of the CAMs' cam train \
      "${cam_size[@]}" --batch_size "$batch_size" --resume auto --epoch "$cam_epochs"
    stage 'step 2 of 5: making pseudo masks' cam test "${mask_size[@]}" --snapshot "$cam" \
      "${masks[@]}" --resume
    stage 'step 3 of 5: training the segmentation network' seg train "${seg_size[@]}" \
      --batch_size "$seg_batch_size" --resume auto --epoch "$seg_epochs" --lr "$seg_lr" \
      "${masks[@]}"
  fi
  [ -n "$threshold" ] || stage 'step 4 of 5: choosing the threshold' seg test "${seg_size[@]}" \
    --snapshot "$seg" "${masks[@]}" --threshold auto --top1top5 none --metrics paper --show 0
fi
step 'step 5 of 5: labelling' tools/label.py "$dir" --seg "$seg" --out "$out" \
  ${objects:+--objects "$objects"} ${threshold:+--threshold "$threshold"}
elsewhere=$(printf '%q ' "$here/$PYTHON" "$here/tools/label.py" --seg "$seg" --out OTHER FOLDER)
cat <<END

Look at $out/overview.html, the least certain first.
New photographs in $dir: the same command labels them without training. Elsewhere:
  $elsewhere
END
