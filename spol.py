"""SPOL in Python: a picture -> class, CAM, mask and box.

    from spol import load_spol

    model = load_spol(cam='cub200-cam/out/model-32', seg='cub200-seg/out/model-8')
    prediction = model('photo.jpg')
    prediction.box, prediction.mask, prediction.cam, prediction.classes

A picture is a path, a PIL image, or an array, uint8 H x W x 3 (RGB), H x W x 4 or H x W.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from network.checkpoints import load_cam, load_cls, load_seg
from utils.data.images import read_upright_image
from utils.data.transforms import eval_transform
from utils.engine.device import choose_device, configured
from utils.engine.inference import Inference, InferenceOptions, Predictor
from utils.errors import InputError
from utils.localization.boxes import CentreCrop, largest_box
from utils.localization.losses import segmentation_probability
from utils.localization.pseudo_mask import MASK_SIDE, gaussian_prior, scaled_cam
from utils.outputs.drawing import Row, contact_sheet, draw_boxes, heatmap, outline
from utils.stages.run_settings import recorded_class_names, recorded_settings

Picture = str | Path | np.ndarray | Image.Image
DEFAULTS: dict[str, Any] = {'backbone': 'resnet50', 'resize': 256, 'threshold': 0.2}
CLS_DEFAULTS: dict[str, Any] = {'arch': 'efficientnet_b7', 'resize': 685}
BEST = 5                # classes
CELL = 240              # pixels; the side of a view that is drawn
MOST_HELD = 48_000_000  # pixels of the pictures in a batch; beyond it, the batch is not filled up


@dataclass(frozen=True)
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
    """

    image: np.ndarray
    score_map: np.ndarray
    threshold: float
    cam_map: np.ndarray | None = None
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
    def cam(self) -> np.ndarray | None:
        """The CAM of the class, float32 H x W in [0, 1]; None without a CAM network."""
        return None if self.cam_map is None else _fit(self.cam_map, self.image)

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
            prior = gaussian_prior(cv2.resize(small.cam, (MASK_SIDE, MASK_SIDE)))
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
        return replace(self, image=cv2.resize(self.image, size, interpolation=cv2.INTER_AREA))


class Inputs(NamedTuple):
    """A picture, and the networks' inputs: float32 in [0, 1], S x S x 3."""

    picture: np.ndarray
    image: np.ndarray
    cls_image: np.ndarray | None

    @property
    def pixels(self) -> int:
        return self.picture.shape[0] * self.picture.shape[1]


class Spol:
    """The networks of the pipeline, each optional, as one function; made by `load_spol`.

    `model(picture)` -> Prediction; `model([picture, ...])` -> a list of them. The whole picture is
    resized, without a crop, so that objects at the border count.

    Arguments:
        cam: without `cls` the CAMs of all classes are its result, else `CamNet.class_cams`.
        inference: how lists are run through the networks.
        names: the classes' names by their labels.
        resize: the side to which pictures are resized for CAM and segmentation.
        cls_resize: the same for the classifier.
        classes: the number of classes of the CAM network.
    """

    def __init__(self, cam: Predictor | None, seg: Predictor | None, cls: Predictor | None,
                 inference: Inference, names: Callable[[int], str], resize: int, cls_resize: int,
                 threshold: float, classes: int = 0):
        self._cam, self._seg, self._cls, self.inference = cam, seg, cls, inference
        self._names, self.threshold, self.resize = names, threshold, resize
        self._classes = classes
        self._transform, self._cls_transform = eval_transform(resize), eval_transform(cls_resize)

    def __call__(self, picture: Picture | list[Picture], label: int | None = None
                 ) -> Prediction | list[Prediction]:
        """The CAM is that of the class `label`, by default of the best class. A list is run in
        batches, on all cores.

        Raises InputError for a file that is missing, and BadImageError for one that cannot be
        decoded."""
        if isinstance(picture, list):
            return list(self.inference.in_parts(
                lambda part: map(_checked, self.predict(part, label)), picture))
        prediction, = map(_checked, self.predict([picture], label))
        return prediction

    def predict(self, pictures: Iterable[Picture], label: int | None = None
                ) -> Iterator[Prediction | InputError]:
        """Yield the prediction of each picture, or the error where it cannot be read. The pictures
        are one batch, unless they are so large that several take less memory."""
        held: list[Inputs | InputError] = []
        for picture in pictures:
            held.append(self._read(picture))
            if sum(inputs.pixels for inputs in held if isinstance(inputs, Inputs)) > MOST_HELD:
                yield from self._predict(held, label)
                held.clear()
        yield from self._predict(held, label)

    @property
    def class_names(self) -> list[str]:
        """The classes by their labels; empty without a CAM network."""
        return [self._names(label) for label in range(self._classes)]

    def _read(self, picture: Picture) -> Inputs | InputError:
        try:
            image = as_rgb(picture)
        except InputError as error:
            return error
        return Inputs(image, self._transform(image=image)['image'],
                      self._cls_transform(image=image)['image'] if self._cls else None)

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
                first = classes[number].tolist()
                named = tuple((self._names(best), float(scores[number, best])) for best in first)
                found = replace(found, classes=named, label=first[0])
            yield found

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
    given = {'backbone': backbone, 'resize': resize, 'threshold': threshold}
    settings = recorded_settings(seg or cam, DEFAULTS, given)
    cls_settings = recorded_settings(cls, CLS_DEFAULTS, {'arch': arch}) if cls else CLS_DEFAULTS
    inference = Inference(configured(choose_device(device)), InferenceOptions(amp))
    cam_net = cam and load_cam(cam, recorded_settings(cam, DEFAULTS, given)['backbone'])
    seg_net = seg and load_seg(seg, settings['backbone'])
    cls_net = cls and load_cls(cls, cls_settings['arch'])

    def predictor(model: nn.Module | None, method: str = 'forward') -> Predictor | None:
        return model and inference.predictor(model, method)

    names = dict(enumerate(class_names or [])) or next(
        filter(None, (recorded_class_names(path) for path in (cam, seg, cls) if path)), {})
    return Spol(predictor(cam_net, 'class_cams' if cls else 'forward'), predictor(seg_net),
                predictor(cls_net), inference, lambda label: names.get(label, f'class {label}'),
                settings['resize'], cls_settings['resize'], settings['threshold'],
                cam_net.head.out_channels if cam_net else 0)


def as_rgb(picture: Picture) -> np.ndarray:
    """A picture of any kind -> uint8 H x W x 3, RGB, upright."""
    if isinstance(picture, (str, Path)):
        return read_upright_image(Path(picture))
    if isinstance(picture, Image.Image):
        return np.array(ImageOps.exif_transpose(picture).convert('RGB'))
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
        raise InputError(f'an array of {picture.dtype} with {picture.ndim} dimensions is not '
                         'an image: give uint8 H x W x 3, H x W x 4 or H x W')
    if picture.ndim == 2:
        return cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(picture[..., :3])


def _checked(found: Prediction | InputError) -> Prediction:
    if isinstance(found, InputError):
        raise found
    return found


def _stack(images: Iterable[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(list(images)))


def _fit(score_map: np.ndarray, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.resize(score_map, (width, height), interpolation=cv2.INTER_LINEAR)
