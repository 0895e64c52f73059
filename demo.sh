#!/usr/bin/env bash
# SPOL from end to end: makes .venv, installs, trains and tests the three stages, prints a table
# and draws a picture. Without --data it makes a small data set itself and downloads none.
#
#   bash demo.sh                        birds that the demo draws itself
#   bash demo.sh --data DIR             your own images, in the CUB layout (see README.md)
#   bash demo.sh --data DIR --train LIST --val LIST
#                                       other lists than DIR/train.txt and DIR/val.txt
#   bash demo.sh --name NAME            the run's folder in each out/ (default: mini; or the name of
#                                       DIR, with -LIST where the training list is another one)
#   bash demo.sh --backbone NAME        resnet50 | timm/NAME (default: timm/tf_efficientnet_lite0,
#                                       whose ImageNet weights come with the installation)
#   bash demo.sh --dataset imagenet     the ImageNet-1K pipeline; some images have several objects
#   bash demo.sh --seed N               another training, and other drawn birds (default: 0)
#   bash demo.sh --cpu                  installs PyTorch without CUDA, which is several GB smaller
#   bash demo.sh --install              only installs
#
# Apart from .venv/ and downloaded weights, writes only to cub200-*/out/NAME/ and, without --data,
# to dataset/mini/ (--dataset imagenet: imagenet-*/out/NAME/, dataset/mini-imagenet/). A run of the
# same NAME is replaced, unless it is of other data or other lists.
set -euo pipefail
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/tools/venv.sh"
. "$here/tools/recipe.sh"

data='' train=train.txt val=val.txt name='' backbone=timm/tf_efficientnet_lite0 seed=0
dataset=cub200 cpu='' install=''
while [ $# -gt 0 ]; do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --cpu) cpu=yes; shift ;;
    --install) install=yes; shift ;;
    --data|--train|--val|--name|--backbone|--seed|--dataset)
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

case $dataset in
  cub200)   made=dataset/mini layout=cub ;;
  imagenet) made=dataset/mini-imagenet layout=imagenet ;;
  *) fail "--dataset $dataset: cub200 or imagenet" ;;
esac
classes=10 boxes=yes
if [ -n "$data" ]; then
  [ "$dataset" = cub200 ] || fail "--data takes the CUB layout: leave out --dataset $dataset"
  given=$data
  data=$(cd "$given" 2>/dev/null && pwd) || fail "--data $given: no such folder"
  train=$(list train "$train")
  val=$(list val "$val")
  made=''
  stem=$(basename "$train" .txt)
  [ "$stem" = train ] && stem='' || stem=-$stem
  name=${name:-$(basename "$data")$stem}
  images=$(awk -F, 'NF && !seen[$1]++ { n++ } END { print n + 0 }' "$train")
  classes=$(awk -F, '$2 + 0 > top { top = $2 + 0 } END { print top + 1 }' "$train" "$val")
  [ "$classes" -le "$images" ] ||
    fail "$images training images and the label $((classes - 1)): each class needs training" \
      "images, and labels count from 0: correct $train"
  awk -F, 'NF { exit NF < 3 }' "$val" || boxes=''
elif [ "$train $val" != 'train.txt val.txt' ]; then
  fail "--train and --val need --data"
fi
cls_epochs=$(epochs $cls_epochs $cls_steps $batch_size)
cam_epochs=$(epochs $cam_epochs $cam_steps $batch_size) cam_model=$cam_epochs
seg_epochs=$(epochs $seg_epochs $seg_steps $seg_batch_size) seg_model=$seg_epochs
if [ "$dataset" = imagenet ]; then  # its models are numbered by steps
  cam_model=$((cam_epochs * images / batch_size)) seg_model=$((seg_epochs * images / seg_batch_size))
fi
name=${name:-mini}
case $name in */*|.*) fail "--name $name: a name without /, which does not begin with a dot" ;; esac

# bash waits for the stage, which saves what it has trained.
trap 'exit 130' INT
trap 'exit 143' TERM

cd "$here"
prepare_environment requirements.txt "$cpu"
[ -z "$install" ] || exit 0
data=${data:-$made}
"$PYTHON" tools/results.py check --dataset "$dataset" --name "$name" --data "$data" \
  --train "$train" --val "$val"

out() { echo "$dataset-$1/out/$name"; }
steps=7 step=0 begin=$SECONDS
[ -z "$made" ] || steps=$((steps + 1))
[ -n "$boxes" ] || steps=$((steps - 1))
run() {  # $1: what it is, then a script and its arguments
  step=$((step + 1))
  printf '\n[%d/%d, %d s] %s\n' "$step" "$steps" "$((SECONDS - begin))" "$1"
  "$PYTHON" "${@:2}"
}
stage() {  # $1: what it is, then stage, train or test, the list, and arguments
  local network=--backbone
  [ "$2" = cls ] && network=--arch
  run "$1" "$dataset-$2/$3.py" --savepath "$(out "$2")" --datapath "$data" --list "$4" \
    --clsnum "$classes" --seed "$seed" "$network" "$backbone" "${@:5}"
}
training=(--batch_size "$batch_size" --resume no)
seg_training=(--batch_size "$seg_batch_size" --resume no)
cam=(--snapshot "$(out cam)/model-$cam_model")
masks=(--maskpath "$(out cam)/mask")

[ -z "$made" ] ||
  run 'making the images' dataset/make_mini.py --layout "$layout" --out "$made" --seed "$seed"
stage 'stage 1, classification: training' cls train "$train" "${cls_size[@]}" "${training[@]}" \
  --epoch "$cls_epochs"
stage 'stage 1, classification: testing' cls test "$val" "${cls_size[@]}" \
  --snapshot "$(out cls)/model-$cls_epochs"
stage 'stage 2, CAMs: training' cam train "$train" "${cam_size[@]}" "${training[@]}" \
  --epoch "$cam_epochs"
[ -z "$boxes" ] ||
  stage 'stage 2, CAMs: how well they localize' cam test "$val" "${cam_size[@]}" "${cam[@]}" \
    --evaluate --sweep
stage 'stage 2, CAMs: making pseudo masks' cam test "$train" "${mask_size[@]}" "${cam[@]}" \
  "${masks[@]}" --overwrite --show 0
stage 'stage 3, segmentation: training' seg train "$train" "${seg_size[@]}" "${seg_training[@]}" \
  --epoch "$seg_epochs" --lr "$seg_lr" "${masks[@]}"
stage 'stage 3, segmentation: testing' seg test "$val" "${seg_size[@]}" --sweep --threshold auto \
  --snapshot "$(out seg)/model-$seg_model" --top1top5 "$(out cls)/top1top5.npy"

printf '\n'
"$PYTHON" tools/results.py report --dataset "$dataset" --name "$name"
cat <<END
boxes:   $(out seg)/boxes.csv
metrics: $dataset-{cls,cam,seg}/out/$name/results.json
masks:   $(out cam)/mask/
Took $((SECONDS - begin)) s after the installation.

Other commands need the environment's Python: activate it once in each terminal with
  source .venv/bin/activate
END
