"""Takes the times.

A case is a call on rows of one shape with a number of threads. In each round every engine does the call once on the same rows,
in an order that rotates; a call that takes less than `LONG` is done once untimed right before, so that no engine pays for the
caches that another one has swept. What is reported is the median, the quartiles, and the ratio of medians to ``np.max`` of the
same rows in the same rounds, which is the time to read the logits once; for several inputs, the median of their ratios. Each
engine's answers are checked before its time is taken: what is drawn must be a token that the exact filters keep.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from toksample.bench.calls import Call, check
from toksample.bench.engines.base import Engine, Timed
from toksample.bench.report import Figure, shape_of
from toksample.bench.rows import Rows

LONG = 5e-3
"""A call that takes so many seconds, or more, is not done twice in a round."""
SHORT = 20e-6
"""A call that takes fewer seconds is timed many times at once; otherwise reading the clock would be a part of its time."""
MANY = 200e-6
"""About how many seconds these many calls take together."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A call on rows of one shape."""

    call: Call
    vocab: int
    batch: int
    threads: int

    @property
    def shape(self) -> str:
        """Say what is the same for a group of cases."""
        return shape_of(self.vocab, self.batch, self.threads)


# ---- the timing loop -------------------------------------------------------------------------------------------------


def time_in_turn(
    functions: Sequence[Callable[[], Any]],
    rounds: int,
    *,
    threads: int = 1,
    seconds: float = math.inf,
    progress: Callable[[str], None] = lambda text: None,
) -> list[list[float]]:
    """Time functions in turn, in an order that rotates from round to round.

    Parameters
    ----------
    functions : sequence of callable
        What to time.
    rounds : int
        The number of rounds.
    threads : int, optional
        How many threads the functions use. With one, time in which another process had the core is not counted.
    seconds : float, optional
        About the time that a function may take. A slower one is timed in fewer rounds, evenly spread, and in 3 at least.
    progress : callable, optional
        Called with a line of text before each round.

    Returns
    -------
    list of list of float
        For each function its times, in microseconds a call.
    """
    estimates = [_estimate(function) for function in functions]
    shares = [int(min(rounds, max(3, seconds / estimate))) for estimate in estimates]
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(rounds):
        progress(f"round {turn + 1} of {rounds}")
        for number in range(len(functions)):
            place = (number + turn) % len(functions)
            if turn * shares[place] // rounds == (turn - 1) * shares[place] // rounds:
                continue  # its rounds are fewer, and this is none of them
            if threads > 1:
                time.sleep(0.01)  # until the threads of the one before have gone to sleep
            times[place].append(_time(functions[place], estimates[place], threads))
    return times


def _estimate(function: Callable[[], Any]) -> float:
    """Return about the seconds that a call takes."""
    least = math.inf
    for _ in range(2):  # the first call may find the caches cold
        start = time.perf_counter()
        function()
        least = min(least, time.perf_counter() - start)
        if least >= LONG:
            break
    return max(least, 1e-9)  # a clock may be too coarse to see it


def _time(function: Callable[[], Any], estimate: float, threads: int) -> float:
    """Return the microseconds of a call."""
    if estimate < LONG:
        function()
    count = math.ceil(MANY / estimate) if estimate < SHORT else 1
    repeats = range(count)
    start_cpu = time.thread_time_ns()
    start = time.perf_counter_ns()
    for _ in repeats:
        function()
    elapsed = time.perf_counter_ns() - start
    if threads == 1:
        elapsed = min(elapsed, time.thread_time_ns() - start_cpu)  # less only if another process had the core
    return elapsed / count / 1e3


# ---- a case ----------------------------------------------------------------------------------------------------------


def measure(
    case: Case,
    engines: Sequence[type[Engine]],
    inputs: Sequence[Rows],
    *,
    rounds: int = 15,
    seconds: float = 1.0,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Figure]:
    """Check and time the engines that can do the case's call; those that fail have a figure with an error.

    Parameters
    ----------
    case : Case
        What to do.
    engines : sequence of Engine types
        Those that are installed.
    inputs : sequence of arrays of shape (V,) or (B, V)
        The call is timed on each of them.
    rounds : int, optional
        The number of rounds on each input.
    seconds : float, optional
        About the time that an engine may take; see `time_in_turn`.
    progress : callable, optional
        Called with a line of text before each step.
    """
    lanes: dict[str, list[Timed]] = {"np.max": [functools.partial(np.max, rows) for rows in inputs]}
    checks = 4 if case.batch == 1 else 2
    failed = []
    for engine_type in engines:
        if not engine_type.can(case.call):
            continue
        progress(f"{engine_type.name}: the first call")
        try:
            engine = engine_type(case.threads)
            lanes[engine.name] = [_checked(engine, case.call, rows, checks) for rows in inputs]
        except Exception as error:  # whatever a peer does, the others are measured
            failed.append(_failure(case, engine_type.name, f"{type(error).__name__}: {error}"))
    times: dict[str, list[list[float]]] = {name: [] for name in lanes}
    for place in range(len(inputs)):

        def report(text: str, place: int = place) -> None:
            progress(f"rows {place + 1} of {len(inputs)}, {text}" if len(inputs) > 1 else text)

        functions = [prepared[place] for prepared in lanes.values()]
        share = seconds / len(inputs)
        each = time_in_turn(functions, rounds, threads=case.threads, seconds=share, progress=report)
        for name, one in zip(lanes, each, strict=True):
            times[name].append(one)
    counts = {name: 0 if name == "np.max" else checks * len(inputs) for name in lanes}
    return [_figure(case, name, times, counts[name]) for name in lanes] + failed


def _checked(engine: Engine, call: Call, rows: Rows, checks: int) -> Timed:
    """Prepare an engine for the call on these rows, and check so many of its answers."""
    function = engine.prepare(call, rows)
    for _ in range(checks):
        check(call, rows, engine.answer(call, function()))
    return function


def _figure(case: Case, name: str, times: dict[str, list[list[float]]], checked: int) -> Figure:
    """Make the figure of an engine from the times of all engines on each input."""
    medians = {each: [statistics.median(one) for one in times[each]] for each in times}

    def ratio_to(other: str) -> float:
        return statistics.median(one / two for one, two in zip(medians[name], medians[other], strict=True))

    all_times = [each for one in times[name] for each in one]
    low, _, high = statistics.quantiles(all_times, n=4, method="inclusive")
    return Figure(
        case.call.name,
        case.vocab,
        case.batch,
        case.threads,
        name,
        microseconds=statistics.median(medians[name]),
        low=low,
        high=high,
        times_max=ratio_to("np.max"),
        times_toksample=ratio_to("toksample") if "toksample" in times else None,
        samples=len(all_times),
        checked=checked,
    )


def _failure(case: Case, name: str, error: str) -> Figure:
    nan = math.nan
    return Figure(case.call.name, case.vocab, case.batch, case.threads, name, nan, nan, nan, nan, None, 0, 0, error)
