"""What is asked of the engines, and what a right answer is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

import toksample
from toksample.bench.rows import Rows, make_bitmask, unpack_bitmask


class Call(NamedTuple):
    """What is asked of the engines."""

    name: str
    """The name of what is measured: an operation, or the parameters that a `sample` call sets besides the temperature."""
    title: str
    operation: str
    """argmax, softmax, top_k, sample or bitmask."""
    params: Mapping[str, Any] = {}
    vocab: int | None = None
    """The number of logits, if the call is only made on rows of one size."""


def _sample(name: str, vocab: int | None = None, **params: Any) -> Call:
    title = "sample: " + ", ".join(f"{parameter} {value}" for parameter, value in params.items())
    return Call(name, title if vocab is None else f"{title} ({vocab} logits)", "sample", params, vocab)


CALLS = (
    Call("argmax", "argmax", "argmax"),
    Call("top_k", "top_k 50, sorted", "top_k", {"k": 50}),
    Call("softmax", "softmax, into an array", "softmax"),
    _sample("top_k+top_p", temperature=0.7, top_k=50, top_p=0.9),
    _sample("min_p", temperature=0.7, min_p=0.05),
    _sample("top_p", temperature=0.7, top_p=0.9),
    _sample("temperature", temperature=0.7),
    _sample("top_p-hot", temperature=1.5, top_p=0.9),
    _sample("16-logits", 16, temperature=0.7, top_k=50, top_p=0.9),
    Call("bitmask", "ban the tokens of a bitmask", "bitmask"),
)


WIDER = 1e-4
"""Other engines' sums are not exact: a token counts as legal if it is in the nucleus of a top_p, or a min_p, so much wider,
or if its logit equals that of a token that is."""


def check(call: Call, rows: Rows, answer: Any) -> None:
    """Raise AssertionError unless the answer is right; a drawn token must be in the exact set of survivors (see `WIDER`)."""
    rows = np.atleast_2d(rows)
    match call.operation:
        case "sample":
            tokens = np.atleast_1d(answer)
            assert tokens.shape == rows.shape[:1], f"{call.name}: {tokens.shape} tokens for {rows.shape} logits"
            for row, token in zip(rows, tokens.tolist(), strict=True):
                least = _least_legal_logit(row, call.params)
                legal = 0 <= token < len(row) and row[token] >= least
                assert legal, f"{call.name}: token {token} is not a legal draw"
        case "argmax":
            assert np.array_equal(np.atleast_1d(answer), rows.argmax(axis=1)), f"{call.name}: {answer}"
        case "top_k":
            values, ids = (np.atleast_2d(part) for part in answer)
            expected = -np.sort(-rows, axis=1)[:, : call.params["k"]]
            assert np.array_equal(values, expected), f"{call.name}: wrong values"
            assert np.array_equal(np.take_along_axis(rows, ids, axis=1), expected), f"{call.name}: wrong ids"
        case "softmax":
            exact = np.exp(rows.astype(np.float64) - rows.max(axis=1, keepdims=True))
            exact /= exact.sum(axis=1, keepdims=True)
            assert np.allclose(np.atleast_2d(answer), exact, rtol=1e-4, atol=1e-9), f"{call.name}: wrong probabilities"
        case "bitmask":
            allowed = unpack_bitmask(np.atleast_2d(make_bitmask(rows)), rows.shape[1])
            assert np.array_equal(np.atleast_2d(answer), np.where(allowed, rows, -np.inf)), f"{call.name}: wrong logits"


def _least_legal_logit(row: Rows, params: Mapping[str, Any]) -> float:
    wider = dict(params)
    if "top_p" in wider:
        wider["top_p"] = min(1.0, wider["top_p"] + WIDER)
    if "min_p" in wider:
        wider["min_p"] = wider["min_p"] * (1 - WIDER)
    ids, _ = toksample.candidates(row, **wider)
    return float(row[ids[-1]])
