"""Calls every function with arbitrary arguments: ``python tests/anything.py CALLS [SEED]``.

Each call takes logits, parameters and ``out`` from lists of values, most of which are wrong. It must return a result, or raise
a ValueError, TypeError or MemoryError. The numpy reference must return the same result, or also raise one of these errors. No
argument may change, except ``out``.
"""

import random
import sys
import warnings

import numpy as np

import toksample
from toksample import reference
from toksample._parameters import RULES

V = 5_000


class Strange:
    """A number that says it has a length."""

    def __float__(self):
        return 0.5

    def __index__(self):
        return 3

    def __len__(self):
        return -1

    def __getitem__(self, index):
        raise RuntimeError("no")


class Holder:
    """An object whose `__array__` returns anything."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class Subclass(np.ndarray):
    """An array of another class."""


def make_logits():
    rng = np.random.default_rng(0)
    row = rng.normal(scale=4, size=V).astype(np.float32)
    batch = rng.normal(size=(3, 2000)).astype(np.float32)
    return [
        *(row, row[:1], row[:63], row[::-1], row[::3], row[:0]),
        *(batch, batch[::-1], batch[:, ::2], batch.T, batch[:0], np.zeros((0, 0), np.float32)),
        *(batch.astype(np.float16), batch.astype(np.float64), batch.astype(">f4"), batch.astype(np.float64) * 1e300),
        *(np.full(70, -np.inf, np.float32), np.full(70, np.nan), np.array([5e-324, 1.0]), np.array([np.inf, 1.0])),
        *(np.zeros((2, 2, 2), np.float32), np.zeros((), np.float32), np.zeros((1, 2**20), np.float32)),
        *(np.zeros(5, int), np.zeros(5, complex), np.array(["a"]), np.array([None, 1.0]), np.zeros(3, "f4,i4")),
        *(np.ma.masked_invalid(batch), batch.view(Subclass), np.asmatrix(batch), memoryview(batch[0]), bytearray(16)),
        *(Holder(batch), Holder(None), Holder("x"), Holder(Holder(batch)), Strange(), object(), iter([1.0])),
        *([1.0, 2.0], [[1.0], [2.0, 3.0]], [batch[0], batch[1]], [], [[]], (), [10**400, 1], [True, False]),
        *("abc", b"abc", None, 5, {}, {1.0}),
        *(np.broadcast_to(row[:1], (1000, 1)), np.broadcast_to(row, (3, V))),
        np.lib.stride_tricks.as_strided(row, (4, 100), (4, 4)),
        np.zeros(8, np.uint8)[1:5].view(np.float32),
    ]


def make_numbers():
    return [
        *(0, 1, -1, 2, 3, 0.5, 1.0, -0.0, 1e-30, 1e30, 5e-324, 1e-31, 1e31, float("nan"), float("inf"), None, True),
        *(10**5000, -(10**400), 2**63, 2**64, 2**64 - 1),
        *(np.float32(0.5), np.int8(-1), np.array(0.5), np.array([0.5]), np.array([1, 2, 3]), np.zeros((3, 1))),
        *(np.complex64(1), np.datetime64(1, "s"), np.timedelta64(1, "s"), np.str_("1"), np.bool_(True)),
        *([0.5] * 3, [1, 2, 3], (1, None, 0), [], ["1"] * 3, [10**5000] * 3, [Strange()] * 3, [[1]], range(3)),
        *("1", b"1", {}, {1}, Strange(), object(), 1j, iter([1]), Holder(np.ones(3)), Holder(None)),
    ]


def make_edits():
    """Return bitmasks, biases, token ids and rules, some of them wrong."""
    return [
        *(np.int32([-1]), np.uint32([7]), np.int32([[3]]), np.zeros((3, 63), np.int32), np.full((3, 9), -1, np.int32)),
        *({}, {0: 1.0}, {1: -np.inf, 2: 3.4e38}, {0: float("nan")}, {-1: 1}, {"1": 1}, {1: "1"}, {1: Strange()}),
        *([{0: 1.0}, None, {1: 2}], [None] * 3, [{}], [0], [1, 1, 2], [0.5], [2**70], [-1], np.array([0, 0, 1])),
        *([[0], [1, 1], None], [[0], [5000], []], np.zeros((3, 4), int), np.zeros((0, 4), np.uint8), range(1), [True]),
        *(0, 7, [0, None, 1], (2, 1.5), [(0, 2.0), None, (1, 0.5)], (0, "2"), {(0, 1): 1.0, 2: -np.inf}, {(): 1.0}),
        *(
            [[0, 0], [1]],
            [[]],
            [[[0], [1, 1]], None, [[2]]],
            [[[0]], [], []],
            [None],
            [[0], 1],
            [[[[1]]]],
            [{(0, 1): 2}] * 3,
        ),
    ]


def make_outs(logits):
    return [
        *(np.zeros(3, np.int64), np.zeros((), np.int64), np.zeros((3, 2000), np.float32), np.zeros(V, np.float32)),
        *(np.zeros(3), [], 5, "x", logits[0], logits[6], np.zeros(6, np.int64)[::2], np.zeros(3, ">i8")),
        *(np.zeros(3, np.int64).view(Subclass), np.broadcast_to(np.int64(1), 3)),
    ]


def pick_call(rng, logits, numbers, edits, outs):
    """Return a function's name, its arguments, and whether the reference takes all of them."""

    def some(*names):
        chance = rng.choice([0.1, 0.3])
        return {name: rng.choice(numbers) for name in names if rng.random() < chance}

    function = rng.choice(
        ["sample", "sample", "softmax", "log_softmax", "top_k", "candidates", "replay", "mask_logits", "argmax"]
    )
    arguments = [rng.choice(logits)]
    keywords = {}
    if function in ("sample", "candidates", "mask_logits"):
        keywords = some("temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "position", "stream")
        kind = rng.random()
        if kind < 0.4:
            keywords |= some("repetition_penalty", "frequency_penalty", "presence_penalty", "penalty_window")
            keywords |= some(
                "no_repeat_ngram_size", "dry_multiplier", "dry_base", "dry_allowed_length", "min_new_tokens"
            )
            keywords |= some("dry_penalty_last_n", "encoder_repetition_penalty", "max_new_tokens")
        elif kind < 0.6:  # a call that is likely to be right, so that edits meet rows of all kinds
            arguments = [rng.choice([*logits[:5], *logits[6:9], *logits[12:16]])]
            keywords = {"repetition_penalty": 2.0, "penalty_window": rng.choice([0, 2])}
            keywords |= {"dry_multiplier": rng.choice([0, 1]), "no_repeat_ngram_size": rng.choice([0, 1, 2])}
        if kind < 0.6:
            names = ["prompt_ids", "output_ids", "logit_bias", "bitmask"] * 2 + sorted(RULES)
            for name in rng.sample(names, rng.choice([1, 1, 2, 4])):
                keywords[name] = rng.choice(edits if rng.random() < 0.9 else numbers)
        if function == "sample":
            seed = keywords.get("seed")
            keywords["seed"] = 1 if seed is None else seed  # without a seed, two draws may differ
            if rng.random() < 0.2:
                keywords["receipt"] = rng.choice([True, True, True, False, None, 1, "yes", Strange()])
    elif function in ("softmax", "log_softmax"):
        keywords = some("temperature")
    elif function == "top_k":
        arguments.append(rng.choice(numbers))
    is_whole = True
    if function == "replay":
        arguments += [rng.choice(edits if rng.random() < 0.9 else numbers) for _ in range(3)]
        if rng.random() < 0.5:  # a call that is likely to be right
            arguments = [rng.choice(logits[:5]), [0, 1, 2, 1, 0, 2], np.array([0, 1, 4, 6]), range(3)]
        keywords = some("temperature")
    if function == "sample":
        keywords |= some("n", "replacement")
    if rng.random() < 0.1:
        keywords["num_threads"] = rng.choice([0, 1, 2, -1, None, "2", 2.0, 10**5000])
        is_whole = False
    if function in ("sample", "softmax", "log_softmax") and rng.random() < 0.1:
        keywords["out"] = rng.choice(outs)
        is_whole = False
    return function, arguments, keywords, is_whole


def arrays(values):
    return [value for value in values if isinstance(value, np.ndarray)]


def outcome(function, arguments, keywords):
    try:
        result = function(*arguments, **keywords)
    except (ValueError, TypeError, MemoryError):
        return None
    if isinstance(result, toksample.KeptSets):
        return result.ids, result.masses, result.probs, result.offsets
    if keywords.get("receipt"):
        result = repr(result)
    return result if isinstance(result, tuple) else (result,)


def main(calls, seed):
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    logits, numbers = make_logits(), make_numbers()
    edits, outs = make_edits(), make_outs(logits)
    before = [None if any(np.may_share_memory(x, out) for out in arrays(outs)) else x.tobytes() for x in arrays(logits)]
    errors = 0
    for number in range(calls):
        name, arguments, keywords, is_whole = pick_call(rng, logits, numbers, edits, outs)
        got = outcome(getattr(toksample, name), arguments, keywords)
        errors += got is None
        if is_whole:
            want = outcome(getattr(reference, name), arguments, keywords)
            assert (got is None) == (want is None), (name, arguments, keywords, got, want)
            for a, b in zip(got or (), want or (), strict=True):
                is_same = a == b if isinstance(a, str) else np.array_equal(a, b, equal_nan=True)
                assert is_same, (name, arguments, keywords, a, b)
        if sys.stderr.isatty() and number % 1000 == 0:
            print(f"\r{number} of {calls} calls", end="", file=sys.stderr)
    for x, bits in zip(arrays(logits), before, strict=True):
        assert bits is None or x.tobytes() == bits
    print(f"{calls} calls, {errors} of them wrong ones that ended in an error")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
