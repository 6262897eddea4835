"""The command line of ``toksample bench``."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from toksample._extras import import_extra
from toksample._npy import add_dtype_option, read_npy
from toksample._progress import StatusLine
from toksample.bench.calls import CALLS
from toksample.bench.engines import ENGINES
from toksample.bench.engines.base import Engine
from toksample.bench.machine import cores, machine
from toksample.bench.report import Figure, Report, table, to_json
from toksample.bench.rows import KINDS, Rows, make_row, make_rows
from toksample.bench.runner import Case, measure

__all__ = ["add_options", "run"]

VOCABS = (32_000, 128_256, 151_936, 262_144)
BATCHES = (1, 8, 64)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``toksample bench``."""
    names = {"calls": [call.name for call in CALLS], "engines": [engine.name for engine in ENGINES]}
    parser.add_argument(
        "--logits",
        metavar="FILE.npy",
        help="measure on these rows, of shape (V,) or (B, V); by default the rows are made",
    )
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
    picture = "draw the first shape (.png, .svg), or all shapes with the table (.html); needs matplotlib"
    parser.add_argument("--plot", metavar="FILE", help=picture)


def run(args: argparse.Namespace) -> int:
    """Run ``toksample bench`` with parsed options and return the exit code: 1 if an answer was wrong.

    Raises
    ------
    ValueError
        If an option or a file of logits is bad. The text is meant for users.
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
        from toksample.bench.plot import draw

        draw(report, args.plot)
    return 1 if any(figure.error for figure in report.figures) else 0


def _measure_all(
    cases: Sequence[Case], engines: Sequence[type[Engine]], logits: Rows | None, rounds: int, seconds: float
) -> list[Figure]:
    figures = []
    with StatusLine() as status:
        for place, case in enumerate(cases):
            label = f"[{place + 1}/{len(cases)}] {case.call.name}, {case.shape}"

            def progress(text: str, label: str = label) -> None:
                status.show(f"{label}: {text}")

            inputs = _inputs(case, logits)
            figures += measure(case, engines, inputs, rounds=rounds, seconds=seconds, progress=progress)
    return figures


def _inputs(case: Case, logits: Rows | None) -> list[Rows]:
    """Return the inputs of a case: for a single row each of `logits`, or a row of each kind, and otherwise one batch."""
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
    with np.errstate(over="ignore", invalid="ignore"):  # numbers that overflow become inf, which is an error below
        rows = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise ValueError(f"{path}: the logits must be finite, since not every engine takes -inf")
    return rows


def _rows_text(path: str | None, logits: Rows | None) -> str:
    if path is None or logits is None:
        return f"made, of the kinds {', '.join(KINDS)}"
    return f"{len(logits)} from {Path(path).name}"


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _given(args: argparse.Namespace) -> Iterator[str]:
    """Yield the options that were given, except the names of the files to write."""
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
    threads = _integers("threads", args.threads, sorted({1, cores()}))
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
    import_extra("matplotlib", "plot", "a picture")
