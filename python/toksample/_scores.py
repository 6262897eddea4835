"""Scores: how likely a text is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toksample import _native
from toksample._arrays import as_float64
from toksample._logprobs import lost_by_rounding


@dataclass(frozen=True, slots=True)
class Scores:
    """How likely each token of a text is.

    For a single row, each is one number.

    Attributes
    ----------
    logprobs : ndarray of float64, shape (T,)
        The natural logarithm of the probability of each token. -inf for a token that is banned.
    ranks : ndarray of int64, shape (T,)
        The place of each token in its row: 1 for the most probable one. Among equal logits the lower id comes first.
    """

    logprobs: float | npt.NDArray[np.float64]
    ranks: int | npt.NDArray[np.int64]

    @property
    def is_argmax(self) -> Any:
        """Return whether each token is the most probable one of its row: bool, or ndarray of bool of shape (T,)."""
        return self.ranks == 1

    @property
    def perplexity(self) -> float:
        """Return ``exp(-mean(logprobs))``; nan for no tokens."""
        each = np.atleast_1d(self.logprobs)
        if not each.size:
            return math.nan
        with np.errstate(over="ignore"):
            return float(np.exp(-each.mean()))


def score(
    logits: object, ids: object, *, temperature: float | npt.ArrayLike | None = 1.0, num_threads: int | None = None
) -> Scores:
    """Score a text: return the log-probability and the rank of one token of each row.

    No array of the shape of the logits is made. Rows are worked on by several threads.

    Parameters
    ----------
    logits : array_like, shape (V,) or (T, V)
        As in :func:`toksample.sample`. Row t has the logits for token t of the text, which are those that the model returns
        for token t - 1.
    ids : int, or sequence of int or ndarray of an integer type, shape (T,)
        The tokens of the text, each in [0, V).
    temperature : float or array_like of shape (T,)
        0 or in [1e-30, 1e30]. At 0 the argmax has probability 1. None means 1.
    num_threads : int, optional
        As in :func:`toksample.sample`.

    Returns
    -------
    Scores
        The log-probabilities are within 1e-6 of those in float64, the ranks are exact. docs/scoring.md has more.

    Raises
    ------
    ValueError
        If a row has NaN or +inf, or has only -inf, or if an argument is out of range.
    TypeError
        If an argument has the wrong type.

    Examples
    --------
    >>> logits = np.float32([[1.0, 3.0, 2.0], [0.0, 0.0, -1.0]])
    >>> scores = toksample.score(logits, [1, 2])
    >>> scores.logprobs.round(4), scores.ranks, scores.is_argmax
    (array([-0.4076, -1.862 ]), array([1, 3]), array([ True, False]))
    >>> round(scores.perplexity, 4)
    3.1106
    """
    return as_scores(logits, ids, temperature, *_native.score(logits, ids, temperature, num_threads))


def as_scores(logits: object, ids: Any, temperature: Any, logprobs: Any, ranks: Any) -> Scores:
    """Make the result of what the kernels return, or the reference."""
    rows = as_float64(logits)
    if rows is None:
        return Scores(logprobs, ranks)
    lost = lost_by_rounding(rows, np.asarray(ids, np.int64)[..., None])[..., 0]
    divided_by = np.asarray(1.0 if temperature is None else temperature, np.float64)
    corrected = logprobs + np.divide(lost, divided_by, out=np.zeros_like(lost), where=divided_by != 0)
    return Scores(corrected if rows.ndim == 2 else float(corrected), ranks)
