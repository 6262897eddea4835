"""Turns the JSON report of a benchmark run into the CSV file that is kept in benches/record.

    toksample bench --json run.json
    python benches/record.py run.json benches/record/2026-11-24-amd-epyc-milan.csv

`toksample bench`, `benches/end_to_end.py` and `benches/scaling.py` write reports of one outline: facts about the run, and a
list of figures. The facts (date, command, machine, versions) become comment lines at the top of the file. Each figure becomes
one line, with its numbers rounded to six significant digits. `pandas.read_csv(path, comment="#")` reads such a record.
"""

import argparse
import csv
import io
import json
from pathlib import Path


def facts(report):
    """Yield the name and the text of each fact about the run."""
    for name, value in report.items():
        if name == "figures":
            continue
        if name == "versions":
            yield name, ", ".join(f"{package} {version}" for package, version in value.items())
        elif isinstance(value, dict):
            yield from value.items()
        else:
            yield name, value


def cell(value):
    """Return a value as it stands in the file: six digits of a float, and nothing for null."""
    if isinstance(value, float):
        return format(value, ".6g")
    return "" if value is None else value


def to_csv(report):
    """Return the whole report as CSV."""
    out = io.StringIO()
    for name, text in facts(report):
        print(f"# {name}: {text}", file=out)
    figures = report["figures"]
    writer = csv.DictWriter(out, list(figures[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in figure.items()} for figure in figures)
    return out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="what the run wrote with --json")
    parser.add_argument("record", type=Path, help="the CSV file to write")
    args = parser.parse_args()
    report = json.loads(args.report.read_text(encoding="utf-8"))
    args.record.write_text(to_csv(report), encoding="utf-8")


if __name__ == "__main__":
    main()
