"""Several draws from a row, kept sets, and the log-probabilities of tokens under sets that were kept before."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from toksample._arrays import as_float32, as_given, as_native
from toksample._rows import check_tokens, numbers, raise_row_errors
from toksample._sets import KeptSets, read_sets
from toksample.reference.drawing import draw
from toksample.reference.logprobs import log_probabilities
from toksample.reference.masses import Ids, Masses, Row


def draw_several(ids: Ids, masses: Masses, words: Sequence[int], replacement: bool) -> Ids:
    """Draw a token for each word. Without replacement, each is drawn from what the words before it have left.

    Where no token with a mass is left, it is -1.
    """
    tokens = np.full(len(words), -1, np.int64)
    for j, word in enumerate(words):
        if not masses.any():
            break
        tokens[j] = draw(ids, masses, word)
        if not replacement:
            masses = np.where(ids == tokens[j], np.uint64(0), masses)
    return tokens


def join(sets: Sequence[tuple[Ids, Masses]]) -> KeptSets:
    """Join the kept sets of the rows of a batch."""
    return KeptSets(
        ids=np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in sets)]),
        masses=np.concatenate([np.empty(0, np.uint64), *(masses for _, masses in sets)]),
        probs=np.concatenate([np.empty(0, np.float64), *(probabilities(masses) for _, masses in sets)]),
        offsets=np.cumsum([0, *(len(ids) for ids, _ in sets)], dtype=np.int64),
    )


def probabilities(masses: Masses) -> npt.NDArray[np.float64]:
    """Return the probabilities of kept tokens, in float64."""
    return masses.astype(np.float64) / float(int(masses.sum()))


def replay(
    logits: object,
    ids: npt.ArrayLike,
    offsets: npt.ArrayLike,
    tokens: npt.ArrayLike,
    *,
    temperature: float | npt.ArrayLike | None = 1.0,
    num_threads: int | None = None,
) -> npt.NDArray[np.float64]:
    """See :func:`toksample.replay`: the kept logits of each row, in the order of the ids, are a row of their own."""
    given = as_given(logits)[0]
    check_tokens(given)
    sets, starts, drawn = read_sets(given.shape, ids, offsets, tokens)
    params = numbers({"temperature": temperature}, len(given), given.shape[1], True)
    kept = [np.sort(sets[start:stop]) for start, stop in itertools.pairwise(starts)]
    for b, in_order in enumerate(kept):
        twice = in_order[:-1][in_order[:-1] == in_order[1:]]
        if len(twice):
            raise ValueError(f"ids must name each token of a row once, got {twice[0]} twice in row {b}")
    rows = [_kept_row(given[b], in_order) for b, in_order in enumerate(kept)]
    raise_row_errors(rows, True, kept)
    result = np.full(len(rows), -np.inf)
    for b, row in enumerate(rows):
        if drawn[b] in kept[b]:
            place = np.searchsorted(kept[b], drawn[b])
            result[b] = log_probabilities(row, params[b]["temperature"])[place]
    return result


def _kept_row(row: npt.NDArray[Any], ids: Ids) -> Row:
    """Return the logits of a kept set. From float64, their own maximum is subtracted before they are rounded."""
    kept = row[ids]
    return as_float32(as_native(kept)[0] if kept.dtype == np.float64 else kept)
