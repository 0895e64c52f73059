"""Scripts in processes of their own that start at once: each is forked from a process that has
imported PyTorch and the other large packages, which takes seconds of CPU time, and no more."""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from torch.distributed import TCPStore

CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(['albumentations', 'matplotlib.pyplot', 'timm', 'torchvision',
                                'torch.distributed.nn', 'torch.utils.tensorboard'])


class Forked:
    """A script that runs in a folder that is not the project's; as subprocess.Popen, its output
    and errors in one text."""

    def __init__(self, *command, env=None, start_new_session=False):
        self.log = tempfile.NamedTemporaryFile('r', errors='replace')  # noqa: SIM115
        self.process = CONTEXT.Process(target=run_script, args=(
            [*map(str, command)], {**os.environ, **(env or {})}, self.log.name, start_new_session))
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self):
        return self.process.exitcode

    poll = returncode.fget

    def communicate(self, timeout=None):
        self.process.join(timeout)
        if self.process.is_alive():
            raise subprocess.TimeoutExpired(self.process.name, timeout)
        return Path(self.log.name).read_text(errors='replace'), None

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.process.kill()

    def terminate(self):
        self.process.terminate()


def run_script(command, env, log, new_session):
    """In the new process: `python COMMAND`, where COMMAND may begin with -m."""
    if new_session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(log, 'wb') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(tempfile.gettempdir())
    multiprocessing.set_start_method(None, force=True)  # the default, as in a new interpreter
    try:
        if command[0] == '-m':
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name='__main__', alter_sys=True)
        else:
            sys.argv = command
            sys.path.insert(0, str(Path(command[0]).parent))
            runpy.run_path(command[0], run_name='__main__')
    finally:
        atexit._run_exitfuncs()  # a process of multiprocessing would end without


class ForkedRanks:
    """`torchrun --nproc_per_node COUNT COMMAND` without its launcher: the ranks have its
    environment, and meet in this process."""

    def __init__(self, count, *command):
        self.store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
        common = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': self.store.port, 'WORLD_SIZE': count,
                  'LOCAL_WORLD_SIZE': count, 'TORCHELASTIC_RUN_ID': 'forked',
                  'TORCHELASTIC_USE_AGENT_STORE': True, 'TORCHELASTIC_RESTART_COUNT': 0,
                  'TORCHELASTIC_MAX_RESTARTS': 0}
        self.ranks = [Forked(*command, env={name: str(value) for name, value in {
            **common, 'RANK': rank, 'LOCAL_RANK': rank}.items()}) for rank in range(count)]

    @property
    def returncode(self):
        """0, or that of a rank that failed."""
        return next((rank.returncode for rank in self.ranks if rank.returncode), 0)

    def communicate(self, timeout=None):
        return ''.join(rank.communicate(timeout)[0] for rank in self.ranks), None

    def terminate(self):
        for rank in self.ranks:
            rank.terminate()

    def kill(self):
        for rank in self.ranks:
            rank.kill()
