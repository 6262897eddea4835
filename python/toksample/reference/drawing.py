"""The draw: a random word for each position, and the token that it hits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from toksample._series import log2
from toksample.reference.masses import Ids, Masses


def philox4x64(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return the four words of Philox4x64-10 at a counter.

    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. It is the
    generator of :class:`numpy.random.Philox`, which gives these words for a counter that is smaller by one.
    """
    low = 2**64 - 1
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        product0, product1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (product1 >> 64) ^ c1 ^ k0, product1 & low, (product0 >> 64) ^ c3 ^ k1, product0 & low
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & low, (k1 + 0xBB67AE8584CAA73B) & low
    return c0, c1, c2, c3


def draw_word(seed: int, stream: int, position: int) -> int:
    """Return the random 64-bit word that draws the token at ``position`` of text number ``stream``."""
    return philox4x64((seed, 0), (position, stream, 0, 0))[0]


def filter_word(seed: int, stream: int, position: int) -> int:
    """Return the random 64-bit word of the filter that is random itself: the next one."""
    return philox4x64((seed, 0), (position, stream, 0, 0))[1]


def accept_word(seed: int, stream: int, position: int) -> int:
    """Return the random 64-bit word that decides whether a draft token is accepted: the third one."""
    return philox4x64((seed, 0), (position, stream, 0, 0))[2]


def replace_word(seed: int, stream: int, position: int) -> int:
    """Return the random 64-bit word that draws what comes instead of a draft token, or after the draft: the last one."""
    return philox4x64((seed, 0), (position, stream, 0, 0))[3]


class Drawn(NamedTuple):
    """A token that a word has drawn, and where that was on the mass line."""

    token: int
    total: int
    """The mass of all tokens that were kept: the length of the line."""
    target: int
    """The point of the line that the word hits."""
    start: int
    stop: int
    """The interval of the token: ``start <= target < stop``."""


def draw_interval(ids: Ids, masses: Masses, word: int) -> Drawn:
    """Return the first id, in id order, whose running mass exceeds the point of the mass line that the word hits."""
    by_id = np.argsort(ids)
    running = np.cumsum(masses[by_id])
    total = int(running[-1])
    target = (word * total) >> 64
    place = np.searchsorted(running, np.uint64(target), side="right")
    stop = int(running[place])
    return Drawn(int(ids[by_id][place]), total, target, stop - int(masses[by_id][place]), stop)


def draw(ids: Ids, masses: Masses, word: int) -> int:
    """Return the token that the word draws."""
    return draw_interval(ids, masses, word).token


def race(ids: Ids, masses: Masses, seed: int, stream: int, position: int) -> int:
    """Return the id that wins a race in which each token has a random word of its own; the lowest one of a tie.

    A token arrives at the time -log2(u) / mass, with u the word as a fraction of 2**64. These times are exponentially
    distributed, so the probability of being the first is a token's share of the mass. Two rows that are similar have the same
    winner more often than they have the same :func:`draw`, because the other tokens do not move a token's word.

    M. Daliri, C. Musco, A. T. Suresh, "Coupling without communication and drafter-invariant speculative decoding", 2024.
    """
    first = (0, 1, 0)  # a token that never arrives
    for token, mass in sorted(zip(ids.tolist(), masses.tolist(), strict=True)):
        word = philox4x64((seed, 0), (position, stream, 1 + token // 4, 0))[token % 4]
        time = max(1, int((64 - log2(max(word, 1))) * 2.0**46))
        if mass > 0 and (first[0] == 0 or time * first[0] < first[1] * mass):
            first = (mass, time, token)
    return first[2]
