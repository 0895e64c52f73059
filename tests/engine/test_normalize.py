"""Batches of images become the input of a network."""

import numpy as np
import pytest
import torch

from utils.engine.normalize import Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)


@pytest.mark.parametrize('kind', ['bytes', 'floats'])
def test_the_mean_is_subtracted_and_the_deviation_divided_by(images, kind):
    given = images if kind == 'bytes' else np.float32(images / 255)
    found = Normalize(MEAN, STD)(torch.from_numpy(given))
    expected = ((images / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_the_batch_is_channels_last_and_the_images_stay_as_they_are(images):
    given = torch.from_numpy(np.float32(images / 255))
    before = given.clone()
    found = Normalize(MEAN, STD)(given)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(given, before)


def test_mean_and_deviation_are_made_once_and_not_saved():
    normalize = Normalize(MEAN, STD)
    assert [name for name, _ in normalize.named_buffers()] == ['mean', 'std']
    assert not normalize.state_dict()
