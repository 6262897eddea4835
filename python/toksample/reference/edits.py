"""The edits: what changes the logits before anything else looks at them.

They are computed in the type of the row: float64 for rows of it, and float32 for all others. A banned token stays banned.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import numpy.typing as npt

from toksample._rows import Edits
from toksample.reference.masses import Ids, Logits


def apply_bitmask(row: Logits, words: npt.NDArray[np.int32]) -> Logits:
    """Ban the tokens whose bit is 0: that of token v is bit v % 32 of word v // 32. Tokens beyond the words are banned.

    This is the layout of xgrammar and llguidance.
    """
    bits = words[:, None] >> np.arange(32, dtype=np.int32) & 1
    allowed = np.zeros(len(row), bool)
    allowed[: bits.size] = bits.ravel()[: len(row)]
    return np.where(allowed, row, row.dtype.type(-np.inf))


def ban(row: Logits, ids: Ids | list[int]) -> Logits:
    """Ban some tokens."""
    result = row.copy()
    result[ids] = -np.inf
    return result


def ban_all_but(row: Logits, ids: Ids | list[int]) -> Logits:
    """Ban all tokens but these."""
    result = np.full_like(row, -np.inf)
    result[ids] = row[ids]
    return result


def repeated_ngrams(history: Ids, n: int) -> Ids:
    """Return the tokens that would complete a sequence of n tokens that is in the history.

    R. Paulus, C. Xiong, R. Socher, "A deep reinforced model for abstractive summarization", ICLR 2018.
    """
    if n > len(history):
        return history[:0]
    ngrams = np.lib.stride_tricks.sliding_window_view(history, n)
    result: Ids = ngrams[(ngrams[:, :-1] == history[len(history) - n + 1 :]).all(axis=1), -1]
    return result


def sequence_biases(history: Ids, sequences: list[tuple[list[int], float]]) -> dict[int, float]:
    """Return the sum of the biases of the sequences that each token ends, where the history ends with their other tokens."""
    sums: dict[int, float] = {}
    for (*others, last), bias in sequences:
        if len(others) <= len(history) and np.array_equal(history[len(history) - len(others) :], others):
            sums[last] = sums.get(last, 0.0) + bias
    return sums


def apply_bans(row: Logits, edits: Edits) -> Logits:
    """Ban tokens in each of the ways to do so. Their order does not matter, as a banned token stays banned."""
    count = len(edits.whole_output)
    history = np.concatenate([edits.prompt, edits.whole_output])
    if edits.allowed is not None:
        row = apply_bitmask(row, edits.allowed)
    if edits.allowed_token_ids is not None:
        row = ban_all_but(row, edits.allowed_token_ids)
    if edits.forced_bos_token_id is not None and count == 0:
        row = ban_all_but(row, [edits.forced_bos_token_id])
    if edits.forced_eos_token_id is not None and count == edits.max_new_tokens - 1:
        row = ban_all_but(row, [edits.forced_eos_token_id])
    row = ban(row, edits.suppress_tokens)
    row = ban(row, edits.bias_ids[edits.biases == -np.inf])
    if count == 0:
        row = ban(row, edits.begin_suppress_tokens)
    if count < edits.min_new_tokens:
        row = ban(row, edits.eos_token_ids)
    sequences = edits.sequence_bias + [(ids, -math.inf) for ids in edits.bad_words_ids]
    row = ban(row, [token for token, bias in sequence_biases(history, sequences).items() if bias == -math.inf])
    if edits.no_repeat_ngram_size:
        row = ban(row, repeated_ngrams(history, edits.no_repeat_ngram_size))
    return row


def add_logit_bias(row: Logits, ids: Ids, biases: npt.NDArray[np.float64]) -> Logits:
    """Add to the logits of some tokens. A bias of -inf has banned its token."""
    with np.errstate(all="ignore"):
        return _replace(row, ids, row[ids] + biases.astype(row.dtype))


def add_sequence_bias(row: Logits, history: Ids, sequences: list[tuple[list[int], float]]) -> Logits:
    """Add to the logit of the last token of a sequence, where the history ends with the tokens before it."""
    sums = {token: bias for token, bias in sequence_biases(history, sequences).items() if bias > -math.inf}
    ids = np.array(list(sums), np.int64)
    with np.errstate(all="ignore"):
        return _replace(row, ids, row[ids] + _rounded(list(sums.values()), row))


def apply_encoder_repetition_penalty(row: Logits, prompt: Ids, penalty: float) -> Logits:
    """Multiply the logits of tokens of the prompt by the penalty if they are positive; divide others by it."""
    ids = np.unique(prompt)
    x, p = row[ids], row.dtype.type(penalty)
    with np.errstate(all="ignore"):
        return _replace(row, ids, np.where(x > 0, x * p, x / p))


def apply_repetition_penalty(row: Logits, history: Ids, penalty: float) -> Logits:
    """Divide the logits of tokens of the prompt and the output by the penalty if they are positive; multiply others by it.

    N. S. Keskar, B. McCann, L. R. Varshney, C. Xiong, R. Socher, "CTRL: a conditional transformer language model for
    controllable generation", arXiv:1909.05858, 2019.
    """
    ids = np.unique(history)
    x, p = row[ids], row.dtype.type(penalty)
    with np.errstate(all="ignore"):
        return _replace(row, ids, np.where(x > 0, x / p, x * p))


def apply_frequency_penalty(row: Logits, output: Ids, penalty: float) -> Logits:
    """Subtract the penalty from the logit of a token of the output, once for each time that it is there.

    It is a parameter of OpenAI's API, and so is the presence penalty.
    """
    ids, counts = np.unique(output, return_counts=True)
    with np.errstate(all="ignore"):
        return _replace(row, ids, row[ids] - row.dtype.type(penalty) * counts.astype(row.dtype))


def apply_presence_penalty(row: Logits, output: Ids, penalty: float) -> Logits:
    """Subtract the penalty from the logit of a token of the output."""
    ids = np.unique(output)
    with np.errstate(all="ignore"):
        return _replace(row, ids, row[ids] - row.dtype.type(penalty))


def repeated_lengths(history: Ids, breakers: list[int], least: int) -> dict[int, int]:
    """Return, for the tokens before which at least so many tokens are repeated, how many these are at most.

    A token of the history has a length of n if the n tokens before it are also the last ones of the history. No breaker is
    among these n tokens, and no breaker has a length.
    """
    places = np.arange(len(history))
    lengths = np.zeros(len(history), np.int64)
    for n in range(1, len(history)):  # the places before which the last n tokens stand
        if history[-n] in breakers:
            break
        places = places[places >= n]
        places = places[history[places - n] == history[-n]]
        if not len(places):
            break
        lengths[places] = n
    longest: dict[int, int] = {}
    for token, length in zip(history.tolist(), lengths.tolist(), strict=True):
        if length >= least and token not in breakers:
            longest[token] = max(length, longest.get(token, 0))
    return longest


def apply_dry(row: Logits, lengths: dict[int, int], multiplier: float, base: float, allowed_length: int) -> Logits:
    """Subtract from the logit of each token that would extend a repeated sequence, the more the longer the sequence is.

    P. E. Weidmann, "DRY: a modern repetition penalty that reliably prevents looping", text-generation-webui, 2024.
    """
    ids = np.array(list(lengths), np.int64)
    penalties = [multiplier * power(base, length - allowed_length) for length in lengths.values()]
    with np.errstate(all="ignore"):
        return _replace(row, ids, row[ids] - _rounded(penalties, row))


def apply_exponential_decay(row: Logits, ids: Ids, factor: float, beyond: int) -> Logits:
    """Add to the logits of the tokens that end a text, for each token that it has beyond a number of them."""
    x, growth = row[ids], _rounded([power(factor, beyond) - 1], row)
    with np.errstate(all="ignore"):
        return _replace(row, ids, x + np.abs(x) * growth)


def power(base: float, exponent: int) -> float:
    """Return a power by repeated squaring, each product rounded to float64; at most the largest finite number."""
    result, square = 1.0, base
    while exponent:
        if exponent & 1:
            result *= square
        square *= square
        exponent >>= 1
    return min(result, sys.float_info.max)


def _rounded(values: list[float], row: Logits) -> Logits:
    """Round numbers to the type of a row, and clip them to its finite range."""
    largest = np.finfo(row.dtype).max
    with np.errstate(all="ignore"):
        result: Logits = np.clip(np.array(values, np.float64).astype(row.dtype), -largest, largest)
    return result


def _replace(row: Logits, ids: Ids, values: Logits) -> Logits:
    """Give tokens new logits, clipped to the finite range. -inf stays, and so do NaN and +inf, which are errors."""
    largest = np.finfo(row.dtype).max
    result = row.copy()
    result[ids] = np.where(np.isfinite(row[ids]), np.clip(values, -largest, largest), row[ids])
    return result


def apply_edit(row: Logits, step: str, edits: Edits) -> Logits:
    """Apply the edit that is a step of the order, if it is on."""
    history = np.concatenate([edits.prompt, edits.whole_output])
    match step:
        case "logit_bias" if len(edits.bias_ids):
            return add_logit_bias(row, edits.bias_ids, edits.biases)
        case "sequence_bias" if edits.sequence_bias:
            return add_sequence_bias(row, history, edits.sequence_bias)
        case "encoder_repetition_penalty" if edits.encoder_repetition_penalty != 1:
            return apply_encoder_repetition_penalty(row, edits.prompt, edits.encoder_repetition_penalty)
        case "repetition_penalty" if edits.repetition_penalty != 1:
            return apply_repetition_penalty(row, edits.history, edits.repetition_penalty)
        case "frequency_penalty" if edits.frequency_penalty != 0:
            return apply_frequency_penalty(row, edits.output, edits.frequency_penalty)
        case "presence_penalty" if edits.presence_penalty != 0:
            return apply_presence_penalty(row, edits.output, edits.presence_penalty)
        case "dry" if edits.dry_multiplier != 0:
            window = history[-edits.dry_penalty_last_n :] if edits.dry_penalty_last_n else history
            lengths = repeated_lengths(window, edits.dry_sequence_breakers, edits.dry_allowed_length)
            return apply_dry(row, lengths, edits.dry_multiplier, edits.dry_base, edits.dry_allowed_length)
        case "exponential_decay_length_penalty" if edits.exponential_decay_length_penalty is not None:
            start, factor = edits.exponential_decay_length_penalty
            if len(edits.whole_output) > start:
                ids = np.unique(np.array(edits.eos_token_ids, np.int64))
                return apply_exponential_decay(row, ids, factor, len(edits.whole_output) - start)
    return row


def edit(row: Logits, edits: Edits) -> Logits:
    """Apply all edits of a row, in their order."""
    row = apply_bans(row, edits)
    for step in edits.order:
        row = apply_edit(row, step, edits)
    return row
