"""A second implementation of the sampler, written from docs/specification.md: pure Python, without numpy or toksample.

It is plain and slow. Its functions have the names of that page, and nearly its order. It leaves out speculation.

Python's float is float64, rounded as the specification says. A float32 operation is done in float64, and its result is rounded
to float32. Here two roundings give what a single one gives. They could only differ if the exact result were so close to the
middle between two neighbouring float32 numbers, without being the middle, that float64 rounds it to the middle:

- A product has at most 48 bits, so float64 does not round it at all.
- A sum or a difference that float64 rounds has one term that is less than 2**-28 of the other. It is then very close to the
  other term, which is a float32 number and therefore far from any middle.
- A quotient a / b differs from a middle c, unless it is equal, by (a - b * c) / b. The middle has at most 25 bits and b * c at
  most 49, so this is at least 2**-50 of the quotient, and the rounding of float64 moves it by at most 2**-53.

This also holds for subnormal results, for which a middle has fewer bits. In general, a first rounding to at least 2 * p + 2
bits does not harm a second one to p bits: S. A. Figueroa, "When is double rounding innocuous?", SIGNUM Newsletter, 1995.
"""

import math
import struct

INFINITY = math.inf

S = 41
LOG2_E = float.fromhex("0x1.71547652b82fep+0")
LN_2 = float.fromhex("0x1.62e42fefa39efp-1")
C1 = float.fromhex("0x1.62e42ap-1")
C2 = float.fromhex("0x1.ebf9bcp-3")
C3 = float.fromhex("0x1.c6b752p-5")
C4 = float.fromhex("0x1.3cea88p-7")
C5 = float.fromhex("0x1.5bba14p-10")
M0, M1 = 0xD2E7470EE14C6C93, 0xCA5A826395121157
W0, W1 = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B

# ---- numbers -----------------------------------------------------------------------------------------------------------

_pack, _unpack = struct.Struct("<f").pack, struct.Struct("<f").unpack


def float32(x):
    """Round a float64 to float32, and give it as a float64 again."""
    try:
        return _unpack(_pack(x))[0]
    except OverflowError:
        return math.copysign(INFINITY, x)


def float64(x):
    """Round nothing: x is a float64, or becomes one."""
    return float(x)


rint = round  # to an integer, and in a tie to the even one

LARGEST = {float32: float.fromhex("0x1.fffffep+127"), float64: float.fromhex("0x1.fffffffffffffp+1023")}


def clip(x, low, high):
    return min(max(x, low), high)


def clip_to_finite(x, rounded):
    """Clip a number to the finite range of the type that it was rounded to."""
    return clip(x, -LARGEST[rounded], LARGEST[rounded])


# ---- series ------------------------------------------------------------------------------------------------------------


def split(w):
    """Return e and ln m for the integer w."""
    half, e = math.frexp(float(w))  # half is in [0.5, 1)
    m, e = 2 * half, e - 1
    r = (m - 1) / (m + 1)
    q = r * r
    a = 0.0
    for k in range(16, -1, -1):
        a = a * q + 1 / (2 * k + 1)
    return e, 2 * r * a


def ln(w):
    e, ln_m = split(w)
    return e * LN_2 + ln_m


def log2(w):
    e, ln_m = split(w)
    return e + ln_m * LOG2_E


def exp2(x):
    n = rint(x)
    y = (x - n) * LN_2
    a = 1.0
    for k in range(14, 0, -1):
        a = 1 + y / k * a
    return math.ldexp(a, n)


# ---- logits ------------------------------------------------------------------------------------------------------------


def below_maximum(row):
    """Turn a float64 row into float32."""
    largest = max(row)
    result = []
    for x in row:
        if x == -INFINITY:
            result.append(x)
            continue
        below = float32(clip(x - largest, -LARGEST[float32], 0.0))
        result.append(-(2.0**-149) if below == 0 and x < largest else below)
    return result


class NoAnswer(Exception):
    """A row that has no answer."""


# ---- edits -------------------------------------------------------------------------------------------------------------


def power(base, e):
    r = 1.0
    while e > 0:
        if e % 2 == 1:
            r = r * base
        base = base * base
        e = e // 2
    return min(r, LARGEST[float64])


def matching_sums(history, sequence_bias, bad_words_ids):
    """Return the sums of the biases of the sequences that match, by their last tokens."""
    sums = {}
    for *others, last, bias in [(*ids, bias) for ids, bias in sequence_bias] + [
        (*ids, -INFINITY) for ids in bad_words_ids
    ]:
        if len(others) <= len(history) and history[len(history) - len(others) :] == others:
            sums[last] = sums.get(last, 0.0) + bias
    return sums


def repetitions(history, breakers):
    """Return the largest length of a repetition before each token that is in the history and no breaker."""
    longest = {}
    for i, token in enumerate(history):
        m = 0
        while m < i and history[i - 1 - m] == history[-1 - m] and history[-1 - m] not in breakers:
            m += 1
        if token not in breakers:
            longest[token] = max(m, longest.get(token, 0))
    return longest


def edit(row, params, rounded):
    """Edit a row; ``rounded`` rounds to the type of the row."""
    prompt, output = list(params["prompt_ids"]), list(params["output_ids"])
    history, n = prompt + output, len(output)
    sums = matching_sums(history, params["sequence_bias"], params["bad_words_ids"])
    size = params["no_repeat_ngram_size"]
    ngrams = set()
    if 0 < size <= len(history):
        end = history[len(history) - size + 1 :]
        ngrams = {history[i + size - 1] for i in range(len(history) - size + 1) if history[i : i + size - 1] == end}

    def is_banned(token):
        words = params["bitmask"]
        forced_bos, forced_eos = params["forced_bos_token_id"], params["forced_eos_token_id"]
        allowed = params["allowed_token_ids"]
        return (
            (words is not None and (token // 32 >= len(words) or words[token // 32] >> token % 32 & 1 == 0))
            or (allowed is not None and token not in allowed)
            or (forced_bos is not None and n == 0 and token != forced_bos)
            or (forced_eos is not None and n == params["max_new_tokens"] - 1 and token != forced_eos)
            or token in params["suppress_tokens"]
            or (n == 0 and token in params["begin_suppress_tokens"])
            or (n < params["min_new_tokens"] and token in params["eos_token_ids"])
            or params["logit_bias"].get(token) == -INFINITY
            or sums.get(token) == -INFINITY
            or token in ngrams
        )

    row = [-INFINITY if is_banned(token) else x for token, x in enumerate(row)]

    def change(tokens, function):
        for token in sorted(set(tokens)):
            if math.isfinite(row[token]):
                row[token] = clip_to_finite(function(row[token], token), rounded)

    def added(x, b):
        return rounded(x + b)

    def multiplied(x, p):
        return rounded(x * p)

    def divided(x, p):
        return rounded(x / p)

    def logit_bias():
        bias = params["logit_bias"]
        change(bias, lambda x, token: added(x, rounded(bias[token])))

    def sequence_bias():
        finite_sums = {token: b for token, b in sums.items() if b > -INFINITY}
        change(finite_sums, lambda x, token: added(x, clip_to_finite(rounded(finite_sums[token]), rounded)))

    def encoder_repetition_penalty():
        p = rounded(params["encoder_repetition_penalty"])
        if params["encoder_repetition_penalty"] != 1:
            change(prompt, lambda x, _: multiplied(x, p) if x > 0 else divided(x, p))

    window = params["penalty_window"]
    start = max(0, len(history) - window) if window > 0 else 0
    seen, put_out = history[start:], history[max(start, len(prompt)) :]

    def repetition_penalty():
        p = rounded(params["repetition_penalty"])
        if params["repetition_penalty"] != 1:
            change(seen, lambda x, _: divided(x, p) if x > 0 else multiplied(x, p))

    def frequency_penalty():
        p = rounded(params["frequency_penalty"])
        if params["frequency_penalty"] != 0:
            change(put_out, lambda x, token: added(x, -rounded(p * rounded(float(put_out.count(token))))))

    def presence_penalty():
        p = rounded(params["presence_penalty"])
        if params["presence_penalty"] != 0:
            change(put_out, lambda x, _: added(x, -p))

    def dry():
        if params["dry_multiplier"] == 0:
            return
        last_n, allowed = params["dry_penalty_last_n"], params["dry_allowed_length"]
        lengths = repetitions(history[-last_n:] if last_n > 0 else history, params["dry_sequence_breakers"])
        lengths = {token: m for token, m in lengths.items() if m >= allowed}

        def penalty(token):
            b = params["dry_multiplier"] * power(params["dry_base"], lengths[token] - allowed)
            return clip_to_finite(rounded(b), rounded)

        change(lengths, lambda x, token: added(x, -penalty(token)))

    def exponential_decay_length_penalty():
        if params["exponential_decay_length_penalty"] is None:
            return
        begin, factor = params["exponential_decay_length_penalty"]
        if n > begin:
            g = clip_to_finite(rounded(power(factor, n - begin) - 1), rounded)
            change(params["eos_token_ids"], lambda x, _: added(x, rounded(abs(x) * g)))

    edits = (
        *(logit_bias, sequence_bias, encoder_repetition_penalty, repetition_penalty),
        *(frequency_penalty, presence_penalty, dry, exponential_decay_length_penalty),
    )
    edits = {function.__name__: function for function in edits}
    named = [step for step in params["order"] if step in edits]
    for step in [step for step in edits if step not in named] + named:
        edits[step]()
    return row


# ---- smoothing ---------------------------------------------------------------------------------------------------------


def smooth(row, factor, curve):
    a = float32((3 - curve) / 2 * factor)
    b = float32((curve - 1) / 2 * factor)
    largest, limit = max(row), LARGEST[float32]

    def smoothed(x):
        d = min(float32(largest - x), limit)
        product = float32(float32(float32(a + float32(b * d)) * d) * d)
        return max(float32(largest - product), -limit)

    return [x if x == -INFINITY else smoothed(x) for x in row]


# ---- order and mass ----------------------------------------------------------------------------------------------------


def total_order(row):
    """Return the ids of the tokens that are not banned. Python's sort leaves equal logits as they are."""
    return sorted((token for token, x in enumerate(row) if x > -INFINITY), key=row.__getitem__, reverse=True)


def weigh(x, x0, temperature):
    """Return the mass and the surprise of a token."""
    scale = float32(LOG2_E / temperature)
    t = max(float32(float32(float32(x - x0) * scale) + 4), -60.0)
    n = rint(t)
    f = t - n
    weight = C5
    for c in (C4, C3, C2, C1, 1.0):
        weight = float32(float32(weight * f) + c)
    return rint(math.ldexp(weight, n - 4 + S)), int((4 - t) * 2**22)


class Kept:
    """The tokens that are kept, in the total order, with their logits, masses and surprises."""

    def __init__(self, ids, x, m, s):
        self.ids, self.x, self.m, self.s = ids, x, m, s

    def part(self, start, stop):
        return Kept(self.ids[start:stop], self.x[start:stop], self.m[start:stop], self.s[start:stop])

    def at(self, temperature):
        """Return the same tokens with other masses. Equal logits have equal masses, so each of these is computed once."""
        weights = {x: weigh(x, self.x[0], temperature) for x in set(self.x)}
        return Kept(self.ids, self.x, [weights[x][0] for x in self.x], [weights[x][1] for x in self.x])

    @property
    def total(self):
        return sum(self.m)

    def entropy(self):
        dot = sum(m * s for m, s in zip(self.m, self.s, strict=True))
        return log2(self.total) - S + float(dot) / float(self.total) / 2**22


# ---- filters: from the kept tokens to where what a step keeps starts and stops -----------------------------------------


def first_reaching(masses, need):
    """Return the length of the shortest prefix with a mass of at least this."""
    running = 0
    for place, m in enumerate(masses):
        running += m
        if running >= need:
            return place + 1
    raise AssertionError("all of them have less")


def share(kept, p):
    return min(kept.total, max(1, math.ceil(p * float(kept.total))))


def count_heavy(masses, least):
    return sum(m >= least for m in masses)


def at_least(kept, y):
    return 0, count_heavy(kept.m, min(kept.m[0], max(1, math.ceil(y))))


def top_k(kept, params):
    k = params["top_k"]
    return 0, len(kept.ids) if k == 0 else min(k, len(kept.ids))


def top_k_with_ties(kept, params):
    k = params["top_k"]
    if k == 0 or k >= len(kept.ids):
        return 0, len(kept.ids)
    return 0, sum(x >= kept.x[k - 1] for x in kept.x)


def top_p(kept, params):
    p = params["top_p"]
    return 0, len(kept.ids) if p == 1 else first_reaching(kept.m, share(kept, p))


def top_p_beyond(kept, params):
    p = params["top_p"]
    if p == 1:
        return 0, len(kept.ids)
    return 0, first_reaching(kept.m, min(kept.total, math.floor(p * float(kept.total)) + 1))


def min_p(kept, params):
    return 0, count_heavy(kept.m, math.ceil(params["min_p"] * float(kept.m[0])))


def epsilon_cutoff(kept, params):
    e = params["epsilon_cutoff"]
    return (0, len(kept.ids)) if e == 0 else at_least(kept, e * float(kept.total))


def top_a(kept, params):
    a = params["top_a"]
    return (0, len(kept.ids)) if a == 0 else at_least(kept, a * float(kept.m[0]) * float(kept.m[0]) / float(kept.total))


def eta_cutoff(kept, params):
    e = params["eta_cutoff"]
    if e == 0:
        return 0, len(kept.ids)
    return at_least(kept, min(e, math.sqrt(e) * exp2(-kept.entropy())) * float(kept.total))


def typical_p(kept, params):
    p, n = params["typical_p"], len(kept.ids)
    if p == 1:
        return 0, n
    moment = sum(m * s for m, s in zip(kept.m, kept.s, strict=True))
    mean = (2 * moment + kept.total) // (2 * kept.total)
    distance = [abs(s - mean) for s in kept.s]
    nearest = sorted(range(n), key=lambda place: (distance[place], place))
    count = first_reaching([kept.m[place] for place in nearest], share(kept, p))
    last = nearest[max(count, min(params["min_tokens_to_keep"], n)) - 1]
    places = [place for place in range(n) if distance[place] <= distance[last]]
    assert places == list(range(places[0], places[-1] + 1))
    return places[0], places[-1] + 1


def top_n_sigma(kept, params):
    c, n = params["top_n_sigma"], len(kept.ids)
    if c == 0:
        return 0, n
    d = [rint(min(float32(kept.x[0] - x), 1024.0) * 1024) for x in kept.x]
    sigma = math.sqrt(float(n * sum(one * one for one in d) - sum(d) ** 2)) / float(n) / 1024
    floor = kept.x[0] - c * sigma
    return 0, sum(x >= floor for x in kept.x)


def tfs(kept, params):
    z, n, m = params["tfs"], len(kept.ids), kept.m
    if z == 1 or n <= 3:
        return 0, n
    run, running = [], 0
    for i in range(n - 2):
        running += abs(m[i + 2] - 2 * m[i + 1] + m[i])
        run.append(running)
    limit = math.floor(z * float(run[-1]))
    return 0, next((i for i in range(1, n - 2) if run[i] > limit), n)


def top_h(kept, params):
    h, n = params["top_h"], len(kept.ids)
    if h == 0:
        return 0, n
    first = kept.part(0, 100)
    base = rint((log2(first.total) - S) * 2**22)
    part, running = [], 0
    for m, s in zip(first.m, first.s, strict=True):
        running += m * max(s + base, 0)
        part.append(running)
    return 0, max(1, sum(float(one) <= h * float(part[-1]) for one in part))


def xtc(kept, params):
    n = len(kept.ids)
    word = random_words(params["seed"], params["stream"], params["position"])[1]
    if word >= math.floor(params["xtc_probability"] * 2.0**64):
        return 0, n
    c = count_heavy(kept.m, max(1, math.ceil(params["xtc_threshold"] * float(kept.total))))
    if c < 2 or n - (c - 1) < min(params["min_tokens_to_keep"], n):
        return 0, n
    if any(token in params["xtc_exempt_token_ids"] for token in kept.ids[: c - 1]):
        return 0, n
    return c - 1, n


def mirostat(kept, params):
    n, mu, vocabulary = len(kept.ids), params["mirostat_mu"], params["V"]
    if params["mirostat"] == 2:
        return at_least(kept, exp2(-clip(mu, 0.0, 1000.0)) * float(kept.total))
    if params["mirostat"] == 0 or n < 2:
        return 0, n
    above = below = 0.0
    for i in range(min(n, 100) - 1):
        r = log2(i + 2) - log2(i + 1)
        b = (kept.s[i + 1] - kept.s[i]) / 2**22
        above += r * b
        below += r * r
    z = max(above / below, 2.0**-40)
    e = z - 1
    is_limit = abs(e) < 2.0**-20
    factor = 1 / ln(vocabulary) if is_limit else e / (1 - exp2(clip(-e * log2(vocabulary), -1000.0, 1000.0)))
    k = math.floor(exp2(clip((mu + log2(rint(factor * 2.0**56)) - 56) / z, 0.0, 62.0)))
    return 0, min(k, n)


FILTERS = {
    function.__name__: function
    for function in (
        *(top_k, top_k_with_ties, top_p, top_p_beyond, min_p, typical_p, epsilon_cutoff, top_a),
        *(eta_cutoff, top_n_sigma, tfs, top_h, xtc, mirostat),
    )
}

DEFAULT_ORDER = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "top_a", "eta_cutoff"),
    *("top_n_sigma", "tfs", "top_h", "xtc", "mirostat", "adaptive_p"),
)


def temperature(kept, params):
    spread, n = params["dynatemp_range"], len(kept.ids)
    if spread == 0 or n == 1:
        return params["temperature"]
    u = clip(rint(kept.entropy() / log2(n) * 2.0**53), 0, 2**53)
    exponent = params["dynatemp_exponent"]
    of_zero = 1.0 if exponent == 0 else 0.0
    raised = exp2(max(exponent * (log2(u) - 53), -1000.0)) if u > 0 else of_zero
    low = max(0.0, params["temperature"] - spread)
    high = params["temperature"] + spread
    return clip(low + (high - low) * raised, 1e-30, 1e30)


# ---- adaptive-p --------------------------------------------------------------------------------------------------------


def adaptive_p(masses, target, average):
    """Return the masses that the kept tokens get instead of theirs."""
    total, center = sum(masses), clip(2 * target - average, 0.0, 1.0)

    def fall(m):
        p = rint(float(m) / float(total) * 2.0**24) / 2**24
        d = abs(p - center) / 0.3
        return 10 * d * d / (1 + d) * LOG2_E

    falls = {m: fall(m) for m in set(masses)}
    least = min(falls.values())
    return [rint(exp2(-(falls[m] - least)) * 2.0**S) for m in masses]


# ---- random words, and the draw ----------------------------------------------------------------------------------------


def random_words(seed, stream, position):
    low = 2**64 - 1
    k0, k1 = seed, 0
    c0, c1, c2, c3 = position, stream, 0, 0
    for _ in range(10):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = p1 >> 64 ^ c1 ^ k0, p1 & low, p0 >> 64 ^ c3 ^ k1, p0 & low
        k0, k1 = k0 + W0 & low, k1 + W1 & low
    return c0, c1, c2, c3


DEFAULTS = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "top_a": 0.0,
    "eta_cutoff": 0.0,
    "top_n_sigma": 0.0,
    "tfs": 1.0,
    "top_h": 0.0,
    "xtc_probability": 0.0,
    "xtc_threshold": 0.1,
    "xtc_exempt_token_ids": [],
    "min_tokens_to_keep": 1,
    "dynatemp_range": 0.0,
    "dynatemp_exponent": 1.0,
    "mirostat": 0,
    "mirostat_tau": 5.0,
    "mirostat_mu": None,
    "adaptive_target": -1.0,
    "adaptive_average": None,
    "smoothing_factor": 0.0,
    "smoothing_curve": 1.0,
    "order": DEFAULT_ORDER,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "penalty_window": 0,
    "logit_bias": {},
    "sequence_bias": [],
    "bad_words_ids": [],
    "encoder_repetition_penalty": 1.0,
    "dry_multiplier": 0.0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_penalty_last_n": 0,
    "dry_sequence_breakers": [],
    "no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "allowed_token_ids": None,
    "suppress_tokens": [],
    "begin_suppress_tokens": [],
    "eos_token_ids": [],
    "min_new_tokens": 0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "max_new_tokens": 0,
    "prompt_ids": [],
    "output_ids": [],
    "bitmask": None,
    "seed": 0,
    "stream": 0,
    "position": 0,
}


def complete(parameters):
    """Give the parameters that are not there, or are None, their defaults."""
    params = DEFAULTS | {name: value for name, value in parameters.items() if value is not None}
    assert params.keys() == DEFAULTS.keys()
    params["order"] = tuple(params["order"])
    if params["mirostat_mu"] is None:
        params["mirostat_mu"] = 2 * params["mirostat_tau"]
    if params["adaptive_average"] is None:
        params["adaptive_average"] = params["adaptive_target"]
    return params


def survivors(row, rounded=float32, **parameters):
    """Return the ids that are kept, in the total order, and their masses. The row is a list of floats."""
    params = complete(parameters) | {"V": len(row)}
    row = edit(row, params, rounded)
    if any(math.isnan(x) or x == INFINITY for x in row) or max(row) == -INFINITY:
        raise NoAnswer
    if rounded is float64:
        row = below_maximum(row)
    if params["temperature"] == 0:
        return total_order(row)[:1], [2**S]
    if params["smoothing_factor"] != 0:
        row = smooth(row, params["smoothing_factor"], params["smoothing_curve"])
    ids = total_order(row)
    kept = Kept(ids, [row[token] for token in ids], [], [])
    steps = [step for step in params["order"] if step in FILTERS or step == "temperature"]
    if steps[:1] != ["temperature"] or params["dynatemp_range"] != 0:  # else these masses are not looked at
        kept = kept.at(1.0)
    for step in steps:
        if step == "temperature":
            kept = kept.at(temperature(kept, params))
            continue
        start, stop = FILTERS[step](kept, params)
        if step not in ("typical_p", "xtc"):
            stop = max(stop, min(params["min_tokens_to_keep"], len(kept.ids)))
        kept = kept.part(start, stop)
    if params["adaptive_target"] == -1:
        return kept.ids, kept.m
    return kept.ids, adaptive_p(kept.m, params["adaptive_target"], params["adaptive_average"])


def draw(ids, masses, word):
    """Return the token that a word draws, the total, the target, and the interval of the token."""
    total = sum(masses)
    target = word * total // 2**64
    start = 0
    for token, mass in sorted(zip(ids, masses, strict=True)):
        if target < start + mass:
            return token, total, target, start, start + mass
        start += mass
    raise AssertionError("the target is on the line")


def draw_several(ids, masses, words, replacement):
    """Return a token for each word, and -1 where no token with a mass is left."""
    left = dict(zip(ids, masses, strict=True))
    tokens = []
    for word in words:
        tokens.append(draw(left.keys(), left.values(), word)[0] if any(left.values()) else -1)
        if not replacement:
            left[tokens[-1]] = 0
    return tokens


def receipt(row, rounded=float32, **parameters):
    """Draw a token, and return the receipt as a dictionary."""
    params = complete(parameters)
    place = {name: params[name] for name in ("seed", "stream", "position")}
    word = random_words(**place)[0]
    token, total, target, start, stop = draw(*survivors(row, rounded, **parameters), word)
    line = {"word": word, "total": total, "target": target, "start": start, "stop": stop}
    state = {
        "mirostat_mu": params["mirostat_mu"] if params["mirostat"] else None,
        "adaptive_average": params["adaptive_average"] if params["adaptive_target"] != -1 else None,
    }
    return {"version": 1, "token": token, **place, **line, **state}
