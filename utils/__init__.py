"""Shared code: data loading, training and inference, localization, outputs."""

import os
import sys

# albumentations asks a server for its newest version when it is imported, unless this is set.
os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
# Read when PyTorch is imported. By default OpenMP's threads wait for each other by spinning: where
# another program uses a core, that makes training several times slower.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '1000')
if sys.stderr is None:  # it was closed, as by 2>&-: the next file would become file 2
    sys.stderr = open(os.devnull, 'w')  # noqa: SIM115

# Stable import paths: `utils.boxes`, `utils.metrics` and `utils.pseudo_mask` are found there.
__path__.append(os.path.join(os.path.dirname(__file__), 'localization'))
