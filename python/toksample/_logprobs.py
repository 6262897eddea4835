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
    (1, 1, -0.4076)
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
    """Make the result of what the kernels return."""
    sampled = Sampled(*drawn)
    float64 = as_float64(logits) if mode == "raw_logits" else None
    return sampled if float64 is None else _with_logits_of(sampled, float64)


def _with_logits_of(sampled: Sampled, rows: npt.NDArray[np.float64]) -> Sampled:
    """Give the logits of float64 rows as they are: the kernels have seen them after the maximum was subtracted."""

    def logits(ids: Any) -> Any:
        places = np.asarray(ids).reshape(*rows.shape[:-1], -1)
        found = np.where(places >= 0, np.take_along_axis(rows, places, axis=-1), -np.inf)
        return found.reshape(np.shape(ids))[()]

    given = None if sampled.given_ids is None else logits(sampled.given_ids)
    own = logits(sampled.tokens)
    return replace(
        sampled,
        logprobs=own if rows.ndim == 2 else float(own),
        top_logprobs=logits(sampled.top_ids),
        given_logprobs=given,
    )
