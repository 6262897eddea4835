"""Takes the times.

A case is a call on rows of one shape with a number of threads. In each round every engine makes the call once on the same
rows, in an order that rotates. A call that takes less than `LONG` is made once without a clock right before, because the
engine before it may have emptied the caches. The report has the median, the quartiles, and the ratio of the median to that of
``np.max`` on the same rows in the same rounds, which is the time to read the logits once. If there are several inputs, it is
the median of their ratios. The answers of each engine are checked before it is timed.
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
"""A call that takes this many seconds, or more, is not made twice in a round."""
SHORT = 20e-6
"""Calls that take fewer seconds are timed together, because reading the clock would be a large part of the time of one."""
MANY = 200e-6
"""The seconds that calls which are timed together take, about."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A call on rows of one shape."""

    call: Call
    vocab: int
    batch: int
    threads: int

    @property
    def shape(self) -> str:
        """Describe the size of the call, which a group of cases has in common."""
        return shape_of(self.vocab, self.batch, self.threads)


# ---- the timing loop -------------------------------------------------------------------------------------------------


def time_in_turn(
    functions: Sequence[Callable[[], Any]],
    rounds: int,
    *,
    threads: int | Sequence[int] = 1,
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
    threads : int or sequence of int, optional
        The number of threads that the functions use, or that each of them uses. With one, time during which another process
        had the core does not count.
    seconds : float, optional
        About the time that all rounds of a function may take. A slow function is timed in fewer rounds: evenly spread, and
        at least 3.
    progress : callable, optional
        Called with a line of text before each round.

    Returns
    -------
    list of list of float
        For each function its times, in microseconds a call.
    """
    counts = [threads] * len(functions) if isinstance(threads, int) else threads
    estimates = [_estimate(function) for function in functions]
    shares = [int(min(rounds, max(3, seconds / estimate))) for estimate in estimates]
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(rounds):
        progress(f"round {turn + 1} of {rounds}")
        for number in range(len(functions)):
            place = (number + turn) % len(functions)
            if turn * shares[place] // rounds == (turn - 1) * shares[place] // rounds:
                continue  # this function is timed in fewer rounds, and this is not one of them
            times[place].append(_time(functions[place], estimates[place], counts[place]))
            if counts[place] > 1:
                time.sleep(0.01)  # by then its threads have gone to sleep, and the next function has all cores
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
    return max(least, 1e-9)  # a coarse clock may see no time at all


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
        elapsed = min(
            elapsed, time.thread_time_ns() - start_cpu
        )  # the CPU time is less if another process had the core
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
    """Check and time each engine that can make the call of a case. The figure of an engine that fails has an error.

    Parameters
    ----------
    case : Case
        The call, the shape of its rows and the number of threads.
    engines : sequence of Engine types
        The engines to time, all of them installed.
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
    threads = {"np.max": 1}
    checks = 4 if case.batch == 1 else 2
    failed = []
    for engine_type in engines:
        if not engine_type.can(case.call):
            continue
        progress(f"{engine_type.name}: the first call")
        try:
            engine = engine_type(case.threads)
            lanes[engine.name] = [_checked(engine, case.call, rows, checks) for rows in inputs]
            threads[engine.name] = engine.threads
        except Exception as error:  # whatever goes wrong in one engine, the others are measured
            failed.append(_failure(case, engine_type.name, f"{type(error).__name__}: {error}"))
    times: dict[str, list[list[float]]] = {name: [] for name in lanes}
    for place in range(len(inputs)):

        def report(text: str, place: int = place) -> None:
            progress(f"rows {place + 1} of {len(inputs)}, {text}" if len(inputs) > 1 else text)

        functions = [prepared[place] for prepared in lanes.values()]
        each_threads, share = [threads[name] for name in lanes], seconds / len(inputs)
        each = time_in_turn(functions, rounds, threads=each_threads, seconds=share, progress=report)
        for name, one in zip(lanes, each, strict=True):
            times[name].append(one)
    counts = {name: 0 if name == "np.max" else checks * len(inputs) for name in lanes}
    return [_figure(case, name, times, counts[name]) for name in lanes] + failed


def _checked(engine: Engine, call: Call, rows: Rows, checks: int) -> Timed:
    """Prepare an engine for the call on these rows, and check the answers of this many calls."""
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
