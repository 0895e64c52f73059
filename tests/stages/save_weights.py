"""Run a stage's script as it is, then save the weights of every process, and the names of the
threads that are left at its end.

    torchrun ... tests/stages/save_weights.py FOLDER SCRIPT ARGUMENTS

With KILL_RANK_1_IN_STEP=8, rank 1 is killed in that step, unless torchrun has restarted it.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

import torch

folder, script = Path(sys.argv[1]), sys.argv[2]
sys.argv = sys.argv[2:]
sys.path.insert(0, str(Path(script).resolve().parents[1]))

from utils.engine.distributed import rank  # noqa: E402
from utils.engine.trainer import Trainer  # noqa: E402

run, step = Trainer.run, Trainer.train_step
steps_left = int(os.environ.get('KILL_RANK_1_IN_STEP', 0))


def run_and_save(self):
    run(self)
    torch.save(self.model.state_dict(), folder / f'weights-{rank()}')


def step_or_die(self, batch, size):
    global steps_left
    steps_left -= 1
    if not steps_left:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, size)


Trainer.run = run_and_save
if steps_left and os.environ['RANK'] == '1' and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':
    Trainer.train_step = step_or_die
runpy.run_path(script, run_name='__main__')
threads = [path.read_text() for path in Path('/proc/self/task').glob('*/comm')]
(folder / f'threads-{os.environ["RANK"]}').write_text(''.join(threads))
