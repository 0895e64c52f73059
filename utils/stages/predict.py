"""The chain as one function: a picture -> class, CAM, mask and box."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from network.classifier import build_classifier
from network.mffnet import CamNet, SegNet
from network.weights import load_checkpoint, read_state
from utils.data.images import read_upright_image
from utils.data.transforms import exact_transform
from utils.engine.device import choose_device
from utils.engine.inference import Predictor
from utils.errors import InputError
from utils.localization.boxes import CentreCrop, largest_box
from utils.localization.losses import segmentation_probability
from utils.localization.pseudo_mask import SIDE, gaussian_prior, scaled_cam
from utils.outputs.drawing import Row, contact_sheet, draw_boxes, heatmap, outline
from utils.outputs.results import read_results

Picture = str | Path | np.ndarray | Image.Image
DEFAULTS = {'backbone': 'resnet50', 'arch': 'efficientnet_b7', 'resize': 256, 'threshold': 0.2}
BEST = 5
CELL = 240  # pixels; the side of a view that is drawn


@dataclass(frozen=True)
class Prediction:
    """What the chain says of a picture of H x W pixels, upright as its EXIF data say.

    Attributes:
        image: the picture, uint8 H x W x 3, RGB.
        score_map: what mask and box come from, float32 S x S in [0, 1] over the whole picture: the
            segmentation's probability, or without a segmentation network the CAM.
        threshold: a pixel is foreground where the map exceeds it.
        cam: the CAM of the class, float32 H x W in [0, 1]; None without a CAM network.
        classes: (name, score) of the best classes, the best first; empty without a network that
            knows classes. Scores are softmax probabilities.
        label: the number of the best class; None without such a network.
    """

    image: np.ndarray
    score_map: np.ndarray
    threshold: float
    cam: np.ndarray | None = None
    classes: tuple[tuple[str, float], ...] = ()
    label: int | None = None

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
    def mask(self) -> np.ndarray:
        """The foreground, bool H x W."""
        return _fit(self.score_map, self.image) > self.threshold

    def at(self, threshold: float) -> 'Prediction':
        """The same at another threshold, without another forward pass."""
        return replace(self, threshold=threshold)

    def draw(self) -> np.ndarray:
        """Picture, CAM and its Gaussian prior (where there is a CAM), score map, mask and box side
        by side, uint8 RGB, each in 240 x 240 pixels."""
        small = self._within(CELL)
        image, views = small.image, {'image': small.image}
        if small.cam is not None:
            views['CAM'] = heatmap(image, small.cam)
            prior = gaussian_prior(cv2.resize(small.cam, (SIDE, SIDE)))
            views['Gaussian prior'] = heatmap(image, _fit(prior, image))
        views['score map'] = heatmap(image, _fit(small.score_map, image))
        views['mask'] = outline(image, small.mask)
        views['box'] = draw_boxes(image, None, small.box)
        caption = f'{self.classes[0][0]} {self.score:.2f}' if self.classes else ''
        return contact_sheet([Row(list(views.values()), caption)], list(views), side=CELL)

    def _within(self, side: int) -> 'Prediction':
        """The same of the picture made to fit into side x side: what is drawn, and kept for a
        sheet, does not grow with the picture."""
        scale = min(1, side / max(self.image.shape[:2]))
        size = [max(1, round(scale * length)) for length in self.image.shape[1::-1]]
        image = cv2.resize(self.image, size, interpolation=cv2.INTER_AREA)
        return replace(self, image=image, cam=None if self.cam is None else _fit(self.cam, image))


class Spol:
    """The networks of the chain, each optional, as one function.

    `model(picture)` -> Prediction; `model([picture, ...])` -> a list of them. A picture is a path,
    a PIL image, or an array, uint8 H x W x 3 (RGB), H x W x 4 or H x W. The whole picture is
    resized, without a crop, so that objects at the border count.

    Arguments:
        names: the classes' names by their labels.
        resize: the side to which pictures are resized for CAM and segmentation.
        cls_resize: the same for the classifier.
        classes: the number of classes of the CAM network.
    """

    def __init__(self, cam: Predictor | None, seg: Predictor | None, cls: Predictor | None,
                 cam_logits: Predictor | None, names: Callable[[int], str], resize: int,
                 cls_resize: int, threshold: float, classes: int = 0):
        self._cam, self._seg, self._cls, self._cam_logits = cam, seg, cls, cam_logits
        self._names, self.threshold, self.resize = names, threshold, resize
        self._classes = classes
        self._view, self._cls_view = exact_transform(resize), exact_transform(cls_resize)

    def __call__(self, picture: Picture | list[Picture], label: int | None = None
                 ) -> Prediction | list[Prediction]:
        """The CAM is that of the class `label`, by default of the best class.

        Raises InputError for a file that is missing, and BadImageError for one that cannot be
        decoded."""
        if isinstance(picture, list):
            return [self(one, label) for one in picture]
        image = as_rgb(picture)
        view = _batch(self._view(image=image)['image'])
        scores = self._class_scores(image, view)
        best = None if scores is None else int(scores.argmax())
        cam = probability = None
        if self._cam:
            _, fused = self._cam(view, torch.tensor([best if label is None else label]))
            cam = scaled_cam(fused[0].float().cpu().numpy(), self.resize)
        if self._seg:
            probability = segmentation_probability(self._seg(view), self.resize)
            probability = probability[0].float().cpu().numpy()
        classes = ()
        if scores is not None:
            first = scores.argsort(descending=True)[:BEST].tolist()
            classes = tuple((self._names(index), float(scores[index])) for index in first)
        return Prediction(image, cam if probability is None else probability, self.threshold,
                          None if cam is None else _fit(cam, image), classes, best)

    @property
    def class_names(self) -> list[str]:
        """The classes by their labels; empty without a CAM network."""
        return [self._names(label) for label in range(self._classes)]

    def _class_scores(self, image: np.ndarray, view: Tensor) -> Tensor | None:
        """Softmax over the classes: the classifier's, or else the CAM network's."""
        if self._cls:
            logits = self._cls(_batch(self._cls_view(image=image)['image']))
        elif self._cam_logits:
            logits = self._cam_logits(view).mean((2, 3))
        else:
            return None
        return logits[0].float().softmax(0).cpu()


def load_spol(cam: str | Path | None = None, seg: str | Path | None = None,
              cls: str | Path | None = None, *, backbone: str | None = None,
              arch: str | None = None, class_names: list[str] | None = None,
              resize: int | None = None, threshold: float | None = None, device: str = 'auto',
              amp: str = 'off') -> Spol:
    """Load checkpoints, ours or the authors', any of them alone (cls needs another one).

    What a checkpoint does not say (backbone, sizes, class names, threshold) is taken from the
    results.json beside it, and else the paper's; a parameter that is given is used instead.
    Raises InputError where a checkpoint is missing, or belongs to another network.
    """
    if cam is None and seg is None:
        raise InputError('a box needs a CAM or a segmentation checkpoint: give cam or seg')
    given = {'backbone': backbone, 'arch': arch, 'resize': resize, 'threshold': threshold}
    where = choose_device(device)
    settings = {name: _settings(path, given) for name, path in (('cam', cam), ('seg', seg),
                                                                ('cls', cls)) if path}
    main = settings.get('seg', settings.get('cam'))
    cam_net = seg_net = cls_net = None
    if cam:
        state = read_state(cam)
        head = state['head.weight' if 'head.weight' in state else 'linear.weight']
        cam_net = CamNet(len(head), settings['cam']['backbone'], pretrained='none')
        load_checkpoint(cam_net, cam)
    if seg:
        seg_net = SegNet(main['backbone'], pretrained='none')
        load_checkpoint(seg_net, seg)
    if cls:
        classes = list(read_state(cls).values())[-1].shape[0]
        cls_net = build_classifier(settings['cls']['arch'], classes, pretrained='none')
        load_checkpoint(cls_net, cls)

    def predictor(model: Any, method: str = 'forward') -> Predictor | None:
        return model and Predictor(model, where, amp, 1, method=method)

    names = class_names or next(filter(None, map(_class_names, settings.values())), [])
    return Spol(predictor(cam_net, 'class_cams'), predictor(seg_net), predictor(cls_net),
                predictor(None if cls else cam_net),
                lambda label: names[label] if label < len(names) else f'class {label}',
                main['resize'], settings.get('cls', {}).get('resize', 685), main['threshold'],
                0 if cam_net is None else cam_net.head.out_channels)


def as_rgb(picture: Picture) -> np.ndarray:
    """A picture of any kind -> uint8 H x W x 3, RGB, upright."""
    if isinstance(picture, (str, Path)):
        return read_upright_image(Path(picture))
    if isinstance(picture, Image.Image):
        return np.array(ImageOps.exif_transpose(picture).convert('RGB'))
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
        raise InputError(f'an array of {picture.dtype} with {picture.ndim} dimensions is no '
                         'picture: give uint8 H x W x 3, H x W x 4 or H x W')
    if picture.ndim == 2:
        return cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(picture[..., :3])


def _settings(checkpoint: str | Path, given: dict[str, Any]) -> dict[str, Any]:
    results = read_results(Path(checkpoint).parent / 'results.json')
    arguments = {**results.get('training', {}).get('arguments', {}),
                 **results.get('arguments', {})}
    recorded = {name: arguments[name] for name in (*DEFAULTS, 'datapath') if name in arguments}
    if 'arch' in recorded:
        recorded.setdefault('resize', 685)
    return {**DEFAULTS, **recorded,
            **{name: value for name, value in given.items() if value is not None}}


def _class_names(settings: dict[str, Any]) -> list[str]:
    """The class folders of the training images: their order is that of the labels."""
    folder = Path(settings.get('datapath', '')) / 'image'
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _batch(view: np.ndarray) -> Tensor:
    return torch.from_numpy(view)[None]


def _fit(score_map: np.ndarray, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.resize(score_map, (width, height), interpolation=cv2.INTER_LINEAR)
