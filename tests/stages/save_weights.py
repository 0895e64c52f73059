"""Run a stage's script as it is, then save the weights of every process.

    torchrun ... tests/stages/save_weights.py FOLDER SCRIPT ARGUMENTS
"""

import runpy
import sys
from pathlib import Path

import torch

folder, script = Path(sys.argv[1]), sys.argv[2]
sys.argv = sys.argv[2:]
sys.path.insert(0, str(Path(script).resolve().parents[1]))

from utils.engine.distributed import rank  # noqa: E402
from utils.engine.trainer import Trainer  # noqa: E402

run = Trainer.run


def run_and_save(self):
    run(self)
    torch.save(self.model.state_dict(), folder / f'weights-{rank()}')


Trainer.run = run_and_save
runpy.run_path(script, run_name='__main__')
