"""Copies between host and device; those of CUDA are tested in test_gpu.py."""

import torch

from utils.engine.transfer import Transfer, uploaded_ahead

CPU = torch.device('cpu')


def test_on_the_cpu_nothing_is_copied():
    transfer, tensor = Transfer(CPU), torch.arange(6.0)
    for there in (transfer.pin(tensor), transfer.upload(tensor), transfer.download(tensor)):
        assert there is tensor


def read_and_used(transfer):
    """What happens to three batches, in order."""
    events = []

    def batches():
        for number in range(3):
            events.append(f'read {number}')
            yield {'image': torch.tensor(number)}

    for batch in uploaded_ahead(batches(), transfer):
        events.append(f'use {batch["image"].item()}')
    return events


def test_a_batch_is_uploaded_while_the_one_before_is_computed():
    class Elsewhere(Transfer):
        def __init__(self):
            self.device = torch.device('cuda')

        def upload(self, tensor):
            return tensor

    assert read_and_used(Transfer(CPU)) == ['read 0', 'use 0', 'read 1', 'use 1', 'read 2', 'use 2']
    assert read_and_used(Elsewhere()) == ['read 0', 'read 1', 'use 0', 'read 2', 'use 1', 'use 2']
