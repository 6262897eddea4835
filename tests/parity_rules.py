"""The rules of other samplers, in exact arithmetic as far as their own rounding lets one say what they keep.

The samplers compute probabilities and sums in float32, so where a sum is within its rounding of the parameter, either answer
may come out. Each function here takes an interval of the sorted row and returns the intervals that a sampler may keep of it:
in nearly all cases there is one. `test_parity.py` requires that a sampler keeps one of them, and that toksample does, too.

Whole numbers, such as `top_k`, and exact probabilities (of 2**n equal logits) leave no choice. Equal logits are not told
apart, because most samplers pick any of them.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNIT = 2.0**-24
"""The largest relative error of one rounding to float32."""
PROMISED, TINY = 1e-5, 1e-12
"""The largest relative and absolute error of a probability in toksample."""

Floats = NDArray[np.float64]
Interval = tuple[int, int]
Rule = Callable[["Part", Any, int], list[Interval]]
"""From a part of the row, the parameter, and `min_tokens_to_keep` to the intervals of the part that may be kept."""


class Sorted(NamedTuple):
    """The logits that are not banned, in descending order, divided by the temperature."""

    logits: Floats
    error: Floats
    """How far a logit may be off, because the sampler divided by the temperature in float32."""

    def at(self, temperature: float) -> "Sorted":
        """Divide by the temperature."""
        if temperature == 1:
            return self
        logits = self.logits / temperature
        return Sorted(logits, self.error / temperature + np.abs(logits) * 2 * UNIT + 2.0**-149)

    def part(self, start: int, stop: int) -> "Part":
        """Return a part with the bounds of its probabilities."""
        logits, error = self.logits[start:stop], self.error[start:stop]
        count = len(logits)
        distances = logits - logits[0]
        is_exact = not distances.any() and count & (count - 1) == 0
        # What toksample promises; a float32 sum of n terms, an exponential and a division; the difference of two logits.
        relative = np.full(count, 0.0 if is_exact else (count + 10) * UNIT + PROMISED)
        relative += np.where(distances == 0, 0.0, error + error[0] - distances * UNIT)
        low, high = np.exp(distances - relative), np.exp(np.minimum(distances + relative, 500.0))
        edges = np.flatnonzero(np.diff(logits)) + 1
        return Part(logits, error, low, high, [*edges.tolist(), count], is_exact)


class Part(NamedTuple):
    """A part of the sorted row."""

    logits: Floats
    error: Floats
    low: Floats
    high: Floats
    """The bounds of each token's probability, as a multiple of that of the first token."""
    edges: list[int]
    """Where the equal logits end."""
    is_exact: bool
    """Whether the probabilities have no error, because there are 2**n equal logits."""

    def margin(self, p: float) -> float:
        """Return the error of a comparison with a parameter, which a sampler may round to float32."""
        return 0.0 if self.is_exact and (p * len(self.logits)).is_integer() else 4 * UNIT

    def probs(self) -> tuple[Floats, Floats]:
        """Return the bounds of each token's probability."""
        return self.low / self.high.sum(), self.high / self.low.sum()

    def surprises(self) -> tuple[Floats, float, Floats]:
        """Return the surprises, the entropy, and how far the difference of a surprise and the entropy may be off."""
        x = self.logits - self.logits[0]
        surprises = np.log(np.exp(x).sum()) - x
        entropy = float((np.exp(-surprises) * surprises).sum())
        rounding = 8 * UNIT * (surprises + entropy + 1) + (len(x) + 10) * UNIT * entropy
        return surprises, entropy, self.error + self.error[0] + (0.0 if self.is_exact else rounding)

    def share(self, is_in: NDArray[np.bool_]) -> tuple[float, float]:
        """Return the bounds of the probability of some tokens together."""
        low, high = float(self.low[is_in].sum()), float(self.high[is_in].sum())
        rest_low, rest_high = float(self.low[~is_in].sum()), float(self.high[~is_in].sum())
        return (low / (low + rest_high) if low else 0.0), (high / (high + rest_low) if high else 0.0)

    def edges_between(self, low: int, high: int) -> list[int]:
        """Return where equal logits end, from the end of those at ``low - 1`` to the end of those at ``high - 1``."""
        first = self.edge(low)
        return [edge for edge in self.edges if first <= edge <= max(first, high)]

    def edge(self, least: int) -> int:
        """Return where the equal logits end of which the token at ``least - 1`` is one."""
        return next(edge for edge in self.edges if edge >= least)

    def as_probable_as_first(self) -> int:
        """Return how many tokens may have the probability of the first one."""
        return int(np.count_nonzero(self.high >= self.low[0]))


def top_k(part: Part, k: int, fewest: int) -> list[Interval]:
    """Keep k tokens, whatever the fewest are."""
    return [(0, min(k, len(part.logits)))]


def top_k_with_ties(part: Part, k: int, fewest: int) -> list[Interval]:
    """Keep k tokens, and all that equal the last of them, perhaps only because of the division by the temperature."""
    k = min(max(k, fewest), len(part.logits))
    least = part.logits[k - 1] - part.error[k - 1]
    near = int(np.count_nonzero(part.logits + part.error >= least)) if part.error.any() else k
    return [(0, stop) for stop in part.edges_between(k, near)]


def top_p(part: Part, p: float, fewest: int) -> list[Interval]:
    """Keep the smallest prefix with a sum of at least p."""
    return _top_p(part, p, fewest, part.margin(p))


def top_p_in_float32(part: Part, p: float, fewest: int) -> list[Interval]:
    """Keep the smallest prefix with a sum of at least p, of terms that a float32 sum has divided and another one adds."""
    return _top_p(part, p, fewest, part.margin(p) and part.margin(p) + 2 * len(part.logits) * UNIT)


def _top_p(part: Part, p: float, fewest: int, margin: float) -> list[Interval]:
    count = len(part.logits)
    low, high = np.cumsum(part.low), np.cumsum(part.high)
    share_low = np.concatenate([[0.0], low / (low + high[-1] - high)])
    share_high = np.minimum(1.0, high / (high + low[-1] - low))
    stops = np.flatnonzero((share_high >= p - margin) & (share_low[:-1] < max(p + margin, TINY))) + 1
    return sorted({(0, min(max(int(stop), fewest), count)) for stop in stops})


def min_p(part: Part, p: float, fewest: int) -> list[Interval]:
    """Keep the tokens that are at least p times as probable as the first."""
    return _at_least(part, part.low, part.high, p, fewest)


def min_p_of_logits(part: Part, p: float, fewest: int) -> list[Interval]:
    """Keep the tokens whose logit is at least that of the first one and the logarithm of p, added in float32."""
    error = min(2 * UNIT * float(np.abs(part.logits[0]) + np.abs(np.log(p))), 500.0)
    return _at_least(part, part.low * np.exp(-error), part.high * np.exp(error), p, fewest)


def xtc(part: Part, threshold: float, fewest: int) -> list[Interval]:
    """Drop the tokens with a probability of at least the threshold but the last of them, if as many as the fewest stay."""
    count, margin = len(part.logits), part.margin(threshold)
    low, high = part.probs()
    certain = int(np.count_nonzero(low - TINY * (not part.is_exact) >= threshold * (1 + margin)))
    possible = int(np.count_nonzero(high + TINY * (not part.is_exact) >= threshold * (1 - margin)))
    above = part.edges_between(certain, possible) if possible else [0]
    starts = {max(edge, 1) - 1 for edge in ([0, *above] if certain == 0 else above)}
    return sorted({(start if count - start >= fewest else 0, count) for start in starts})


def epsilon_cutoff(part: Part, epsilon: float, fewest: int) -> list[Interval]:
    """Keep the tokens with a probability of at least epsilon, and all that equal the last of the fewest."""
    low, high = part.probs()
    fewest = min(fewest, len(part.logits))
    return _at_least(part, low, high, epsilon, part.edge(fewest))


def eta_cutoff(part: Part, epsilon: float, fewest: int) -> list[Interval]:
    """Keep the tokens with a probability of at least eta, and all that equal the last of the fewest."""
    surprises, entropy, error = part.surprises()
    error_of_entropy = float((np.exp(-surprises) * (error + (part.error + PROMISED) * surprises)).sum()) + PROMISED
    low, high = part.probs()
    ends = set()
    for sign in (1, -1):
        eta = min(epsilon, np.sqrt(epsilon) * np.exp(min(sign * error_of_entropy - entropy, 0.0)))
        ends |= {stop for _, stop in _at_least(part, low, high, float(eta), part.edge(min(fewest, len(part.logits))))}
    return [(0, stop) for stop in part.edges_between(min(ends), max(ends))]


def top_h(part: Part, h: float, fewest: int) -> list[Interval]:
    """Keep the most probable tokens of the first hundred as long as they have at most the share h of their entropy."""
    part = Part(*(field[:100] for field in part[:4]), part.edges, False)
    surprises, _, error = part.surprises()
    probs = np.exp(-surprises)
    parts = np.cumsum(probs * surprises)
    error_of_each = probs * (error + (part.error + part.error[0] + PROMISED) * (surprises + 1))
    error = np.cumsum(error_of_each) + len(parts) * UNIT * parts
    least, margin = h * parts[-1], h * (error[-1] + 4 * UNIT)
    certain = int(np.count_nonzero(parts + error <= least - margin))
    possible = int(np.count_nonzero(parts - error <= least + margin + TINY))
    return [(0, stop) for stop in range(max(certain, 1), max(possible, 1) + 1)]


def top_n_sigma(part: Part, n: float, fewest: int) -> list[Interval]:
    """Keep the tokens whose logit is at most n standard deviations below the largest one.

    toksample rounds the logits to 1/1024 for the standard deviation.
    """
    x = part.logits
    rounding = (len(x) + 10) * UNIT * float(np.abs(x).max())
    floor, margin = x[0] - n * float(x.std()), n * (1 / 2048 + 2 * rounding) + 4 * UNIT * float(np.abs(x).max())
    certain, possible = int(np.count_nonzero(x >= floor + margin)), int(np.count_nonzero(x >= floor - margin))
    return [(0, stop) for stop in part.edges_between(max(certain, 1), possible)]


def mirostat_v1(part: Part, mu: float, fewest: int) -> list[Interval]:
    """Keep the first k tokens, by an estimate of the exponent of Zipf's law."""
    x, count = part.logits, len(part.logits)
    places = np.arange(1, min(count, 100))
    ratios = np.log((places + 1) / places)
    s = float(ratios @ -np.diff(x[:100]) / (ratios @ ratios))
    k = ((s - 1) * 2**mu / (1 - count ** (1 - s))) ** (1 / s)
    error = 1e-4 * (1 + abs(np.log(k)) + 1 / abs(s - 1)) / min(s, 1)
    return [(0, min(max(stop, 1), count)) for stop in range(int(k * (1 - error)), int(k * (1 + error)) + 1)]


def mirostat_v2(part: Part, mu: float, fewest: int) -> list[Interval]:
    """Keep the tokens with a surprise of at most mu bits, or one token if there is none."""
    surprises, _, error = part.surprises()
    bits, error = surprises / np.log(2), error / np.log(2) + 1e-6 * (mu + 1)
    certain, possible = int(np.count_nonzero(bits + error <= mu)), int(np.count_nonzero(bits - error <= mu))
    return [(0, max(stop, 1)) for stop in [0, *part.edges] if certain <= stop <= possible]


def mirostat_v2_with_ties(part: Part, mu: float, fewest: int) -> list[Interval]:
    """Apply the rule of toksample: keep all that equal the first token in any case."""
    stops = {stop for _, stop in mirostat_v2(part, mu, fewest)}
    ties = part.edges_between(1, part.as_probable_as_first())
    return sorted({(0, max(stop, tie)) for stop in stops for tie in ties})


def _at_least(part: Part, low: Floats, high: Floats, least: float, fewest: int) -> list[Interval]:
    margin = part.margin(least)
    certain = int(np.count_nonzero(low >= least * (1 + margin)))
    possible = int(np.count_nonzero(high + (TINY if margin else 0.0) >= least * (1 - margin)))
    stops = part.edges_between(max(certain, 1), max(possible, part.as_probable_as_first()))
    return sorted({(0, min(max(stop, fewest), len(part.logits))) for stop in stops})


def typical_p(part: Part, p: float, fewest: int) -> list[Interval]:
    """Keep the tokens whose surprise is nearest to the entropy until they sum to p, and all at the last distance."""
    distances, error = distances_from_entropy(part)
    count, edges, margin = len(distances), [0, *part.edges], part.margin(p)
    fewest = min(fewest, count)
    result = set()
    for last in np.array(edges[1:]) - 1:
        farthest = distances[last]
        sure = distances + error < farthest - error[last]
        maybe = distances - error <= farthest + error[last]
        if (sure.any() and part.share(sure)[0] >= p + margin) or part.share(maybe)[1] < p - margin:
            continue
        sure[part.logits == part.logits[last]] = True
        starts = [e for e in edges if np.argmax(maybe) <= e <= np.argmax(sure)]
        stops = [e for e in edges if count - np.argmax(sure[::-1]) <= e <= count - np.argmax(maybe[::-1])]
        for start, stop in itertools.product(starts, stops):
            result |= _nearest(distances, error, start, stop, fewest)
    return sorted(result)


def typical_p_beyond(part: Part, p: float, fewest: int) -> list[Interval]:
    """Keep the tokens whose surprise is nearest to the entropy until they sum to more than p, and no others."""
    distances, error = distances_from_entropy(part)
    count, margin = len(distances), part.margin(p) and part.margin(p) + 2 * len(distances) * UNIT
    fewest = min(fewest, count)
    low, high = (np.concatenate([[0.0], np.cumsum(w)]) for w in (part.low, part.high))
    result = set()
    for last in np.array(part.edges) - 1:
        farthest = distances[last]
        sure = distances + error < farthest - error[last]
        maybe = distances - error <= farthest + error[last]
        if (sure.any() and part.share(sure)[0] > p + margin) or part.share(maybe)[1] <= p - margin:
            continue
        first, end = int(np.argmax(maybe)), int(np.flatnonzero(maybe)[-1]) + 1
        inner = np.flatnonzero(sure) if sure.any() else np.array([end, first - 1])
        for start, stop in itertools.product(range(first, inner[0] + 1), range(max(inner[-1] + 1, first), end + 1)):
            if start >= stop:
                continue
            # The last token is at one of the ends: without it, the sum is at most p.
            part_high, part_low = high[stop] - high[start], low[stop] - low[start]
            is_enough = part_high / (part_high + low[-1] - part_low) > p - margin or stop - start == count
            least = part_low - max(part.low[start], part.low[stop - 1])
            most_rest = high[-1] - part_high + max(part.high[start], part.high[stop - 1])
            if is_enough and (stop - start == 1 or least / (least + most_rest) <= p + margin):
                result |= _nearest(distances, error, start, stop, fewest)
    return sorted(result)


def _nearest(distances: Floats, error: Floats, start: int, stop: int, fewest: int) -> set[Interval]:
    """Add tokens to an interval until it has the fewest, the nearest ones first."""
    if stop - start >= fewest:
        return {(start, stop)}
    result = set()
    for first in range(max(0, stop - fewest), min(start, len(distances) - fewest) + 1):
        is_in = np.zeros(len(distances), bool)
        is_in[first : first + fewest] = True
        if is_in.all() or (distances - error)[is_in].max() <= (distances + error)[~is_in].min():
            result.add((first, first + fewest))
    return result


def then_fewest(rule: Rule) -> Rule:
    """Apply a rule, and then toksample's `min_tokens_to_keep`: exactly so many tokens, if the rule keeps fewer."""

    def apply(part: Part, value: Any, fewest: int) -> list[Interval]:
        return sorted({(0, min(max(stop, fewest), len(part.logits))) for _, stop in rule(part, value, 1)})

    return apply


def typical_p_then_ties(part: Part, p: float, fewest: int) -> list[Interval]:
    """Apply `typical_p` with toksample's `min_tokens_to_keep`: the fewest, and all at the distance of the last of them.

    In toksample all tokens with less than 2**-64 of the probability of the first have the same distance.
    """
    distances, error = distances_from_entropy(part)
    is_least = part.logits - part.logits[0] <= -64 * np.log(2)
    distances[is_least] = distances[is_least].min(initial=np.inf)
    farthest = np.sort(distances)[min(fewest, len(distances)) - 1]
    result = set()
    for start, stop in typical_p(part, p, 1):
        if stop - start >= fewest:
            result.add((start, stop))
            continue
        for also in (distances <= farthest, distances <= farthest + error):
            result.add((min(start, int(np.argmax(also))), max(stop, int(np.flatnonzero(also)[-1]) + 1)))
    return sorted(result)


def distances_from_entropy(part: Part) -> tuple[Floats, Floats]:
    """Return how far the surprise of each token is from the entropy, and how far that may be off."""
    surprises, entropy, error = part.surprises()
    return np.abs(surprises - entropy), error


PEERS: dict[str, dict[str, Rule | None]] = {
    "transformers": {
        "temperature": None,
        "top_h": top_h,
        "top_k": top_k_with_ties,
        "top_p": top_p,
        "min_p": min_p,
        "typical_p": typical_p,
        "epsilon_cutoff": epsilon_cutoff,
        "eta_cutoff": eta_cutoff,
    },
    "llama.cpp": {
        "top_n_sigma": top_n_sigma,
        "top_k": top_k,
        "typical_p": typical_p_beyond,
        "top_p": top_p_in_float32,
        "min_p": min_p_of_logits,
        "xtc_threshold": xtc,
        "temperature": None,
        "mirostat_v1": mirostat_v1,
        "mirostat_v2": mirostat_v2,
    },
}
"""The steps of each sampler in its order: a parameter and its rule."""

OURS: dict[str, dict[str, Rule | None]] = {
    "transformers": PEERS["transformers"]
    | {
        "top_k": then_fewest(top_k_with_ties),
        "typical_p": typical_p_then_ties,
        "epsilon_cutoff": then_fewest(epsilon_cutoff),
        "eta_cutoff": then_fewest(eta_cutoff),
    },
    "llama.cpp": PEERS["llama.cpp"] | {"typical_p": typical_p_then_ties, "mirostat_v2": mirostat_v2_with_ties},
}
"""The steps of each sampler, but with the rules of toksample for equal logits where they are others."""


class Possible(NamedTuple):
    """What a sampler may keep of a row."""

    logits: Floats
    """The logits that are not banned, in descending order."""
    error: Floats
    """Logits that differ by twice this may be equal to the sampler."""
    intervals: set[Interval]
    """The intervals of the sorted row that it may keep."""
    choices: list[str]
    """The steps at which it depends on the sampler's rounding what it keeps."""

    def has(self, kept: NDArray[np.float32]) -> bool:
        """Say whether some logits are one of the intervals.

        Equal logits are not told apart, nor are those whose probability in float32 is 0 or a subnormal number.
        """
        ours, least = np.sort(kept.astype(np.float64))[::-1], self.logits[0] - 87
        return any(
            len(ours) == b - a
            and bool(
                (np.abs(np.maximum(ours, least) - np.maximum(self.logits[a:b], least)) <= 2 * self.error[a:b]).all()
            )
            for a, b in self.intervals
        )


def possible(row: NDArray[np.float32], steps: dict[str, Rule | None], params: dict[str, Any]) -> Possible:
    """Return what a sampler with these steps may keep."""
    logits = np.sort(row[row > -np.inf].astype(np.float64))[::-1]
    state = Sorted(logits, np.zeros(len(logits)))
    kept: set[Interval] = {(0, len(logits))}
    choices, error = [], state.error
    for name, rule in steps.items():
        if name not in params:
            continue
        if rule is None:
            state = state.at(params[name])
            continue
        if state.error.any():  # the temperature comes first
            error = state.error * params["temperature"]
        if rule is typical_p_beyond:  # it takes any of those at the same distance
            error = distances_from_entropy(state.part(0, len(logits)))[1]
        parts = {
            (start, stop): rule(state.part(start, stop), params[name], params.get("min_tokens_to_keep", 1))
            for start, stop in kept
        }
        if any(len(part) != 1 for part in parts.values()):
            choices.append(name)
        kept = {(start + a, start + b) for (start, _), part in parts.items() for a, b in part}
    return Possible(logits, error, kept, choices)
