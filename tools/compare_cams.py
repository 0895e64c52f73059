"""Score maps of other CAM methods, made from the classifier of the cls stage.

    python tools/compare_cams.py --cls cub200-cls/out/leeds/model-3 --datapath dataset/leeds

GradCAM, GradCAM++, XGradCAM, EigenCAM and LayerCAM of the last feature maps, and LayerCAM of three
layers (the last of each size from stride 8 on), by the package grad-cam, for the true class of
each image of a list. The whole image is resized to the side that the classifier was trained at,
which its model-N.json records.

Writes OUT/<method>/<image name>.npy, float32, 224 x 224, in [0, 1], and prints the command that
compares these maps.

grad-cam asks for another package of OpenCV, which must not be installed beside ours:

    pip install scikit-learn ttach && pip install --no-deps grad-cam
"""

import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from network.classifier import load_cls
from utils.arguments import Parser
from utils.boxes import CentreCrop
from utils.datasets import EvalImages
from utils.device import Normalize, choose_device
from utils.errors import InputError, about, run
from utils.files import write_array
from utils.lists import cub_images, list_path
from utils.metrics import BENCHMARK_SIDE
from utils.results import training_settings

METHODS = {'gradcam': 'GradCAM', 'gradcam++': 'GradCAMPlusPlus', 'xgradcam': 'XGradCAM',
           'eigencam': 'EigenCAM', 'layercam': 'LayerCAM', 'layercam-several': 'LayerCAM'}
SEVERAL, BATCH = 3, 8  # layers; images


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('--cls', type=Path, required=True, help='the checkpoint of the cls stage')
    add('--datapath', type=Path, required=True, help='the data folder, in the CUB layout')
    add('--list', default='val.txt', help='the image list: a path, or a file in the data folder')
    add('--methods', nargs='+', choices=METHODS, default=list(METHODS), help='what to compute')
    add('--out', type=Path, default=Path('cams'), help='the output folder')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    with about('no grad-cam: pip install scikit-learn ttach && pip install --no-deps grad-cam'):
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    trained, device = training_settings(args.cls), choose_device(args.device)
    if 'arch' not in trained:
        raise InputError(f'no {args.cls}.json, with the architecture and the size of the images')
    side = trained.get('crop') or trained['resize']
    model = load_cls(args.cls, trained['arch']).to(device).eval()
    layers, normalize = feature_layers(model, side), Normalize(model.mean, model.std).to(device)
    classes = model.get_submodule(model.head_name).out_features
    images = cub_images(args.datapath, args.list, classes)
    dataset = EvalImages(images, {'image': CentreCrop(side)})
    for method in args.methods:
        chosen = layers if method == 'layercam-several' else layers[-1:]
        with getattr(pytorch_grad_cam, METHODS[method])(model, chosen) as cam:
            for batch in tqdm(DataLoader(dataset, BATCH), method, disable=None):
                targets = [ClassifierOutputTarget(label) for label in batch['label'].tolist()]
                maps = cam(normalize(batch['image'].to(device)), targets)
                for image, score_map in zip(batch['name'], maps, strict=True):
                    write_array(args.out / method / f'{image}.npy', cv2.resize(
                        score_map.astype('f4'), (BENCHMARK_SIDE, BENCHMARK_SIDE)))
    folders = [f'{method}={args.out / method}' for method in args.methods]
    command = shlex.join(['python', 'tools/evaluate_maps.py', *folders, '--list',
                          str(list_path(args.datapath, args.list))])
    print(f'wrote {args.out}. To compare, with further folders NAME=SAVEPATH/maps of the stages '
          f'(--save_maps):\n\n    {command}')


def feature_layers(model: torch.nn.Module, side: int) -> list:
    """The last layers of the three smallest sizes of feature maps, the largest first.

    A layer inside a block that halves its input's size is not the last of that size: the block's
    input is. The last of all is what the classifier pools.
    """
    seen = []  # (name, layer, side of its input, side of its output)
    hooks = [layer.register_forward_hook(lambda layer, inputs, output, name=name: seen.append(
        (name, layer, map_side(inputs[0]), map_side(output))))
        for name, layer in model.named_modules()]
    with torch.inference_mode():
        model(torch.zeros(1, 3, side, side, device=next(model.parameters()).device))
    for hook in hooks:
        hook.remove()
    if [after for *_, after in seen if after][-1] < 0:
        raise InputError('this classifier does not end with feature maps N x C x H x W: choose a '
                         'convolutional network')
    halving = [f'{name}.' for name, _, before, after in seen
               if 0 < before in (2 * after, 2 * after - 1)]
    last = {after: layer for name, layer, _, after in seen
            if after > 1 and not name.startswith(tuple(halving))}
    return [last[size] for size in sorted(last, reverse=True)][-SEVERAL:]


def map_side(value: Any) -> int:
    """The side of feature maps N x C x S x S; -1 for tokens and other maps, 0 for the rest."""
    if getattr(value, 'ndim', 0) < 3:
        return 0
    return value.shape[2] if value.ndim == 4 and value.shape[2] == value.shape[3] else -1


if __name__ == '__main__':
    run(main)
