"""What a draw says of its token beside its id: log-probabilities and ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from toksample import _native
from toksample._arrays import as_float64
from toksample._asks import Asks

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sampled:
    """Tokens that were drawn, with their log-probabilities.

    For a single row the shapes are those below without the B: the token is an int, its log-probability a float.

    Attributes
    ----------
    tokens : ndarray of int64, shape (B,)
        The tokens. -1 for a row without an answer, if ``errors="mark"``.
    logprobs : ndarray of float64, shape (B,)
        The log-probability of each, or its logit: ``logprobs_mode`` says which, and of which distribution.
    ranks : ndarray of int64, shape (B,)
        The place of each in the same distribution: 1 for the most probable token. Among equal logits the lower id comes first.
        0 for a row without an answer.
    top_ids : ndarray of int64, shape (B, n)
        The n most probable tokens. If there are fewer, the last places have the id -1.
    top_logprobs : ndarray of float64, shape (B, n)
        Their log-probabilities or logits; -inf where there is no token.
    given_ids : ndarray of int64, shape (B, m), or None
        The tokens that were asked for with ``logprob_token_ids``. None if none were.
    given_logprobs : ndarray of float64, shape (B, m), or None
        Their log-probabilities or logits; -inf for a token that is banned, or that the filters of the distribution drop.

    Examples
    --------
    >>> drawn = toksample.sample(np.float32([1.0, 3.0, 2.0, -np.inf]), seed=1, logprobs=2)
    >>> drawn.tokens, drawn.ranks, round(drawn.logprobs, 4)
    (2, 2, -1.4076)
    >>> drawn.top_ids, drawn.top_logprobs.round(4)
    (array([1, 2]), array([-0.4076, -1.4076]))
    """

    tokens: int | Ids
    logprobs: float | Floats
    ranks: int | Ids
    top_ids: Ids
    top_logprobs: Floats
    given_ids: Ids | None = None
    given_logprobs: Floats | None = None


def of_sample(logits: object, parameters: dict[str, Any], asks: Asks) -> Sampled:
    """Draw as :func:`toksample.sample` does, and return the tokens with their log-probabilities."""
    wanted = asks.logprobs, asks.logprobs_mode, asks.logprob_token_ids
    return as_sampled(logits, asks.logprobs_mode, _native.sample_with_logprobs(logits, parameters, *wanted))


def as_sampled(logits: object, mode: str, drawn: tuple[Any, ...]) -> Sampled:
    """Make the result of what the kernels return, or the reference."""
    sampled = Sampled(*drawn)
    rows = as_float64(logits) if mode.startswith("raw") else None
    if rows is None:
        return sampled

    def correct(ids: Any, numbers: Any) -> Any:
        places = np.asarray(ids).reshape(*rows.shape[:-1], -1)
        if mode == "raw_logits":
            found = np.where(places >= 0, np.take_along_axis(rows, places, axis=-1), -np.inf)
        else:
            found = np.asarray(numbers).reshape(places.shape) + lost_by_rounding(rows, places)
        return found.reshape(np.shape(ids))

    own = correct(sampled.tokens, sampled.logprobs)
    given = sampled.given_ids
    return replace(
        sampled,
        logprobs=own if rows.ndim == 2 else own.item(),
        top_logprobs=correct(sampled.top_ids, sampled.top_logprobs),
        given_logprobs=None if given is None else correct(given, sampled.given_logprobs),
    )


def lost_by_rounding(rows: npt.NDArray[np.float64], ids: Ids) -> Floats:
    """Return what float64 logits lose where the kernels round their distances from the maximum of their row to float32.

    This hardly changes the sum of a row's probabilities. But far in the tail it would be most of the error of a token's own
    log-probability. It is 0 for logits that are not finite.
    """
    with np.errstate(all="ignore"):
        distances = np.take_along_axis(rows, ids, axis=-1) - rows.max(axis=-1, keepdims=True)
        rounded = np.maximum(distances, np.finfo(np.float32).min).astype(np.float32)
        lost = distances - rounded
    result: Floats = np.where(np.isfinite(lost), lost, 0.0)
    return result
