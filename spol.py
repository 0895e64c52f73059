"""SPOL in Python: a picture -> class, CAM, mask and box.

    from spol import load_spol

    model = load_spol('birds')            # or 'butterflies': networks that come with the repository
    model = load_spol(cam='cub200-cam/out/model-32', seg='cub200-seg/out/model-8')
    prediction = model('photo.jpg')
    prediction.box, prediction.mask, prediction.cam, prediction.classes

A picture is a path, a PIL image, or an array, uint8 H x W x 3 (RGB), H x W x 4 or H x W.
"""
# ruff: noqa: E402

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent

# The caller's own packages of these names are set aside while ours are imported.
_foreign = [name for name in ('network', 'utils') if not (spec := find_spec(name))
            or Path(spec.origin or '').resolve().parent != ROOT / name]


def _take_out() -> dict[str, Any]:
    return {module: sys.modules.pop(module) for module in list(sys.modules)
            if module.partition('.')[0] in _foreign}


_callers = _take_out()
sys.path.insert(0, str(ROOT))

from network.classifier import load_cls
from network.mffnet import load_cam, load_seg
from utils.boxes import CentreCrop, largest_box
from utils.device import choose_device
from utils.drawing import draw_boxes, overlay
from utils.errors import InputError, warn
from utils.files import read_json
from utils.images import read_upright_image, resize
from utils.inference import CPU_CHUNK, Predictor, in_chunks
from utils.losses import segmentation_probability
from utils.pseudo_mask import scaled_cam
from utils.regions import Region, box_stability, find_regions
from utils.results import recorded_fusion, training_settings

sys.path.remove(str(ROOT))
_take_out()
sys.modules.update(_callers)

Picture = str | os.PathLike | np.ndarray | Image.Image
SHIPPED = ROOT / 'resource'
DEFAULTS = {'cam': {'backbone': 'resnet50', 'resize': 256, 'threshold': 0.2},
            'seg': {'backbone': 'resnet50', 'resize': 256, 'threshold': 0.2},
            'cls': {'arch': 'efficientnet_b7', 'resize': 685}}
BEST = 5         # classes
CUDA_CHUNK = 16  # pictures


@dataclass(frozen=True, repr=False)
class Prediction:
    """The prediction for a picture of H x W pixels; a pixel is foreground where `score_map`
    exceeds `threshold`."""

    image: np.ndarray      # the picture, uint8 H x W x 3, RGB, its EXIF rotation applied
    score_map: np.ndarray  # the segmentation's probability, else the CAM, float32 S x S in [0, 1]
    threshold: float
    cam_map: np.ndarray | None = None  # the CAM of the class, float32 S x S in [0, 1]
    # (name, probability) of the five best classes: the classifier's, else the CAM network's.
    classes: tuple[tuple[str, float], ...] = ()
    label: int | None = None                 # of the best class
    asked: tuple[str, float] | None = None   # the class whose CAM was asked for

    def __repr__(self) -> str:
        size = 'x'.join(map(str, self.image.shape[1::-1]))
        return f'Prediction({size} pixels, box={self.box}, class={self.caption or None})'

    @property
    def caption(self) -> str:
        best = ''.join(f'{name} {score:.2f}' for name, score in self.classes[:1])
        return f'{self.asked[0]} {self.asked[1]:.2f} (best: {best})' if self.asked else best

    @cached_property
    def box(self) -> tuple[float, float, float, float] | None:
        """x0, y0, x1, y1 in pixels of the picture, x1 and y1 exclusive; None without foreground."""
        box, view = largest_box(self.score_map, self.threshold), CentreCrop(len(self.score_map))
        return box and tuple(view.from_crop(box, self.image.shape[:2]).tolist())

    @cached_property
    def score(self) -> float | None:
        """How stable the box is: the IoU of the boxes at the threshold - 0.1 and + 0.1."""
        box = largest_box(self.score_map, self.threshold)
        return box and box_stability(self.score_map, self.threshold, box)

    @cached_property
    def objects(self) -> list[Region]:
        """Every region above the threshold of at least 1 % of the picture, the largest first."""
        return find_regions(self.score_map, self.threshold, self.image.shape[:2], 'all')

    @cached_property
    def cam(self) -> np.ndarray | None:
        """The CAM of the class, float32 H x W in [0, 1]."""
        return None if self.cam_map is None else resize(self.cam_map, self.image.shape[:2])

    @cached_property
    def mask(self) -> np.ndarray:
        """bool H x W."""
        return resize(self.score_map, self.image.shape[:2]) > self.threshold

    def at(self, threshold: float) -> 'Prediction':
        """The same at another threshold in [0, 1], without another forward pass."""
        return replace(self, threshold=_checked_threshold(threshold))

    def within(self, side: int) -> 'Prediction':
        """The same of the picture made to fit into side x side."""
        scale = min(1, side / max(self.image.shape[:2]))
        size = [max(1, round(scale * length)) for length in self.image.shape[1::-1]]
        return replace(self, image=cv2.resize(self.image, size, interpolation=cv2.INTER_AREA))

    def overlay(self, objects: str = 'largest') -> np.ndarray:
        """The picture with the mask's outline, the class and the box, or the boxes of `all`
        objects: uint8 H x W x 3, RGB."""
        picture = overlay(self.image, self.mask, self.box, self.caption)
        for region in self.objects if objects == 'all' else ():
            picture = draw_boxes(picture, None, region.box)
        return picture


class Spol:
    """The networks of the pipeline as one function; made by `load_spol`.

    `model(picture)` -> Prediction; `model([picture, ...])` -> a list of them. The whole picture is
    resized, without a crop. `class_names` are by label; `settings` have the checkpoints and what is
    recorded of them, and the side of the input.
    """

    def __init__(self, networks: dict[str, Predictor], class_names: list[str],
                 settings: dict[str, Any]):
        self.cls, self.cam, self.seg = map(networks.get, ('cls', 'cam', 'seg'))
        self.class_names, self.settings = class_names, settings
        self.threshold, self.resize = settings['threshold'], settings['resize']
        self.chunk_size = CPU_CHUNK if settings['device'] == 'cpu' else CUDA_CHUNK

    def __repr__(self) -> str:
        networks = ', '.join(f'{stage}={self.settings[stage]["checkpoint"]}'
                             for stage in ('cls', 'cam', 'seg') if stage in self.settings)
        return (f'Spol({networks}, {self.resize} x {self.resize} pixels, '
                f'threshold={self.threshold:g}, {self.settings["device"]})')

    def __call__(self, picture: Picture | list[Picture], label: int | str | None = None
                 ) -> Prediction | list[Prediction]:
        """The CAM is that of the class `label`, a number or a name; by default of the best class.
        Raises InputError for what is no picture, and for an unknown class."""
        pictures = picture if isinstance(picture, (list, tuple)) else [picture]
        found = []
        for prediction in in_chunks(partial(self.predict, label=label), pictures, self.chunk_size):
            if isinstance(prediction, InputError):
                raise prediction
            found.append(prediction)
        return found if pictures is picture else found[0]

    def predict(self, pictures: Iterable[Picture], label: int | str | None = None
                ) -> list[Prediction | InputError]:
        """The predictions of one batch; for what is no picture, its error."""
        label = None if label is None else self._number_of(label)
        images: list[np.ndarray] = []
        errors: list[InputError | None] = []
        for picture in pictures:
            try:
                images.append(as_rgb(picture))
                errors.append(None)
            except InputError as error:
                errors.append(error)
        predictions = iter(self._predict(images, label) if images else ())
        return [error or next(predictions) for error in errors]

    def _number_of(self, label: int | str) -> int:
        if self.cam is None:
            raise InputError(f'class {label!r}: only a CAM is of a class; load a CAM network too')
        if label in self.class_names:
            return self.class_names.index(label)
        if label not in range(len(self.class_names)):
            raise InputError(f'no class {label!r}: give 0 to {len(self.class_names) - 1}, or one '
                             'of class_names')
        return int(label)

    def _predict(self, images: list[np.ndarray], label: int | None) -> list[Prediction]:
        batch = _views(images, self.resize)
        cams: list[np.ndarray | None] = [None] * len(images)
        scores = None
        if self.cls:
            scores = self.cls(_views(images, self.settings['cls']['resize']))
            scores = scores.float().softmax(1).cpu()
        if self.cam:
            class_cams = self.cam(batch).float().cpu()
            if scores is None:
                scores = class_cams.mean((2, 3)).softmax(1)
            labels = scores.argmax(1) if label is None else label
            chosen = class_cams[torch.arange(len(images)), labels].numpy()
            cams = [scaled_cam(cam, self.resize) for cam in chosen]
        score_maps = cams
        if self.seg:
            probabilities = segmentation_probability(self.seg(batch), self.resize)
            score_maps = list(probabilities.float().cpu().numpy())
        if not (np.isfinite(score_maps).all() and (scores is None or scores.isfinite().all())):
            raise InputError(f'the networks return values that are not finite: {self!r} is damaged')
        return [Prediction(image, score_maps[k], self.threshold, cams[k],
                           **({} if scores is None else self._classes(scores[k], label)))
                for k, image in enumerate(images)]

    def _classes(self, scores: torch.Tensor, asked: int | None) -> dict[str, Any]:
        best = scores.argsort(descending=True)[:BEST].tolist()
        named = {k: (self.class_names[k], float(scores[k])) for k in {*best, asked} - {None}}
        return {'classes': tuple(named[k] for k in best), 'label': best[0],
                'asked': named.get(asked)}


def _views(images: list[np.ndarray], side: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([CentreCrop(side).view(image) for image in images]))


def load_spol(model: str | None = None, *, cam: str | Path | None = None,
              seg: str | Path | None = None, cls: str | Path | None = None,
              backbone: str | None = None, arch: str | None = None, resize: int | None = None,
              threshold: float | None = None, device: str = 'auto') -> Spol:
    """Load a model of this repository, `birds` or `butterflies`, or checkpoints, its own or the
    authors': at least one of `cam` and `seg`. Parameters that are not given are those recorded
    beside a checkpoint, else the paper's on CUB-200-2011; `resize` is that of cam and seg. On CUDA,
    TF32 is turned off. Raises InputError for a missing checkpoint or one of another network.
    """
    if model is not None:
        models = shipped_models()
        if cam or seg or model not in models:
            raise InputError(f'model {model!r}: give one of resource/ '
                             f'({", ".join(models) or "none"}), without cam and seg')
        cam, seg = models[model]['cam'], models[model]['seg']
    if cam is None and seg is None:
        raise InputError('a box needs a CAM or a segmentation checkpoint: give cam or seg')
    given = {'backbone': backbone, 'resize': resize, 'threshold': threshold}
    opened = {stage: _open(stage, Path(path), {'arch': arch} if stage == 'cls' else given)
              for stage, path in (('seg', seg), ('cam', cam), ('cls', cls)) if path is not None}
    settings = {stage: found for stage, (_, found) in opened.items()}
    maps, found = settings['seg' if seg else 'cam'], choose_device(device)
    trained_on = training_settings(maps['checkpoint']).get('datapath', ROOT)
    if read_json(Path(trained_on, 'mini.json')).get('drawn'):  # of dataset/make_mini.py
        warn('the networks were trained on drawn birds: neither their boxes nor their classes '
             'mean anything on photographs')
    return Spol({stage: Predictor(net, found) for stage, (net, _) in opened.items()},
                _class_names(settings),
                {**settings, 'resize': maps['resize'], 'device': str(found),
                 'threshold': _checked_threshold(maps['threshold'])})


def shipped_models() -> dict[str, dict[str, Path]]:
    return {seg.parent.name: {'cam': seg.with_name('cam.safetensors'), 'seg': seg}
            for seg in sorted(SHIPPED.glob('*/seg.safetensors'))}


def _open(stage: str, checkpoint: Path, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A network and its settings; warns where none are recorded."""
    recorded, defaults = training_settings(checkpoint), DEFAULTS[stage]
    known = {name: recorded[name] for name in defaults if name in recorded}
    settings = {**defaults, **known,
                **{name: value for name, value in given.items() if value is not None}}
    if checkpoint.is_file() and not known:
        used = ', '.join(f'{name} {value}' for name, value in settings.items())
        warn(f'{checkpoint} has no {checkpoint.name}.json beside it: the settings are {used}')
    if stage == 'seg':
        net, classes = load_seg(checkpoint, settings['backbone']), 0
    elif stage == 'cam':
        net = load_cam(checkpoint, settings['backbone'], **recorded_fusion(checkpoint))
        classes = net.head.out_channels
    else:
        net = load_cls(checkpoint, settings['arch'])
        classes = net.get_submodule(net.head_name).out_features
    return net, {'checkpoint': str(checkpoint.absolute()), **settings, 'classes': classes}


def _class_names(networks: dict[str, dict[str, Any]]) -> list[str]:
    """The classes' names by label. Raises InputError where the networks' differ."""
    paths = [found['checkpoint'] for found in networks.values()]
    counts = {found['classes'] for stage, found in networks.items() if stage != 'seg'}
    recorded = {tuple(training_settings(path).get('class_names', ())) for path in paths} - {()}
    if len(recorded) > 1 or len(counts) > 1:
        raise InputError(f'the networks were trained on different classes: {", ".join(paths)}')
    names, count = next(iter(recorded), ()), next(iter(counts), 0)
    return [*names[:count], *(f'class {label}' for label in range(len(names), count))]


def _checked_threshold(threshold: float) -> float:
    if not 0 <= threshold <= 1:
        raise InputError(f'a threshold of {threshold!r}: give a number from 0 to 1')
    return threshold


def as_rgb(picture: Picture) -> np.ndarray:
    """A picture of any kind -> uint8 H x W x 3, RGB, upright. Raises InputError."""
    if isinstance(picture, (str, os.PathLike)):
        return read_upright_image(Path(picture))
    # The range of values of the modes I, I;16 and F is not known.
    if isinstance(picture, Image.Image) and picture.mode[0] not in 'IF':
        return np.array(ImageOps.exif_transpose(picture).convert('RGB'))
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.size == 0 or array.ndim < 2 or (
            array.shape[2:] not in ((), (3,), (4,))):
        raise InputError(f'{type(picture).__name__} of {array.dtype}, {array.shape}, is not a '
                         'picture: give a path, a PIL image of 8 bits, or an array of uint8, '
                         'H x W x 3 (RGB), H x W x 4 or H x W, not C x H x W')
    return np.array(Image.fromarray(array).convert('RGB'))
