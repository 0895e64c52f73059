"""Re-export of `utils.localization.metrics`."""

from utils.localization.metrics import MaxBoxAcc, PxAP

__all__ = ['MaxBoxAcc', 'PxAP']
