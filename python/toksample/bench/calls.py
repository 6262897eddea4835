"""The calls that the engines make, and the check of their answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import toksample
from toksample.bench.rows import Rows, make_bitmask, make_history, make_logit_bias, unpack_bitmask
from toksample.reference import edited


class Call(NamedTuple):
    """A call that every engine makes that can."""

    name: str
    """The operation, or what sets a `sample` call apart from the others: mostly the parameters besides the temperature."""
    title: str
    operation: str
    """argmax, softmax, top_k, sample or bitmask."""
    params: Mapping[str, Any] = {}
    """The arguments besides the rows. A function stands for the value that it returns for the rows."""
    vocab: int | None = None
    """The number of logits, if the call is only made on rows of one size."""

    def params_for(self, rows: Rows) -> dict[str, Any]:
        """Return the arguments of the call on these rows."""
        return {name: value(rows) if callable(value) else value for name, value in self.params.items()}


def _sample(name: str, about: str = "", vocab: int | None = None, **params: Any) -> Call:
    title = "sample: " + ", ".join(f"{each} {value}" for each, value in params.items() if not callable(value))
    return Call(name, f"{title} ({about})" if about else title, "sample", params, vocab)


_PENALIZED: Mapping[str, Any] = {"temperature": 0.7, "top_k": 50, "output_ids": make_history}


CALLS = (
    Call("argmax", "argmax", "argmax"),
    Call("top_k", "top_k 50, sorted", "top_k", {"k": 50}),
    Call("softmax", "softmax, into an array", "softmax"),
    _sample("top_k+top_p", temperature=0.7, top_k=50, top_p=0.9),
    _sample("min_p", temperature=0.7, min_p=0.05),
    _sample("top_p", temperature=0.7, top_p=0.9),
    _sample("temperature", temperature=0.7),
    # At this temperature thousands of tokens survive.
    _sample("top_p-hot", temperature=1.5, top_p=0.9),
    _sample("typical_p", temperature=0.7, typical_p=0.9),
    _sample("epsilon_cutoff", temperature=0.7, epsilon_cutoff=0.001),
    _sample("top_a", temperature=0.7, top_a=0.2),
    _sample("eta_cutoff", temperature=0.7, eta_cutoff=0.001),
    _sample("top_n_sigma", temperature=0.7, top_n_sigma=1.0),
    _sample("tfs", temperature=0.7, tfs=0.95),
    _sample("top_h", temperature=0.7, top_h=0.4),
    # With a probability of 1 every draw takes as long as those that XTC acts on.
    _sample("xtc", temperature=0.7, min_p=0.02, xtc_probability=1.0, xtc_threshold=0.1),
    _sample("dynatemp_range", temperature=0.7, dynatemp_range=0.5, top_k=50),
    _sample("mirostat-1", temperature=0.7, mirostat=1),
    _sample("mirostat-2", temperature=0.7, mirostat=2),
    _sample("adaptive_target", temperature=0.7, min_p=0.02, adaptive_target=0.3),
    _sample("smoothing_factor", temperature=0.7, smoothing_factor=0.3, top_k=50),
    _sample("repetition_penalty", about="1,000 tokens", **_PENALIZED, repetition_penalty=1.2),
    _sample("frequency_penalty", about="1,000 tokens", **_PENALIZED, frequency_penalty=0.5),
    _sample("presence_penalty", about="1,000 tokens", **_PENALIZED, presence_penalty=1.5),
    _sample("dry_multiplier", about="1,000 tokens", **_PENALIZED, dry_multiplier=0.8),
    _sample("no_repeat_ngram_size", about="1,000 tokens", **_PENALIZED, no_repeat_ngram_size=3),
    _sample("logit_bias", about="logit_bias of 20 tokens", temperature=0.7, top_k=50, logit_bias=make_logit_bias),
    _sample("16-logits", about="16 logits", vocab=16, temperature=0.7, top_k=50, top_p=0.9),
    Call("bitmask", "ban the tokens of a bitmask", "bitmask"),
)


WIDER = 1e-4
"""How much wider than exact the filters are that decide which tokens an engine may draw: see `may_be_drawn`."""


def check(call: Call, rows: Rows, answer: Any) -> None:
    """Raise AssertionError if the answer is wrong. A drawn token is right if `may_be_drawn` says so."""
    rows = np.atleast_2d(rows)
    match call.operation:
        case "sample":
            tokens = np.atleast_1d(answer)
            assert tokens.shape == rows.shape[:1], f"{call.name}: {tokens.shape} tokens for {rows.shape} logits"
            for legal, token in zip(may_be_drawn(call, rows), tokens.tolist(), strict=True):
                assert 0 <= token < len(legal), f"{call.name}: {token} is not a token"
                assert legal[token], f"{call.name}: token {token} is not a legal draw"
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


def may_be_drawn(call: Call, rows: Rows) -> npt.NDArray[np.bool_]:
    """Return for each token of each row, in an array of shape (B, V), whether a `sample` call may draw it.

    The sums and the logits of other engines are rounded, and some engines keep all tokens that tie with the last one. So the
    exact filters are made wider by `WIDER`. What they keep is a range of the edited logits, and every token may be drawn
    whose logit is in this range, or outside of it by at most `WIDER`.
    """
    params = call.params_for(rows)
    histories = params.pop("output_ids", None)
    wider = dict(params)
    for name in ("top_p", "typical_p", "tfs", "top_h"):
        if name in params:
            wider[name] = min(1.0, params[name] + WIDER)
    for name in ("min_p", "epsilon_cutoff", "top_a", "eta_cutoff"):
        if name in params:
            wider[name] = params[name] * (1 - WIDER)
    if "top_n_sigma" in params:
        wider["top_n_sigma"] = params["top_n_sigma"] * (1 + WIDER)
    if "xtc_threshold" in params:
        wider["xtc_threshold"] = params["xtc_threshold"] * (1 + WIDER)
    legal = np.empty(rows.shape, np.bool_)
    for b, row in enumerate(rows):
        history = {} if histories is None else {"output_ids": histories[b]}
        ids, _ = toksample.candidates(row, **wider, **history)
        logits = edited(row, {**params, **history})
        legal[b] = (logits >= logits[ids[-1]] - WIDER) & (logits <= logits[ids[0]] + WIDER)
    return legal
