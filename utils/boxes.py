"""Stable import path; the code is in `utils/localization/boxes.py`."""

from utils.localization.boxes import Box, iou, largest_box

__all__ = ['Box', 'iou', 'largest_box']
