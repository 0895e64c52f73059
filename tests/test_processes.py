"""Several processes, and processes that are killed: whole stages, as a user starts them."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from functools import cache

import cv2
import pytest
import torch
from conftest import ROOT, TINY, call_script
from forked import Forked, ForkedRanks
from test_end_to_end import copy_mini

from network import CamNet, SegNet

pytestmark = pytest.mark.end_to_end

SIZES = ('--resize', 72, '--crop', 64)


def finish(process, timeout=300):
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # with its ranks
        with suppress(subprocess.TimeoutExpired):
            process.communicate(30)
        process.kill()
        pytest.fail(f'still running after {timeout} s: {process.communicate(30)[0]}')
    return process.returncode, out


def start_torchrun(count, *command, env=None):
    """The ranks are started as torchrun does. The rendezvous of --standalone has a free port of
    its own."""
    return Forked('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', count,
                  *command, env=env)


@pytest.fixture(scope='module')
def mini(tmp_path_factory, made_once):
    """A small data set with pseudo masks to be, and networks that were never trained."""
    folder = tmp_path_factory.mktemp('processes')
    copy_mini(made_once, folder)
    torch.manual_seed(0)
    torch.save(CamNet(3, TINY, pretrained='none').state_dict(), folder / 'cam')
    torch.save(SegNet(TINY, pretrained='none').state_dict(), folder / 'seg')
    yield folder
    for process in multiprocessing.active_children():  # of a test that has failed
        process.kill()


def arguments(mini, out):
    return ('--datapath', mini / 'mini', '--clsnum', 3, '--backbone', TINY, '--savepath', out)


def training(mini, out):
    """A training script and what it needs."""
    return ROOT / 'cub200-cam' / 'train.py', *arguments(mini, out), '--pretrained', 'none'


@pytest.fixture(scope='module')
def tested(mini):
    """cam/test and seg/test by 1, 2 and 3 processes, 2 and 3 as torchrun would start them; their
    output folders."""
    folders = []
    for count in (1, 2, 3):
        out = mini / f'by-{count}'
        for stage, extra in (('cam', ('--resize', 64, '--maskpath', out / 'mask')),
                             ('seg', (*SIZES, '--top1top5', 'none', '--sweep'))):
            command = (f'cub200-{stage}/test.py', *arguments(mini, out / stage), '--snapshot',
                       mini / stage, '--batch_size', 8, *extra)
            code, said = (finish(ForkedRanks(count, ROOT / command[0], *command[1:])) if count > 1
                          else (call_script(*command), ''))
            assert code == 0, said
        folders.append(out)
    return folders


def test_masks_are_the_same_by_1_2_and_3_processes(tested):
    one, *others = [{path.relative_to(folder): path.read_bytes()
                     for path in (folder / 'mask').rglob('*.png')} for folder in tested]
    assert len(one) == 96
    assert all(other == one for other in others)


def test_figures_are_the_same_by_1_2_and_3_processes(tested):
    one, *others = [(folder / 'seg' / 'boxes.csv').read_bytes() for folder in tested]
    assert all(other == one for other in others)
    results = [json.loads((folder / 'seg' / 'results.json').read_text()) for folder in tested]
    for result in results:
        for key in ('arguments', 'versions', 'seconds', 'images_per_second'):
            del result[key]
    assert results[0] == results[1] == results[2]
    assert results[0]['count'] == 30


def twenty_steps(mini, out):
    """A wrapper and the command it runs."""
    out.mkdir()
    return (ROOT / 'tests' / 'save_weights.py', out, *training(mini, out), *SIZES,
            '--batch_size', 10, '--epoch', 3, '--max_steps', 20, '--amp', 'off')


@pytest.fixture(scope='module')
def trained(mini):
    """trained(2) -> the output folder of twenty steps by two processes."""
    @cache
    def train(count):
        out = mini / f'trained-{count}'
        code, said = finish(ForkedRanks(count, *twenty_steps(mini, out)))
        assert code == 0, said
        return out

    return train


@pytest.mark.parametrize('count', [2, 3])
def test_weights_are_the_same_in_all_processes(trained, count):
    out = trained(count)
    saved = torch.load(out / 'model-2', weights_only=True)
    first, *others = [torch.load(out / f'weights-{index}', weights_only=True)
                      for index in range(count)]
    parameters = dict(CamNet(3, TINY, pretrained='none').named_parameters())
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in parameters)
    assert all(torch.equal(first[name], saved[name]) for name in saved)
    assert json.loads((out / 'results.json').read_text())['training']['steps'] == 20
    assert_no_thread_is_left(out, count)


def assert_no_thread_is_left(out, count):
    """A thread of the process group could abort the interpreter."""
    for index in range(count):
        assert 'gloo' not in (out / f'threads-{index}').read_text()


def test_torchrun_restarts_a_run_after_a_kill(mini, trained):
    """All ranks start again, and end with the weights of the run that nothing disturbed."""
    out = mini / 'restarted'
    code, said = finish(start_torchrun(
        2, '--max-restarts', 1, *twenty_steps(mini, out), '--save_every', 1, '--resume', 'auto',
        env={'TORCH_DISABLE_SHARE_RDZV_TCP_STORE': '1', 'KILL_RANK_1_IN_STEP': '8'}))
    assert code == 0, said
    assert 'exitcode: -9' in said
    whole, *restarted = (torch.load(path, weights_only=True) for path in (
        trained(2) / 'model-2', out / 'model-2', out / 'weights-0'))
    for weights in restarted:
        assert all(torch.equal(whole[name], weights[name]) for name in whole)
    assert_no_thread_is_left(out, 2)


@pytest.fixture
def damaged_image(mini):
    """One training image is cut off for a while."""
    name = (mini / 'mini' / 'train.txt').read_text().split(',')[0]
    path = mini / 'mini' / 'image' / name
    whole, status = path.read_bytes(), path.stat()
    path.write_bytes(whole[:1000])
    yield path
    path.write_bytes(whole)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # masks remember it


def test_a_process_that_fails_ends_the_run_with_its_error(mini, damaged_image):
    code, said = finish(start_torchrun(2, *training(mini, mini / 'bad'), *SIZES, '--batch_size', 8,
                                       '--epoch', 1))
    assert code != 0
    assert f'{damaged_image.name} cannot be read as an image' in said
    assert 'Traceback' not in said.partition('torch/distributed/elastic')[0]


def wait_for(path, process, newer_than=0.0, timeout=300):
    """Until the file is there and newer; the time it was written."""
    end = time.monotonic() + timeout
    while not (path.exists() and path.stat().st_mtime > newer_than):
        assert process.poll() is None, process.communicate()[0]
        if time.monotonic() > end:
            process.terminate()
            pytest.fail(f'no {path} after {timeout} s: {process.communicate()[0]}')
        time.sleep(0.01)
    return path.stat().st_mtime


def train(mini, out, *more, **options):
    return Forked(*training(mini, out), *SIZES, '--batch_size', 8, '--epoch', 4, '--save_every', 1,
                  '--amp', 'off', '--num_workers', 0, *more, **options)


def test_five_kills_at_random_change_no_bit(mini):
    """SIGKILL whenever: while a step is computed, or a file is written."""
    undisturbed = train(mini, mini / 'whole')
    out, rng = mini / 'five', random.Random(0)
    for kill in range(5):
        written = (out / 'last.ckpt').stat().st_mtime if kill else 0.0
        run = train(mini, out, *(['--resume'] if kill else []))
        for _ in range(2):
            begin, written = time.monotonic(), wait_for(out / 'last.ckpt', run, written)
        time.sleep(rng.uniform(0, min(2 * (time.monotonic() - begin), 0.2)))  # up to two steps
        assert run.poll() is None
        run.send_signal(signal.SIGKILL)
        assert finish(run)[0] == -signal.SIGKILL
    step = torch.load(out / 'last.ckpt', weights_only=True)['step']
    assert 10 <= step < 48
    for run in (train(mini, out, '--resume'), undisturbed):
        code, said = finish(run)
        assert code == 0, said
    whole, resumed = (torch.load(folder / 'model-4', weights_only=True)
                      for folder in (mini / 'whole', out))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_a_stage_saves_and_ends_with_its_code(mini, number, code):
    """So that `train && test` does not go on. Also where its readers get the signal as well."""
    runs = {}
    for name, workers in (('alone', 0), ('group', 2)):
        out = mini / f'{name}-{code}'
        runs[out] = train(mini, out, '--epoch', 50, '--num_workers', workers,
                          start_new_session=True)
    for out, run in runs.items():
        wait_for(out / 'last.ckpt', run)
        os.killpg(run.pid, number)
    for out, run in runs.items():
        found, said = finish(run)
        assert found == code, said
        assert 'continue with the same command and --resume' in said
        assert 'Traceback' not in said
        assert torch.load(out / 'last.ckpt', weights_only=True)['step'] > 0


def test_a_signal_to_one_of_two_ranks_stops_both(mini):
    """The other one hears of it within a second or so."""
    out = mini / 'two'
    run = ForkedRanks(2, *training(mini, out), *SIZES, '--batch_size', 8, '--epoch', 50,
                      '--save_every', 1)
    wait_for(out / 'last.ckpt', run.ranks[0])
    run.ranks[1].send_signal(signal.SIGTERM)
    code, said = finish(run)
    assert [rank.returncode for rank in run.ranks] == [143, 143], said
    assert said.count('continue with the same command and --resume') == 1
    assert 'Traceback' not in said


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130),
                                              (signal.SIGKILL, -signal.SIGKILL)])
@pytest.mark.parametrize('processes', ['', '1'], ids=['threads', 'processes'])
def test_a_signal_to_a_test_ends_it_with_its_processes(mini, number, code, processes):
    """SIGKILL to the first process alone, the others to all of them."""
    out = mini / f'masks-{code}-{processes}'
    run = Forked(ROOT / 'tests' / 'save_weights.py', mini, *making_masks(mini, out),
                 env={'BY_PROCESSES': processes}, start_new_session=True)
    wait_for_masks(out, run)
    (os.kill if number == signal.SIGKILL else os.killpg)(run.pid, number)
    found, said = finish(run)
    assert found == code, said
    assert number == signal.SIGKILL or 'Traceback' not in said
    assert_no_process_is_left(run)


def assert_no_process_is_left(run, seconds=30):
    """Of the session that the process began."""
    end = time.monotonic() + seconds
    while left := subprocess.run(['pgrep', '-s', str(run.pid), '-a'], capture_output=True,
                                 text=True, check=False).stdout:
        if time.monotonic() > end:
            subprocess.run(['pkill', '-KILL', '-s', str(run.pid)], check=False)
            pytest.fail(f'left: {left}')
        time.sleep(0.05)


def making_masks(mini, out):
    return (ROOT / 'cub200-cam' / 'test.py', *arguments(mini, out), '--snapshot', mini / 'cam',
            '--batch_size', 4, '--resize', 64, '--maskpath', out / 'mask', '--show', 0)


def wait_for_masks(out, run):
    while not list((out / 'mask').rglob('[!.]*.png')):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.005)


def test_masks_continue_after_a_kill(mini, tested):
    out = mini / 'masks-killed'
    run = Forked(*making_masks(mini, out))
    wait_for_masks(out, run)
    run.kill()
    finish(run)
    for path in (out / 'mask').rglob('[!.]*.png'):
        assert cv2.imread(str(path)) is not None
    code, said = finish(Forked(*making_masks(mini, out), '--resume'))
    assert code == 0, said
    for path in (tested[0] / 'mask').rglob('*.png'):
        other = out / 'mask' / path.relative_to(tested[0] / 'mask')
        assert other.read_bytes() == path.read_bytes()
