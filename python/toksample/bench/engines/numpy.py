"""Sampling in numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from toksample.bench.engines.base import Engine, Timed, each_row
from toksample.bench.rows import Rows, make_bitmask


class Numpy(Engine):
    """Sampling as people write it with numpy alone."""

    name = "numpy"
    packages = ("numpy",)
    note = "argpartition or argsort, exp, cumsum, Generator.choice; a batch is a loop"

    def argmax(self, rows: Rows) -> Timed:
        return lambda: np.argmax(rows, axis=-1)

    def softmax(self, rows: Rows) -> Timed:
        out = np.empty(rows.shape, np.float32)

        def softmax() -> Rows:
            np.subtract(rows, rows.max(axis=-1, keepdims=True), out=out)
            np.exp(out, out=out)
            np.divide(out, out.sum(axis=-1, keepdims=True), out=out)
            return out

        return softmax

    def top_k(self, rows: Rows, k: int) -> Timed:
        return each_row(lambda row: numpy_top_k(row, k), rows)

    def sample(self, rows: Rows, **params: Any) -> Timed:
        rng = np.random.default_rng(1)
        if "output_ids" in params:
            params["output_ids"] = np.atleast_2d(params["output_ids"])[0]  # it is the same for each row
        return each_row(lambda row: numpy_sample(row, rng, **params), rows)

    def bitmask(self, rows: Rows) -> Timed:
        mask = make_bitmask(rows)

        def ban() -> Rows:
            bits = np.unpackbits(mask.view(np.uint8), axis=-1, bitorder="little")[..., : rows.shape[-1]]
            return np.where(bits, rows, np.float32(-np.inf))

        return ban


def numpy_top_k(row: Rows, k: int) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Return the k largest logits of a row and their ids, in descending order."""
    if k < len(row):
        ids = np.argpartition(row, -k)[-k:]
        ids = ids[np.argsort(-row[ids])]
    else:
        ids = np.argsort(-row)
    return row[ids], ids


def numpy_sample(
    row: Rows,
    rng: np.random.Generator,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    typical_p: float = 1.0,
    epsilon_cutoff: float = 0.0,
    top_a: float = 0.0,
    eta_cutoff: float = 0.0,
    top_n_sigma: float = 0.0,
    tfs: float = 1.0,
    top_h: float = 0.0,
    xtc_probability: float = 0.0,
    xtc_threshold: float = 0.1,
    dynatemp_range: float = 0.0,
    mirostat: int = 0,
    adaptive_target: float = -1.0,
    smoothing_factor: float = 0.0,
    **edits: Any,
) -> int:
    """Draw a token from a row. Any further parameters are those of `numpy_edit`."""
    if edits:
        row = numpy_edit(row, **edits)
    if smoothing_factor > 0:
        row = row.max() - smoothing_factor * (row.max() - row) ** 2
    if dynatemp_range > 0:
        temperature = numpy_dynamic_temperature(row, temperature, dynatemp_range)
    if top_k:
        logits, ids = numpy_top_k(row, top_k)
    elif top_p < 1 or tfs < 1:
        ids = np.argsort(-row)
        logits = row[ids]
    else:
        logits, ids = row, np.arange(len(row))
    if top_n_sigma > 0:
        kept = logits >= logits.max() - top_n_sigma * logits.std(dtype=np.float64)
        logits, ids = logits[kept], ids[kept]
    if top_h > 0:
        logits, ids = numpy_top_k(row, 100)
    probs = np.exp((logits - logits.max()) / temperature).astype(np.float64)
    if top_p < 1:
        running = np.cumsum(probs)
        count = int(np.searchsorted(running, top_p * running[-1])) + 1
        probs, ids = probs[:count], ids[:count]
    if min_p > 0:
        probs = np.where(probs >= min_p * probs.max(), probs, 0)
    if typical_p < 1 or epsilon_cutoff > 0 or top_a > 0 or eta_cutoff > 0 or top_h > 0:
        probs = probs / probs.sum()
    if typical_p < 1:
        surprise = -np.log(np.maximum(probs, np.finfo(np.float64).tiny))
        nearest = np.argsort(np.abs(surprise - np.sum(probs * surprise)))
        count = int(np.searchsorted(np.cumsum(probs[nearest]), typical_p)) + 1
        probs, ids = probs[nearest[:count]], ids[nearest[:count]]
    if epsilon_cutoff > 0:
        probs = np.where(probs >= min(epsilon_cutoff, probs.max()), probs, 0)
    if top_a > 0:
        probs = np.where(probs >= top_a * probs.max() ** 2, probs, 0)
    if eta_cutoff > 0:
        eta = min(eta_cutoff, np.sqrt(eta_cutoff) * np.exp(-np.sum(_entropy_parts(probs))))
        probs = np.where(probs >= min(eta, probs.max()), probs, 0)
    if tfs < 1:
        running = np.cumsum(np.abs(np.diff(probs, 2)))
        count = int(np.searchsorted(running[1:], tfs * running[-1], side="right")) + 1
        probs, ids = probs[:count], ids[:count]
    if top_h > 0:
        running = np.cumsum(_entropy_parts(probs))
        count = max(1, int(np.searchsorted(running, top_h * running[-1], side="right")))
        probs, ids = probs[:count], ids[:count]
    if xtc_probability > 0 and rng.random() < xtc_probability:
        probs = probs / probs.sum()
        top = probs[probs >= xtc_threshold]
        if len(top) > 1:
            probs = np.where(probs <= top.min(), probs, 0)
    if mirostat:
        places = numpy_mirostat(probs / probs.sum(), mirostat)
        probs, ids = probs[places], ids[places]
    if adaptive_target >= 0:  # for the first token of a text
        distances = np.abs(probs / probs.sum() - adaptive_target) / 0.3
        probs = np.where(probs > 0, np.exp(-10 * distances**2 / (1 + distances)), 0)
    return int(rng.choice(ids, p=probs / probs.sum()))


def _entropy_parts(probs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return -p log p for each probability."""
    return -probs * np.log(np.maximum(probs, np.finfo(np.float64).tiny))


def numpy_dynamic_temperature(row: Rows, temperature: float, spread: float) -> float:
    """Return the temperature that follows the entropy of a row."""
    probs = np.exp((row - row.max()).astype(np.float64))
    probs /= probs.sum()
    entropy = -np.sum(probs * np.log(np.maximum(probs, np.finfo(np.float64).tiny)))
    low = max(0.0, temperature - spread)
    return float(low + (temperature + spread - low) * entropy / np.log(len(row)))


def numpy_mirostat(probs: npt.NDArray[np.float64], version: int) -> npt.NDArray[np.int64]:
    """Return the places of the tokens that mirostat keeps for the first token of a text, whose limit is 10 bits."""
    if version == 2:
        return np.flatnonzero(probs >= min(2.0**-10, probs.max()))
    by_probability = np.argsort(-probs)
    surprises = -np.log2(np.maximum(probs[by_probability[:100]], np.finfo(np.float64).tiny))
    places = np.arange(1, len(surprises))
    ratios = np.log2((places + 1) / places)
    s = np.sum(ratios * np.diff(surprises)) / np.sum(ratios * ratios)
    k = ((s - 1) * 2**10 / (1 - len(probs) ** (1 - s))) ** (1 / s)
    return by_probability[: max(1, int(k))]


def numpy_edit(
    row: Rows,
    dry_multiplier: float = 0.0,
    no_repeat_ngram_size: int = 0,
    repetition_penalty: float = 1.0,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    output_ids: npt.NDArray[np.int64] | None = None,
    logit_bias: Mapping[int, float] | None = None,
) -> Rows:
    """Return a copy of a row with biases and penalties."""
    row = row.copy()
    if logit_bias is not None:
        row[list(logit_bias)] += np.fromiter(logit_bias.values(), np.float32)
    if output_ids is not None:
        ids, counts = np.unique(output_ids, return_counts=True)
        logits = row[ids]
        logits = np.where(logits > 0, logits / repetition_penalty, logits * repetition_penalty)
        row[ids] = logits - frequency_penalty * counts - presence_penalty
    if output_ids is not None and dry_multiplier > 0:
        for token, length in _repeats(output_ids.tolist()).items():
            if length >= 2:
                row[token] -= dry_multiplier * 1.75 ** (length - 2)
    if output_ids is not None and no_repeat_ngram_size > 1:
        windows = np.lib.stride_tricks.sliding_window_view(output_ids, no_repeat_ngram_size)
        is_repeated = (windows[:, :-1] == output_ids[1 - no_repeat_ngram_size :]).all(axis=1)
        row[windows[is_repeated, -1]] = -np.inf
    return row


def _repeats(history: list[int]) -> dict[int, int]:
    """Return, for each token, how many of the last tokens of the history also stand before one of its places."""
    longest: dict[int, int] = {}
    for place in range(len(history) - 1):
        length = 0
        while length <= place and history[place - length] == history[-1 - length]:
            length += 1
        if length:
            token = history[place + 1]
            longest[token] = max(longest.get(token, 0), length)
    return longest
