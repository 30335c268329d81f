"""The cross-correlation matrix as bytes, for pictures and records."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def to_bytes(c: np.ndarray | Tensor) -> np.ndarray:
    """Correlations as uint8: 0 is −1, 127 is 0, 254 is 1. What leaves [−1, 1] is cut off."""
    return np.rint(np.clip(np.asarray(c, dtype=np.float64), -1, 1) * 127 + 127).astype(np.uint8)


def from_bytes(values: np.ndarray) -> np.ndarray:
    """The inverse of ``to_bytes``, float32, within 1/254."""
    return (values.astype(np.float32) - 127) / 127
