"""Log-probabilities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toksample._series import LN_2, ln
from toksample.reference.masses import Row, S, mass

Floats = npt.NDArray[np.float64]


def log_probabilities(logits: Row, temperature: float) -> Floats:
    """Return the natural logarithms of the probabilities of tokens. The logits are not all -inf."""
    if temperature == 0:
        return np.where(np.arange(len(logits)) == np.argmax(logits), 0.0, -np.inf)
    log_total = ln(int(mass(logits, temperature).sum())) - S * LN_2
    inverse = min(1.0 / temperature, np.finfo(np.float64).max)
    x = logits.astype(np.float64)
    with np.errstate(over="ignore"):
        result: Floats = (x - x.max()) * inverse - log_total
    return result
