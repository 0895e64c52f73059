"""Shared code: data loading, training and inference, localization, outputs."""

import os

# albumentations asks a server for its newest version when it is imported, unless this is set.
os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')

# Stable import paths: `utils.boxes`, `utils.metrics` and `utils.pseudo_mask` are found there.
__path__.append(os.path.join(os.path.dirname(__file__), 'localization'))
