"""The paper's Gaussian prior pseudo label: a CAM, its Gaussian prior, and the segmentation target.

Regions of weak activation often still belong to the object. A Gaussian is fitted to each of them.
The foreground is where the CAM or a Gaussian is high, the background where the CAM is almost 0. In
between is the conflict region, which the loss of MFF-Net 2 ignores.
"""

import cv2
import numpy as np

from utils.boxes import contours_of
from utils.images import resize

MASK_SIDE = 256        # pseudo masks are made at MASK_SIDE x MASK_SIDE
WEAK = (0.1, 0.5)      # the Gaussian is fitted where the CAM lies between these
MIN_CONTOUR_AREA = 20  # pixels; contours below it are specks
SHRINK = 10            # the fitted covariance is divided by this
NEGLIGIBLE = 1e-5      # of a Gaussian: 1/400 of a grey level
FOREGROUND = 0.25      # above it, of the CAM or the prior
BACKGROUND = 0.01      # below it, of the CAM; between the two lies the conflict region


def pseudo_mask(cam: np.ndarray, size: tuple[int, int], prior: bool = True) -> np.ndarray:
    """One class's CAM, 2-d float, >= 0 -> the image's stored mask, uint8, H x W x 3.

    `size` = (H, W) of the image. The channels are 255 x CAM (its maximum scaled to 1),
    255 x Gaussian prior (0 without `prior`), and 0.
    """
    cam = scaled_cam(cam, MASK_SIDE)
    bumps = gaussian_prior(cam) if prior else np.zeros_like(cam)
    channels = np.dstack([255 * cam, 255 * bumps])
    stored = resize(channels, size).astype(np.uint8)  # truncates
    return np.dstack([stored, np.zeros(size, np.uint8)])


def scaled_cam(cam: np.ndarray, side: int) -> np.ndarray:
    """A CAM, 2-d float, >= 0 -> side x side, its maximum scaled to 1 (all 0 stays 0)."""
    return resize(cam / (cam.max() + 1e-6), (side, side))


def gaussian_prior(cam: np.ndarray) -> np.ndarray:
    """A CAM in [0, 1], 2-d float -> the pixelwise maximum of the Gaussians of its weak regions,
    in [0, 1], float64 of the same shape; 0 where there is no such region, and where it would be
    below NEGLIGIBLE."""
    prior = np.zeros(cam.shape)
    is_weak = (cam >= WEAK[0]) & (cam <= WEAK[1])
    weak = cam * is_weak
    for contour in contours_of(is_weak):
        if cv2.contourArea(contour) >= MIN_CONTOUR_AREA:
            add_gaussian(prior, *fit_gaussian(contour, weak))
    return prior


def fit_gaussian(contour: np.ndarray, weak: np.ndarray) -> tuple[float, float, float, float, float]:
    """The means of x and y inside a contour, weighted by `weak`, in pixels, and their variances and
    covariance, divided by SHRINK."""
    x, y, width, height = cv2.boundingRect(contour)
    weight = np.zeros((height, width), weak.dtype)
    cv2.drawContours(weight, [contour], -1, 1, cv2.FILLED, offset=(-x, -y))
    moments = cv2.moments(weight * weak[y:y + height, x:x + width])
    mass = moments['m00']
    sx, sy, sxy = (moments[name] / mass / SHRINK for name in ('mu20', 'mu02', 'mu11'))
    return x + moments['m10'] / mass, y + moments['m01'] / mass, sx, sy, sxy


def add_gaussian(prior: np.ndarray, mean_x: float, mean_y: float, sx: float, sy: float, sxy: float
                 ) -> None:
    """Update `prior` in place to the pixelwise maximum with the Gaussian of maximum 1, within the
    rectangle outside of which it is NEGLIGIBLE."""
    columns, dx = _near(mean_x, sx, prior.shape[1])
    rows, dy = _near(mean_y, sy, prior.shape[0])
    # The exponent is a(column) + b(row) + c(pixel): only c, a product of dx and dy, needs 2-d work.
    scale = -0.5 / (1 - sxy**2 / (sx * sy))
    exponent = np.multiply.outer(dy * (-2 * scale * sxy / (sx * sy)), dx)
    exponent += scale * dx**2 / sx
    exponent += (scale * dy**2 / sy)[:, None]
    part = prior[rows, columns]
    np.maximum(part, np.exp(exponent, out=exponent), out=part)


def _near(mean: float, variance: float, size: int) -> tuple[slice, np.ndarray]:
    """The pixels 0 ... size-1 where a Gaussian may exceed NEGLIGIBLE, and their distances."""
    reach = np.sqrt(-2 * np.log(NEGLIGIBLE) * variance)
    start, stop = max(0, int(np.ceil(mean - reach))), min(size, int(mean + reach) + 1)
    return slice(start, stop), np.arange(start, stop) - mean


def has_foreground(stored: np.ndarray) -> bool:
    """Whether the segmentation target of a stored mask, whose third channel is 0, has any."""
    return bool(stored.max() > 255 * FOREGROUND)


def seg_target(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A stored mask, uint8, H x W x 2 or more -> (foreground, valid), both bool, H x W.

    Foreground: CAM or prior above 0.25. Background: CAM below 0.01. Pixels that are neither are the
    paper's conflict region; they are not valid, and the loss ignores them.
    """
    cam, prior = stored[..., 0], stored[..., 1]
    foreground = (cam > 255 * FOREGROUND) | (prior > 255 * FOREGROUND)
    return foreground, foreground | (cam < 255 * BACKGROUND)
