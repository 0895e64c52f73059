"""Bad days: each ends in one clear line, with what was saved so far intact."""

import errno
import os
import resource
import signal
import threading
import time
from contextlib import contextmanager
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from test_stages import NAMES, assert_refused, data, snapshots, stage  # noqa: F401
from test_trainer import Colours, equal, loss, train
from torch.utils.data import Dataset

from utils.data.images import BadImageError, read_image
from utils.data.lists import ImageList
from utils.data.loader import EpochSampler, TrainLoader, explain_dead_workers
from utils.engine.checkpoint import save_checkpoint
from utils.engine.distributed import any_rank
from utils.engine.interruption import Interruption
from utils.engine.transfer import Transfer
from utils.errors import InputError
from utils.outputs.events import quiet_thread
from utils.outputs.top1top5 import read_top1top5
from utils.stages.make_masks import MaskFolder

# ---------------------------------------------------------------- images that cannot be decoded


def test_a_cam_that_is_not_finite_overwrites_no_mask(tmp_path):
    cams = torch.ones(2, 4, 4)
    cams[1, 2, 2] = torch.nan
    predict = Mock(return_value=(None, cams), transfer=Transfer(torch.device('cpu')))
    images = ImageList(np.array(['a.jpg', 'b.jpg']), np.array([0, 1]), None, tmp_path)
    batch = {'image': None, 'index': torch.tensor([0, 1]), 'size': torch.tensor([[4, 4]] * 2)}
    (tmp_path / 'b.png').write_bytes(b'a good mask')
    with pytest.raises(InputError, match='not finite'):
        MaskFolder(tmp_path, images, predict).write(batch)
    assert (tmp_path / 'b.png').read_bytes() == b'a good mask'
    assert not (tmp_path / 'a.png').exists()


def photograph():
    return cv2.resize(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8), (400, 300))


@pytest.mark.parametrize('flags', [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)], ids=['base', 'progr'])
@pytest.mark.parametrize('share', [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_a_file_that_is_cut_off_is_no_image(tmp_path, suffix, share, flags):
    whole = cv2.imencode(suffix, photograph(), flags if suffix == '.jpg' else ())[1].tobytes()
    path = tmp_path / f'a{suffix}'
    path.write_bytes(whole)
    assert read_image(path).shape == (300, 400, 3)
    path.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(BadImageError, match='truncated'):
        read_image(path)


def test_a_cut_off_jpeg_with_a_whole_preview_is_no_image(tmp_path):
    """A preview in the header has an end of its own."""
    preview = cv2.imencode('.jpg', photograph()[:20, :20])[1].tobytes()
    whole = cv2.imencode('.jpg', photograph())[1].tobytes()
    header = b'\xff\xe1' + (len(preview) + 2).to_bytes(2, 'big') + preview
    path = tmp_path / 'a.jpg'
    path.write_bytes(whole[:2] + header + whole[2:])
    assert read_image(path).shape == (300, 400, 3)
    path.write_bytes((whole[:2] + header + whole[2:])[:-1000])
    with pytest.raises(BadImageError):
        read_image(path)


def test_fill_bytes_before_a_marker_are_read(tmp_path):
    """The JPEG standard allows any number of 0xFF there."""
    whole = cv2.imencode('.jpg', photograph())[1].tobytes()
    path = tmp_path / 'a.jpg'
    path.write_bytes(whole[:2] + b'\xff' * 5 + whole[2:])
    assert read_image(path).shape == (300, 400, 3)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('more', [bytes(5000), b'\xff\xda' * 9000], ids=['zeros', 'scans'])
def test_what_follows_the_end_does_no_harm(tmp_path, suffix, more):
    """Cameras put films there."""
    path = tmp_path / f'a{suffix}'
    path.write_bytes(cv2.imencode(suffix, photograph())[1].tobytes() + more)
    assert read_image(path).shape == (300, 400, 3)


def test_a_header_that_promises_too_many_pixels_is_refused(tmp_path):
    whole = bytearray(cv2.imencode('.bmp', photograph())[1].tobytes())
    whole[18:26] = (20_000).to_bytes(4, 'little') * 2
    (tmp_path / 'a.bmp').write_bytes(whole)
    with pytest.raises(BadImageError, match='pixels'):
        read_image(tmp_path / 'a.bmp')


def cut(data, name):  # noqa: F811
    path = data / 'image' / name
    path.write_bytes(path.read_bytes()[:-200])


EVERY = [(n, k) for n in ('cls', 'cam', 'seg') for k in ('train', 'test')]


@pytest.fixture
def call(stage, tmp_path):  # noqa: F811
    def run(name, kind, *arguments):
        if (name, kind) == ('cls', 'test'):
            arguments = (*arguments, '--snapshot', tmp_path / 'classifier')
            from conftest import TINY

            from network import build_classifier

            torch.save(build_classifier(TINY, 2, 'none').state_dict(), tmp_path / 'classifier')
        if (name, kind) == ('seg', 'test'):
            arguments = (*arguments, '--top1top5', 'none')
        return stage(name, kind, *arguments)

    return run


@pytest.mark.parametrize(('name', 'kind'), EVERY)
def test_the_first_bad_image_stops_the_run_by_name(call, data, name, kind):  # noqa: F811
    cut(data, NAMES[3])
    assert_refused(call(name, kind), NAMES[3], '--skip_bad')


@pytest.mark.parametrize(('name', 'kind'), EVERY)
def test_skip_bad_leaves_it_out_and_lists_it(call, data, tmp_path, name, kind):  # noqa: F811
    cut(data, NAMES[3])
    (data / 'mask' / NAMES[3]).with_suffix('.png').unlink()  # cam/test has left it out, too
    code, out, err = call(name, kind, '--skip_bad')
    assert code == 0, err
    assert (tmp_path / 'out' / 'bad_images.txt').read_text() == NAMES[3] + '\n'
    assert 'left out 1 images' in out


def test_a_skipped_image_counts_as_classified_wrongly(call, data, stage, tmp_path):  # noqa: F811
    """So that seg/test finds all images of the list, whether it skips the same ones or not."""
    cut(data, NAMES[3])
    assert call('cls', 'test', '--skip_bad')[0] == 0
    hits = read_top1top5(tmp_path / 'out' / 'top1top5.npy', NAMES)
    assert hits[NAMES[3]] == (False, False)
    code, out, err = stage('seg', 'test', '--skip_bad', '--top1top5',
                           tmp_path / 'out' / 'top1top5.npy')
    assert code == 0, err


def test_nothing_but_bad_images(call, data, tmp_path):  # noqa: F811
    for name in NAMES:
        cut(data, name)
    assert_refused(call('seg', 'test', '--skip_bad'), 'none of the images')
    assert_refused(call('cam', 'train', '--skip_bad'), 'in a row cannot be decoded')


def test_masks_that_are_there_and_whole_are_kept(call, data, tmp_path):  # noqa: F811
    masks = tmp_path / 'masks'
    arguments = ('cam', 'test', '--maskpath', masks, '--batch_size', 2)
    assert call(*arguments)[0] == 0
    paths = sorted(masks.rglob('*.png'))
    whole = [path.read_bytes() for path in paths]
    paths[0].unlink()
    paths[4].write_bytes(whole[4][:-10])
    old = {path: path.stat().st_mtime_ns for path in paths[1:]}
    code, out, err = call(*arguments, '--resume')
    assert code == 0, err
    assert [path.read_bytes() for path in paths] == whole
    kept = [path for path in old if path.stat().st_mtime_ns == old[path]]
    assert 2 <= len(kept) <= 4  # whole batches are made anew


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize('name', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_tells_how_to_go_on(tmp_path, capsys, name):
    whole = train(tmp_path / 'whole')
    steps = []

    def interrupted(model, batch):
        steps.append(1)
        if len(steps) == 5:
            os.kill(os.getpid(), name)
        return loss(model, batch)

    train(tmp_path / 'part', interrupted)
    out = capsys.readouterr().out
    assert len(steps) == 5
    assert 'stopped after step 5 of 12' in out
    assert '--resume' in out
    assert not (tmp_path / 'part' / 'model-4').exists()
    assert equal(train(tmp_path / 'part', resume='yes'), whole)


def test_signals_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert any_rank(interruption.received)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interruption.received
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize('save_every', [1, 2, 5])
def test_save_every_so_many_steps(tmp_path, save_every):
    def fail_in_step_6(model, batch, steps=[]):  # noqa: B006
        steps.append(1)
        if len(steps) == 6:
            steps.clear()
            raise InputError('a bad day')
        return loss(model, batch)

    with pytest.raises(InputError, match='a bad day'):
        train(tmp_path, fail_in_step_6, save_every=save_every)
    state = torch.load(tmp_path / 'last.ckpt', weights_only=True)
    assert state['step'] == {1: 5, 2: 4, 5: 5}[save_every]


# ---------------------------------------------------------------- memory, disk, processes, lists


def test_training_that_runs_out_of_memory(tmp_path):
    def greedy(model, batch):
        torch.empty(2**60, dtype=torch.uint8)

    with pytest.raises(InputError, match='--batch_size 4: try --batch_size 2'):
        train(tmp_path, greedy)


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
    train(tmp_path, max_steps=3)
    old = (tmp_path / 'last.ckpt').read_bytes()
    with small_disk(2000), pytest.raises(InputError, match='cannot write .*free space'):
        train(tmp_path, resume='yes')
    assert (tmp_path / 'last.ckpt').read_bytes() == old
    assert sorted(p.name for p in tmp_path.iterdir() if 'tfevents' not in p.name) == [
        'last.ckpt', 'model-1', 'model-1.json', 'results.json']


def test_a_disk_too_full_for_a_large_checkpoint(tmp_path):
    """Larger than the file's buffer: torch.save itself meets the error."""
    with small_disk(20_000), pytest.raises(InputError, match='cannot write .*free space'):
        save_checkpoint({'weight': torch.zeros(10_000)}, tmp_path / 'model-1')
    assert not list(tmp_path.iterdir())


def test_a_disk_too_full_for_events(tmp_path, monkeypatch):
    """One error; none from TensorBoard's thread."""
    reported = []
    monkeypatch.setattr(threading, 'excepthook', reported.append)
    with small_disk(20), pytest.raises(InputError, match='cannot write .*free space'):
        train(tmp_path)
    assert not reported
    assert threading.excepthook == reported.append


def test_other_threads_report_their_errors(monkeypatch):
    reported = []
    monkeypatch.setattr(threading, 'excepthook', lambda failure: reported.append(failure.exc_type))
    with quiet_thread():
        thread = threading.Thread(target=open, args=('/no/such/file',))
        thread.start()
        thread.join()
    assert reported == [FileNotFoundError]


def test_a_full_disk_ends_the_making_of_masks(call, data, tmp_path):  # noqa: F811
    with small_disk(100):
        result = call('cam', 'test', '--maskpath', tmp_path / 'masks')
    assert_refused(result, 'cannot write', 'free space')
    assert not list((tmp_path / 'masks').rglob('*.*'))


def test_temporary_files_of_killed_runs_are_removed(call, data):  # noqa: F811
    """Those that are younger than an hour may be another process's."""
    folder = data / 'mask' / '0'
    dead, living = folder / '.0.png.x1.tmp', folder / '.0.png.x2.tmp'
    for path in (dead, living):
        path.write_bytes(b'half')
    hours_ago = time.time() - 7200
    os.utime(dead, (hours_ago, hours_ago))
    assert call('cam', 'test')[0] == 0
    assert [path.exists() for path in (dead, living)] == [False, True]


class Deadly(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, key):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed():
    loader = TrainLoader(Deadly(), EpochSampler(8, 4, 0), 1, pin_memory=False)
    with pytest.raises(InputError, match='reads images was killed'), explain_dead_workers():
        next(iter(loader))


@pytest.mark.parametrize('error', [
    RuntimeError('DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that '
                 "dataloader's workers are out of shared memory."),
    RuntimeError('Caught RuntimeError in DataLoader worker process 0.\nunable to open shared '
                 'memory object </torch_7> in read-write mode: Read-only file system (30)'),
    RuntimeError('Too many open files. Communication with the workers is no longer possible.'),
    RuntimeError('received 0 items of ancdata'), OSError(errno.EMFILE, 'Too many open files'),
    OSError(errno.EROFS, 'Read-only file system')])
def test_processes_that_cannot_share_memory(error):
    with pytest.raises(InputError, match='/dev/shm.*ulimit -n.*--num_workers 0') as caught, \
            explain_dead_workers():
        raise error
    assert any(words in str(caught.value) for words in ('memory', 'open files', 'ancdata', 'Read'))


def test_other_errors_are_not_those_of_shared_memory():
    with pytest.raises(FileNotFoundError), explain_dead_workers():
        raise FileNotFoundError(errno.ENOENT, 'no such file')


def test_a_list_that_changes_under_a_resumed_run(tmp_path):
    train(tmp_path, max_steps=3)

    class Other(Colours):
        images = type(Colours.images)(Colours.images.names, 1 - Colours.images.labels, None,
                                      Colours.images.folder)

    with pytest.raises(InputError, match='with content of the list'):
        train(tmp_path, dataset=Other(), resume='yes')
