"""``toksample bench``: toksample beside whatever else is installed, on the same rows in the same run.

How it measures. A case is a call on rows of one shape with a number of threads. In each round every engine does the call once
on the same rows, in an order that rotates; a call that takes less than `LONG` is done once untimed right before, so that no
engine pays for the caches that another one has swept. What is reported is the median, the quartiles, and the ratio of medians
to ``np.max`` of the same rows in the same rounds, which is the time to read the logits once; for several rows, the median of
their ratios. Each engine's answers are checked: what is drawn must be a token that the exact filters keep.

The cases here are also those of the pytest-benchmark suite in ``benches/`` of the repository.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import itertools
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

import toksample
from toksample._bench_engines import CALLS, ENGINES, Call, Engine, Numpy, Timed, check
from toksample._bench_rows import KINDS, Rows, make_row, make_rows
from toksample._npy import add_dtype_option, read_npy

__all__ = ["Case", "Figure", "Report", "add_arguments", "inputs_of", "measure", "run", "table"]

VOCABS = (32_000, 128_256, 151_936, 262_144)
BATCHES = (1, 8, 64)
LONG = 5e-3
"""Calls of so many seconds or more are not done twice in a round."""


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
        return shape_of(self)


@dataclasses.dataclass(frozen=True)
class Figure:
    """How long an engine took for a case."""

    call: str
    vocab: int
    batch: int
    threads: int
    engine: str
    microseconds: float
    """The median."""
    low: float
    """The first quartile, in microseconds."""
    high: float
    """The third quartile."""
    times_max: float
    """The ratio to ``np.max`` of the same rows."""
    times_toksample: float | None
    """The ratio to toksample."""
    samples: int
    checked: int
    """How many answers were checked."""
    error: str | None = None
    """Why there is no figure, or why it does not count."""


def shape_of(one: Case | Figure) -> str:
    """Say the size of the vocabulary, the rows and the threads."""
    rows = "1 row" if one.batch == 1 else f"batch of {one.batch}"
    return f"V = {one.vocab:,}, {rows}, {one.threads} thread{'' if one.threads == 1 else 's'}"


@dataclasses.dataclass(frozen=True)
class Report:
    """A whole run."""

    command: str
    date: str
    rows: str
    machine: dict[str, str]
    versions: dict[str, str]
    notes: dict[str, str]
    figures: list[Figure]

    def shapes(self) -> list[list[Figure]]:
        """Return the figures in groups of one shape."""
        groups: dict[tuple[int, int, int], list[Figure]] = {}
        for figure in self.figures:
            groups.setdefault((figure.vocab, figure.batch, figure.threads), []).append(figure)
        return list(groups.values())


# ---- measuring -------------------------------------------------------------------------------------------------------


class _Floor(Numpy):
    """Reads every logit once."""

    name = "np.max"

    def floor(self, rows: Rows) -> Timed:
        return lambda: np.max(rows)


_FLOOR = Call("np.max", "one read of the logits", "floor")


class _Lane:
    """An engine in a case: its prepared function for each of the inputs, and the times so far."""

    def __init__(self, engine: Engine, call: Call, inputs: Sequence[Rows]) -> None:
        self.engine = engine
        self.call = call
        self.inputs = inputs
        self.functions = [engine.prepare(call, rows) for rows in inputs]
        self.times: list[list[float]] = [[] for _ in inputs]
        self.checked = 0
        self.repeats = 1
        self.seconds = math.inf
        self.error: str | None = None

    def warm_up(self) -> None:
        """Do the call on each of the inputs, check the answers, and see how long it takes."""
        for place, rows in enumerate(self.inputs):
            function = self.functions[place]
            for number in range(4):
                start = time.perf_counter()
                result = function()
                seconds = time.perf_counter() - start
                check(self.call, rows, self.engine.answer(self.call, result))
                self.checked += 1
                self.seconds = min(self.seconds, seconds)  # the first call may compile something
                if seconds > LONG and number > 0:
                    break
        if self.seconds < 20e-6:
            self.repeats = math.ceil(200e-6 / self.seconds)

    def time(self, place: int) -> None:
        function = self.functions[place]
        if self.seconds < LONG:
            function()
        repeats = range(self.repeats)
        start_cpu = time.thread_time_ns()
        start = time.perf_counter_ns()
        for _ in repeats:
            function()
        elapsed = time.perf_counter_ns() - start
        if self.engine.threads == 1:
            elapsed = min(elapsed, time.thread_time_ns() - start_cpu)  # less only if another process had the core
        self.times[place].append(elapsed / self.repeats / 1e3)

    def medians(self) -> list[float]:
        return [statistics.median(times) for times in self.times]


def measure(
    case: Case,
    engines: Sequence[type[Engine]],
    inputs: Sequence[Rows],
    *,
    rounds: int = 15,
    seconds: float = 1.0,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Figure]:
    """Measure the engines that can do the case's call.

    Parameters
    ----------
    case : Case
        What to do.
    engines : sequence of Engine types
        Those that are installed.
    inputs : sequence of arrays of shape (V,) or (B, V)
        Each round goes through all of them.
    rounds : int, optional
        The number of rounds.
    seconds : float, optional
        About the time that an engine may take. A slower one is timed in fewer rounds, evenly spread, and in 3 at least.
    progress : callable, optional
        Called with a line of text before each round.
    """
    floor = _Lane(_Floor(case.threads), _FLOOR, inputs)
    able = [engine for engine in engines if engine.can(case.call)]
    lanes = [floor, *(_Lane(engine(case.threads), case.call, inputs) for engine in able)]
    for lane in lanes:
        progress(f"{lane.engine.name}: the first call")
        try:
            lane.warm_up()
        except Exception as error:  # whatever a peer does, the others are measured
            lane.error = f"{type(error).__name__}: {error}"
    failed = [lane for lane in lanes if lane.error is not None]
    lanes = [lane for lane in lanes if lane.error is None]
    for turn in range(rounds):
        progress(f"round {turn + 1} of {rounds}")
        for place in range(len(inputs)):
            for number in range(len(lanes)):
                lane = lanes[(number + turn + place) % len(lanes)]
                if _takes_part(lane, turn, rounds, seconds):
                    if case.threads > 1:
                        time.sleep(0.01)  # until the threads of the one before have gone to sleep
                    lane.time(place)
    by_name = {lane.engine.name: lane for lane in lanes}
    return [_figure(case, lane, floor, by_name.get("toksample")) for lane in (*lanes, *failed)]


def _takes_part(lane: _Lane, turn: int, rounds: int, seconds: float) -> bool:
    affordable = int(seconds / (lane.seconds * len(lane.inputs)))
    wanted = min(rounds, max(3, affordable))
    return turn * wanted // rounds != (turn - 1) * wanted // rounds


def _figure(case: Case, lane: _Lane, floor: _Lane, toksample_lane: _Lane | None) -> Figure:
    common = (case.call.name, case.vocab, case.batch, case.threads, lane.engine.name)
    if lane.error is not None:
        return Figure(*common, math.nan, math.nan, math.nan, math.nan, None, 0, lane.checked, lane.error)
    times = [time for times in lane.times for time in times]
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return Figure(
        *common,
        statistics.median(lane.medians()),
        low,
        high,
        _ratio(lane, floor),
        None if toksample_lane is None else _ratio(lane, toksample_lane),
        len(times),
        lane.checked,
    )


def _ratio(lane: _Lane, other: _Lane) -> float:
    return statistics.median(one / two for one, two in zip(lane.medians(), other.medians(), strict=True))


# ---- the rows --------------------------------------------------------------------------------------------------------


def inputs_of(case: Case, logits: Rows | None) -> list[Rows]:
    """Return what a case is measured on: for single rows one of each kind (or each of `logits`), else one batch."""
    vocab = case.call.vocab or case.vocab
    if logits is not None and case.call.vocab is None:
        if case.batch == 1:
            return [row.copy() for row in logits]
        return [logits[np.arange(case.batch) % len(logits)]]
    if case.batch == 1:
        return [make_row(kind, vocab) for kind in KINDS]
    return [make_rows(vocab, case.batch)]


def _read_logits(path: str, dtype: str | None) -> Rows:
    array = np.atleast_2d(read_npy(path, dtype))
    if not array.size:
        raise ValueError(f"{path}: logits must have at least one row and one token, got shape {array.shape}")
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 does not hold is inf or nan, and reported next
        rows = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise ValueError(f"{path}: the logits must be finite, since not every engine takes -inf")
    return rows


# ---- machine and versions ----------------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Describe this machine."""
    facts = {"cpu": platform.processor() or platform.machine(), "cores": str(_cores())}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split("\t: ", 1) for line in cpuinfo.read_text().splitlines() if "\t: " in line)
        pairs = {key.strip(): value for key, value in lines.items()}
        if "model name" in pairs:
            facts["cpu"] = pairs["model name"]
            family = [f"{key} {pairs[key]}" for key in ("cpu family", "model", "stepping") if key in pairs]
            facts["cpu"] += f" ({', '.join(family)})" if family else ""
    caches = [
        f"L{(cache / 'level').read_text().strip()}{_kind((cache / 'type').read_text())} {(cache / 'size').read_text().strip()}"
        for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    ]
    if caches:
        facts["caches of a core"] = ", ".join(caches)
    facts["system"] = f"{platform.system()} {platform.machine()}"
    facts["python"] = f"{platform.python_implementation()} {platform.python_version()}"
    facts["toksample uses"] = toksample.isa()
    if hasattr(os, "getloadavg"):
        facts["load before"] = f"{os.getloadavg()[0]:.1f} processes"
    return facts


def _kind(text: str) -> str:
    return {"Data": "d", "Instruction": "i"}.get(text.strip(), "")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---- the table -------------------------------------------------------------------------------------------------------


def table(report: Report) -> str:
    """Return the report as text."""
    lines = [f"toksample bench, {report.date}", f"  command: {report.command}", f"  rows: {report.rows}"]
    lines += [f"  {key}: {value}" for key, value in report.machine.items()]
    lines.append(f"  versions: {', '.join(f'{name} {version}' for name, version in report.versions.items())}")
    lines += [f"  {name}: {note}" for name, note in report.notes.items()]
    for figures in report.shapes():
        lines += ["", *_shape_table(figures)]
    return "\n".join(lines)


def _shape_table(figures: Sequence[Figure]) -> Iterator[str]:
    yield shape_of(figures[0])
    yield f"  {'':30}{'microseconds':>14}   {'quartiles':<21}{'x np.max':>10}{'x toksample':>13}"
    for name, group in itertools.groupby(figures, key=lambda figure: figure.call):
        yield f"  {next(call.title for call in CALLS if call.name == name)}"
        for figure in sorted(group, key=lambda figure: (figure.error is not None, figure.microseconds)):
            if figure.error is not None:
                yield f"    {figure.engine:28}  no figure: {figure.error}"
                continue
            spread = f"{number(figure.low)} - {number(figure.high)}"
            ratio = "" if figure.times_toksample is None else number(figure.times_toksample)
            yield (
                f"    {figure.engine:28}{number(figure.microseconds):>14}   {spread:<21}"
                f"{number(figure.times_max):>10}{ratio:>13}"
            )


def to_json(report: Report) -> str:
    """Return the report as JSON; what is not a number is null."""
    plain = dataclasses.asdict(report)
    for figure in plain["figures"]:
        figure.update({key: None for key, value in figure.items() if isinstance(value, float) and math.isnan(value)})
    return json.dumps(plain, indent=1) + "\n"


def from_json(text: str) -> Report:
    """Return the report that `to_json` wrote."""
    plain = json.loads(text)
    numbers = ("microseconds", "low", "high", "times_max")
    for figure in plain["figures"]:
        figure.update({key: math.nan for key in numbers if figure[key] is None})
    return Report(**{**plain, "figures": [Figure(**figure) for figure in plain["figures"]]})


def number(value: float) -> str:
    """Write a positive number with three digits, or as many as it has before the point."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


# ---- the command -----------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``toksample bench``."""
    names = {"calls": [call.name for call in CALLS], "engines": [engine.name for engine in ENGINES]}
    parser.add_argument("--logits", metavar="FILE.npy", help="measure on these rows, (V,) or (B, V), not on made ones")
    add_dtype_option(parser)
    for option, all_names in names.items():
        parser.add_argument(f"--{option}", metavar="A,B", default="all", help=f"some of {', '.join(all_names)}")
    parser.add_argument(
        "--vocab", metavar="N,N", help=f"sizes of vocabulary, or all: {_list(VOCABS)} (default: 262144)"
    )
    parser.add_argument(
        "--batch", metavar="N,N", default="1", help=f"rows in a call, or all: {_list(BATCHES)} (default: 1)"
    )
    parser.add_argument(
        "--threads", metavar="N,N", default="1", help="numbers of threads, or all: 1 and every core (default: 1)"
    )
    parser.add_argument("--rounds", metavar="N", help="rounds (default: 15; with --quick 5)")
    seconds = "about the time that an engine may take for a case (default: 1; with --quick 0.2)"
    parser.add_argument("--seconds", metavar="X", help=seconds)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    picture = "draw the first shape (.png, .svg), or all of them and the tables (.html); needs matplotlib"
    parser.add_argument("--plot", metavar="FILE", help=picture)


def run(args: argparse.Namespace) -> int:
    """Run ``toksample bench`` with parsed options and return the exit code: 1 if an answer was wrong.

    Raises
    ------
    ValueError
        For bad input, with a text for users.
    ModuleNotFoundError
        If a picture is wanted and matplotlib is not installed.
    """
    rounds = _integer("rounds", args.rounds, 5 if args.quick else 15)
    seconds = _seconds(args.seconds, 0.2 if args.quick else 1.0)
    logits = None if args.logits is None else _read_logits(args.logits, args.dtype)
    cases = _cases(args, logits)
    engines = _engines(args.engines)
    for path in filter(None, (args.json, args.plot)):
        if not Path(path).absolute().parent.is_dir():
            raise ValueError(f"{path}: there is no such folder")
    if args.plot:
        _check_plot(args.plot)
    facts = machine()
    report = Report(
        command=" ".join(["toksample bench", *_given(args)]),
        date=time.strftime("%Y-%m-%d"),
        rows=_rows_text(args.logits, logits),
        machine=facts,
        versions={name: version for engine in engines for name, version in engine.versions().items()},
        notes={engine.name: engine.note for engine in engines if engine.note},
        figures=_measure_all(cases, engines, logits, rounds, seconds),
    )
    print(table(report))
    if args.json:
        Path(args.json).write_text(to_json(report), encoding="utf-8")
    if args.plot:
        importlib.import_module("toksample._bench_plot").draw(report, args.plot)
    return 1 if any(figure.error for figure in report.figures) else 0


def _measure_all(
    cases: Sequence[Case], engines: Sequence[type[Engine]], logits: Rows | None, rounds: int, seconds: float
) -> list[Figure]:
    show = _Progress()
    figures = []
    for place, case in enumerate(cases):
        label = f"[{place + 1}/{len(cases)}] {case.call.name}, {case.shape}"

        def progress(text: str, label: str = label) -> None:
            show(f"{label}: {text}")

        figures += measure(case, engines, inputs_of(case, logits), rounds=rounds, seconds=seconds, progress=progress)
    show("")
    return figures


def _rows_text(path: str | None, logits: Rows | None) -> str:
    if path is None or logits is None:
        return f"made, of the kinds {', '.join(KINDS)}"
    return f"{len(logits)} from {Path(path).name}"


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _given(args: argparse.Namespace) -> Iterator[str]:
    """Return the options that were given, but for those that say where to write."""
    for option in ("logits", "dtype", "calls", "engines", "vocab", "batch", "threads", "rounds", "seconds"):
        value = getattr(args, option)
        if value is not None and value != {"calls": "all", "engines": "all", "batch": "1", "threads": "1"}.get(option):
            yield f"--{option} {Path(value).name if option == 'logits' else value}"
    if args.quick:
        yield "--quick"


def _cases(args: argparse.Namespace, logits: Rows | None) -> list[Case]:
    calls = [call for call in CALLS if call.name in _names("calls", args.calls, [call.name for call in CALLS])]
    if logits is None and args.dtype is not None:
        raise ValueError("--dtype has no meaning without --logits, whose type it names")
    if logits is not None and args.vocab is not None:
        raise ValueError("--vocab has no meaning with --logits, whose rows have their own size")
    default = "262144" if logits is None else str(logits.shape[1])
    vocabs = _integers("vocab", args.vocab or default, VOCABS, at_least=64)
    batches = _integers("batch", args.batch, BATCHES)
    threads = _integers("threads", args.threads, sorted({1, _cores()}))
    large = [call for call in calls if call.vocab is None]
    cases = [
        Case(call, vocab, batch, count) for vocab in vocabs for batch in batches for count in threads for call in large
    ]
    small = [Case(call, call.vocab, 1, 1) for call in calls if call.vocab is not None]
    return cases + small


def _engines(text: str) -> list[type[Engine]]:
    wanted = _names("engines", text, [engine.name for engine in ENGINES])
    missing = [engine.name for engine in ENGINES if engine.name in wanted and not engine.is_installed()]
    if missing and text != "all":
        raise ValueError(f"engines must be installed, got {', '.join(missing)}")
    return [engine for engine in ENGINES if engine.name in wanted and engine.name not in missing]


def _names(option: str, text: str, known: Sequence[str]) -> list[str]:
    if text == "all":
        return list(known)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"{option} must be some of {', '.join(known)}, got {name!r}")
    return names


def _integers(option: str, text: str, everything: Sequence[int], at_least: int = 1) -> list[int]:
    if text == "all":
        return list(everything)
    return list(dict.fromkeys(_integer(option, part, 0, at_least) for part in text.split(",")))


def _integer(option: str, text: str | None, default: int, at_least: int = 1) -> int:
    if text is None:
        return default
    most = 2**22
    try:
        value = int(text)
    except ValueError:
        value = at_least - 1
    if not at_least <= value <= most:
        raise ValueError(f"{option} must be an integer in [{at_least}, {most}], got {text!r}")
    return value


def _seconds(text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"seconds must be a number > 0, got {text!r}")
    return value


def _check_plot(path: str) -> None:
    if Path(path).suffix not in (".png", ".svg", ".html"):
        raise ValueError(f"plot must be a file name that ends with .png, .svg or .html, got {path!r}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ModuleNotFoundError("a picture needs matplotlib: pip install 'toksample[plot]'")


class _Progress:
    """One line on stderr, if that is a terminal."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._shown = 0

    def __call__(self, text: str) -> None:
        if self._is_terminal:
            print(f"\r{' ' * self._shown}\r{text}", end="", file=sys.stderr, flush=True)
            self._shown = len(text)
