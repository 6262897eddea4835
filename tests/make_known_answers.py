"""Makes known_answers.txt from the numpy reference.

    python tests/make_known_answers.py > tests/known_answers.txt

The output is the same on every machine, and `test_known_answers.py` compares it with the committed file. New rows and
parameters may be added at the end of the lists below. Existing lines of the file may only change with the major version.
"""

import itertools
import sys

import numpy as np

from toksample import reference

HEADER = """\
# The known answers of toksample: which tokens stay, their masses, and which of them are drawn, for fixed rows, parameters and
# seeds. They are part of the interface. Lines may be added; A LINE THAT IS HERE NEVER CHANGES WITHIN A MAJOR VERSION.
# tests/make_known_answers.py makes this file from toksample.reference, and any implementation can be checked against it.
#
# row NAME TYPE V SEED RANGE OFFSET SHIFT BAN
#     The row of V logits that the lines below are about, up to the next row. It takes only integers to make. For each id:
#         z = SEED + (id + 1) * 0x9e3779b97f4a7c15        all of this modulo 2**64: it is the generator SplitMix64
#         z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
#         z = (z ^ (z >> 27)) * 0x94d049bb133111eb
#         z = z ^ (z >> 31)
#         a, b, c, d = the four 16-bit parts of z
#         n = (a * RANGE >> 16) + (b * RANGE >> 16) + (c * RANGE >> 16) + (d * RANGE >> 16) - OFFSET
#         logit = n / 2**SHIFT                            which TYPE holds exactly
#     but -inf, which bans the token, for each id for which (z >> 7) % 16 < BAN. The rows have no NaN and no +inf.
# keep TEMPERATURE TOP_K TOP_P MIN_P COUNT TOTAL DIGEST
#     With these parameters, COUNT tokens stay. TOTAL is the sum of their masses, and DIGEST is of all their ids and masses,
#     the most probable token first:
#         h = 0xcbf29ce484222325; for each token: h = (h ^ id) * 0x100000001b3; h = (h ^ mass) * 0x100000001b3, modulo 2**64
# with NAME=VALUE,... COUNT TOTAL DIGEST
#     The same with the parameters that are named. All others are off, and the temperature is 1. XTC acts at every position.
#     The tokens are in the order of their logits, also where adaptive-p has given them other masses.
# first ID:MASS ...
#     The most probable of the tokens that stay, at most six of them.
# draw SEED STREAM POSITION TOKEN ...
#     The tokens drawn at POSITION, POSITION + 1, and so on.
"""

# NAME, TYPE, V, SEED, RANGE, OFFSET, SHIFT, BAN, as the header explains them.
ROWS = [
    ("one-token", "float32", 1, 1, 100, 200, 0, 0),
    ("two-tokens", "float32", 2, 2, 16, 30, 4, 0),
    ("three-tokens", "bfloat16", 3, 3, 64, 128, 5, 0),
    ("seventeen", "float32", 17, 4, 2000, 4000, 8, 0),
    ("block-less-one", "float16", 63, 5, 500, 1000, 7, 0),
    ("block", "float32", 64, 6, 100_000, 200_000, 14, 0),
    ("block-and-one", "bfloat16", 65, 7, 60, 120, 3, 5),
    ("all-equal", "float32", 200, 8, 1, 5, 0, 0),
    ("two-values", "float16", 300, 9, 1, 0, 0, 8),
    ("few-values", "float32", 333, 10, 2, 2, 1, 3),
    ("most-banned", "float32", 500, 11, 3000, 6000, 9, 15),
    ("subnormal", "float32", 257, 12, 3, 4, 149, 2),
    ("subnormal-half", "float16", 129, 13, 40, 80, 24, 0),
    ("huge-span", "float32", 400, 14, 4_000_000, 8_000_000, 0, 0),
    ("largest", "float32", 100, 15, 2_000_000, 4_000_000, -104, 0),
    ("normal", "float32", 1000, 16, 2_000_000, 4_000_000, 18, 0),
    ("normal-half", "float16", 1000, 17, 500, 1000, 6, 1),
    ("normal-bfloat16", "bfloat16", 1000, 18, 60, 120, 3, 0),
    ("flat", "float32", 4096, 19, 1000, 2000, 14, 0),
    ("flat-ties", "bfloat16", 4097, 20, 10, 20, 5, 4),
    ("long", "float32", 8191, 21, 1_000_000, 2_000_000, 16, 1),
    ("long-half", "float16", 5000, 22, 500, 1000, 5, 0),
    ("vocabulary", "float32", 262_144, 23, 4_000_000, 9_000_000, 18, 1),
]

# temperature, top_k, top_p, min_p
PARAMS = [
    ("1", "0", "1", "0"),
    ("0", "0", "1", "0"),
    ("0.7", "50", "0.9", "0"),
    ("0.7", "0", "0.9", "0"),
    ("1.5", "0", "0.95", "0.001"),
    ("0.3", "0", "1", "0.05"),
    ("2.5", "700", "1", "0"),
    ("1", "40", "0.5", "0.1"),
    ("100", "0", "0.75", "0"),
    ("0.001", "3", "1", "0"),
]

# More parameters, by their names.
NAMED = [
    "temperature=0.7,typical_p=0.5",
    "epsilon_cutoff=0.001",
    "temperature=1.5,top_a=0.2",
    "temperature=1.5,eta_cutoff=0.001",
    "top_n_sigma=1.5",
    "temperature=0.7,tfs=0.95",
    "temperature=2,top_h=0.4",
    "xtc_probability=1,xtc_threshold=0.05",
    "temperature=0.7,mirostat=1,mirostat_mu=6",
    "temperature=0.7,mirostat=2,mirostat_mu=6",
    "dynatemp_range=0.7,dynatemp_exponent=1.5",
    "smoothing_factor=0.25,smoothing_curve=1.5",
    "temperature=0.5,top_p=0.3,min_tokens_to_keep=3",
    "min_p=0.02,adaptive_target=0.3,adaptive_average=0.4",
]

# seed, stream, position. Each set of parameters has one of them.
WORDS = [(0, 0, 0), (1, 0, 5), (2, 3, 0), (2**63, 2**32, 1000), (2**64 - 1, 2**64 - 1, 2**64 - 6), (123456789, 1, 17)]
DRAWS = 6


def make_row(size, seed, span, offset, shift, ban):
    """Return a row of the file as float32, which can hold the logits of every type exactly."""
    z = np.uint64(seed) + np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    z = z ^ z >> np.uint64(31)
    parts = z[:, None] >> np.array([0, 16, 32, 48], np.uint64) & np.uint64(0xFFFF)
    n = (parts * np.uint64(span) >> np.uint64(16)).sum(axis=1).astype(np.int64) - offset
    row = np.ldexp(n.astype(np.float64), -shift).astype(np.float32)
    row[(z >> np.uint64(7)) % np.uint64(16) < ban] = -np.inf
    return row


def digest(ids, masses):
    """Return the digest of all ids and masses, as 16 hexadecimal digits."""
    h = 0xCBF29CE484222325
    for word in np.stack([ids.astype(np.uint64), masses], axis=1).ravel().tolist():
        h = (h ^ word) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def lines():
    """Yield the lines of the file below its header."""
    words, more = itertools.cycle(WORDS), itertools.cycle(WORDS)
    for name, dtype, *recipe in ROWS:
        yield " ".join(map(str, ["row", name, dtype, *recipe]))
        row = make_row(*recipe)
        for params in PARAMS:
            temperature, k, p, least = params
            filters = reference.Filters(float(temperature), int(k), float(p), float(least))
            yield from case(["keep", *params], row, filters, next(words))
        for params in NAMED:
            yield from case(["with", params], row, reference.Filters(**read_named(params)), next(more))


def read_named(params):
    """Return the parameters of a line ``with``."""
    pairs = [pair.split("=") for pair in params.split(",")]
    integers = ("mirostat", "min_tokens_to_keep")
    return {name: int(value) if name in integers else float(value) for name, value in pairs}


def case(words, row, filters, random):
    """Yield the lines of a row with one set of parameters."""
    ids, masses = reference.survivors(row, filters)
    yield " ".join([*words, str(len(ids)), str(int(masses.sum())), digest(ids, masses)])
    yield " ".join(["first", *(f"{i}:{m}" for i, m in zip(ids[:6], masses[:6], strict=True))])
    seed, stream, position = random
    tokens = [reference.draw(ids, masses, reference.draw_word(seed, stream, position + step)) for step in range(DRAWS)]
    yield " ".join(map(str, ["draw", seed, stream, position, *tokens]))


def text():
    """Return the whole file."""
    return HEADER + "".join(f"{line}\n" for line in lines())


if __name__ == "__main__":
    sys.stdout.write(text())
