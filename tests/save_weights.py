"""Run a stage's script as it is, then save the weights of every process, and the names of the
threads that are left at its end.

    torchrun ... tests/save_weights.py FOLDER SCRIPT ARGUMENTS

With KILL_RANK_1_IN_STEP=8, rank 1 is killed in that step, unless torchrun has restarted it. With
BY_PROCESSES=1, lists are read and finished by processes, as on CUDA.
"""

import os
import runpy
import signal
import sys
from functools import partialmethod
from pathlib import Path

import torch

folder, script = Path(sys.argv[1]), sys.argv[2]
sys.argv = sys.argv[2:]
sys.path.insert(0, str(Path(script).resolve().parents[1]))

from utils import training  # noqa: E402
from utils.distributed import rank  # noqa: E402
from utils.inference import ListInference  # noqa: E402

train, step = training.train, training.Sgd.step
steps_left = int(os.environ.get('KILL_RANK_1_IN_STEP', 0))


def train_and_save(model, *arguments, **named):
    train(model, *arguments, **named)
    torch.save(model.state_dict(), folder / f'weights-{rank()}')


def step_or_die(self, loss):
    global steps_left
    steps_left -= 1
    if not steps_left:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, loss)


if __name__ == '__main__':
    training.train = train_and_save
    if steps_left and os.environ['RANK'] == '1' and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':
        training.Sgd.step = step_or_die
    if os.environ.get('BY_PROCESSES'):
        ListInference.__init__ = partialmethod(ListInference.__init__, processes=True)
    runpy.run_path(script, run_name='__main__')
    threads = [path.read_text() for path in Path('/proc/self/task').glob('*/comm')]
    (folder / f'threads-{os.environ.get("RANK", 0)}').write_text(''.join(threads))
