#!/usr/bin/env bash
# SPOL from end to end on a small data set that needs no download: makes .venv, installs, makes
# the images, trains and tests the three stages, prints a table and draws a picture.
#
#   bash demo.sh                        birds that the demo draws itself
#   bash demo.sh --photos DIR           composites of DIR/cutouts (RGBA) over DIR/backgrounds
#   bash demo.sh --backbone NAME        resnet50 | timm/NAME (default: timm/tf_efficientnet_lite0,
#                                       whose ImageNet weights come with the installation)
#   bash demo.sh --seed N               another data set and another training (default: 0)
#
# Writes dataset/mini/ and cub200-*/out/mini/ only.
set -euo pipefail
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/tools/venv.sh"

photos='' backbone=timm/tf_efficientnet_lite0 seed=0
while [ $# -gt 0 ]; do
  case $1 in
    -h|--help) usage; exit 0 ;;
    --photos|--backbone|--seed) [ $# -gt 1 ] || fail "$1 needs a value (see --help)"
      declare "${1#--}=$2"; shift 2 ;;
    *) fail "unknown option $1 (see --help)" ;;
  esac
done
source=()
if [ -n "$photos" ]; then
  photos=$(cd "$photos" 2>/dev/null && pwd) || fail "--photos $photos: no such folder"
  source=(--cutouts "$photos/cutouts" --backgrounds "$photos/backgrounds")
fi

cd "$here"
prepare_environment requirements.txt

steps=8 step=0 begin=$SECONDS
run() {  # $1: what it is, then a script and its arguments
  step=$((step + 1))
  printf '\n[%d/%d, %d s] %s\n' "$step" "$steps" "$((SECONDS - begin))" "$1"
  "$PYTHON" "${@:2}"
}
data=(--datapath dataset/mini --clsnum 10 --seed "$seed")
size=(--resize 166 --crop 144)
train=("${data[@]}" "${size[@]}" --batch_size 16)
out() { echo --savepath "cub200-$1/out/mini"; }

run 'making the images' dataset/make_mini.py --out dataset/mini --seed "$seed" "${source[@]}"
run 'stage 1, classification: training' cub200-cls/train.py "${train[@]}" $(out cls) \
  --arch "$backbone" --epoch 2
run 'stage 1, classification: testing' cub200-cls/test.py "${data[@]}" "${size[@]}" $(out cls) \
  --arch "$backbone" --snapshot cub200-cls/out/mini/model-2
run 'stage 2, CAMs: training' cub200-cam/train.py "${train[@]}" $(out cam) \
  --backbone "$backbone" --epoch 8
run 'stage 2, CAMs: how well they locate' cub200-cam/test.py "${data[@]}" "${size[@]}" \
  $(out cam) --backbone "$backbone" --snapshot cub200-cam/out/mini/model-8 --evaluate --sweep
run 'stage 2, CAMs: making pseudo masks' cub200-cam/test.py "${data[@]}" --resize 166 \
  $(out cam) --backbone "$backbone" --snapshot cub200-cam/out/mini/model-8
run 'stage 3, segmentation: training' cub200-seg/train.py "${train[@]}" $(out seg) \
  --backbone "$backbone" --epoch 8
run 'stage 3, segmentation: testing' cub200-seg/test.py "${data[@]}" "${size[@]}" $(out seg) \
  --backbone "$backbone" --snapshot cub200-seg/out/mini/model-8 --sweep \
  --top1top5 cub200-cls/out/mini/top1top5.npy

printf '\n'
"$PYTHON" tools/report.py --run mini --out cub200-seg/out/mini/report.png
cat <<END
boxes:   cub200-seg/out/mini/boxes.csv
figures: cub200-{cls,cam,seg}/out/mini/results.json
masks:   dataset/mini/mask/
Took $((SECONDS - begin)) s after the installation.
END
