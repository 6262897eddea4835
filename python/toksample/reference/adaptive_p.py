"""Adaptive-p, which gives the tokens that are kept other masses."""

from __future__ import annotations

import numpy as np

from toksample._series import LOG2_E, exp2
from toksample.reference.masses import Masses, S

WIDTH, SHARPNESS = 0.3, 10.0
"""How near to the target a probability is near, and how fast a token becomes less likely beyond that."""


def weigh_adaptive_p(masses: Masses, target: float, average: float) -> Masses:
    """Make the tokens more likely whose probability is near a target; a target below 0 is off.

    ``average`` is that of the tokens that were drawn before, and the target is moved as far to the other side of it. The
    logarithm of the new mass falls by ``10 * d**2 / (1 + d)``, where d is the distance from there in units of 0.3. The token
    that falls least has a mass of 2**S. Probabilities are rounded to a grid of 2**-24.

    It is from MrJackSpade and ddh0, in llama.cpp (pull request 17927).
    """
    if target < 0:
        return masses
    center = min(max(2.0 * target - average, 0.0), 1.0)
    shares = np.rint(masses.astype(np.float64) / float(int(masses.sum())) * 2.0**24)
    different, places = np.unique(shares, return_inverse=True)
    d = np.abs(different / 2.0**24 - center) / WIDTH
    falls = SHARPNESS * d * d / (1.0 + d) * LOG2_E
    weights = [exp2(-bits) * 2.0**S for bits in (falls - falls.min()).tolist()]
    result: Masses = np.rint(weights).astype(np.uint64)[places]
    return result
