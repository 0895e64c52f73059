#!/usr/bin/env bash
# SPOL from end to end: makes .venv, installs, trains and tests the three stages, prints a table
# and draws a picture. Without --data it makes a small data set itself and downloads none.
#
#   bash demo.sh                        birds that the demo draws itself
#   bash demo.sh --data DIR             your own images, in the CUB layout (see README.md)
#   bash demo.sh --data DIR --train LIST --val LIST
#                                       other lists than DIR/train.txt and DIR/val.txt
#   bash demo.sh --photos DIR           composites of DIR/cutouts (RGBA) over DIR/backgrounds
#   bash demo.sh --backbone NAME        resnet50 | timm/NAME (default: timm/tf_efficientnet_lite0,
#                                       whose ImageNet weights come with the installation)
#   bash demo.sh --dataset imagenet     the ImageNet-1K pipeline, with several objects in some images
#   bash demo.sh --seed N               another training, and other drawn birds (default: 0)
#   bash demo.sh --cpu                  installs PyTorch without CUDA, which is several GB smaller
#
# Apart from .venv/ and downloaded weights, writes only to dataset/mini/ and cub200-*/out/mini/
# (--dataset imagenet: dataset/mini-imagenet/ and imagenet-*/out/mini/; --data: only to
# cub200-*/out/<name of DIR>/, or <name of DIR>-<LIST> where the training list is another one).
set -euo pipefail
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/tools/venv.sh"
. "$here/tools/recipe.sh"

data='' train=train.txt val=val.txt photos='' backbone=timm/tf_efficientnet_lite0 seed=0
dataset=cub200 cpu=''
while [ $# -gt 0 ]; do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --cpu) cpu=yes; shift ;;
    --data|--train|--val|--photos|--backbone|--seed|--dataset)
      [ $# -gt 1 ] || fail "$1 needs a value (see --help)"
      declare "${1#--}=$2"; shift 2 ;;
    *) fail "unknown option $1 (see --help)" ;;
  esac
done

list() {  # $1: option, $2: a file in the data folder, or a path -> its absolute path
  local file=$data/$2
  [ -f "$file" ] || file=$2
  [ -f "$file" ] || fail "--$1 $2: no such list in $data, nor at this path"
  echo "$(cd "$(dirname "$file")" && pwd)/$(basename "$file")"
}

name=mini making=() lists=() classes=10 boxes=yes
case $dataset in
  cub200)   mini=dataset/mini layout=cub cam_model=$cam_epochs seg_model=$seg_epochs ;;
  imagenet) mini=dataset/mini-imagenet layout=imagenet cam_model=600 seg_model=200 ;;  # steps
  *) fail "--dataset $dataset: cub200 or imagenet" ;;
esac
if [ -n "$data" ]; then
  [ "$dataset" = cub200 ] || fail "--data takes the CUB layout: leave out --dataset $dataset"
  [ -z "$photos" ] || fail "--data and --photos exclude each other: give one of them"
  data=$(cd "$data" 2>/dev/null && pwd) || fail "--data: no such folder"
  train=$(list train "$train")
  val=$(list val "$val")
  mini=$data name=$(basename "$data")
  stem=$(basename "$train" .txt)
  [ "$stem" = train ] || name=$name-$stem
  images=$(awk -F, 'NF && !seen[$1]++ { n++ } END { print n + 0 }' "$train")
  classes=$(awk -F, '$2 + 0 > top { top = $2 + 0 } END { print top + 1 }' "$train" "$val")
  [ "$classes" -le "$images" ] ||
    fail "$images training images and the label $((classes - 1)): each class needs training images, and labels count from 0: correct $train"
  awk -F, 'NF { exit NF < 3 }' "$val" || boxes=''
  cls_epochs=$(epochs $cls_epochs $cls_steps)
  cam_epochs=$(epochs $cam_epochs $cam_steps) cam_model=$cam_epochs
  seg_epochs=$(epochs $seg_epochs $seg_steps) seg_model=$seg_epochs
elif [ "$train $val" != 'train.txt val.txt' ]; then
  fail "--train and --val need --data"
elif [ -n "$photos" ]; then
  photos=$(cd "$photos" 2>/dev/null && pwd) || fail "--photos: no such folder"
  making=(--cutouts "$photos/cutouts" --backgrounds "$photos/backgrounds")
fi

trap 'exit 130' INT TERM  # a stage that is interrupted saves and exits with 0

cd "$here"
prepare_environment requirements.txt "$cpu"

out() { echo "$dataset-$1/out/$name"; }
steps=8 step=0 begin=$SECONDS
[ -z "$data" ] || steps=$((steps - 1))
[ -n "$boxes" ] || steps=$((steps - 1))
run() {  # $1: what it is, then a script and its arguments
  step=$((step + 1))
  printf '\n[%d/%d, %d s] %s\n' "$step" "$steps" "$((SECONDS - begin))" "$1"
  "$PYTHON" "${@:2}"
}
stage() {  # $1: what it is, then stage, train or test, the list, and arguments
  local network=--backbone
  [ "$2" = cls ] && network=--arch
  run "$1" "$dataset-$2/$3.py" --savepath "$(out "$2")" --datapath "$mini" --list "$4" \
    --clsnum "$classes" --seed "$seed" "$network" "$backbone" "${@:5}"
}
batch=(--batch_size "$batch_size")
cam=(--snapshot "$(out cam)/model-$cam_model")
masks=(--maskpath "$(out cam)/mask")

if [ -z "$data" ]; then
  run 'making the images' dataset/make_mini.py --layout "$layout" --out "$mini" --seed "$seed" \
    ${making[@]+"${making[@]}"}
fi
stage 'stage 1, classification: training' cls train "$train" "${cls_size[@]}" "${batch[@]}" \
  --epoch "$cls_epochs"
stage 'stage 1, classification: testing' cls test "$val" "${cls_size[@]}" \
  --snapshot "$(out cls)/model-$cls_epochs"
stage 'stage 2, CAMs: training' cam train "$train" "${cam_size[@]}" "${batch[@]}" \
  --epoch "$cam_epochs" --show 6
if [ -n "$boxes" ]; then
  stage 'stage 2, CAMs: how well they localize' cam test "$val" "${cam_size[@]}" "${cam[@]}" \
    --evaluate --sweep
fi
stage 'stage 2, CAMs: making pseudo masks' cam test "$train" "${mask_size[@]}" "${cam[@]}" \
  "${masks[@]}" --overwrite
stage 'stage 3, segmentation: training' seg train "$train" "${seg_size[@]}" "${batch[@]}" \
  --epoch "$seg_epochs" --lr "$seg_lr" --show 6 "${masks[@]}"
stage 'stage 3, segmentation: testing' seg test "$val" "${seg_size[@]}" --sweep \
  --snapshot "$(out seg)/model-$seg_model" --top1top5 "$(out cls)/top1top5.npy"

printf '\n'
"$PYTHON" tools/report.py --dataset "$dataset" --run "$name" --out "$(out seg)/report.png"
cat <<END
boxes:   $(out seg)/boxes.csv
metrics: $dataset-{cls,cam,seg}/out/$name/results.json
masks:   $(out cam)/mask/
Took $((SECONDS - begin)) s after the installation.

Other commands need the environment's Python: activate it once in each terminal with
  source .venv/bin/activate
END
