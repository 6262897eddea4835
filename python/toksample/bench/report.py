"""The figures of a run, and their forms as a table and as JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Sequence

from toksample.bench.calls import CALLS


@dataclasses.dataclass(frozen=True)
class Figure:
    """The time that an engine took for a case."""

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
    """What went wrong, if something did. Then the numbers above are NaN."""

    @property
    def shape(self) -> str:
        """Describe the size of the call, which a group of figures has in common."""
        return shape_of(self.vocab, self.batch, self.threads)


def shape_of(vocab: int, batch: int, threads: int) -> str:
    """Describe a size: the logits of a row, the rows and the threads."""
    rows = "1 row" if batch == 1 else f"batch of {batch}"
    return f"V = {vocab:,}, {rows}, {threads} thread{'' if threads == 1 else 's'}"


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
    yield figures[0].shape
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
