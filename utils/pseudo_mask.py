"""Re-export of `utils.localization.pseudo_mask`."""

from utils.localization.pseudo_mask import pseudo_mask, seg_target

__all__ = ['pseudo_mask', 'seg_target']
