"""Compares the time of each call with its target: a multiple of the time that it takes to read the logits once.

    python benches/targets.py [--logits rows.npy] [--rounds 41]

A figure is a multiple of `np.max(row)`, measured on the same row in the same run: for each row the ratio of the two median
times, and then the median of those ratios over the rows. The two functions are called in turn, and each timed call follows an
untimed one, unless it takes 5 ms or longer. Without --logits the rows are made (toksample.bench.rows). The environment
variable TOKSAMPLE_ISA chooses the instruction set.
"""

import argparse
import functools
import statistics
import sys
import time
import timeit
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hard_rows import ROWS, hard_calls

import toksample
from toksample._progress import StatusLine
from toksample.bench.machine import machine
from toksample.bench.rows import KINDS, make_row
from toksample.bench.runner import time_in_turn

SAMPLE = {
    "sample: temperature 0.7, top_k 50, top_p 0.9": ({"temperature": 0.7, "top_k": 50, "top_p": 0.9}, 2.0, 1.4),
    "sample: temperature 0.7, top_p 0.9": ({"temperature": 0.7, "top_p": 0.9}, 5, 3),
    "sample: temperature 1.5, top_p 0.9": ({"temperature": 1.5, "top_p": 0.9}, 8, 4),
    "sample: temperature 0.7": ({"temperature": 0.7}, 5, 3),
    "sample: temperature 0.7, min_p 0.05": ({"temperature": 0.7, "min_p": 0.05}, 2.0, 1.4),
    "sample: temperature 1, typical_p 0.9": ({"temperature": 1.0, "typical_p": 0.9}, 10, 8),
}
BASE = SAMPLE["sample: temperature 0.7, top_k 50, top_p 0.9"][0]
BITMASK_LIMIT = 1.15  # times the same call without a bitmask
EDITS_LIMIT = 10  # microseconds more than the same call without edits
LOGPROBS_LIMIT = 5  # times np.max more than the same call without log-probabilities
AVX2_FACTOR = 1.6  # with AVX2 alone the targets may be missed by this factor
HARD_LIMIT = 25


def in_turn(functions, rounds, threads=1):
    """Return the median time of each function in microseconds."""
    return [statistics.median(times) for times in time_in_turn(functions, rounds, threads=threads)]


def calls(row):
    """Yield the name of each target, the function to time, and the limits `must` and `aim`."""
    out = np.empty(row.shape, np.float32)
    yield "argmax", lambda: toksample.argmax(row), 1.3, 1.1
    for name, (params, must, aim) in SAMPLE.items():
        positions = iter(range(2**62))
        yield name, lambda p=params, n=positions: toksample.sample(row, **p, seed=1, position=next(n)), must, aim
    yield "softmax with out=", lambda: toksample.softmax(row, out=out), 5, 4
    yield "top_k(50)", lambda: toksample.top_k(row, 50), 1.8, 1.3


def ratios(rows, rounds):
    """Return for each target its limits, and on each row the ratio of its time to that of np.max."""
    found = {}
    with StatusLine() as status:
        for place, row in enumerate(rows):
            status.show(f"row {place + 1} of {len(rows)}")
            for name, function, must, aim in calls(row):
                floor, measured = in_turn([functools.partial(np.max, row), function], rounds)
                found.setdefault(name, (must, aim, []))[2].append(measured / floor)
    return found


def verdict(value, must, aim, isa, *, more_is_better=False):
    better = (lambda limit: value >= limit) if more_is_better else (lambda limit: value <= limit)
    if better(aim):
        return "aim"
    if better(must):
        return "must"
    if isa == "avx2" and not more_is_better and better(must * AVX2_FACTOR):
        return f"must x {AVX2_FACTOR} (AVX2)"
    return "MISSED"


def batch_speedup(rows, rounds):
    batch = rows[np.arange(64) % len(rows)]
    one, two = in_turn(
        [lambda n=n: toksample.sample(batch, **BASE, seed=1, num_threads=n) for n in (1, 2)],
        max(rounds // 2, 5),
        threads=2,
    )
    return one / two


def reading_speedup(rows, rounds):
    """Return how much faster two threads read the same batch with np.max. The memory does not allow any call to gain more."""
    batch = rows[np.arange(64) % len(rows)]

    def read(part):
        for row in part:
            np.max(row)

    with ThreadPoolExecutor(1) as other:

        def two():
            half = other.submit(read, batch[:32])
            read(batch[32:])
            half.result()

        alone, together = in_turn([lambda: read(batch), two], max(rounds // 2, 5), threads=2)
    return alone / together


def small_call():
    """Return the microseconds of a call on 16 logits. `timeit` makes it, because calling a function adds to its time."""
    row = make_row("news", 16)
    setup = {"sample": toksample.sample, "row": row}
    statement = "sample(row, temperature=0.7, top_k=50, top_p=0.9, seed=1, position=3)"
    runs = timeit.repeat(statement, globals=setup, number=5_000, repeat=15, timer=time.thread_time)
    return statistics.median(runs) / 5_000 * 1e6


def narrow_ratios(rows, rounds):
    """Yield each 16-bit type, and for each call the median over the rows of its time relative to float32."""
    types = {"float16": np.float16}
    try:
        import ml_dtypes

        types["bfloat16"] = ml_dtypes.bfloat16
    except ModuleNotFoundError:
        print("bfloat16 is left out: it needs ml_dtypes", file=sys.stderr)
    for name, dtype in types.items():
        found = {}
        for row in rows[:: max(1, len(rows) // 5)]:
            for wide, narrow in zip(calls(row), calls(row.astype(dtype)), strict=True):
                wide_time, narrow_time = in_turn([wide[1], narrow[1]], rounds)
                found.setdefault(wide[0], []).append(narrow_time / wide_time)
        yield name, {call: statistics.median(each) for call, each in found.items()}


def edits(vocab):
    """Return the arguments that edit a row, by name: first the bitmasks, then the penalties and biases."""
    rng = np.random.default_rng(5)
    words = -(-vocab // 32)
    few = np.zeros(words, np.int32)
    few[rng.choice(words, min(50, words), replace=False)] = -1
    bitmasks = {
        "bitmask: all allowed": np.full(words, -1, np.int32),
        "bitmask: random bits": rng.integers(-(2**31), 2**31, words, dtype=np.int32),
        "bitmask: 50 words": few,
    }
    penalties = {
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.5,
        "output_ids": rng.integers(0, vocab, 1_000),
    }
    biases = {int(token): 1.0 for token in rng.choice(vocab, 20, replace=False)}
    changes = {"penalties: 1,000 tokens": penalties, "logit_bias: 20 tokens": {"logit_bias": biases}}
    return {name: {"bitmask": bitmask} for name, bitmask in bitmasks.items()}, changes


def edit_times(rows, rounds):
    """Yield the name of each edit, its limit, and a figure for each row.

    The figure compares the call with the edit to the call without it. For a bitmask it is the ratio of the times, and for the
    other edits the difference in microseconds.
    """
    bitmasks, changes = edits(rows.shape[1])
    for name, edit in {**bitmasks, **changes}.items():
        found = []
        for row in rows:
            plain, edited = in_turn(
                [lambda r=row, e=each: toksample.sample(r, **BASE, **e, seed=1) for each in ({}, edit)], rounds
            )
            found.append(edited / plain if name in bitmasks else edited - plain)
        yield name, BITMASK_LIMIT if name in bitmasks else EDITS_LIMIT, found


def logprobs_costs(rows, rounds):
    """Yield the name of each draw and each mode, and on each row what logprobs=5 adds to it, as a multiple of np.max."""
    draws = {name: params for name, (params, _, _) in SAMPLE.items()} | {"sample: temperature 1": {"temperature": 1.0}}
    for name, params in draws.items():
        for mode in ("raw_logprobs", "processed_logprobs"):
            found = []
            for row in rows:
                wanted = {"logprobs": 5, "logprobs_mode": mode}
                draw = functools.partial(toksample.sample, row, **params, seed=1)
                floor, plain, described = in_turn(
                    [functools.partial(np.max, row), draw, lambda d=draw, w=wanted: d(**w)], rounds
                )
                found.append((described - plain) / floor)
            yield f"{name}, {mode}", found


def hard_ratios(vocab, rounds):
    """Yield the name of each hard row, the name of each call, and the ratio of its time to that of np.max."""
    for kind, make in ROWS.items():
        row = make(vocab)
        for name, function in hard_calls(row):
            floor, measured = in_turn([functools.partial(np.max, row), function], rounds)
            yield kind, name, measured / floor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logits", help="rows (B, V) in .npy format")
    parser.add_argument("--rounds", type=int, default=41)
    args = parser.parse_args()
    if args.logits:
        rows = np.ascontiguousarray(np.load(args.logits), np.float32)
        source = f"{len(rows)} real rows"
    else:
        rows = np.stack([make_row(kind, 262_144, seed) for seed in range(4) for kind in KINDS])
        source = f"{len(rows)} made rows"
    isa = toksample.isa()
    print(
        f"toksample {toksample.__version__}, {isa}, {machine()['cpu']}, {source} of {rows.shape[1]:,} logits, one thread"
    )
    print(
        f"\n{'x np.max(row), median over the rows':45}{'must':>6}{'aim':>6}{'median':>9}{'least':>8}{'most':>8}  reached"
    )
    for name, (must, aim, each) in ratios(rows, args.rounds).items():
        median = statistics.median(each)
        reached = verdict(median, must, aim, isa)
        print(f"{name:45}{must:>6}{aim:>6}{median:>9.2f}{min(each):>8.2f}{max(each):>8.2f}  {reached}")
    speedup = batch_speedup(rows, args.rounds)
    reached = verdict(speedup, 1.8, 1.95, isa, more_is_better=True)
    print(f"{'batch of 64, two threads: speed-up':45}{1.8:>5}{1.95:>6}{speedup:>9.2f}{'':16}  {reached}")
    print(f"{'  of np.max on the same rows':56}{reading_speedup(rows, args.rounds):>9.2f}")
    small = small_call()
    print(f"{'a sample call on 16 logits, us':45}{1:>6}{0.5:>6}{small:>9.2f}{'':16}  {verdict(small, 1, 0.5, isa)}")
    print(
        "\nedits of temperature 0.7, top_k 50, top_p 0.9: with a bitmask as a multiple of the time without, others in us more"
    )
    for name, limit, each in edit_times(rows, args.rounds):
        median = statistics.median(each)
        reached = "must" if median <= limit else "MISSED"
        print(f"{name:45}{limit:>6}{'':6}{median:>9.2f}{min(each):>8.2f}{max(each):>8.2f}  {reached}")
    print("\nlogprobs=5, x np.max(row) more than the draw alone")
    for name, each in logprobs_costs(rows, args.rounds):
        median = statistics.median(each)
        reached = "must" if median <= LOGPROBS_LIMIT else "MISSED"
        print(f"{name:67}{LOGPROBS_LIMIT:>6}{median:>9.2f}{min(each):>8.2f}{max(each):>8.2f}  {reached}")
    print("\n16-bit rows, time relative to float32, must be at most 1.3")
    for dtype, each in narrow_ratios(rows, args.rounds):
        worst = max(each, key=each.get)
        print(f"  {dtype:9} worst {each[worst]:.2f} ({worst}); " + ", ".join(f"{ratio:.2f}" for ratio in each.values()))
    print(f"\nhard rows, x np.max(row), must be at most {HARD_LIMIT}")
    hard = list(hard_ratios(rows.shape[1], max(args.rounds // 4, 5)))
    names = list(dict.fromkeys(name for _, name, _ in hard))
    print(f"{'':39}" + "".join(f"{kind:>12}" for kind in ROWS))
    for name in names:
        print(f"  {name:37}" + "".join(f"{ratio:>12.1f}" for _, other, ratio in hard if other == name))
    kind, name, ratio = max(hard, key=lambda one: one[2])
    print(f"worst: {ratio:.1f} ({kind}; {name}): {'reached' if ratio <= HARD_LIMIT else 'MISSED'}")


if __name__ == "__main__":
    main()
