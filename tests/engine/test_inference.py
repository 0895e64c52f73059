"""Inference over a list: parts, threads, order, images that are left out."""

import os
import signal
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from utils.data.datasets import EvalImages
from utils.data.images import BadImageError
from utils.data.lists import ImageList
from utils.engine import inference as inference_module
from utils.engine.inference import Inference, InferenceOptions
from utils.engine.interruption import Interruption
from utils.errors import InputError
from utils.localization.boxes import CentreCrop
from utils.outputs.bad_images import BadImages

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


def inference(batch_size=4, device=CPU, num_workers=2, pipelined=None, **options):
    return Inference(device, InferenceOptions(batch_size=batch_size, num_workers=num_workers,
                                              **options), pipelined)


both_ways = pytest.mark.parametrize('pipelined', [False, True])


def test_batches_are_cut_into_chunks_on_the_cpu_only():
    assert inference(10).chunks(17) == [range(0, 4), range(4, 8), range(8, 10), range(10, 14),
                                       range(14, 17)]
    assert inference(10, CUDA).chunks(17) == [range(10), range(10, 17)]


@pytest.mark.parametrize('count', [1, 2, 3, 7])
def test_ranks_share_whole_batches_every_image_once(count):
    alone = inference(20).chunks(103)
    shared = [chunk for rank in range(count) for chunk in inference(20).chunks(103, rank, count)]
    assert sorted(shared, key=lambda chunk: chunk.start) == alone
    assert sorted(index for chunk in shared for index in chunk) == list(range(103))


@pytest.mark.parametrize('threads', [1, 3])
def test_results_come_in_order_from_threads_that_use_one_core(threads):
    def work(number):
        assert threading.current_thread() is not threading.main_thread()
        return number, torch.get_num_threads()

    before = torch.get_num_threads()
    results = inference(num_workers=threads).in_threads(work, range(20))
    assert list(results) == [(n, 1) for n in range(20)]
    assert torch.get_num_threads() == before


def test_threads_work_on_the_gpu_of_their_process(monkeypatch):
    """A new thread's current device is the first GPU, whatever that of the main thread is."""
    chosen = threading.local()
    monkeypatch.setattr(torch.cuda, 'set_device', lambda device: setattr(chosen, 'device', device))
    second = torch.device('cuda', 1)
    results = inference(device=second).in_threads(lambda _: chosen.device, range(20))
    assert set(results) == {second}


@pytest.mark.parametrize(('count', 'sizes'), [
    (0, {0}), (1, {1}), (2, {1}), (5, {3, 2}), (7, {4, 3}), (32, {4}), (33, {4, 1})])
def test_parts_of_any_items_are_shared_among_the_threads(count, sizes):
    found = set()

    def double(part):
        found.add(len(part))
        return (2 * number for number in part)

    assert list(inference(16).in_chunks(double, iter(range(count)))) == list(range(0, 2 * count, 2))
    assert found == sizes


def test_a_single_item_has_all_cores():
    before = torch.get_num_threads()
    assert list(inference(16).in_chunks(lambda _: [torch.get_num_threads()], [0])) == [before]


def test_few_of_many_items_are_held():
    taken = []

    def items():
        for number in range(10**6):
            taken.append(number)
            yield number

    results = inference(16).in_chunks(lambda chunk: chunk, items())
    assert [next(results) for _ in range(40)] == list(range(40))
    assert len(taken) < 16 * 10
    results.close()


def test_an_error_ends_the_work_and_is_raised():
    done = []

    def work(number):
        if number == 5:
            raise InputError('five')
        done.append(number)

    with pytest.raises(InputError, match='five'):
        list(inference().in_threads(work, range(1000)))
    assert len(done) < 20


def test_the_first_part_is_alone_where_it_compiles():
    running, most = [], []

    def work(number):
        running.append(number)
        most.append((number, len(running)))
        running.remove(number)

    list(inference(compile=True).in_threads(work, range(20)))
    assert most[0] == (0, 1)


class Numbers:
    """Twenty images, of which 3 and 17 are bad."""

    images = ImageList(np.array(list(map(str, range(20)))), np.zeros(20, np.int64), None, Path())

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index in (3, 17):
            raise BadImageError(f'{index} cannot be read')
        return {'index': index}


@pytest.fixture
def bad(tmp_path):
    return BadImages(Numbers.images, tmp_path / 'bad_images.txt')


@both_ways
def test_bad_images_are_left_out_and_listed_where_that_is_wanted(bad, pipelined):
    results = list(inference(skip_bad=True, pipelined=pipelined).map(
        Numbers(), lambda b: b['index'].tolist(), 'counting', bad))
    assert results == [[0, 1, 2], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 18, 19]]
    bad.write([bad.names])
    assert bad.path.read_text() == '17\n3\n'
    assert '2 images' in bad.summary()


@both_ways
def test_else_the_first_bad_image_ends_the_work(bad, pipelined):
    with pytest.raises(BadImageError, match='3 cannot'):
        list(inference(pipelined=pipelined).map(Numbers(), lambda batch: None, 'counting', bad))
    assert not bad.names


@both_ways
def test_parts_that_are_done_are_not_computed(bad, pipelined):
    results = list(inference(skip_bad=True, pipelined=pipelined).map(
        Numbers(), lambda batch: 'new', 'counting', bad,
        lambda part: 'old' if part.start == 8 else None))
    assert results == ['new', 'new', 'old', 'new', 'new']


# ---------------------------------------------------------------- the pipeline of CUDA, on the CPU


class Net(nn.Module):
    """A convolution of the image, or an error in the call `fails`."""

    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    fails, threads = None, ()

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, images):
        if self.threads is not None:
            Net.threads = (*Net.threads, threading.current_thread())
        if self.fails and len(images) == self.fails:
            raise RuntimeError('the network failed')
        return self.conv(images)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Thirty images of three sizes, the last part of two images."""
    monkeypatch.setattr(Net, 'threads', ())
    rng = np.random.default_rng(0)
    names = [f'{number}.png' for number in range(30)]
    for number, name in enumerate(names):
        size = [(20, 30), (33, 21), (24, 24)][number % 3]
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (*size, 3), np.uint8))
    return ImageList(np.array(names), np.zeros(30, np.int64), None, tmp_path)


def outputs(images, pipelined, tmp_path, after=lambda batch, maps: maps, model=None, **options):
    """The network's maps of all images, in the order of the list."""
    runner = inference(pipelined=pipelined, **options)
    predict = runner.predictor(model or Net())
    bad = BadImages(images, tmp_path / 'bad_images.txt')
    data = EvalImages(images, image=CentreCrop(24, 16), whole=CentreCrop(18))

    def function(batch):
        maps = predict.transfer.download(predict(batch['image']))
        return after(batch, (batch['index'].tolist(), batch['size'].tolist(), maps,
                             batch['whole']))

    return list(runner.map(data, function, 'testing', bad))


def test_a_pipeline_gives_what_threads_give(pictures, tmp_path):
    expected, found = (outputs(pictures, pipelined, tmp_path) for pipelined in (False, True))
    assert [part[:2] for part in found] == [part[:2] for part in expected]
    assert sum((part[0] for part in found), []) == list(range(30))
    for part, wanted in zip(found, expected, strict=True):
        for tensor, other in zip(part[2:], wanted[2:], strict=True):
            torch.testing.assert_close(tensor, other, rtol=0, atol=2e-5)


def test_images_that_are_too_large_to_upload_are_resized_by_their_reader(pictures, tmp_path,
                                                                         monkeypatch):
    """Then byte for byte as by threads; the middle size has 3 * 33 * 21 bytes."""
    expected = outputs(pictures, False, tmp_path)
    monkeypatch.setattr(inference_module, 'MOST_BYTES', 4 * 2000)
    for part, wanted in zip(outputs(pictures, True, tmp_path), expected, strict=True):
        assert torch.equal(part[2], wanted[2])


def test_one_thread_runs_all_networks_of_a_pipeline(pictures, tmp_path):
    outputs(pictures, True, tmp_path)
    before = len(Net.threads)
    outputs(pictures, True, tmp_path, num_workers=1)
    for calls in (Net.threads[2:before], Net.threads[before + 2:]):  # two prepare the network
        assert len(set(calls)) == 1
        assert calls[0] is not threading.main_thread()


def test_two_networks_share_the_thread():
    runner = inference(pipelined=True)
    first, second = runner.predictor(Net()), runner.predictor(Net())
    Net.threads = ()
    first(torch.rand(1, 8, 8, 3)), second(torch.rand(1, 8, 8, 3))
    assert len(Net.threads) == 2
    assert len(set(Net.threads)) == 1


def test_an_error_of_each_stage_is_raised_and_ends_the_pipeline(pictures, tmp_path):
    def fail(batch, maps):
        raise InputError(f'cannot write {batch["index"][0]}')

    with pytest.raises(InputError, match='cannot write 0'):
        outputs(pictures, True, tmp_path, fail)
    model = Net()
    model.fails = 2  # the last part
    with pytest.raises(RuntimeError, match='the network failed'):
        outputs(pictures, True, tmp_path, model=model)
    (tmp_path / '13.png').write_bytes(b'no image')
    with pytest.raises(BadImageError, match='13.png'):
        outputs(pictures, True, tmp_path)
    (tmp_path / '13.png').unlink()
    with pytest.raises(InputError, match='no image at .*13.png'):
        outputs(pictures, True, tmp_path)


def test_a_reader_that_dies_ends_the_pipeline(bad):
    """Whatever ends a reader's work, as SystemExit, arrives in the main thread."""
    class Deadly(Numbers):
        def __getitem__(self, index):
            raise SystemExit(3)

    with pytest.raises(SystemExit, match='3'):
        list(inference(pipelined=True).map(Deadly(), lambda batch: 1, 'dying', bad))


def test_a_pipeline_reads_little_ahead_and_stops_when_it_is_interrupted(bad):
    read, computed = [], []

    class Many(Numbers):
        def __len__(self):
            return 10_000

        def __getitem__(self, index):
            read.append(index)
            return {'index': index}

    def compute(batch):
        computed.append(batch)
        if len(computed) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return len(batch['index'])

    with Interruption() as interruption:
        results = inference(pipelined=True).map(Many(), compute, 'interrupted', bad)
        counts = 0
        for count in results:
            counts += count
            if interruption.received:
                break
        results.close()
    assert interruption.received
    assert counts < 100
    assert len(read) < 200


@both_ways
def test_memory_that_runs_out_while_reading_or_computing_is_named(bad, pipelined):
    class Large(Numbers):
        def __getitem__(self, index):
            raise cv2.error('(-4:Insufficient memory) Failed to allocate 9 bytes')

    def large(batch):
        raise MemoryError

    for data, function in ((Large(), len), (Numbers(), large)):
        with pytest.raises(InputError, match='out of memory at --batch_size 4'):
            list(inference(pipelined=pipelined, skip_bad=True).map(data, function, 'filling', bad))
