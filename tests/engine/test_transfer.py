"""Copies between host and device; those of CUDA are tested in test_gpu.py."""

import torch

from utils.engine.transfer import Transfer

CPU = torch.device('cpu')


def test_on_the_cpu_nothing_is_copied():
    transfer, tensor = Transfer(CPU), torch.arange(6.0)
    for there in (transfer.pin(tensor), transfer.upload(tensor), transfer.download(tensor)):
        assert there is tensor
