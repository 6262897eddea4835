"""Kept sets: what the filters keep of each row, and the log-probabilities of tokens under sets that were kept before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from toksample import _native
from toksample._arrays import as_float64, as_given
from toksample._text import show

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class KeptSets:
    """What the filters keep of each row of a batch, from :func:`toksample.candidates`.

    The rows keep different numbers of tokens. So the tokens of all rows follow one another, and ``offsets`` says where each
    row begins: those of row b are ``ids[offsets[b] : offsets[b + 1]]``, most probable first. This is the layout of a
    compressed sparse row (CSR) matrix: ``scipy.sparse.csr_array((probs, ids, offsets), shape=logits.shape)``.

    Attributes
    ----------
    ids : ndarray of int64, shape (n,)
        The token ids. In each row they are sorted by descending logit, and by ascending id among equal logits.
    masses : ndarray of uint64, shape (n,)
        The probability of each token as an exact integer. A mass of 2**41 is that of the most probable token of the row, or of
        those that were left when the temperature came, if the ``order`` has filters before it.
    probs : ndarray of float64, shape (n,)
        The probability of each token: its mass, divided by the sum of the masses of its row.
    offsets : ndarray of int64, shape (B + 1,)
        Where each row begins, and at the end the number of all tokens. No row is empty.
    """

    ids: Ids
    masses: npt.NDArray[np.uint64]
    probs: npt.NDArray[np.float64]
    offsets: Ids


def replay(
    logits: object,
    ids: npt.ArrayLike,
    offsets: npt.ArrayLike,
    tokens: npt.ArrayLike,
    *,
    temperature: float | npt.ArrayLike | None = 1.0,
    num_threads: int | None = None,
) -> npt.NDArray[np.float64]:
    """Return the log-probability of a token of each row, under a set of tokens that was kept before, at new logits.

    In reinforcement learning, a token is drawn from the tokens that the filters keep, and later the model that is trained
    gives it new logits. The ratio of the two probabilities is right only if both are among the same tokens. Filters that are
    applied to the new logits would keep others. So this function takes the kept sets as they were when the tokens were drawn.

    All tokens that are not in the set of their row count as banned, and their logits are not read. Edits of the logits, such
    as penalties and biases, are not applied: where the draw had them, pass logits that have them too.

    Parameters
    ----------
    logits : array_like, shape (B, V)
        As in :func:`sample`. float64 rows take longer than others: some 50 us each.
    ids : array_like of int, shape (n,)
        The kept sets of all rows, as in :class:`KeptSets`, in any order within a row. Ids are in [0, V).
    offsets : array_like of int, shape (B + 1,)
        Where the ids of each row begin, and at the end n. No set may be empty.
    tokens : array_like of int, shape (B,)
        A token of each row, in [0, V).
    temperature : float or array_like of shape (B,)
        As in :func:`softmax`.
    num_threads : int, optional
        As in :func:`sample`.

    Returns
    -------
    ndarray of float64, shape (B,)
        Natural logarithms. A token that is not in the set of its row gets -inf.

    Raises
    ------
    ValueError
        If an id, an offset or a token is out of range, if a set is empty or has a token twice, or if the kept logits of a row
        have NaN or +inf, or only -inf.
    TypeError
        If an argument has the wrong type.

    See Also
    --------
    candidates : returns the kept sets of a batch.

    Examples
    --------
    >>> old = np.float32([[0.0, 2.0, 1.0, -1.0], [3.0, 0.0, 0.0, 0.0]])
    >>> kept = toksample.candidates(old, top_k=2)
    >>> tokens = toksample.sample(old, top_k=2, seed=1)
    >>> new = old + np.float32([0.0, 0.5, 0.0, 9.0])
    >>> toksample.replay(new, kept.ids, kept.offsets, tokens)
    array([-1.70141327, -0.07888974])
    """
    if as_float64(logits) is not None:
        from toksample import reference  # which imports this module

        return reference.replay(logits, ids, offsets, tokens, temperature=temperature, num_threads=num_threads)
    sets = read_sets(as_given(logits)[0].shape, ids, offsets, tokens)
    return _native.replay(logits, *sets, temperature, num_threads)


def read_sets(shape: tuple[int, ...], ids: object, offsets: object, tokens: object) -> tuple[Ids, Ids, Ids]:
    """Read the kept sets of logits of a shape, and a token of each row. The results are copies."""
    if len(shape) != 2:
        raise ValueError(f"logits must be of shape (B, V), got shape {shape}")
    rows, width = shape
    ids = _ids("ids", ids, width)
    offsets = _integers("offsets", offsets)
    if len(offsets) != rows + 1:
        raise ValueError(f"offsets must be of shape ({rows + 1},), got shape {offsets.shape}")
    if offsets[0] != 0:
        raise ValueError(f"offsets must begin with 0, got {offsets[0]}")
    empty = np.flatnonzero(offsets[:-1] >= offsets[1:])
    if len(empty):
        b = empty[0]
        raise ValueError(f"offsets must increase, as no set is empty, got {offsets[b]} and {offsets[b + 1]} in row {b}")
    if offsets[-1] != len(ids):
        raise ValueError(f"offsets must end with {len(ids)}, the number of ids, got {offsets[-1]}")
    tokens = _ids("tokens", tokens, width)
    if len(tokens) != rows:
        raise ValueError(f"tokens must be of shape ({rows},), got shape {tokens.shape}")
    return ids, offsets, tokens


def _ids(name: str, value: object, width: int) -> Ids:
    ids = _integers(name, value)
    outside = np.flatnonzero((ids < 0) | (ids >= width))
    if len(outside):
        raise ValueError(f"{name} must be in [0, {width}), got {ids[outside[0]]} at index {outside[0]}")
    return ids


def _integers(name: str, value: Any) -> Ids:
    """Return integers as a new array of one dimension, which no other thread can write to."""
    try:
        array = np.asarray(value)
    except MemoryError:
        raise
    except Exception:  # a tensor of another device, an object whose `__array__` fails
        array = None
    if array is None or array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"{name} must be an array of integers of one dimension, got {show(value)}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must be below 2**63, got {array.max()}")
    return array.astype(np.int64, order="C", copy=True)
