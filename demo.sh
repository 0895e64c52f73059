#!/usr/bin/env bash
# SPOL from end to end on a small data set that needs no download: makes .venv, installs, makes
# the images, trains and tests the three stages, prints a table and draws a picture.
#
#   bash demo.sh                        birds that the demo draws itself
#   bash demo.sh --photos DIR           composites of DIR/cutouts (RGBA) over DIR/backgrounds
#   bash demo.sh --backbone NAME        resnet50 | timm/NAME (default: timm/tf_efficientnet_lite0,
#                                       whose ImageNet weights come with the installation)
#   bash demo.sh --dataset imagenet     the ImageNet-1K pipeline, with several objects in some images
#   bash demo.sh --seed N               another data set and another training (default: 0)
#
# Apart from .venv/ and downloaded weights, writes only to dataset/mini/ and cub200-*/out/mini/
# (with --dataset imagenet: dataset/mini-imagenet/ and imagenet-*/out/mini/).
set -euo pipefail
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/tools/venv.sh"

photos='' backbone=timm/tf_efficientnet_lite0 seed=0 dataset=cub200
while [ $# -gt 0 ]; do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --photos|--backbone|--seed|--dataset) [ $# -gt 1 ] || fail "$1 needs a value (see --help)"
      declare "${1#--}=$2"; shift 2 ;;
    *) fail "unknown option $1 (see --help)" ;;
  esac
done
source=()
if [ -n "$photos" ]; then
  photos=$(cd "$photos" 2>/dev/null && pwd) || fail "--photos: no such folder"
  source=(--cutouts "$photos/cutouts" --backgrounds "$photos/backgrounds")
fi
case $dataset in
  cub200)   mini=dataset/mini layout=cub cam_model=12 seg_model=4 ;;
  imagenet) mini=dataset/mini-imagenet layout=imagenet cam_model=600 seg_model=200 ;;  # steps
  *) fail "--dataset $dataset: cub200 or imagenet" ;;
esac

trap 'exit 130' INT TERM  # a stage that is interrupted saves and exits with 0

cd "$here"
prepare_environment requirements.txt

steps=8 step=0 begin=$SECONDS
run() {  # $1: what it is, then a script and its arguments
  step=$((step + 1))
  printf '\n[%d/%d, %d s] %s\n' "$step" "$steps" "$((SECONDS - begin))" "$1"
  "$PYTHON" "${@:2}"
}
stage() {  # $1: what it is, then stage, train or test, and arguments
  local network=--backbone resize=166
  [ "$2" = cls ] && network=--arch
  [ "$2" = seg ] && resize=222
  run "$1" "$dataset-$2/$3.py" --savepath "$dataset-$2/out/mini" --datapath "$mini" --clsnum 10 \
    --seed "$seed" --resize "$resize" "$network" "$backbone" "${@:4}"
}
batch=(--batch_size 8)
cam=(--snapshot "$dataset-cam/out/mini/model-$cam_model")

run 'making the images' dataset/make_mini.py --layout "$layout" --out "$mini" --seed "$seed" \
  ${source[@]+"${source[@]}"}
stage 'stage 1, classification: training' cls train --crop 144 "${batch[@]}" --epoch 3
stage 'stage 1, classification: testing' cls test --crop 144 \
  --snapshot "$dataset-cls/out/mini/model-3"
stage 'stage 2, CAMs: training' cam train --crop 144 "${batch[@]}" --epoch 12 --show 6
stage 'stage 2, CAMs: how well they localize' cam test --crop 144 "${cam[@]}" --evaluate --sweep
stage 'stage 2, CAMs: making pseudo masks' cam test "${cam[@]}" --resize 256
stage 'stage 3, segmentation: training' seg train --crop 192 "${batch[@]}" --epoch 4 --lr 0.1 \
  --show 6
stage 'stage 3, segmentation: testing' seg test --crop 192 --sweep \
  --snapshot "$dataset-seg/out/mini/model-$seg_model" \
  --top1top5 "$dataset-cls/out/mini/top1top5.npy"

printf '\n'
"$PYTHON" tools/report.py --dataset "$dataset" --run mini --out "$dataset-seg/out/mini/report.png"
cat <<END
boxes:   $dataset-seg/out/mini/boxes.csv
metrics: $dataset-{cls,cam,seg}/out/mini/results.json
masks:   $mini/mask/
Took $((SECONDS - begin)) s after the installation.
END
