"""The way of images through a test: parts, threads, order, what is left out."""

import threading
from argparse import Namespace

import numpy as np
import pytest
import torch

from utils.data.images import BadImageError
from utils.data.lists import ImageList, PackedNames
from utils.engine import inference as testing
from utils.engine.inference import in_threads, my_parts, process
from utils.errors import InputError
from utils.outputs.bad_images import BadImages

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


@pytest.fixture
def processes(monkeypatch):
    """processes(index, count): be one of several."""
    def be(index, count):
        monkeypatch.setattr(testing, 'process_index', lambda: index)
        monkeypatch.setattr(testing, 'process_count', lambda: count)

    return be


def test_batches_are_cut_into_parts_on_the_cpu_alone():
    assert my_parts(70, 40, CPU) == [range(0, 16), range(16, 32), range(32, 40), range(40, 56),
                                     range(56, 70)]
    assert my_parts(70, 40, CUDA) == [range(40), range(40, 70)]


@pytest.mark.parametrize('count', [1, 2, 3, 7])
def test_processes_share_whole_batches_every_image_once(processes, count):
    processes(0, 1)
    alone = my_parts(103, 20, CPU)
    shared = []
    for index in range(count):
        processes(index, count)
        shared += my_parts(103, 20, CPU)
    assert sorted(shared, key=lambda part: part.start) == alone
    assert sorted(index for part in shared for index in part) == list(range(103))


@pytest.mark.parametrize('threads', [1, 3])
def test_results_come_in_order_from_threads_that_use_one_core(threads):
    def work(number):
        assert threading.current_thread() is not threading.main_thread()
        return number, torch.get_num_threads()

    before = torch.get_num_threads()
    assert list(in_threads(work, range(20), threads, single=True)) == [(n, 1) for n in range(20)]
    assert torch.get_num_threads() == before


def test_an_error_ends_the_work_and_arrives():
    done = []

    def work(number):
        if number == 5:
            raise InputError('five')
        done.append(number)

    with pytest.raises(InputError, match='five'):
        list(in_threads(work, range(1000), 2, single=True))
    assert len(done) < 20


class Numbers:
    """Twenty images, of which 3 and 17 are bad."""

    images = ImageList(PackedNames(map(str, range(20))), np.zeros(20, np.int64), None)

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index in (3, 17):
            raise BadImageError(f'{index} cannot be read')
        return {'index': index}


def arguments(folder, **changes):
    return Namespace(**{**dict(device='cpu', batch_size=4, num_workers=2, savepath=folder,
                               mode='test', skip_bad=True), **changes})


def test_bad_images_are_left_out_and_listed_where_that_is_wanted(tmp_path):
    args = arguments(tmp_path)
    bad = BadImages(args, Numbers.images)
    results = list(process(Numbers(), args, 'counting', lambda b: b['index'].tolist(), bad))
    bad.write()
    assert results == [[0, 1, 2], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 18, 19]]
    assert (tmp_path / 'bad_images.txt').read_text() == '17\n3\n'
    assert '2 images' in bad.mention()


def test_else_the_first_bad_image_ends_the_work(tmp_path):
    args = arguments(tmp_path, skip_bad=False)
    bad = BadImages(args, Numbers.images)
    with pytest.raises(BadImageError, match='3 cannot'):
        list(process(Numbers(), args, 'counting', lambda batch: None, bad))
    bad.write()
    assert not list(tmp_path.iterdir())


def test_parts_that_are_done_are_not_worked_on(tmp_path):
    args = arguments(tmp_path)
    results = list(process(Numbers(), args, 'counting', lambda batch: 'new',
                           BadImages(args, Numbers.images),
                           lambda part: 'old' if part.start == 8 else None))
    assert results == ['new', 'new', 'old', 'new', 'new']
