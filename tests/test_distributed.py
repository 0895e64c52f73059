"""The environment of several processes. Their runs are tested in test_processes.py."""

import pytest
import torch
import torch.distributed as dist
from conftest import complaint

from utils.distributed import (
    environment_size,
    gather_to_main,
    init_process_group,
    local_rank,
    local_world_size,
    of_all_ranks,
    rank,
    world_size,
)

CPU = torch.device('cpu')
NAMES = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'SLURM_LOCALID', 'MASTER_ADDR',
         'MASTER_PORT', 'TORCHELASTIC_MAX_RESTARTS', 'TORCHELASTIC_USE_AGENT_STORE')
FOUR = {'RANK': '3', 'WORLD_SIZE': '4'}


@pytest.fixture
def environment(monkeypatch):
    """environment(RANK='0') -> the variables of a launcher are these."""
    def change(**variables):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


@pytest.mark.parametrize('variables', [
    {}, {'WORLD_SIZE': ''}, {'WORLD_SIZE': '1'}, {'WORLD_SIZE': '1', 'RANK': '0'},
    {'WORLD_SIZE': '', 'RANK': '', 'LOCAL_RANK': ''}])
def test_a_process_is_alone_unless_the_environment_names_others(environment, variables):
    environment(**variables)
    init_process_group(CPU, test=False)
    assert not dist.is_initialized()
    assert (environment_size(), rank(), world_size(), local_rank()) == (1, 0, 1, 0)
    assert gather_to_main('mine') == of_all_ranks('mine') == ['mine']


@pytest.mark.parametrize(('variables', 'said'), [
    (FOUR, 'WORLD_SIZE is 4, but MASTER_ADDR, MASTER_PORT'),
    ({'WORLD_SIZE': '4'}, 'RANK, MASTER_ADDR, MASTER_PORT'),
    ({**FOUR, 'MASTER_ADDR': 'host'}, 'but MASTER_PORT'),
    ({'WORLD_SIZE': 'four'}, "WORLD_SIZE is 'four'"), ({'WORLD_SIZE': '0'}, "WORLD_SIZE is '0'"),
    ({**FOUR, 'MASTER_ADDR': 'host', 'MASTER_PORT': '1', 'TORCHELASTIC_MAX_RESTARTS': '1',
      'TORCHELASTIC_USE_AGENT_STORE': 'True'}, 'TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1')])
def test_an_environment_that_cannot_work_is_refused(environment, variables, said):
    """Each process of a cluster would train alone, and write the same files."""
    environment(**variables)
    assert said in complaint(init_process_group, CPU, test=False)
    assert not dist.is_initialized()


@pytest.mark.parametrize(('variables', 'expected'), [
    ({**FOUR, 'LOCAL_RANK': '1', 'LOCAL_WORLD_SIZE': '2'}, (1, 2)),
    ({**FOUR, 'SLURM_LOCALID': '2'}, (2, 4)), (FOUR, (3, 4)), ({'RANK': '3'}, (0, 1))])
def test_the_place_on_this_machine(environment, variables, expected):
    environment(**variables)
    assert (local_rank(), local_world_size()) == expected
