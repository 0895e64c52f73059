"""Score maps of other CAM methods, made from the classifier of the cls stage.

    python tools/compare_cams.py --cls cub200-cls/out/leeds/model-3 --datapath dataset/leeds

GradCAM, GradCAM++, XGradCAM, EigenCAM and LayerCAM of the last feature maps, and LayerCAM of three
layers (the last of each size from stride 8 on), by the package grad-cam, for the true class of
each image of a list. The whole image is resized to the side that the classifier was trained at.

Writes OUT/<method>/<image name>.npy, float32, 224 x 224, in [0, 1], and prints the command that
compares these maps with those of cam/test and seg/test --save_maps. Maps that exist are kept: after
an interruption, the same command continues.

grad-cam asks for another package of OpenCV, which must not be installed beside ours:

    pip install scikit-learn ttach && pip install --no-deps grad-cam
"""

import shlex
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import torch
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from network.classifier import load_cls
from network.weights import digest
from utils.arguments import Parser, positive_int
from utils.boxes import CentreCrop
from utils.datasets import EvalImages
from utils.device import Normalize, choose_device
from utils.errors import InputError, run
from utils.files import keep_settings, read_json, source_of, write_array, write_json
from utils.lists import cub_images, list_path
from utils.metrics import BENCHMARK_SIDE
from utils.results import training_settings

# Our name -> the package's class, and whether it takes several layers.
METHODS = {'gradcam': ('GradCAM', False), 'gradcam++': ('GradCAMPlusPlus', False),
           'xgradcam': ('XGradCAM', False), 'eigencam': ('EigenCAM', False),
           'layercam': ('LayerCAM', False), 'layercam-several': ('LayerCAM', True)}
SEVERAL, BATCH = 3, 8  # sizes of feature maps; images


def main() -> None:
    args = parse()
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise InputError(f'{error}: pip install scikit-learn ttach && pip install --no-deps '
                         'grad-cam') from error
    device = choose_device(args.device)
    model = load_cls(args.cls, args.arch).to(device).eval()
    classes = model.get_submodule(model.head_name).out_features
    images = cub_images(args.datapath, args.list, classes)
    layers, normalize = feature_layers(model, args.resize), Normalize(model.mean, model.std)
    dataset = EvalImages(images, {'image': CentreCrop(args.resize)})
    record_settings(args, images)
    for method in args.methods:
        name, several = METHODS[method]
        todo = [index for index in range(len(images))
                if not Path(args.out, method, f'{images.name(index)}.npy').exists()]
        with getattr(pytorch_grad_cam, name)(model, layers if several else layers[-1:]) as cam:
            for batch in tqdm(DataLoader(Subset(dataset, todo), BATCH), method, disable=None):
                targets = [ClassifierOutputTarget(label) for label in batch['label'].tolist()]
                maps = cam(normalize.to(device)(batch['image'].to(device)), targets)
                for image, score_map in zip(batch['name'], maps, strict=True):
                    write_array(args.out / method / f'{image}.npy', cv2.resize(
                        score_map.astype('f4'), (BENCHMARK_SIDE, BENCHMARK_SIDE)))
    folders = [f'{method}={args.out / method}' for method in args.methods]
    command = shlex.join(['python', 'tools/evaluate_maps.py', *folders, '--list',
                          str(list_path(args.datapath, args.list))])
    print(f'wrote {args.out}. To compare, with further folders NAME=SAVEPATH/maps of cam/test.py '
          f'--evaluate --save_maps and seg/test.py --save_maps:\n\n    {command}')


def parse() -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('--cls', type=Path, required=True, help='the checkpoint of the cls stage')
    add('--arch', help='its architecture (default: as recorded, else efficientnet_b7)')
    add('--datapath', type=Path, required=True, help='the data folder, in the CUB layout')
    add('--list', default='val.txt', help='the image list: a path, or a file in the data folder')
    add('--methods', nargs='+', choices=METHODS, default=list(METHODS), help='what to compute')
    add('--resize', type=positive_int, help='side of the images (default: as trained)')
    add('--out', type=Path, default=Path('cams'), help='the output folder')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    trained = training_settings(args.cls)
    args.arch = args.arch or trained.get('arch', 'efficientnet_b7')
    args.resize = args.resize or trained.get('crop') or trained.get('resize')
    if not args.resize:
        raise InputError(f'no size of the images is recorded beside {args.cls}: give --resize')
    return args


def record_settings(args: Namespace, images: Any) -> None:
    """Raises InputError where OUT has maps of other images or another network."""
    keep_settings(args.out / 'settings.json', {'cls': digest(args.cls), 'resize': args.resize})
    path = args.out / 'images.json'
    sources = read_json(path)
    for index, label in enumerate(images.labels.tolist()):
        name, source = images.name(index), f'{source_of(images.path(index))}, class {label}'
        exists = any(Path(args.out, method, f'{name}.npy').exists() for method in METHODS)
        if exists and sources.get(name) != source:
            raise InputError(f'{args.out} has maps of another {name} (of other data, of another '
                             'class, or replaced since): choose another --out')
        sources[name] = source
    write_json(path, sources)


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
    halving = {name for name, _, before, after in seen if 0 < before in (2 * after, 2 * after - 1)}
    last = {after: layer for name, layer, _, after in seen
            if after > 1 and not any(name.startswith(f'{block}.') for block in halving)}
    if not last or [after for *_, after in seen if after][-1] < 0:
        raise InputError('this classifier does not end with feature maps N x C x H x W: choose a '
                         'convolutional network')
    return [last[size] for size in sorted(last, reverse=True)][-SEVERAL:]


def map_side(value: Any) -> int:
    """The side of feature maps N x C x S x S; -1 for tokens and other maps, 0 for the rest."""
    if getattr(value, 'ndim', 0) < 3:
        return 0
    return value.shape[2] if value.ndim == 4 and value.shape[2] == value.shape[3] else -1


if __name__ == '__main__':
    run(main)
