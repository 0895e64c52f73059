"""Inference over a list: parts, threads, order, images that are left out."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.data.images import BadImageError
from utils.data.lists import ImageList
from utils.engine.inference import Inference, InferenceOptions
from utils.errors import InputError
from utils.outputs.bad_images import BadImages

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


def inference(batch_size=4, device=CPU, num_workers=2, **options):
    return Inference(device, InferenceOptions(batch_size=batch_size, num_workers=num_workers,
                                              **options))


def test_batches_are_cut_into_parts_on_the_cpu_only():
    assert inference(10).parts(17) == [range(0, 4), range(4, 8), range(8, 10), range(10, 14),
                                       range(14, 17)]
    assert inference(10, CUDA).parts(17) == [range(10), range(10, 17)]


@pytest.mark.parametrize('count', [1, 2, 3, 7])
def test_ranks_share_whole_batches_every_image_once(count):
    alone = inference(20).parts(103)
    shared = [part for rank in range(count) for part in inference(20).parts(103, rank, count)]
    assert sorted(shared, key=lambda part: part.start) == alone
    assert sorted(index for part in shared for index in part) == list(range(103))


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

    assert list(inference(16).in_parts(double, iter(range(count)))) == list(range(0, 2 * count, 2))
    assert found == sizes


def test_a_single_item_has_all_cores():
    before = torch.get_num_threads()
    assert list(inference(16).in_parts(lambda _: [torch.get_num_threads()], [0])) == [before]


def test_few_of_many_items_are_held():
    taken = []

    def items():
        for number in range(10**6):
            taken.append(number)
            yield number

    results = inference(16).in_parts(lambda part: part, items())
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


def test_bad_images_are_left_out_and_listed_where_that_is_wanted(bad):
    results = list(inference(skip_bad=True).map(Numbers(), lambda b: b['index'].tolist(),
                                                'counting', bad))
    assert results == [[0, 1, 2], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 18, 19]]
    bad.write([bad.names])
    assert bad.path.read_text() == '17\n3\n'
    assert '2 images' in bad.summary()


def test_else_the_first_bad_image_ends_the_work(bad):
    with pytest.raises(BadImageError, match='3 cannot'):
        list(inference().map(Numbers(), lambda batch: None, 'counting', bad))
    assert not bad.names


def test_parts_that_are_done_are_not_computed(bad):
    results = list(inference(skip_bad=True).map(
        Numbers(), lambda batch: 'new', 'counting', bad,
        lambda part: 'old' if part.start == 8 else None))
    assert results == ['new', 'new', 'old', 'new', 'new']
