"""The definition of every function, in numpy.

What the compiled kernels return is equal to what is returned here: not close, equal. Nothing here is fast; each function is
short and says what the method is. The one idea is the exact mass:

1. The logits are edited (:func:`edit`): bans, biases and penalties, each of them one rounded operation.
2. A token's probability is an integer, its **mass** (:func:`mass`). Every step of it is one float32 operation that IEEE 754
   rounds correctly, so every machine computes the same integer, and integer sums do not depend on the order.
3. Tokens have a **total order** (:func:`order`): logit descending, then id ascending. The mass never decreases with the
   logit, so every filter keeps an interval of what was kept before it: a filter is a function from the masses of that to the
   place where the interval starts and the place where it stops. Their order is a parameter.
4. The **draw** (:func:`draw`) takes one random 64-bit word, which is a function of seed, stream and position
   (:func:`philox4x64`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt

from toksample._arrays import as_float32, as_given, as_native, like
from toksample._orders import ORDERS
from toksample._parameters import Parameters, count, errors_mode, show_parameters
from toksample._rows import Edits, check_names, check_tokens, edits, numbers, raise_row_errors, row_error
from toksample._series import LN_2, exp2, ln, log2

Row = npt.NDArray[np.float32]
Logits = npt.NDArray[Any]  # float32 or float64
Masses = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int64]

S = 41
"""The most probable token has a mass of 2**S. A row of 2**22 tokens sums to at most 2**63."""

LOG2_E = np.float64(1.4426950408889634)

# 2**f is nearly 1 + C1*f + ... + C5*f**5 for f in [-0.5, 0.5]: within 1.9e-7 of itself as computed in float32.
C1, C2, C3, C4, C5 = np.array(
    [0.693147, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149], np.float32
)


# ---- edits: what changes the logits before anything else looks at them ---------------------------------------------------
#
# They are computed in the type of the row: float64 for rows of it, and float32 for all others. A banned token stays banned.


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
    """Add to the logits of some tokens; -inf bans a token."""
    bias = biases.astype(row.dtype)
    bans = bias == -np.inf
    with np.errstate(all="ignore"):
        result = _replace(row, ids, row[ids] + np.where(bans, 0, bias))
    result[ids[bans & np.isfinite(row[ids])]] = -np.inf
    return result


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


def edit(row: Logits, edits: Edits) -> Logits:
    """Apply all edits of a row, in their order."""
    history = np.concatenate([edits.prompt, edits.whole_output])
    row = apply_bans(row, edits)
    if len(edits.bias_ids):
        row = add_logit_bias(row, edits.bias_ids, edits.biases)
    row = add_sequence_bias(row, history, edits.sequence_bias)
    if edits.encoder_repetition_penalty != 1:
        row = apply_encoder_repetition_penalty(row, edits.prompt, edits.encoder_repetition_penalty)
    if edits.repetition_penalty != 1:
        row = apply_repetition_penalty(row, edits.history, edits.repetition_penalty)
    if edits.frequency_penalty != 0:
        row = apply_frequency_penalty(row, edits.output, edits.frequency_penalty)
    if edits.presence_penalty != 0:
        row = apply_presence_penalty(row, edits.output, edits.presence_penalty)
    if edits.dry_multiplier != 0:
        window = history[-edits.dry_penalty_last_n :] if edits.dry_penalty_last_n else history
        lengths = repeated_lengths(window, edits.dry_sequence_breakers, edits.dry_allowed_length)
        row = apply_dry(row, lengths, edits.dry_multiplier, edits.dry_base, edits.dry_allowed_length)
    if edits.exponential_decay_length_penalty is not None:
        start, factor = edits.exponential_decay_length_penalty
        if len(edits.whole_output) > start:
            ids = np.unique(np.array(edits.eos_token_ids, np.int64))
            row = apply_exponential_decay(row, ids, factor, len(edits.whole_output) - start)
    return row


# ---- mass and order --------------------------------------------------------------------------------------------------


def exponent(row: Row, temperature: float) -> Row:
    """Return 4 and the binary logarithm of each token's probability over that of the most probable one; at least -60.

    It is on a grid of 2**-22, on which the polynomial of :func:`weight` never decreases.
    """
    with np.errstate(over="ignore"):
        scale = np.clip(np.float32(LOG2_E / temperature), np.finfo(np.float32).tiny, np.finfo(np.float32).max)
        t = (row - row.max()) * scale + np.float32(4)
    result: Row = np.maximum(t, np.float32(-60))
    return result


def weight(row: Row, temperature: float) -> Row:
    """Return the mass of each token before it is rounded to an integer: nearly ``2**S * exp((x - max) / temperature)``."""
    t = exponent(row, temperature)
    n = np.rint(t)
    f = t - n
    p = ((((C5 * f + C4) * f + C3) * f + C2) * f + C1) * f + np.float32(1)
    result: Row = np.ldexp(p, n.astype(np.int32) - 4 + S)
    return result


def mass(row: Row, temperature: float) -> Masses:
    """Return the mass of each token: its probability as an integer, 2**S for the most probable one."""
    return np.rint(weight(row, temperature).astype(np.float64)).astype(np.uint64)


def surprise(row: Row, temperature: float) -> Ids:
    """Return how much more each token surprises than the most probable one, in units of 2**-22 bits."""
    return ((4 - exponent(row, temperature).astype(np.float64)) * 2**22).astype(np.int64)


def entropy(masses: Masses, surprises: Ids) -> float:
    """Return the entropy of tokens in bits: log2 of their mass, and their mean surprise, from the same origin."""
    total = int(masses.sum())
    return log2(total) - S + float(_dot(masses, surprises)) / float(total) / 2**22


def _dot(masses: Masses, surprises: Ids) -> int:
    """Return the sum of the products, which does not fit in 64 bits."""
    return int(np.dot(masses.astype(object), surprises.astype(object)))


def sigma(logits: Row) -> float:
    """Return the standard deviation of logits that are sorted in descending order.

    Each is rounded to a grid of 1/1024, measured from the first, and counts as at most 1024 below it. The sums are integers.
    """
    with np.errstate(over="ignore"):
        distances = np.rint(np.minimum(logits[0] - logits, np.float32(1024)) * np.float32(1024)).astype(np.int64)
    count, sum_, squares = len(distances), int(distances.sum()), int((distances * distances).sum())
    return math.sqrt(float(squares * count - sum_ * sum_)) / float(count) / 1024.0


def order(row: npt.NDArray[Any]) -> Ids:
    """Return the ids in the total order: logit descending, then id ascending."""
    return np.argsort(-row, kind="stable")


# ---- smoothing, which changes all logits -------------------------------------------------------------------------------


def smooth(row: Row, factor: float, curve: float) -> Row:
    """Change each logit to ``max - (a * d**2 + b * d**3)``, where d is how far it was below the largest one.

    a is ``factor * (3 - curve) / 2``, and b is ``factor * (curve - 1) / 2``. A factor of 0 is off. The order of the logits
    stays, but some may become equal. A logit that overflows is clipped.

    This is the quadratic sampling of kalomaze, in text-generation-webui (2024).
    """
    if factor == 0:
        return row
    largest = np.finfo(np.float32).max
    a, b = np.float32((3 - curve) / 2 * factor), np.float32((curve - 1) / 2 * factor)
    with np.errstate(all="ignore"):
        d = np.minimum(row.max() - row, largest)
        smoothed = row.max() - (a + b * d) * d * d
    result: Row = np.where(row > -np.inf, np.maximum(smoothed, -largest), row)
    return result


# ---- temperature -------------------------------------------------------------------------------------------------------


def dynamic_temperature(masses: Masses, surprises: Ids, temperature: float, spread: float, power: float) -> float:
    """Return a temperature from ``temperature - spread`` to ``temperature + spread`` that increases with the entropy.

    The entropy is that of the tokens that were kept before, as a share of the largest that so many tokens can have. The share
    is raised to a power. With a single token the temperature stays as it is. A spread of 0 is off.

    It is from kalomaze's fork of KoboldCpp (2023), and `temp_ext` of llama.cpp.
    """
    if spread == 0 or len(masses) == 1:
        return temperature
    share = round(entropy(masses, surprises) / log2(len(masses)) * 2**53)  # in units of 2**-53
    share = min(max(share, 0), 2**53)
    raised = exp2(max(power * (log2(share) - 53), -1000.0)) if share > 0 else float(power == 0)
    low, high = max(0.0, temperature - spread), temperature + spread
    return min(max(low + (high - low) * raised, 1e-30), 1e30)


# ---- filters: the interval of the order that stays -----------------------------------------------------------------------
#
# Each takes the masses of the tokens that were kept before it, in the order, and returns where what it keeps starts and stops.


def keep_top_k(masses: Masses, k: int) -> tuple[int, int]:
    """Keep the k first; 0 is off."""
    return 0, min(k, len(masses)) if k > 0 else len(masses)


def keep_top_k_with_ties(logits: Row, k: int) -> tuple[int, int]:
    """Keep the k first, and all tokens whose logit equals that of the last of them; 0 is off."""
    if not 0 < k < len(logits):
        return 0, len(logits)
    return 0, int(np.count_nonzero(logits >= logits[k - 1]))


def keep_top_p(masses: Masses, p: float) -> tuple[int, int]:
    """Keep the smallest prefix whose mass is at least the share p of the whole; 1 is off.

    A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi, "The curious case of neural text degeneration", ICLR 2020.
    """
    if p == 1:
        return 0, len(masses)
    return 0, int(np.searchsorted(np.cumsum(masses), _share_of(masses, p))) + 1


def keep_top_p_beyond(masses: Masses, p: float) -> tuple[int, int]:
    """Keep the smallest prefix whose mass is more than the share p of the whole; 1 is off. This is the rule of SGLang."""
    if p == 1:
        return 0, len(masses)
    total = int(masses.sum())
    need = np.uint64(min(total, int(float(p) * float(total)) + 1))
    return 0, int(np.searchsorted(np.cumsum(masses), need)) + 1


def keep_min_p(masses: Masses, p: float) -> tuple[int, int]:
    """Keep the tokens at least p times as probable as the first; 0 is off.

    N. N. Nguyen et al., "Turning up the heat: min-p sampling for creative and coherent LLM outputs", ICLR 2025.
    """
    least = np.uint64(math.ceil(float(p) * float(masses[0])))
    return 0, int(np.count_nonzero(masses >= least))


def keep_typical_p(masses: Masses, surprises: Ids, p: float, fewest: int = 1) -> tuple[int, int]:
    """Keep the tokens whose surprise is nearest to the expected one, until their mass is at least the share p.

    All tokens at the last distance stay. The expected surprise is the entropy of what was kept before, and like the surprises
    it is measured from that of the most probable token, in units of 2**-22 bits.

    C. Meister, T. Pimentel, G. Wiher, R. Cotterell, "Locally typical sampling", TACL 2023.
    """
    if p == 1:
        return 0, len(masses)
    total = int(masses.sum())
    mean = (2 * _dot(masses, surprises) + total) // (2 * total)
    distances = np.abs(surprises - mean)
    nearest = np.argsort(distances, kind="stable")
    needed = int(np.searchsorted(np.cumsum(masses[nearest]), _share_of(masses, p)))
    last = nearest[max(needed, min(fewest, len(masses)) - 1)]
    kept = np.flatnonzero(distances <= distances[last])
    return int(kept[0]), int(kept[-1]) + 1


def keep_epsilon_cutoff(masses: Masses, e: float) -> tuple[int, int]:
    """Keep the tokens with a probability of at least e, and those as probable as the first in any case; 0 is off.

    J. Hewitt, C. D. Manning, P. Liang, "Truncation sampling as language model desmoothing", Findings of EMNLP 2022.
    """
    if e == 0:
        return 0, len(masses)
    return _keep_at_least(masses, float(e) * float(int(masses.sum())))


def keep_top_a(masses: Masses, a: float) -> tuple[int, int]:
    """Keep the tokens with a probability of at least a times the square of the largest one; 0 is off.

    It is from BlinkDL's RWKV-LM and KoboldAI.
    """
    if a == 0:
        return 0, len(masses)
    first, total = float(masses[0]), float(int(masses.sum()))
    return _keep_at_least(masses, float(a) * first * first / total)


def keep_eta_cutoff(masses: Masses, surprises: Ids, e: float) -> tuple[int, int]:
    """Keep the tokens with a probability of at least eta, and those as probable as the first in any case; 0 is off.

    With the entropy H of what was kept before, eta is the smaller of e and sqrt(e) exp(-H).

    J. Hewitt, C. D. Manning, P. Liang, "Truncation sampling as language model desmoothing", Findings of EMNLP 2022.
    """
    if e == 0:
        return 0, len(masses)
    eta = min(float(e), math.sqrt(e) * exp2(-entropy(masses, surprises)))
    return _keep_at_least(masses, eta * float(int(masses.sum())))


def keep_top_n_sigma(logits: Row, n: float) -> tuple[int, int]:
    """Keep the tokens whose logit is at most n standard deviations below the largest one; 0 is off.

    C. Tang, J. Liu, H. Xu, L. Huang, "Top-n-sigma: not all logits are you need", arXiv:2411.07641, 2024.
    """
    if n == 0:
        return 0, len(logits)
    floor = float(logits[0]) - float(n) * sigma(logits)
    return 0, int(np.count_nonzero(logits.astype(np.float64) >= floor))


def keep_tfs(masses: Masses, z: float) -> tuple[int, int]:
    """Keep the tokens before the tail, which begins where the share z of the bends of the sorted masses is behind; 1 is off.

    The bends are the absolute second differences. With ``i >= 1`` the first place at which their running sum exceeds the
    share, i tokens are kept. All are kept if there is no such place, because there are three tokens or fewer, or no bends.

    T. Bricken, "Tail free sampling", https://www.trentonbricken.com/Tail-Free-Sampling, 2019. The places are counted as in
    llama.cpp and KoboldCpp.
    """
    if z == 1 or len(masses) <= 3:
        return 0, len(masses)
    running = np.cumsum(np.abs(np.diff(masses.astype(np.int64), 2)))
    exceeding = np.flatnonzero(running[1:] > math.floor(float(z) * float(running[-1])))
    return 0, int(exceeding[0]) + 1 if len(exceeding) else len(masses)


def keep_top_h(masses: Masses, surprises: Ids, h: float) -> tuple[int, int]:
    """Keep the most probable tokens as long as they have at most the share h of the entropy, and the first; 0 is off.

    It looks at 100 tokens at most, and keeps no others. A token's part of the entropy is -p log p, where p is its probability
    among them.

    E. B. Potraghloo, S. Azizi, S. Kundu, M. Pedram, "Top-H decoding: adapting the creativity and coherence with bounded
    entropy in text generation", NeurIPS 2025.
    """
    if h == 0:
        return 0, len(masses)
    masses, surprises = masses[:100], surprises[:100]
    base = round(
        (log2(int(masses.sum())) - S) * 2**22
    )  # the surprise of a token as heavy as the most probable one can be
    parts = np.cumsum(masses.astype(object) * np.maximum(surprises + base, 0).astype(object)).tolist()
    return 0, max(1, sum(float(part) <= float(h) * float(parts[-1]) for part in parts))


def keep_xtc(masses: Masses, probability: float, threshold: float, word: int) -> tuple[int, int]:
    """With a probability, drop all tokens with a probability of at least the threshold but the last of them.

    The random word decides; a probability of 0 is off. XTC, "exclude top choices", is from p-e-w, in text-generation-webui
    (2024).
    """
    if word >= int(float(probability) * 2.0**64):
        return 0, len(masses)
    least = np.uint64(max(1, math.ceil(float(threshold) * float(int(masses.sum())))))
    return max(0, int(np.count_nonzero(masses >= least)) - 1), len(masses)


def keep_mirostat_v2(masses: Masses, mu: float) -> tuple[int, int]:
    """Keep the tokens with a surprise of at most mu bits, and those as probable as the first in any case.

    S. Basu, G. S. Ramachandran, N. S. Keskar, L. R. Varshney, "Mirostat: a neural text decoding algorithm that directly
    controls perplexity", ICLR 2021. The second version is from the authors' repository, and in llama.cpp.
    """
    return _keep_at_least(masses, exp2(-min(max(mu, 0.0), 1000.0)) * float(int(masses.sum())))


def keep_mirostat_v1(surprises: Ids, mu: float, vocabulary: int) -> tuple[int, int]:
    """Keep the k first, where k would make mu the surprise of the last one if the probabilities followed Zipf's law.

    The exponent s of that law is estimated from the first hundred tokens. See :func:`keep_mirostat_v2` for the paper.
    """
    if len(surprises) == 1:
        return 0, 1
    products = squares = 0.0
    for place, step in enumerate(np.diff(surprises[:100]).tolist()):
        ratio = log2(place + 2) - log2(place + 1)
        products += ratio * (step / 2**22)
        squares += ratio * ratio
    s = max(products / squares, 2.0**-40)
    excess = s - 1
    if abs(excess) < 2.0**-20:
        factor = 1.0 / ln(vocabulary)  # the limit of the other
    else:
        factor = excess / (1.0 - exp2(min(max(-excess * log2(vocabulary), -1000.0), 1000.0)))
    power = (mu + log2(round(factor * 2**56)) - 56) / s
    return 0, min(int(exp2(min(max(power, 0.0), 62.0))), len(surprises))


def _keep_at_least(masses: Masses, least: float) -> tuple[int, int]:
    """Keep the tokens with at least this mass, rounded up to at least 1, and those as heavy as the first in any case."""
    return 0, int(np.count_nonzero(masses >= min(masses[0], np.uint64(max(1, math.ceil(least))))))


def _share_of(masses: Masses, p: float) -> np.uint64:
    """Return the share p of all mass, rounded up; at least 1."""
    total = int(masses.sum())
    return np.uint64(min(total, max(1, math.ceil(float(p) * float(total)))))


class Filters(NamedTuple):
    """The parameters of one row that decide which tokens are kept."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    top_a: float = 0.0
    eta_cutoff: float = 0.0
    top_n_sigma: float = 0.0
    tfs: float = 1.0
    top_h: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    min_tokens_to_keep: int = 1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    smoothing_factor: float = 0.0
    smoothing_curve: float = 1.0
    mirostat: int = 0
    mirostat_mu: float = 10.0
    word: int = 0
    """The random word of the filters."""
    order: tuple[str, ...] = ORDERS["toksample"]


class Kept(NamedTuple):
    """The tokens that are kept, in the total order."""

    ids: Ids
    logits: Row
    masses: Masses
    surprises: Ids
    vocabulary: int
    """The number of tokens of the row, those included that are not kept."""

    def at(self, temperature: float) -> Kept:
        """Return the same tokens with the masses that they have at a temperature, relative to the first of them."""
        masses, surprises = mass(self.logits, temperature), surprise(self.logits, temperature)
        return self._replace(masses=masses, surprises=surprises)

    def temperature(self, filters: Filters) -> float:
        """Return the temperature for these tokens, by their masses before."""
        spread, power = filters.dynatemp_range, filters.dynatemp_exponent
        return dynamic_temperature(self.masses, self.surprises, filters.temperature, spread, power)

    def part(self, start: int, stop: int) -> Kept:
        """Return some of them."""
        part = slice(start, stop)
        return Kept(self.ids[part], self.logits[part], self.masses[part], self.surprises[part], self.vocabulary)


STEPS: dict[str, Callable[[Kept, Filters], tuple[int, int]]] = {
    "top_k": lambda kept, filters: keep_top_k(kept.masses, filters.top_k),
    "top_k_with_ties": lambda kept, filters: keep_top_k_with_ties(kept.logits, filters.top_k),
    "top_p": lambda kept, filters: keep_top_p(kept.masses, filters.top_p),
    "top_p_beyond": lambda kept, filters: keep_top_p_beyond(kept.masses, filters.top_p),
    "min_p": lambda kept, filters: keep_min_p(kept.masses, filters.min_p),
    "typical_p": lambda kept, filters: keep_typical_p(
        kept.masses, kept.surprises, filters.typical_p, filters.min_tokens_to_keep
    ),
    "epsilon_cutoff": lambda kept, filters: keep_epsilon_cutoff(kept.masses, filters.epsilon_cutoff),
    "top_a": lambda kept, filters: keep_top_a(kept.masses, filters.top_a),
    "eta_cutoff": lambda kept, filters: keep_eta_cutoff(kept.masses, kept.surprises, filters.eta_cutoff),
    "top_n_sigma": lambda kept, filters: keep_top_n_sigma(kept.logits, filters.top_n_sigma),
    "tfs": lambda kept, filters: keep_tfs(kept.masses, filters.tfs),
    "top_h": lambda kept, filters: keep_top_h(kept.masses, kept.surprises, filters.top_h),
    "xtc": lambda kept, filters: keep_xtc(kept.masses, filters.xtc_probability, filters.xtc_threshold, filters.word),
    "mirostat": lambda kept, filters: keep_mirostat(kept, filters),
}
"""The filters: from the tokens that were kept before and the parameters to where what each filter keeps starts and stops."""


def keep_mirostat(kept: Kept, filters: Filters) -> tuple[int, int]:
    """Apply the version of mirostat that is on; 0 is off."""
    match filters.mirostat:
        case 1:
            return keep_mirostat_v1(kept.surprises, filters.mirostat_mu, kept.vocabulary)
        case 2:
            return keep_mirostat_v2(kept.masses, filters.mirostat_mu)
        case _:
            return 0, len(kept.ids)


def survivors(row: Row, filters: Filters) -> tuple[Ids, Masses]:
    """Return the ids that the filters keep, in the total order, and their masses. Banned tokens never survive."""
    if filters.temperature == 0:
        return order(row)[:1], np.array([2**S], np.uint64)
    row = smooth(row, filters.smoothing_factor, filters.smoothing_curve)
    ids = order(row)[: np.count_nonzero(row > -np.inf)]
    kept = Kept(ids, row[ids], np.empty(0, np.uint64), np.empty(0, np.int64), len(row)).at(1.0)
    for step in filters.order:
        if step == "temperature":
            kept = kept.at(kept.temperature(filters))
            continue
        start, stop = STEPS[step](kept, filters)
        fewest = min(filters.min_tokens_to_keep, len(kept.ids))
        if step == "xtc":
            start = start if stop - start >= fewest else 0
        elif step != "typical_p":  # which keeps the nearest ones in any case
            stop = max(stop, fewest)
        kept = kept.part(start, stop)
    return kept.ids, kept.masses


# ---- the draw --------------------------------------------------------------------------------------------------------


def philox4x64(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return the four words of Philox4x64-10 at a counter.

    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. It is the
    generator of :class:`numpy.random.Philox`, which gives these words for a counter that is smaller by one.
    """
    low = 2**64 - 1
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        product0, product1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (product1 >> 64) ^ c1 ^ k0, product1 & low, (product0 >> 64) ^ c3 ^ k1, product0 & low
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & low, (k1 + 0xBB67AE8584CAA73B) & low
    return c0, c1, c2, c3


def draw_word(seed: int, stream: int, position: int) -> int:
    """Return the random 64-bit word that draws the token at ``position`` of text number ``stream``."""
    return philox4x64((seed, 0), (position, stream, 0, 0))[0]


def filter_word(seed: int, stream: int, position: int) -> int:
    """Return the random 64-bit word of the filter that is random itself: the next one."""
    return philox4x64((seed, 0), (position, stream, 0, 0))[1]


def draw(ids: Ids, masses: Masses, word: int) -> int:
    """Return the first id, in id order, whose running mass exceeds the point of the mass line that the word hits."""
    by_id = np.argsort(ids)
    running = np.cumsum(masses[by_id])
    target = (word * int(running[-1])) >> 64
    return int(ids[by_id][np.searchsorted(running, np.uint64(target), side="right")])


# ---- probabilities ---------------------------------------------------------------------------------------------------


def softmax_of_row(row: Row, temperature: float) -> Row:
    """Return the probabilities of a row: each weight by the sum of the masses."""
    if temperature == 0:
        result: Row = (np.arange(len(row)) == np.argmax(row)).astype(np.float32)
        return result
    w = weight(row, temperature)
    total = int(mass(row, temperature).sum())
    result = np.where(w > np.float32(2.0 ** (S - 64)), w, np.float32(0)) * np.float32(1.0 / float(total))
    return result


def log_softmax_of_row(row: Row, temperature: float) -> Row:
    """Return the natural logarithms of the probabilities of a row."""
    if temperature == 0:
        return np.where(np.arange(len(row)) == np.argmax(row), np.float32(0), np.float32(-np.inf))
    log_total = ln(int(mass(row, temperature).sum())) - S * LN_2
    inverse = min(1.0 / temperature, np.finfo(np.float64).max)
    x = row.astype(np.float64)
    with np.errstate(over="ignore"):
        result: Row = ((x - x.max()) * inverse - log_total).astype(np.float32)
    return result


# ---- the functions of the package --------------------------------------------------------------------------------------


def edited(array: Logits, parameters: Mapping[str, object]) -> Logits:
    """Return the logits, of shape (V,) or (B, V), with the edits that the parameters ask for."""
    rows = np.atleast_2d(array)
    check_tokens(array)
    each = edits(parameters, len(rows), rows.shape[1], array.ndim == 2)
    return np.array([edit(row, one) for row, one in zip(rows, each, strict=True)], array.dtype).reshape(array.shape)


def edited_rows(logits: object, parameters: Mapping[str, object]) -> tuple[npt.NDArray[np.float32], bool]:
    """Return the logits as edited float32 rows, and whether they came as a batch."""
    check_names(parameters)
    native, _, is_edited = as_native(logits, parameters)
    check_tokens(native)
    rows = as_float32(native)
    return np.atleast_2d(rows if is_edited else edited(rows, parameters)), rows.ndim == 2


def for_each_row(
    function: Callable[[Row, dict[str, Any]], Any],
    logits: object,
    parameters: Mapping[str, object],
    *,
    dtype: npt.DTypeLike,
    is_wide: bool = True,
    errors: str = "raise",
) -> Any:
    """Call a function on each row and its parameters, and return what it gives: a number, or one for each token."""
    rows, is_batch = edited_rows(logits, parameters)
    each = numbers(parameters, len(rows), is_batch)
    if errors == "raise":
        raise_row_errors(rows, is_batch)
    result = np.full(rows.shape if is_wide else len(rows), -1, dtype)
    for b, row in enumerate(rows):
        if row_error(row) is None:
            result[b] = function(row, each[b])
    return result if is_batch else result[0]


def _filters(params: Mapping[str, Any]) -> Filters:
    word = filter_word(params["seed"], params["stream"], params["position"])
    return Filters(word=word, **{name: params[name] for name in Filters._fields if name != "word"})


def _written(result: Any, out: npt.NDArray[Any] | None) -> Any:
    """Copy a result to ``out``, if there is one; the kernels' checks of it are theirs alone."""
    if out is None:
        return result
    out[...] = result
    return out


def argmax(logits: object, *, num_threads: int | None = None) -> Any:
    """See :func:`toksample.argmax`."""
    tokens = for_each_row(lambda row, _: np.argmax(row), logits, {}, dtype=np.int64, is_wide=False)
    return tokens if tokens.ndim else int(tokens)


def softmax(
    logits: object,
    temperature: float | npt.ArrayLike | None = 1.0,
    *,
    out: npt.NDArray[np.float32] | None = None,
    num_threads: int | None = None,
) -> Any:
    """See :func:`toksample.softmax`."""
    parameters = {"temperature": temperature}
    probs = for_each_row(
        lambda row, params: softmax_of_row(row, params["temperature"]), logits, parameters, dtype=np.float32
    )
    return like(probs, logits) if out is None else _written(probs, out)


def log_softmax(
    logits: object,
    temperature: float | npt.ArrayLike | None = 1.0,
    *,
    out: npt.NDArray[np.float32] | None = None,
    num_threads: int | None = None,
) -> Any:
    """See :func:`toksample.log_softmax`."""
    parameters = {"temperature": temperature}
    logprobs = for_each_row(
        lambda row, params: log_softmax_of_row(row, params["temperature"]), logits, parameters, dtype=np.float32
    )
    return like(logprobs, logits) if out is None else _written(logprobs, out)


def top_k(logits: object, k: int, *, num_threads: int | None = None) -> tuple[Any, Any]:
    """See :func:`toksample.top_k`."""
    rows, is_batch = edited_rows(logits, {})
    k = count("k", k, rows.shape[1])
    raise_row_errors(rows, is_batch)
    given = np.atleast_2d(as_given(logits)[0])
    sortable = given if given.dtype == np.float64 else rows  # float64 is sorted as it is, before it is rounded
    ids = np.array([order(row)[:k] for row in sortable], np.int64).reshape(-1, k)
    values = np.take_along_axis(given, ids, axis=1)
    if not is_batch:
        values, ids = values[0], ids[0]
    return like(values, logits), like(ids, logits)


@show_parameters(errors="raise", num_threads=None, out=None)
def sample(
    logits: object,
    *,
    errors: str = "raise",
    num_threads: int | None = None,
    out: npt.NDArray[np.int64] | None = None,
    **parameters: Unpack[Parameters],
) -> Any:
    """See :func:`toksample.sample`."""

    def draw_from_row(row: Row, params: dict[str, Any]) -> int:
        word = draw_word(params["seed"], params["stream"], params["position"])
        return draw(*survivors(row, _filters(params)), word)

    errors_mode(errors)
    tokens = for_each_row(draw_from_row, logits, parameters, dtype=np.int64, is_wide=False, errors=errors)
    if out is not None:
        return _written(tokens, out)
    return tokens if tokens.ndim else int(tokens)


@show_parameters()
def candidates(logits: object, **parameters: Unpack[Parameters]) -> tuple[Ids, npt.NDArray[np.float64]]:
    """See :func:`toksample.candidates`."""
    rows, is_batch = edited_rows(logits, parameters)
    if is_batch:
        raise ValueError(f"logits must be one row of shape (V,), got shape {rows.shape}")
    (params,) = numbers(parameters, 1, is_batch)
    raise_row_errors(rows, is_batch)
    ids, masses = survivors(rows[0], _filters(params))
    return ids, masses.astype(np.float64) / float(int(masses.sum()))


@show_parameters(num_threads=None)
def mask_logits(logits: object, *, num_threads: int | None = None, **parameters: Unpack[Parameters]) -> Any:
    """See :func:`toksample.mask_logits`."""

    def is_kept(row: Row, params: dict[str, Any]) -> npt.NDArray[np.bool_]:
        return np.isin(np.arange(len(row)), survivors(row, _filters(params))[0])

    kept = for_each_row(is_kept, logits, parameters, dtype=np.bool_)
    given = as_given(logits)[0]
    dropped = 0xFF80 if given.dtype == np.uint16 else -np.inf  # -inf in bfloat16
    return like(np.where(kept, given, np.array(dropped, given.dtype)), logits)
