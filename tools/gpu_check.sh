#!/usr/bin/env bash
# What a machine with a GPU should be asked, in at most 9 minutes and without a download: the tests
# marked gpu, the stages beside the network alone, the chain on drawn birds. On a CPU: tiny sizes.
#
#   bash tools/gpu_check.sh OUT                          writes OUT/report.md and OUT/log.txt
#   PYTHON=.venv/bin/python bash tools/gpu_check.sh OUT  (default: python)
#
# Both files grow with each part. Exit code 1 if a part failed, 2 if a package is missing.
set -uo pipefail
fail() { echo "error: $*" >&2; exit 2; }
[ $# = 1 ] && [ "${1#-}" = "$1" ] || fail "usage: bash tools/gpu_check.sh OUT"
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd) work=$(mktemp -d) failed=0 report=$out/report.md log=$out/log.txt
trap 'rm -rf "$work"' EXIT
PYTHON=$(realpath -s "$(command -v "${PYTHON:-python}")") || fail "no such Python: set PYTHON"
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

"$PYTHON" - > "$report" 2> "$log" <<'END' ||
import os, albumentations, pytest, timm, torch
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'
print(f'# GPU check\n\n{gpu}, {os.cpu_count()} cores, PyTorch {torch.__version__}, timm '
      f'{timm.__version__}, albumentations {albumentations.__version__}\n')
END
  fail "$(tail -n 1 "$log"): pip install -r requirements-dev.txt"
images='--images 24 --batch_size 4 --backbone timm/test_efficientnet'
export PYTHON work device=cpu epochs=1 sizes='--resize 72 --crop 64' birds='--train 4 --val 2'
if ! grep -q 'no GPU' "$report"; then
  images='' sizes='--resize 166 --crop 144' epochs=12 birds='--train 146 --val 40' device=cuda
fi

chain() {  # as demo.sh on Leeds: MaxBoxAcc should rise from line to line
  set -e
  stage() {
    "$PYTHON" "cub200-$1/$2.py" --savepath "$work/$1" --datapath "$work/birds" --clsnum 4 \
      --backbone timm/tf_efficientnet_lite0 --device $device "${@:3}"
  }
  "$PYTHON" dataset/make_mini.py --out "$work/birds" --classes 4 $birds
  stage cam train $sizes --batch_size 8 --epoch $epochs
  stage cam test --evaluate --show 0
  stage cam test --resize 256 --show 0
  stage seg train $sizes --batch_size 8 --epoch $epochs --lr 0.1
  stage seg test --top1top5 none --show 0
}
export -f chain

part() {  # $1: name, $2: seconds, $3: what of the output is shown, then a command
  local begin=$SECONDS code
  printf '\n## %s\n' "$1" >> "$log"
  timeout --kill-after=5 "$2" "${@:4}" > "$work/part" 2>&1
  code=$?
  cat "$work/part" >> "$log"
  [ $code = 0 ] || failed=1
  { printf '## %s\n\nexit code %d (124: over %d s), %d s\n\n' "$1" $code "$2" $((SECONDS - begin))
    grep -E "$3" "$work/part" || tail -n 3 "$work/part"; echo; } | tee -a "$report"
}
part tests 110 'passed|failed|skipped' "$PYTHON" -m pytest -q -m gpu -n 0 tests/test_gpu.py
part benchmark 230 '^\|' "$PYTHON" tools/benchmark.py $images
part chain 180 ' at threshold|gt_known|max_box_acc' bash -c chain
echo "report: $report; $SECONDS s"
exit $failed
