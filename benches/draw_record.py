"""Draws a record of `toksample bench`: its pictures, and what README.md shows of it.

    python benches/draw_record.py benches/record/2026-11-24-amd-epyc-milan.csv

Beside the record it writes two pictures: NAME.png with all calls, and NAME-readme.png with some of them. In README.md it puts
the second picture, the table of the same calls, and what the table says about the rows and the machine. The lines of README.md
from `<!-- record` to `<!-- end of the record -->` are its own.
"""

import argparse
import csv
import math
import re
from pathlib import Path

from toksample.bench.calls import CALLS
from toksample.bench.plot import draw, engine_title, isa_title
from toksample.bench.report import Figure, Report, number

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
SHOWN = (
    "argmax",
    "top_k",
    "softmax",
    "temperature",
    "top_k+top_p",
    "min_p",
    "top_p",
    "top_p-hot",
    "typical_p",
    "xtc",
    "mirostat-2",
    "repetition_penalty",
)
"""The calls that README.md shows."""
COLUMNS = ("toksample", "toksample-avx2", "numpy", "torch", "torch-all-threads", "transformers", "llama.cpp")
"""The engines that the table of README.md has, as far as the record has them."""
PICTURE = re.compile(r"!\[toksample beside others\]\(.*?\)")
TABLE = re.compile(r"<!-- record .*?<!-- end of the record -->", re.DOTALL)


def read(path):
    """Return a record as the report that it was made from, except that all facts of the run are in `machine`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    facts = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    rows = csv.DictReader(line for line in lines if not line.startswith("# "))
    return Report(facts["command"], facts["date"], facts["rows"], facts, {}, {}, [_figure(row) for row in rows])


def _figure(row):
    texts, whole = ("call", "engine"), ("vocab", "batch", "threads", "samples", "checked")
    values = {name: row[name] for name in texts} | {name: int(row[name]) for name in whole}
    for name in ("microseconds", "low", "high", "times_max"):
        values[name] = float(row[name] or math.nan)
    ratio = float(row["times_toksample"]) if row["times_toksample"] else None
    return Figure(**values, times_toksample=ratio, error=row["error"] or None)


def table(report, path):
    """Return the lines of README.md about a record: the table, and where its figures are from."""
    figures = {(figure.call, figure.engine): figure for figure in report.shapes()[0] if figure.error is None}
    calls = [call for call in CALLS if call.name in SHOWN and (call.name, "np.max") in figures]
    columns = [name for name in COLUMNS if any((call.name, name) in figures for call in calls)]
    titles = {name: engine_title(name, report.machine) for name in columns}
    titles["toksample"] += f", {isa_title(report.machine['toksample uses'])}"
    shape, floor = report.shapes()[0][0].shape, figures[calls[0].name, "np.max"].microseconds
    yield f"<!-- record {path.stem}, written by benches/draw_record.py -->"
    yield f"| times `np.max(row)` | {' | '.join(titles.values())} |"
    yield f"|---|{'---|' * len(columns)}"
    for call in calls:
        found = [figures.get((call.name, name)) for name in columns]
        cells = ["" if figure is None else number(figure.times_max) for figure in found]
        yield f"| {call.title} | {' | '.join(cells)} |"
    cpu = report.machine["cpu"].split(" (cpu family")[0]
    yield ""
    yield f"{shape}; the rows: {report.rows}; {cpu}, {report.machine['cores']} cores; {report.date}."
    yield f"`np.max(row)` takes {number(floor)} microseconds."
    yield f"[The record](benches/record/{path.name}) also has the other calls and engines."
    yield "<!-- end of the record -->"


def in_readme(text, path):
    """Return the text of README.md with this record in it."""
    text, pictures = PICTURE.subn(f"![toksample beside others](benches/record/{path.stem}-readme.png)", text)
    lines = "\n".join(table(read(path), path))
    text, tables = TABLE.subn(lambda _: lines, text)
    assert (pictures, tables) == (1, 1), "README.md must have one picture and one table"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, help="a CSV file that record.py wrote")
    path = parser.parse_args().record
    report = read(path)
    draw(report, str(path.with_suffix(".png")))
    draw(report, str(path.with_name(f"{path.stem}-readme.png")), SHOWN)
    README.write_text(in_readme(README.read_text(encoding="utf-8"), path), encoding="utf-8")


if __name__ == "__main__":
    main()
