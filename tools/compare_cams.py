"""Score maps of other CAM methods, made from the classifier of the cls stage.

    python tools/compare_cams.py --cls cub200-cls/out/leeds/model-3 --datapath dataset/leeds
    python tools/compare_cams.py --cls model-20 --datapath DIR --methods gradcam layercam

GradCAM, GradCAM++, XGradCAM, EigenCAM and LayerCAM, of the last feature maps, and LayerCAM of
several layers (the last of each size, from stride 8 on), computed by the package grad-cam for the
true class of each image of a list. The whole image is resized to the side that the classifier was
trained at. Its architecture is what is recorded beside the checkpoint.

Writes OUT/<method>/<image name>.npy, float32, 224 x 224, in [0, 1], and prints the command that
compares these maps with those of cam/test and seg/test --save_maps. Maps that exist are kept: after
an interruption, the same command continues.

grad-cam is not among the requirements of this project. Its own ask for another package of OpenCV,
which must not be installed beside ours:

    pip install scikit-learn ttach && pip install --no-deps grad-cam
"""

import importlib.util
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.arguments import Parser, positive_int
from utils.data import cub
from utils.data.lists import list_path
from utils.errors import InputError, run
from utils.localization.metrics import BENCHMARK_SIDE
from utils.outputs.files import keep_settings, write_array
from utils.stages.run_settings import recorded_settings, training_settings

INSTALL = 'pip install scikit-learn ttach && pip install --no-deps grad-cam'
# Our name -> the package's class, and whether it looks at several layers.
METHODS = {'gradcam': ('GradCAM', False), 'gradcam++': ('GradCAMPlusPlus', False),
           'xgradcam': ('XGradCAM', False), 'eigencam': ('EigenCAM', False),
           'layercam': ('LayerCAM', False), 'layercam-several': ('LayerCAM', True)}
SEVERAL = 3  # sizes of feature maps
BATCH = 8    # images


def main():
    args = parse()
    import pytorch_grad_cam
    from torch.utils.data import DataLoader, Subset
    from tqdm import tqdm

    from network.checkpoints import load_cls
    from network.download import digest
    from utils.data.datasets import EvalImages
    from utils.engine.device import choose_device
    from utils.engine.inference import labels_of
    from utils.localization.boxes import CentreCrop

    images = cub.read_images(args.datapath, args.list, 10**9)
    side = args.resize or trained_side(args.cls)
    model = load_cls(args.cls, args.arch).to(choose_device(args.device)).eval()
    check_labels(images, model)
    keep_settings(args.out / 'settings.json', {'cls': digest(args.cls), 'resize': side})
    dataset, layers = EvalImages(images, image=CentreCrop(side)), feature_layers(model, side)
    for method in args.methods:
        name, several = METHODS[method]
        with getattr(pytorch_grad_cam, name)(model, layers if several else layers[-1:]) as cam:
            todo = [index for index in range(len(images))
                    if not map_file(args.out, method, images.name(index)).exists()]
            batches = DataLoader(Subset(dataset, todo), BATCH)
            for batch in tqdm(batches, method, unit='batch', disable=None):
                write_maps(args.out, method, images.names[batch['index'].numpy()].tolist(),
                           class_maps(cam, batch['image'], labels_of(images, batch).tolist()))
    print_command(args)


def parse():
    parser = Parser(__doc__)
    add = parser.add_argument
    add('--cls', type=Path, required=True, help='the checkpoint of the cls stage')
    add('--arch', help='its architecture (default: what its run has recorded, else '
        'efficientnet_b7)')
    add('--datapath', type=Path, required=True, help='the data folder, in the CUB layout')
    add('--list', default='val.txt', help='the image list: a path, or a file in the data folder')
    add('--methods', nargs='+', choices=METHODS, default=list(METHODS), help='what to compute')
    add('--resize', type=positive_int, help='side of the images (default: what the classifier was '
        'trained at)')
    add('--out', type=Path, default=Path('cams'), help='the output folder')
    add('--device', default='auto', help='auto | cpu | cuda | cuda:N')
    args = parser.parse_args()
    missing = [name for name in ('pytorch_grad_cam', 'sklearn', 'ttach')
               if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'this tool needs {" and ".join(missing)}: {INSTALL}')
    args.arch = recorded_settings(args.cls, {'arch': 'efficientnet_b7'},
                                  {'arch': args.arch})['arch']
    return args


def trained_side(checkpoint: Path) -> int:
    """The side of the images that the classifier was trained with: that of the crops."""
    trained = training_settings(checkpoint)
    side = trained.get('crop') or trained.get('resize')
    if not side:
        raise InputError(f'no size of the images is recorded beside {checkpoint}: give --resize')
    return side


def check_labels(images, model) -> None:
    classes = model.get_submodule(model.head_name).out_features
    if images.labels.max() >= classes:
        raise InputError(f'{images.source} has the label {images.labels.max()}, but the classifier '
                         f'has {classes} classes: check --cls and --list')


def feature_layers(model, side: int) -> list:
    """The last layers of each size of the feature maps, the largest first: three of them, or fewer.

    A layer inside a block that halves its input's size is not the last of that size: the block's
    input is. The last of all is what the classifier pools.
    """
    import torch

    seen, hooks = [], []  # (name, layer, side of its input, side of its output)
    for name, layer in model.named_modules():
        hooks.append(layer.register_forward_hook(
            lambda layer, inputs, output, name=name: seen.append(
                (name, layer, map_side(inputs[0]), map_side(output)))))
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


def map_side(value) -> int:
    """The side of square feature maps N x C x S x S; -1 for other maps and tokens, 0 for what is
    neither."""
    import torch

    if not isinstance(value, torch.Tensor) or value.ndim < 3:
        return 0
    return value.shape[2] if value.ndim == 4 and value.shape[2] == value.shape[3] else -1


def class_maps(cam, batch, labels: list[int]):
    """Images N x S x S x 3 in [0, 1] and their classes -> maps N x S x S in [0, 1]."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from utils.engine.normalize import Normalize

    device = next(cam.model.parameters()).device
    normalize = Normalize(cam.model.mean, cam.model.std).to(device)
    return cam(normalize(batch.to(device)), [ClassifierOutputTarget(label) for label in labels])


def write_maps(out: Path, method: str, names: list[str], maps) -> None:
    import cv2

    for name, score_map in zip(names, maps, strict=True):
        score_map = cv2.resize(score_map.astype('f4'), (BENCHMARK_SIDE, BENCHMARK_SIDE))
        write_array(map_file(out, method, name), score_map)


def map_file(out: Path, method: str, name: str) -> Path:
    return out / method / f'{name}.npy'


def print_command(args) -> None:
    """Print how to compare the maps with those of the cam and seg stages."""
    folders = [f'{method}={args.out / method}' for method in args.methods]
    command = ['python', 'tools/evaluate_maps.py', *folders, '--list',
               str(list_path(args.datapath, args.list))]
    print(f'wrote {args.out}. To compare, with the maps of cam/test.py --evaluate --save_maps and '
          f'seg/test.py --save_maps\nas further folders, NAME=SAVEPATH/maps:\n\n'
          f'    {shlex.join(command)}')


if __name__ == '__main__':
    run(main)
