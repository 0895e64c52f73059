"""Shared code: data loading, training and inference, localization, outputs."""

import os

# albumentations asks a server for its newest version when it is imported, unless this is set.
os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
