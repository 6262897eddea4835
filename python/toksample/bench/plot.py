"""Draws the report of a benchmark. This needs matplotlib, which the extra ``plot`` installs."""

from __future__ import annotations

import html
import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toksample.bench.calls import CALLS
from toksample.bench.report import Figure, Report, number, table

_OURS, _OURS_TOO, _PEER, _TEXT, _FAINT = "#0b7a75", "#6fb3af", "#b9c0c7", "#22262a", "#6b737b"
_LEFT_OUT = ("np.max", "toksample.reference")


def draw(report: Report, path: str, calls: Sequence[str] | None = None) -> None:
    """Draw the first shape of a report as .png or .svg, or all shapes as one .html page.

    Parameters
    ----------
    report : Report
        What to draw.
    path : str
        The file to write. Its ending chooses the format.
    calls : sequence of str, optional
        The names of the calls to draw. By default all of them are drawn.
    """
    shapes = report.shapes()
    if path.endswith(".html"):
        Path(path).write_text(_page(report), encoding="utf-8")
        return
    figures = [figure for figure in shapes[0] if calls is None or figure.call in calls]
    # A call that is only made on short rows has a shape to itself. It is drawn with the first shape.
    figures += [figure for shape in shapes[1:] for figure in shape if figure.vocab == 16 and calls is None]
    picture = _picture(report, figures)
    picture.savefig(path, dpi=150, facecolor="white", metadata=_no_date(path))


def engine_title(name: str, machine: Mapping[str, str]) -> str:
    """Return what an engine is called in a picture, or in another place where there is little room."""
    match name:
        case "toksample-avx2":
            return "toksample, AVX2"
        case "torch-all-threads":
            return f"torch, {machine['cores']} threads"
        case _:
            return name


def isa_title(name: str) -> str:
    """Return how the makers of an instruction set write its name."""
    return {"avx2": "AVX2", "avx512": "AVX-512"}.get(name, name)


def _no_date(path: str) -> dict[str, Any]:
    return {"Date": None} if path.endswith(".svg") else {}


def _picture(report: Report, figures: Sequence[Figure]) -> Any:
    canvas_type = importlib.import_module("matplotlib.figure").Figure
    names = [call.name for call in CALLS if any(figure.call == call.name for figure in figures)]
    panels = [[figure for figure in figures if figure.call == name and figure.error is None] for name in names]
    panels = [panel for panel in panels if _bars(panel)]
    starts = {
        vocab: _start([figure for figure in figures if figure.vocab == vocab]) for vocab in {f.vocab for f in figures}
    }
    columns = 2 if len(panels) > 1 else 1
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(len(_bars(panel)) for panel in line) + 2.2 for line in lines]
    header = 1.15
    size = (6.4 * columns, 0.25 * sum(heights) + header)
    canvas = canvas_type(figsize=size, layout=None)
    top = 1 - header / size[1]
    grid = canvas.add_gridspec(
        len(lines), columns, height_ratios=heights, left=0.1, right=0.9, top=top, bottom=0.01, hspace=0.0, wspace=0.42
    )
    for row, line in enumerate(lines):
        for column, panel in enumerate(line):
            axes, start = canvas.add_subplot(grid[row, column]), starts[panel[0].vocab]
            _panel(axes, panel, report.machine, heights[row], start)
    left, faint = 0.1 if columns == 2 else 0.16, {"color": _FAINT, "fontsize": 9}
    large = figures[0]
    inch = 1 / size[1]
    canvas.text(
        left - 0.075, 1 - 0.34 * inch, "Time of a call: less is better", color=_TEXT, fontsize=14, weight="bold"
    )
    cpu, isa = report.machine["cpu"].split(" (cpu family")[0], isa_title(report.machine["toksample uses"])
    about = f"{large.shape}; {cpu}, {isa}"
    canvas.text(left - 0.075, 1 - 0.58 * inch, f"{about}; median time, log scale, and the ratio to toksample", **faint)
    canvas.text(left - 0.075, 1 - 0.78 * inch, "The line is np.max: the time to read the logits once", **faint)
    return canvas


def _bars(panel: Sequence[Figure]) -> list[Figure]:
    bars = [figure for figure in panel if figure.engine not in _LEFT_OUT]
    return sorted(bars, key=lambda figure: figure.microseconds)


def _start(figures: Sequence[Figure]) -> float:
    """Return where the axes of the panels of these figures begin."""
    return min(figure.microseconds for figure in figures if figure.error is None) / 2.5


def _panel(axes: Any, panel: Sequence[Figure], machine: Mapping[str, str], height: float, start: float) -> None:
    bars = _bars(panel)
    floor = next(figure.microseconds for figure in panel if figure.engine == "np.max")
    title = next(call.title for call in CALLS if call.name == panel[0].call)
    axes.set_xscale("log")
    for place, bar in enumerate(bars):
        ours = bar.engine == "toksample"
        color = {"toksample": _OURS, "toksample-avx2": _OURS_TOO}.get(bar.engine, _PEER)
        axes.barh(place, bar.microseconds - start, left=start, height=0.72, color=color)
        label = f"{number(bar.microseconds)} \N{MICRO SIGN}s"
        if not ours and bar.times_toksample is not None:
            label += f"  ({number(bar.times_toksample)}x)"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # keeps the line of np.max from crossing the text
        text = axes.text(
            bar.microseconds * 1.1, place, label, va="center", fontsize=8.5, color=_OURS if ours else _TEXT
        )
        weight = "bold" if ours else "normal"
        text.set(weight=weight, bbox=box, zorder=3)
        name, style = engine_title(bar.engine, machine), {"color": _OURS if ours else _TEXT, "weight": weight}
        axes.annotate(name, (0, place), (-6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      ha="right", va="center", fontsize=8.5, **style)  # fmt: skip
    axes.plot([floor, floor], [-0.5, len(bars) - 0.5], color=_FAINT, linewidth=1, linestyle=(0, (3, 2)))
    axes.set_xlim(start, start * 100_000)
    axes.set_ylim(height - 1.4, -0.8)
    axes.set_title(title, loc="left", fontsize=9, color=_TEXT, weight="bold", pad=1)
    axes.axis("off")


def _page(report: Report) -> str:
    parts = []
    for figures in report.shapes():
        buffer = io.StringIO()
        _picture(report, figures).savefig(buffer, format="svg", metadata=_no_date(".svg"))
        svg = buffer.getvalue()
        parts.append(svg[svg.index("<svg") :])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>toksample bench</title>\n'
        "<style>body { font-family: sans-serif; margin: 2em auto; max-width: 70em } svg { max-width: 100%; height: auto }"
        " pre { overflow-x: auto }</style>\n"
        f"<h1>toksample bench</h1>\n{''.join(parts)}\n<pre>{html.escape(table(report))}</pre>\n</html>\n"
    )
