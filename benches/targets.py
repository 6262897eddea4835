"""Compares the time of each call with its target: a multiple of the time that it takes to read the logits once.

    python benches/targets.py [--logits rows.npy] [--rounds 41] [--json figures.json]

A figure is a multiple of `np.max(row)`, measured on the same row in the same run: for each row the ratio of the two median
times, and then the median of those ratios over the rows, and the worst row. The functions are called in turn, and each timed
call follows an untimed one, unless it takes 5 ms or longer. The tables say where a figure is something else. Without --logits
the rows are made (toksample.bench.rows). The environment variable TOKSAMPLE_ISA chooses the instruction set.
"""

import argparse
import datetime
import functools
import json
import statistics
import timeit
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hard_rows import ROWS, hard_calls

import toksample
from toksample._progress import StatusLine
from toksample.bench.calls import CALLS
from toksample.bench.machine import machine
from toksample.bench.rows import KINDS, make_row
from toksample.bench.runner import time_in_turn

BASE = {"temperature": 0.7, "top_k": 50, "top_p": 0.9}
BATCH = 64
HARD_LIMIT = 20


class Target(NamedTuple):
    """What a call may take with AVX-512, and with AVX2 or less: None where no number was set."""

    must: float
    aim: float | None = None
    worst: float | None = None
    avx2: float | None = None


TARGETS = {
    "argmax": Target(1.05, 0.9, 1.1, 1.1),
    "temperature 0.7, top_k 50, top_p 0.9": Target(1.25, 1.1, 1.4, 1.4),
    "temperature 0.7": Target(1.9, 1.6, 4, 2.5),
    "temperature 0.7, top_p 0.9": Target(2.2, 1.8, 6, 3),
    "temperature 1.5, top_p 0.9": Target(7, 5, 10, 9),
    "temperature 0.7, min_p 0.05": Target(1.1, 1.05, 1.2, 1.2),
    "softmax with out=": Target(7, 6, 7.5, 8.5),
    "top_k(50)": Target(1.35, 1.2, 1.5, 1.5),
}
DRAWS = {
    "temperature 0.7, top_k 50, top_p 0.9": BASE,
    "temperature 0.7": {"temperature": 0.7},
    "temperature 0.7, top_p 0.9": {"temperature": 0.7, "top_p": 0.9},
    "temperature 1.5, top_p 0.9": {"temperature": 1.5, "top_p": 0.9},
    "temperature 0.7, min_p 0.05": {"temperature": 0.7, "min_p": 0.05},
}
THRESHOLDS = ("epsilon_cutoff", "top_a", "top_n_sigma")
"""The methods that compare with a threshold. They may take 4 times np.max."""
WHOLE = ("typical_p", "eta_cutoff", "tfs", "top_h", "mirostat-1", "mirostat-2")
"""The methods that need the whole distribution. They may take 10 times np.max."""


class Row(NamedTuple):
    """A line of a table: a call, its target, and a figure for each row of logits."""

    table: str
    name: str
    target: Target
    figures: list[float]

    @property
    def reached(self) -> str:
        """Say which targets the median and the worst row reach."""
        median, worst = statistics.median(self.figures), max(self.figures)
        is_best = toksample.isa() == "avx512" or self.target.avx2 is None
        must = self.target.must if is_best else self.target.avx2
        if is_best and self.target.aim is not None and median <= self.target.aim:
            said = "aim"
        else:
            said = "must" if median <= must else f"MISSED: {must:.3g} wanted"
        if is_best and self.target.worst is not None:
            said += ", worst row " + (
                "reached" if worst <= self.target.worst else f"MISSED: {self.target.worst} wanted"
            )
        return said


def in_turn(functions, rounds):
    """Return the median time of each function in microseconds."""
    return [statistics.median(times) for times in time_in_turn(functions, rounds)]


def draw(row, params):
    """Return a function that draws from the row, each time at another position."""
    positions = iter(range(2**62))
    return lambda: toksample.sample(row, **params, seed=1, position=next(positions))


def calls(row):
    """Yield the name of each call that has a target, and the function to time."""
    out = np.empty(row.shape, np.float32)
    yield "argmax", lambda: toksample.argmax(row)
    for name, params in DRAWS.items():
        yield name, draw(row, params)
    yield "softmax with out=", lambda: toksample.softmax(row, out=out)
    yield "top_k(50)", lambda: toksample.top_k(row, 50)


def over_rows(rows, measure):
    """Return a list with the figures of each row, by name. `measure` yields names and figures of one row."""
    found = {}
    with StatusLine() as status:
        for place, row in enumerate(rows):
            status.show(f"row {place + 1} of {len(rows)}")
            for name, figure in measure(row):
                found.setdefault(name, []).append(figure)
    return found


def main_calls(rows, rounds):
    """Measure the calls of `TARGETS`."""

    def measure(row):
        for name, function in calls(row):
            floor, time = in_turn([functools.partial(np.max, row), function], rounds)
            yield name, time / floor

    for name, figures in over_rows(rows, measure).items():
        yield Row("x np.max(row)", name, TARGETS[name], figures)


def family(rows, rounds):
    """Measure each method of the family alone, with the parameters of the case of `toksample bench` that has its name."""
    params = {call.name: dict(call.params) for call in CALLS if call.name in THRESHOLDS + WHOLE}
    params["xtc"] = {"temperature": 0.7, "xtc_probability": 1.0, "xtc_threshold": 0.1}
    params["dynatemp_range"] = {"temperature": 0.7, "dynatemp_range": 0.5}
    params["adaptive_target"] = {"temperature": 0.7, "adaptive_target": 0.3}

    def measure(row):
        for name, each in params.items():
            floor, time = in_turn([functools.partial(np.max, row), draw(row, each)], rounds)
            yield name, time / floor

    for name, figures in over_rows(rows, measure).items():
        limit = 4 if name in (*THRESHOLDS, "xtc") else 10
        yield Row("each method alone, x np.max(row)", name, Target(limit), figures)


def narrow_types():
    """Return the 16-bit types by name. bfloat16 is not among them if ml_dtypes is not installed."""
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        print("bfloat16 is left out: it needs ml_dtypes")
        return {"float16": np.float16}
    return {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def narrow(rows, rounds):
    """Measure each call on 16-bit rows, beside the same call on float32."""

    def measure(row):
        for name, dtype in narrow_types().items():
            for (call, wide), (_, narrow) in zip(calls(row), calls(row.astype(dtype)), strict=True):
                wide_time, narrow_time = in_turn([wide, narrow], rounds)
                yield f"{call}, {name}", narrow_time / wide_time

    for name, figures in over_rows(rows[:: max(1, len(rows) // 5)], measure).items():
        yield Row("16-bit rows, x the same call on float32", name, Target(1.3), figures)


def cold(rows, rounds):
    """Measure draws from many rows, one after the other, so that each comes from memory."""
    batch = [rows[place % len(rows)].copy() for place in range(BATCH)]
    batches = {"float32": batch} | {
        name: [row.astype(dtype) for row in batch] for name, dtype in narrow_types().items()
    }

    def each(function, kind):
        return lambda: [function(row) for row in batches[kind]]

    def k_and_p(row):
        return toksample.sample(row, **BASE, seed=1)

    wanted = {
        "temperature 0.7, top_k 50, top_p 0.9, float32": (k_and_p, "float32", Target(1.08, 1.03)),
        "temperature 0.7, top_k 50, top_p 0.9, float16": (k_and_p, "float16", Target(0.65, 0.55)),
        "argmax, bfloat16": (toksample.argmax, "bfloat16", Target(0.65, 0.55)),
    }
    for name, (function, kind, target) in wanted.items():
        if kind in batches:
            floor, time = in_turn([each(np.max, "float32"), each(function, kind)], rounds)
            yield Row(
                f"{BATCH} rows, one after the other, x np.max of the same in float32", name, target, [time / floor]
            )


def threads(rows, rounds):
    """Measure how much faster a batch is on two threads, beside np.max, for which the memory sets the limit."""
    batch = rows[np.arange(BATCH) % len(rows)]

    def read(part):
        for row in part:
            np.max(row)

    with ThreadPoolExecutor(1) as other:

        def read_on_two():
            half = other.submit(read, batch[: BATCH // 2])
            read(batch[BATCH // 2 :])
            half.result()

        # Without pauses between the calls, after which a virtual machine would first have to wake a core.
        functions = [
            lambda: toksample.sample(batch, **BASE, seed=1, num_threads=1),
            lambda: toksample.sample(batch, **BASE, seed=1, num_threads=2),
            lambda: read(batch),
            read_on_two,
        ]
        times = [[timeit.timeit(function, number=1) for function in functions] for _ in range(4 * rounds)]
    one, two, read_one, read_two = (statistics.median(each) for each in zip(*times, strict=True))
    # The smaller the better, as in the other tables.
    speedup, limit = one / two, read_one / read_two
    name = f"np.max gains {limit:.2f}, sample {speedup:.2f}"
    yield Row(
        f"{BATCH} rows, two threads: the speed-up of np.max / that of sample",
        name,
        Target(1 / 0.95, 1),
        [limit / speedup],
    )


def small():
    """Measure a call on 16 logits. `timeit` makes it, because calling a function adds to its time."""
    names = {"sample": toksample.sample, "row": make_row("news", 16)}
    statement = "sample(row, temperature=0.7, top_k=50, top_p=0.9, seed=1, position=3)"
    runs = timeit.repeat(statement, globals=names, number=5_000, repeat=15)
    yield Row("microseconds", "16 logits", Target(0.8, 0.5), [statistics.median(runs) / 5_000 * 1e6])


def edits(rows, rounds):
    """Measure what a bitmask, penalties and biases add to a draw."""
    vocab, rng = rows.shape[1], np.random.default_rng(5)
    words = -(-vocab // 32)
    few = np.zeros(words, np.int32)
    few[rng.choice(words, min(50, words), replace=False)] = -1
    bitmasks = {
        "bitmask: all allowed": np.full(words, -1, np.int32),
        "bitmask: random bits": rng.integers(-(2**31), 2**31, words, dtype=np.int32),
        "bitmask: 50 words": few,
    }
    history = rng.integers(0, vocab, 1_000)
    biases = {int(token): 1.0 for token in rng.choice(vocab, 20, replace=False)}
    others = {
        "penalties: 1,000 tokens": {"repetition_penalty": 1.1, "frequency_penalty": 0.5, "output_ids": history},
        "logit_bias: 20 tokens": {"logit_bias": biases},
    }

    def measure(row):
        for name, edit in ({name: {"bitmask": mask} for name, mask in bitmasks.items()} | others).items():
            plain, edited = in_turn([draw(row, BASE), draw(row, BASE | edit)], rounds)
            yield name, edited / plain if name in bitmasks else edited - plain

    for name, figures in over_rows(rows, measure).items():
        if name in bitmasks:
            yield Row("x the same draw without a bitmask", name, Target(1.15), figures)
        else:
            yield Row("microseconds more than the same draw without edits", name, Target(10), figures)


def logprobs(rows, rounds):
    """Measure what log-probabilities add to a draw."""

    def measure(row):
        for name, params in (DRAWS | {"temperature 1": {"temperature": 1.0}}).items():
            for mode in ("raw_logprobs", "processed_logprobs"):
                described = draw(row, params | {"logprobs": 5, "logprobs_mode": mode})
                floor, plain, with_logprobs = in_turn(
                    [functools.partial(np.max, row), draw(row, params), described], rounds
                )
                yield f"{name}, {mode}", (with_logprobs - plain) / floor

    for name, figures in over_rows(rows, measure).items():
        yield Row("logprobs=5, x np.max(row) more than the draw alone", name, Target(5), figures)


def hard(vocab, rounds):
    """Measure the calls on rows that were made to be hard: the figures are those of the rows."""

    def measure(kind):
        row = ROWS[kind](vocab)
        for name, function in hard_calls(row):
            floor, time = in_turn([functools.partial(np.max, row), function], rounds)
            yield name, time / floor

    for name, figures in over_rows(ROWS, measure).items():
        yield Row(f"hard rows, x np.max(row): {', '.join(ROWS)}", name, Target(HARD_LIMIT, worst=HARD_LIMIT), figures)


def show(found):
    """Print the tables as they are measured, and return all of their rows."""
    rows, table = [], None
    for row in found:
        if row.table != table:
            table = row.table
            print(f"\n{table}\n{'':58}{'must':>6}{'aim':>6}{'median':>9}{'worst':>8}")
        aim = "" if row.target.aim is None else row.target.aim
        median, worst = statistics.median(row.figures), max(row.figures)
        print(f"{row.name:58}{row.target.must:>6.3g}{aim:>6}{median:>9.2f}{worst:>8.2f}  {row.reached}", flush=True)
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logits", help="rows (B, V) in .npy format")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--json", type=Path, help="where to write the figures, for benches/record.py")
    args = parser.parse_args()
    if args.logits:
        rows = np.ascontiguousarray(np.load(args.logits), np.float32)
        source = f"{len(rows)} real rows"
    else:
        rows = np.stack([make_row(kind, 262_144, seed) for seed in range(4) for kind in KINDS])
        source = f"{len(rows)} made rows"
    about = {
        "date": datetime.date.today().isoformat(),
        "command": "python benches/targets.py" + (" --logits rows.npy" if args.logits else ""),
        "rows": f"{source} of {rows.shape[1]:,} logits, one thread",
        "instruction set": toksample.isa(),
        **machine(),
        "versions": {"toksample": toksample.__version__, "numpy": np.__version__},
    }
    print("\n".join(f"{name}: {text}" for name, text in about.items()))

    def measured():
        yield from main_calls(rows, args.rounds)
        yield from family(rows, args.rounds)
        yield from narrow(rows, args.rounds)
        yield from cold(rows, max(args.rounds // 2, 5))
        yield from threads(rows, max(args.rounds // 2, 5))
        yield from small()
        yield from edits(rows, args.rounds)
        yield from logprobs(rows, max(args.rounds // 4, 5))
        yield from hard(rows.shape[1], max(args.rounds // 4, 5))

    found = show(measured())
    if args.json:
        figures = [
            {
                "table": row.table,
                "call": row.name,
                "must": row.target.must,
                "aim": row.target.aim,
                "median": statistics.median(row.figures),
                "least": min(row.figures),
                "most": max(row.figures),
                "reached": row.reached,
            }
            for row in found
        ]
        args.json.write_text(json.dumps(about | {"figures": figures}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
