"""Bad days: each ends in one clear line, with what was saved so far intact."""

import os
import resource
import signal
from contextlib import contextmanager

import pytest
import torch
from conftest import TRAIN_NAMES, refused
from test_training import Colours, files, loss, run

from utils import errors
from utils.errors import InputError


@contextmanager
def small_disk(size):
    """Within it, no file may become larger than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:  # soon: pytest's own output may be a file
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_state_whole(tmp_path):
    run(tmp_path, max_steps=3)
    old = (tmp_path / 'last.ckpt').read_bytes()
    with small_disk(2000), pytest.raises(InputError, match='cannot write .*free space'):
        run(tmp_path, resume='yes')
    assert (tmp_path / 'last.ckpt').read_bytes() == old
    assert set(files(tmp_path)) - {'training.lock'} == {'last.ckpt', 'model-1', 'model-1.json',
                                                        'results.json'}


@pytest.mark.parametrize('flags', [(), ('--resume',)])
def test_a_full_disk_ends_the_making_of_masks(stage, project, flags):
    paths = [(project / 'data' / 'mask' / name).with_suffix('.png') for name in TRAIN_NAMES]
    before = [path.read_bytes() for path in paths]
    with small_disk(400):
        result = stage('cam', 'test', *flags)
    refused(result, 'cannot write', 'free space')
    assert [path.read_bytes() for path in paths] == before
    assert not list((project / 'data' / 'mask').rglob('.*'))


class Deadly(Colours):
    def __getitem__(self, key):
        os.kill(os.getpid(), signal.SIGKILL)


class Large(Colours):
    def __getitem__(self, key):
        raise MemoryError


def greedy(model, batch):
    torch.empty(2**60, dtype=torch.uint8)


def faulty(model, batch):
    raise RuntimeError('a fault of ours')


@pytest.mark.parametrize(('changes', 'said'), [
    ({'dataset': Deadly(), 'num_workers': 1}, 'a process has ended'),
    ({'dataset': Large(), 'num_workers': 1}, 'out of memory'),
    ({'dataset': Large()}, 'try a smaller --batch_size'),
    ({'loss': greedy}, 'try a smaller --batch_size'), ({'loss': faulty}, None)])
def test_errors_of_libraries_end_in_one_line_and_ours_keep_their_traceback(tmp_path, capsys,
                                                                           changes, said):
    def main():
        run(tmp_path, **{'loss': loss, **changes})

    if said is None:
        with pytest.raises(RuntimeError, match='a fault of ours'):
            errors.run(main)
        return
    with pytest.raises(SystemExit) as end:
        errors.run(main)
    assert end.value.code == 2
    line, = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error:')]
    assert said in line


@pytest.mark.parametrize('text', [
    'CUDA out of memory. Tried to allocate 2 GiB',
    'OpenCV(4.11) error: (-4:Insufficient memory) Failed to allocate 900000000 bytes',
    "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
    'workers are out of shared memory.', 'unable to open shared memory object </torch_7>',
    '[gloo] Connection closed by peer', 'NCCL communicator was aborted'])
def test_what_to_do_is_said_in_all_their_words(text):
    assert errors._message(RuntimeError(f'{text}\nmore')).startswith(text)
    assert errors._message(RuntimeError('shapes differ')) is None
