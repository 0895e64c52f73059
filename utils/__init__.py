"""Shared code of the stages: what is read, trained, evaluated and written. One file a subject."""

import os

# albumentations asks a server for its newest version when it is imported, unless this is set.
os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
# Read when PyTorch is imported. By default OpenMP's threads wait for each other by spinning: where
# another program uses a core, that makes training several times slower.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '1000')
