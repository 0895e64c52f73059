"""Re-export of `utils.localization.boxes`."""

from utils.localization.boxes import Box, iou, largest_box

__all__ = ['Box', 'iou', 'largest_box']
