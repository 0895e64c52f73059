"""Stable import path; the code is in `utils/localization/metrics.py`."""

from utils.localization.metrics import MaxBoxAcc, PxAP

__all__ = ['MaxBoxAcc', 'PxAP']
