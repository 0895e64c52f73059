"""SPOL in Python: a picture -> class, CAM, mask and box.

    from spol import load_spol

    model = load_spol(cam='cub200-cam/out/model-32', seg='cub200-seg/out/model-8')
    prediction = model('photo.jpg')
    prediction.box, prediction.mask, prediction.cam, prediction.classes

A picture is a path, a PIL image, or an array, uint8 H x W x 3 (RGB), H x W x 4 or H x W.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from network.checkpoints import load_cam, load_cls, load_seg
from utils.data.images import BadImageError, read_upright_image, resize
from utils.engine.device import choose_device, configured
from utils.engine.inference import Inference, InferenceOptions, Predictor
from utils.errors import InputError, warn
from utils.localization.boxes import CentreCrop, largest_box
from utils.localization.losses import segmentation_probability
from utils.localization.pseudo_mask import MASK_SIDE, gaussian_prior, scaled_cam
from utils.outputs.drawing import Row, contact_sheet, draw_boxes, heatmap, outline, overlay
from utils.outputs.files import write_png
from utils.outputs.results import read_results
from utils.stages.run_settings import recorded_class_names, recorded_settings

Picture = str | os.PathLike | np.ndarray | Image.Image
DEFAULTS: dict[str, Any] = {'backbone': 'resnet50', 'resize': 256, 'threshold': 0.2}
CLS_DEFAULTS: dict[str, Any] = {'arch': 'efficientnet_b7', 'resize': 685}
BEST = 5                # classes
CELL = 240              # pixels; the side of a view that is drawn
MOST_HELD = 48_000_000  # pixels of the pictures in a batch; beyond it, the batch is not filled up


@dataclass(frozen=True, repr=False)
class Prediction:
    """The prediction for an image of H x W pixels, its EXIF rotation applied.

    Attributes:
        image: the picture, uint8 H x W x 3, RGB.
        score_map: what mask and box come from, float32 S x S in [0, 1] over the whole picture: the
            segmentation's probability, or without a segmentation network the CAM.
        threshold: a pixel is foreground where the map exceeds it.
        cam_map: the CAM of the class, as `score_map`; None without a CAM network.
        classes: (name, score) of the best classes, the best first; empty without a network that
            knows classes. Scores are softmax probabilities.
        label: the number of the best class; None without such a network.
        asked: (name, score) of the class whose CAM was asked for; None where none was.
    """

    image: np.ndarray
    score_map: np.ndarray
    threshold: float
    cam_map: np.ndarray | None = None
    classes: tuple[tuple[str, float], ...] = ()
    label: int | None = None
    asked: tuple[str, float] | None = None

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        box = self.box and tuple(round(value) for value in self.box)
        return (f'Prediction({width} x {height} pixels, box={box}, '
                f'class={self.caption or None}, threshold={self.threshold:g})')

    @property
    def caption(self) -> str:
        """The class that was asked for and the best one, with their scores; empty if unknown."""
        if not self.classes:
            return ''
        best = f'{self.classes[0][0]} {self.score:.2f}'
        return best if self.asked is None else (
            f'{self.asked[0]} {self.asked[1]:.2f} (best: {best})')

    @property
    def score(self) -> float | None:
        """The probability of the best class."""
        return self.classes[0][1] if self.classes else None

    @cached_property
    def box(self) -> tuple[float, float, float, float] | None:
        """x0, y0, x1, y1 in pixels of the picture, x1 and y1 exclusive; None without foreground."""
        box = largest_box(self.score_map, self.threshold)
        if box is None:
            return None
        view = CentreCrop(self.score_map.shape[0])
        return tuple(view.from_crop(box, self.image.shape[:2]).tolist())

    @cached_property
    def cam(self) -> np.ndarray | None:
        """The CAM of the class, float32 H x W in [0, 1]; None without a CAM network."""
        return None if self.cam_map is None else resize(self.cam_map, self.image.shape[:2])

    @cached_property
    def prior(self) -> np.ndarray | None:
        """The Gaussian prior of the CAM, float64 H x W in [0, 1]; None without a CAM network."""
        if self.cam_map is None:
            return None
        prior = gaussian_prior(resize(self.cam_map, (MASK_SIDE, MASK_SIDE)))
        return resize(prior, self.image.shape[:2])

    @cached_property
    def mask(self) -> np.ndarray:
        """The foreground, bool H x W."""
        return resize(self.score_map, self.image.shape[:2]) > self.threshold

    def at(self, threshold: float) -> 'Prediction':
        """The same at another threshold in [0, 1], without another forward pass."""
        return replace(self, threshold=checked_threshold(threshold))

    def views(self) -> dict[str, np.ndarray]:
        """Image, fused CAM and its Gaussian prior (where there is a CAM), probability (where there
        is a segmentation), mask and box, by their names: uint8 RGB, each within 240 x 240."""
        small = self.within(CELL)
        image, views = small.image, {'image': small.image}
        if small.cam is not None:
            views['fused CAM'] = heatmap(image, small.cam)
            views['Gaussian prior'] = heatmap(image, small.prior)
        if small.score_map is not small.cam_map:
            views['probability'] = heatmap(image, resize(small.score_map, image.shape[:2]))
        return {**views, 'mask': outline(image, small.mask),
                'box': draw_boxes(image, None, small.box)}

    def draw(self) -> np.ndarray:
        """The views side by side, below their names, uint8 RGB."""
        views = self.views()
        return contact_sheet([Row(list(views.values()), self.caption)], list(views), side=CELL)

    def overlay(self) -> np.ndarray:
        """The picture with the mask's outline, the box and the class, uint8 RGB, H x W x 3."""
        return overlay(self.image, self.mask, self.box, self.caption)

    def save(self, path: str | Path) -> None:
        """Write the overlay as PNG."""
        if Path(path).suffix.lower() != '.png':
            raise InputError(f'{path}: pictures are written as PNG: end the name with .png')
        write_png(Path(path), self.overlay())

    def within(self, side: int) -> 'Prediction':
        """The same of the picture made to fit into side x side: what is drawn, and kept for a
        sheet, does not grow with the picture."""
        scale = min(1, side / max(self.image.shape[:2]))
        size = [max(1, round(scale * length)) for length in self.image.shape[1::-1]]
        return replace(self, image=cv2.resize(self.image, size, interpolation=cv2.INTER_AREA))


class Inputs(NamedTuple):
    """A picture, and the networks' inputs: float32 in [0, 1], S x S x 3."""

    picture: np.ndarray
    image: np.ndarray
    cls_image: np.ndarray | None


class Spol:
    """The networks of the pipeline, each optional, as one function; made by `load_spol`.

    `model(picture)` -> Prediction; `model([picture, ...])` -> a list of them. The whole picture is
    resized, without a crop, so that objects at the border count.

    Arguments:
        cam: without `cls` the CAMs of all classes are its result, else `CamNet.class_cams`.
        inference: how lists are run through the networks.
        names: the classes' names by their labels.
        classes: the number of classes of the CAM network.
        settings: the checkpoints of the networks, the side to which pictures are resized
            (`resize`), `threshold`, and whether the images of the training were `drawn`.
    """

    def __init__(self, cam: Predictor | None, seg: Predictor | None, cls: Predictor | None,
                 inference: Inference, names: Callable[[int], str], classes: int,
                 settings: dict[str, Any]):
        self._cam, self._seg, self._cls, self.inference = cam, seg, cls, inference
        self._names, self._classes, self.settings = names, classes, settings
        self.threshold, self.resize = settings['threshold'], settings['resize']
        self._view = CentreCrop(self.resize)
        self._cls_view = CentreCrop(settings['cls']['resize']) if cls else None

    def __repr__(self) -> str:
        networks = ', '.join(f'{stage}={self.settings[stage]["checkpoint"]}'
                             for stage in ('cls', 'cam', 'seg') if stage in self.settings)
        return (f'Spol({networks}, {self.resize} x {self.resize} pixels, '
                f'threshold={self.threshold:g}, {self.inference.device})')

    def __call__(self, picture: Picture | list[Picture], label: int | str | None = None
                 ) -> Prediction | list[Prediction]:
        """The CAM is that of the class `label`, a number or a name, by default of the best class.
        A list is run in batches, on all cores.

        Raises InputError for a file that is missing, an array that is not an image, and a class
        that is not known, and BadImageError for a file that cannot be decoded."""
        if isinstance(picture, (list, tuple)):
            return list(self.inference.in_chunks(
                lambda chunk: map(_checked, self.predict(chunk, label)), picture))
        prediction, = map(_checked, self.predict([picture], label))
        return prediction

    def predict(self, pictures: Iterable[Picture], label: int | str | None = None
                ) -> Iterator[Prediction | InputError]:
        """Yield the prediction of each picture, or the error where it cannot be read. The pictures
        are one batch, unless they are so large that several take less memory."""
        label = self._number_of(label)
        held: list[Inputs | InputError] = []
        for picture in pictures:
            held.append(self._read(picture))
            pictures_held = (inputs.picture for inputs in held if isinstance(inputs, Inputs))
            if sum(image[..., 0].size for image in pictures_held) > MOST_HELD:
                yield from self._predict(held, label)
                held.clear()
        yield from self._predict(held, label)

    @property
    def class_names(self) -> list[str]:
        """The classes by their labels; empty without a CAM network."""
        return [self._names(label) for label in range(self._classes)]

    def _number_of(self, label: int | str | None) -> int | None:
        """The number of a class that is given by its number or its name."""
        if label is None:
            return None
        if not self._classes:
            raise InputError(f'class {label!r}: only a CAM is of a class; load a CAM network too')
        if label in (names := self.class_names):
            return names.index(label)
        if not (isinstance(label, (int, np.integer)) and 0 <= label < self._classes):
            raise InputError(f'no class {label!r}: give 0 to {self._classes - 1}, or one of '
                             'class_names')
        return int(label)

    def _read(self, picture: Picture) -> Inputs | InputError:
        try:
            image = as_rgb(picture)
        except InputError as error:
            if not isinstance(error, BadImageError) and not isinstance(error.__cause__, OSError):
                raise  # the machine's fault, as a lack of memory, or the caller's
            return error
        return Inputs(image, self._view.view(image),
                      self._cls_view.view(image) if self._cls_view else None)

    def _predict(self, held: list[Inputs | InputError], label: int | None
                 ) -> Iterator[Prediction | InputError]:
        """The predictions of a batch; errors stay in their places."""
        read = [inputs for inputs in held if isinstance(inputs, Inputs)]
        predictions = self._predict_batch(read, label) if read else iter(())
        for inputs in held:
            yield next(predictions) if isinstance(inputs, Inputs) else inputs

    def _predict_batch(self, batch: list[Inputs], label: int | None) -> Iterator[Prediction]:
        images = _stack(inputs.image for inputs in batch)
        all_class_cams = self._cam(images).float() if self._cam and not self._cls else None
        scores = self._class_scores(batch, all_class_cams)
        classes = None if scores is None else scores.argsort(descending=True)[:, :BEST]
        cams: list[np.ndarray | None] = [None] * len(batch)
        if self._cam:
            labels = classes[:, 0] if label is None else torch.full((len(batch),), label)
            fused = (self._cam(images, labels)[1] if all_class_cams is None
                     else all_class_cams[torch.arange(len(batch)), labels])
            cams = [scaled_cam(cam, self.resize) for cam in fused.float().cpu().numpy()]
        if self._seg:
            probabilities = segmentation_probability(self._seg(images), self.resize)
            score_maps = probabilities.float().cpu().numpy()
        else:
            score_maps = cams
        for number, inputs in enumerate(batch):
            found = Prediction(inputs.picture, score_maps[number], self.threshold, cams[number])
            if scores is not None:
                found = replace(found, **self._named(scores[number], classes[number], label))
            if not np.isfinite([found.score_map.sum(), found.score or 0]).all():
                raise InputError(f'the networks return values that are not finite: {self!r} is '
                                 'damaged, or --amp does not suit it')
            yield found

    def _named(self, scores: Tensor, best: Tensor, asked: int | None) -> dict[str, Any]:
        """The fields of a prediction that say its classes."""
        def named(label: int) -> tuple[str, float]:
            return self._names(label), float(scores[label])

        return {'classes': tuple(map(named, best.tolist())), 'label': int(best[0]),
                'asked': None if asked is None else named(asked)}

    def _class_scores(self, batch: list[Inputs], all_class_cams: Tensor | None) -> Tensor | None:
        """Softmax over the classes, N x classes: the classifier's, or else the CAM network's."""
        if self._cls:
            logits = self._cls(_stack(inputs.cls_image for inputs in batch))
        elif all_class_cams is not None:
            logits = all_class_cams.mean((2, 3))
        else:
            return None
        return logits.float().softmax(1).cpu()


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
    given = {'backbone': backbone, 'resize': resize,
             'threshold': None if threshold is None else checked_threshold(threshold)}
    found = {stage: _settings(path, defaults, parameters) for stage, path, defaults, parameters in (
        ('cam', cam, DEFAULTS, given), ('seg', seg, DEFAULTS, given),
        ('cls', cls, CLS_DEFAULTS, {'arch': arch})) if path is not None}
    inference = Inference(configured(choose_device(device)), InferenceOptions(amp))
    cam_net = load_cam(cam, found['cam']['backbone']) if cam else None
    seg_net = load_seg(seg, found['seg']['backbone']) if seg else None
    cls_net = load_cls(cls, found['cls']['arch']) if cls else None
    classes = cam_net.head.out_channels if cam_net else 0
    known = cls_net.get_submodule(cls_net.head_name).out_features if cls_net else classes
    if cam_net and known != classes:
        raise InputError(f'{cls} has {known} classes and {cam} has {classes}: they belong to '
                         'different data')
    maps = found['seg' if seg else 'cam']
    settings = {**found, 'resize': maps['resize'], 'threshold': maps['threshold'],
                'device': str(inference.device), 'amp': amp,
                'drawn': any(map(_drawn, filter(None, (cam, seg, cls))))}
    if settings['drawn'] and (cam or cls):
        warn('the networks were trained on drawn birds: their classes mean nothing on photographs')
    names = dict(enumerate(class_names or [])) or next(
        filter(None, (recorded_class_names(path) for path in (cam, seg, cls) if path)), {})
    return Spol(cam_net and inference.predictor(cam_net, 'class_cams' if cls else 'forward'),
                seg_net and inference.predictor(seg_net),
                cls_net and inference.predictor(cls_net), inference,
                lambda label: names.get(label, f'class {label}'), classes, settings)


def _settings(checkpoint: str | Path, defaults: dict[str, Any], given: dict[str, Any]
              ) -> dict[str, Any]:
    """The settings of a network; says where they are not recorded."""
    settings = recorded_settings(checkpoint, defaults, given)
    recorded = recorded_settings(checkpoint, dict.fromkeys(defaults))
    if all(value is None for value in recorded.values()):
        used = ', '.join(f'{name} {value}' for name, value in settings.items())
        warn(f'{checkpoint} has neither {Path(checkpoint).name}.json nor results.json beside it: '
             f'the settings are {used}')
    return {'checkpoint': str(Path(checkpoint).absolute()), **settings}


def _drawn(checkpoint: str | Path) -> bool:
    """Whether a network was trained on images that dataset/make_mini.py has drawn."""
    folder = recorded_settings(checkpoint, {'datapath': None})['datapath']
    marker = read_results(Path(folder) / 'mini.json') if folder else {}
    return 'cutouts' in marker and marker['cutouts'] is None


def checked_threshold(threshold: float) -> float:
    if not 0 <= threshold <= 1:
        raise InputError(f'a threshold of {threshold}: give a number from 0 to 1')
    return threshold


def as_rgb(picture: Picture) -> np.ndarray:
    """A picture of any kind -> uint8 H x W x 3, RGB, upright. Raises InputError for what is no
    picture, and BadImageError for a file that cannot be decoded."""
    if isinstance(picture, (str, os.PathLike)):
        if not os.path.isfile(picture):
            raise BadImageError(f'no picture at {os.fspath(picture)}: check the path')
        try:
            return read_upright_image(Path(picture))
        except BadImageError as error:  # without the flag of the stages
            raise BadImageError(str(error).partition(', or skip')[0]) from error
    if isinstance(picture, Image.Image):
        return _from_pil(picture)
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    raise InputError(f'{type(picture).__name__} is not a picture: give a path, a PIL image or an '
                     'array')


def _from_pil(picture: Image.Image) -> np.ndarray:
    if picture.mode in ('I', 'F'):
        raise InputError(f'a PIL image of mode {picture.mode} has no known range: give the path of '
                         'its file, or an image of 8 bits')
    try:
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith('I;16'):
            return _from_array((np.asarray(picture) >> 8).astype(np.uint8))
        return _from_array(np.array(picture.convert('RGB')))
    except (OSError, SyntaxError, ValueError) as error:  # it is decoded only now
        raise BadImageError(f'the PIL image cannot be decoded ({error})') from error


def _from_array(picture: np.ndarray) -> np.ndarray:
    channels = picture.shape[2] if picture.ndim == 3 else 1
    if (picture.dtype != np.uint8 or picture.ndim not in (2, 3) or channels not in (1, 3, 4)
            or not picture.size):
        shape = ' x '.join(map(str, picture.shape))
        raise InputError(f'an array of {picture.dtype}, {shape}, is not an image: give uint8 '
                         'H x W x 3 (RGB), H x W x 4 or H x W, not C x H x W')
    if channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(picture[..., :3])


def _checked(found: Prediction | InputError) -> Prediction:
    if isinstance(found, InputError):
        raise found
    return found


def _stack(images: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(list(images)))
