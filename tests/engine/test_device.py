"""The device of a run."""

import cv2
import pytest
import torch

from utils.engine.device import choose_device, init_distributed_device
from utils.errors import InputError


@pytest.mark.parametrize('name', ['cuda:77', 'toaster'])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(InputError, match='cannot use it here'):
        choose_device(name)


def test_the_same_seed_gives_the_same_weights():
    drawn = []
    for seed in (3, 3, 4):
        assert init_distributed_device('cpu', seed) == torch.device('cpu')
        drawn.append(torch.rand(8))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_opencv_leaves_the_cores_to_others():
    init_distributed_device('cpu', 0)
    assert cv2.getNumThreads() == 1
