"""Which tokens survive, and with which masses: smoothing, temperature and the filters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from toksample._orders import EDITS, ORDERS
from toksample._series import exp2, ln, log2
from toksample.reference.adaptive_p import weigh_adaptive_p
from toksample.reference.masses import Ids, Masses, Row, S, dot, entropy, mass, order, sigma, surprise

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
    mean = (2 * dot(masses, surprises) + total) // (2 * total)
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
    power = (mu + (log2(round(factor * 2**56)) - 56)) / s
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
    xtc_exempt_token_ids: list[int] | tuple[int, ...] = ()
    min_tokens_to_keep: int = 1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    smoothing_factor: float = 0.0
    smoothing_curve: float = 1.0
    mirostat: int = 0
    mirostat_mu: float = 10.0
    adaptive_target: float = -1.0
    adaptive_average: float = 0.0
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


def keep(row: Row, filters: Filters) -> tuple[Kept, float]:
    """Return the tokens that the filters keep, and the temperature that they were divided by. Banned tokens never survive."""
    if filters.temperature == 0:
        ids = order(row)[:1]
        return Kept(ids, row[ids], np.array([2**S], np.uint64), np.zeros(1, np.int64), len(row)), 0.0
    row = smooth(row, filters.smoothing_factor, filters.smoothing_curve)
    ids = order(row)[: np.count_nonzero(row > -np.inf)]
    temperature = 1.0
    kept = Kept(ids, row[ids], np.empty(0, np.uint64), np.empty(0, np.int64), len(row)).at(temperature)
    for step in filters.order:
        if step in EDITS or step == "adaptive_p":  # which are applied before and after this, in any order
            continue
        if step == "temperature":
            temperature = kept.temperature(filters)
            kept = kept.at(temperature)
            continue
        start, stop = STEPS[step](kept, filters)
        fewest = min(filters.min_tokens_to_keep, len(kept.ids))
        if step == "xtc":
            drops_exempt = np.isin(kept.ids[:start], filters.xtc_exempt_token_ids).any()
            start = 0 if drops_exempt or stop - start < fewest else start
        elif step != "typical_p":  # which keeps the nearest ones in any case
            stop = max(stop, fewest)
        kept = kept.part(start, stop)
    return kept, temperature


def survivors(row: Row, filters: Filters) -> tuple[Ids, Masses]:
    """Return the ids that the filters keep, in the total order, and the masses by which one of them is drawn."""
    kept, _ = keep(row, filters)
    return kept.ids, weigh_adaptive_p(kept.masses, filters.adaptive_target, filters.adaptive_average)
