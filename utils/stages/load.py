"""Loading checkpoints as one model: `load_spol`, and what the runs beside them have recorded."""

import re
from pathlib import Path
from typing import Any

from torch import nn

from network.mffnet import CamNet, SegNet
from network.weights import load_checkpoint, read_state
from utils.data.lists import list_path, read_lines
from utils.engine.device import choose_device, configured
from utils.engine.inference import Inference, InferenceOptions, Predictor
from utils.errors import InputError
from utils.outputs.results import read_results
from utils.stages.predict import Spol

DEFAULTS = {'backbone': 'resnet50', 'resize': 256, 'threshold': 0.2}
CLS_DEFAULTS = {'arch': 'efficientnet_b7', 'resize': 685}
# `<class>/<name>.jpg,<label>` or `<wnid>/<name>.JPEG <label>`, a box may follow.
LIST_LINE = re.compile(r'(?P<folder>[^/]+)/.+?\.\w+[, ](?P<label>[0-9]+)(,|$)')


def load_spol(cam: str | Path | None = None, seg: str | Path | None = None,
              cls: str | Path | None = None, *, backbone: str | None = None,
              arch: str | None = None, class_names: list[str] | None = None,
              resize: int | None = None, threshold: float | None = None, device: str = 'auto',
              amp: str = 'off') -> Spol:
    """Load checkpoints of this repository or of the authors, as one model.

    At least one of `cam` and `seg` is required; `cls` is optional.

    Backbone, sizes, class names and threshold are those of the results.json beside a checkpoint,
    else the paper's on CUB-200-2011 (on ImageNet-1K the paper's threshold is 0.8). A parameter that
    is given is used instead; `resize` is that of cam and seg. On CUDA, TF32 is turned off.
    Raises InputError where a checkpoint is missing, or belongs to another network.
    """
    if cam is None and seg is None:
        raise InputError('a box needs a CAM or a segmentation checkpoint: give cam or seg')
    given = {'backbone': backbone, 'resize': resize, 'threshold': threshold}
    main = _settings(seg or cam, DEFAULTS, given)
    cls_settings = _settings(cls, CLS_DEFAULTS, {'arch': arch}) if cls else CLS_DEFAULTS
    inference = Inference(configured(choose_device(device)), InferenceOptions(amp))
    cam_net = cam and load_cam(cam, _settings(cam, DEFAULTS, given)['backbone'])
    seg_net = seg and load_seg(seg, main['backbone'])
    cls_net = cls and load_cls(cls, cls_settings['arch'])

    def predictor(model: nn.Module | None, method: str = 'forward') -> Predictor | None:
        return model and inference.predictor(model, method)

    names = dict(enumerate(class_names or [])) or next(
        filter(None, (_class_names(path) for path in (cam, seg, cls) if path)), {})
    return Spol(predictor(cam_net, 'class_cams' if cls else 'forward'), predictor(seg_net),
                predictor(cls_net), inference,
                lambda label: names.get(label, f'class {label}'),
                main['resize'], cls_settings['resize'], main['threshold'],
                cam_net.head.out_channels if cam_net else 0)


def load_cam(checkpoint: str | Path, backbone: str) -> CamNet:
    """The CAM network of a checkpoint, which says the number of classes."""
    state = read_state(checkpoint)
    head = state.get('head.weight', state.get('linear.weight'))
    if head is None or len(head) < 2:
        raise InputError(f'{checkpoint} is not a checkpoint of the cam stage: check --cam')
    model = CamNet(len(head), backbone, pretrained='none')
    load_checkpoint(model, checkpoint)
    return model


def load_seg(checkpoint: str | Path, backbone: str) -> SegNet:
    """The segmentation network of a checkpoint."""
    model = SegNet(backbone, pretrained='none')
    load_checkpoint(model, checkpoint)
    return model


def load_cls(checkpoint: str | Path, arch: str) -> nn.Module:
    """The classifier of a checkpoint, whose head says the number of classes."""
    # Slow to import.
    from network.classifier import IMAGENET_CLASSES, build_classifier, replace_head

    model = build_classifier(arch, IMAGENET_CLASSES, pretrained='none', keep_head=True)
    bias = read_state(checkpoint).get(f'{model.head_name}.bias')
    if bias is None:
        raise InputError(f'{checkpoint} is not a checkpoint of {arch}: check --cls and --arch')
    replace_head(model, len(bias))
    load_checkpoint(model, checkpoint)
    return model


def _settings(checkpoint: str | Path, defaults: dict[str, Any], given: dict[str, Any]
              ) -> dict[str, Any]:
    """The defaults, replaced by what the checkpoint's run has recorded, and by what is given."""
    results = _results_of(checkpoint)
    recorded = {**results.get('training', {}).get('arguments', {}),
                **results.get('arguments', {})}
    return {**defaults, **{name: recorded[name] for name in defaults if name in recorded},
            **{name: value for name, value in given.items() if value is not None}}


def _class_names(checkpoint: str | Path) -> dict[int, str]:
    """The class folder of each label, as the list of the checkpoint's training has them."""
    arguments = _results_of(checkpoint).get('training', {}).get('arguments', {})
    if 'datapath' not in arguments:
        return {}
    path = list_path(Path(arguments['datapath']), arguments.get('list', 'train.txt'))
    try:
        lines = [LIST_LINE.match(line) for _, line in read_lines(path)]
    except InputError:  # the data may be gone
        return {}
    return {int(line['label']): line['folder'] for line in lines if line}


def _results_of(checkpoint: str | Path) -> dict[str, Any]:
    return read_results(Path(checkpoint).parent / 'results.json')
