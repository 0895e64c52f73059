"""Stable import path; the code is in `utils/localization/pseudo_mask.py`."""

from utils.localization.pseudo_mask import pseudo_mask, seg_target

__all__ = ['pseudo_mask', 'seg_target']
