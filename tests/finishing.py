"""What test_inference.py does with the outputs of a batch. A module of its own, since the processes
that finish batches import it."""

import os


def describe(batch, outputs):
    return batch['index'].tolist(), batch['label'].tolist(), batch['size'].tolist(), outputs


def fail(batch, outputs, error):
    if 9 in batch['index']:
        raise error
    return describe(batch, outputs)


def die(batch, outputs):
    os._exit(1)
