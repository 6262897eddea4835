"""Log-probabilities: how likely the token that was drawn is, and others beside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from toksample._series import LN_2, ln
from toksample.reference.filters import Filters, keep
from toksample.reference.masses import Ids, Row, S, mass, order

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


class Distribution(NamedTuple):
    """The tokens that have a probability, in the total order."""

    ids: Ids
    logits: Row
    temperature: float
    """What the logits are divided by; 0 if the first token is certain."""

    def values(self, *, is_logits: bool) -> Floats:
        """Return the logit of each token, divided by the temperature, or its log-probability."""
        if is_logits:
            numbers = self.logits.astype(np.float64) / (self.temperature or 1.0)
        else:
            numbers = log_probabilities(self.logits, self.temperature)
        return numbers + 0.0  # -0.0 becomes 0.0


def distribution_of_row(row: Row) -> Distribution:
    """Return the distribution of a row as it is, at temperature 1."""
    ids = order(row)[: np.count_nonzero(row > -np.inf)]
    return Distribution(ids, row[ids], 1.0)


def distribution_of_draw(row: Row, filters: Filters) -> Distribution:
    """Return the distribution that a token is drawn from, given the row with its edits."""
    kept, temperature = keep(row, filters)
    return Distribution(kept.ids, kept.logits, temperature)


class Description(NamedTuple):
    """What is said of the token of one row, as in :class:`toksample.Sampled`."""

    logprob: float
    rank: int
    top_ids: Ids
    top_logprobs: Floats
    given_logprobs: Floats


def describe(distribution: Distribution, token: int, top: int, given: Ids, *, is_logits: bool) -> Description:
    """Describe a token, the first ``top`` tokens of the distribution, and the given tokens."""
    ids, values = distribution.ids, distribution.values(is_logits=is_logits)
    place = int(np.flatnonzero(ids == token)[0])
    lacking = max(top - len(ids), 0)
    of_each = dict(zip(ids.tolist(), values.tolist(), strict=True))
    return Description(
        logprob=float(values[place]),
        rank=place + 1,
        top_ids=np.append(ids[:top], np.full(lacking, -1, np.int64)),
        top_logprobs=np.append(values[:top], np.full(lacking, -np.inf)),
        given_logprobs=np.array([of_each.get(token, -np.inf) for token in given.tolist()], np.float64),
    )


def score_of_row(row: Row, token: int, temperature: float) -> tuple[float, int]:
    """Return the log-probability of a token, and its rank in the total order of all tokens, banned ones included."""
    rank = int(np.flatnonzero(order(row) == token)[0]) + 1
    return float(log_probabilities(row, temperature)[token]), rank
