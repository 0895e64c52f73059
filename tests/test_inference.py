"""Inference over a list, by threads and by processes: order, errors, interruptions."""

import multiprocessing
import os
import signal
from argparse import Namespace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import LITE, write_image
from finishing import describe, die, fail
from torch import nn

from network import CamNet, SegNet, build_classifier
from utils.boxes import CentreCrop
from utils.errors import InputError, _message
from utils.inference import ListInference, Predictor, fuse_batch_norm, prefer_onednn
from utils.lists import ImageList

CPU = torch.device('cpu')
COUNT = 30
both_ways = pytest.mark.parametrize('processes', [False, True], ids=['threads', 'processes'])


class Net(nn.Module):
    """A convolution of the image, or an error for the batch that has a white image."""

    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, images):
        if images.amin((1, 2, 3)).max() > 1.2:
            raise RuntimeError('the network failed')
        return self.conv(images)


@pytest.fixture
def images(tmp_path):
    """Thirty images of three sizes."""
    rng = np.random.default_rng(0)
    names = [f'{number}.png' for number in range(COUNT)]
    for number, name in enumerate(names):
        size = [(20, 30), (33, 21), (24, 24)][number % 3]
        write_image(tmp_path / name, rng.integers(0, 200, (*size, 3), np.uint8))
    return ImageList(np.array(names), np.arange(COUNT) % 5, None, tmp_path)


@pytest.fixture(autouse=True)
def _no_process_that_finishes_is_left():
    yield
    left = [process.name for process in multiprocessing.active_children()
            if 'ForkServer' in process.name]
    assert left == []


def inference(images, processes, finish=describe, batch_size=8):
    views = {'image': CentreCrop(24, 16), 'whole': CentreCrop(18)}
    options = Namespace(batch_size=batch_size, num_workers=1)
    return ListInference(Predictor(Net(), CPU), images, views, finish, options,
                         processes).run('testing')


def test_processes_give_what_threads_give_in_the_order_of_the_list(images):
    found = [list(zip(*inference(images, processes), strict=True)) for processes in (False, True)]
    (index, label, size, maps), (*others, other_maps) = found
    assert [sum(map(list, column), []) for column in others] == [
        sum(map(list, column), []) for column in (index, label, size)] == [
        list(range(COUNT)), (np.arange(COUNT) % 5).tolist(), [[20, 30], [33, 21], [24, 24]] * 10]
    for view, side in (('image', 14), ('whole', 16)):
        one, other = (np.concatenate([part[view] for part in parts])
                      for parts in (maps, other_maps))
        assert one.shape == (COUNT, 2, side, side)
        np.testing.assert_allclose(other, one, atol=1e-5)


@both_ways
@pytest.mark.parametrize(('part', 'error', 'said'), [
    ('finish', InputError, 'cannot write 9'), ('finish', ZeroDivisionError, 'cannot write 9'),
    ('read', InputError, 'no image at'), ('decode', InputError, '13.png cannot be read'),
    ('network', RuntimeError, 'the network failed')])
def test_an_error_of_each_part_is_raised_and_ends_the_work(images, processes, part, error, said):
    path = images.folder / '13.png'
    if part == 'read':
        path.unlink()
    if part == 'decode':
        path.write_bytes(b'no image')
    if part == 'network':
        write_image(path, np.full((9, 9, 3), 255, np.uint8))
    finish = partial(fail, error=error(said)) if part == 'finish' else describe
    with pytest.raises(error, match=said):
        list(inference(images, processes, finish))


def test_a_process_that_dies_ends_the_work_in_one_line(images):
    with pytest.raises(RuntimeError) as caught:
        list(inference(images, True, die))
    assert 'a process has ended (out of memory?)' in _message(caught.value)


@both_ways
def test_an_interruption_ends_the_work(images, processes):
    def interrupted():
        for _ in inference(images, processes, batch_size=2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_smaller_last_batch_is_filled_up_for_the_gpu(images):
    """The network sees batches of one size; the results have what is in the list."""
    class Predict:
        device, takes_labels, sizes = torch.device('cuda'), True, []

        def __call__(self, batch, labels):
            self.sizes.append((len(batch), len(labels)))
            return batch.sum((1, 2, 3)), labels

    runner = ListInference(Predict(), images, {'image': CentreCrop(8)}, describe,
                           Namespace(batch_size=4, num_workers=1), False)
    parts = list(runner.run('testing'))
    assert set(Predict.sizes) == {(4, 4)}
    assert [len(part[0]) for part in parts] == [4] * 7 + [2]
    assert np.concatenate([part[3]['image'][1] for part in parts]).tolist() == (
        np.arange(COUNT) % 5).tolist()


# ---------------------------------------------------------------- networks prepared for inference

BUILD = {
    'cam resnet50': lambda: CamNet(5, 'resnet50', pretrained='none'),
    'seg lite0': lambda: SegNet(LITE, pretrained='none'),
    'cls densenet': lambda: build_classifier('densenet161', 5, 'none'),
}


def stir(model):
    """Give batch norms statistics and scales that are not 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
            for tensor in (module.running_var, module.weight.data):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model.eval()


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize('name', BUILD)
@torch.inference_mode()
def test_the_prepared_network_computes_the_same(name):
    torch.manual_seed(0)
    model, images = stir(BUILD[name]()), torch.randn(2, 3, 96, 64)
    expected = model(images)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ready = fuse_batch_norm(model)
    if 'densenet' in name:  # whose norms come before the convolutions
        assert norms(ready) < norms(model)
    else:
        assert norms(ready) == 0
    prefer_onednn(ready)
    assert (ready(images) - expected).abs().max() <= 1e-3 * expected.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
