"""Export the networks of a run of demo.sh as files that are small enough to ship.

    python tools/export.py --name cub50 --out resource/birds

Writes cam.safetensors and seg.safetensors to --out, in float16, each with a JSON beside it: what
model-N.json records. `load_spol(cam=..., seg=...)` and the test scripts read them as float32. To
have the figures of the float16 file, test it: cub200-seg/test.py --snapshot OUT/seg.safetensors.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safetensors.torch import save

from network.weights import read_state
from utils.arguments import ROOT, Parser
from utils.errors import InputError, run
from utils.files import read_json, write_bytes, write_json
from utils.results import newest_checkpoint


def main():
    parser = Parser(__doc__)
    parser.add_argument('--name', required=True, help="the run's folder in cub200-*/out/")
    parser.add_argument('--out', type=Path, required=True, help='the output folder')
    parser.add_argument('--data', default='', help='what the networks were trained on, in words')
    args = parser.parse_args()
    for stage in ('cam', 'seg'):
        model = newest_checkpoint(ROOT / f'cub200-{stage}' / 'out' / args.name)
        if model is None:
            raise InputError(f'no model-N in cub200-{stage}/out/{args.name}: check --name')
        state = {key: (value.half() if value.is_floating_point() else value).contiguous()
                 for key, value in read_state(model).items()}
        write_bytes(args.out / f'{stage}.safetensors', save(state))
        recorded = read_json(model.with_name(f'{model.name}.json'))
        for name in ('datapath', 'maskpath', 'list'):  # of the machine that trained
            recorded.pop(name, None)
        write_json(args.out / f'{stage}.json', {**recorded, 'data': args.data})
        print(f'wrote {args.out / stage}.safetensors')


if __name__ == '__main__':
    run(main)
