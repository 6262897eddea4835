"""Draws the cost of each call against the size of the vocabulary, for rows like those of a model and for hard rows.

    pip install 'toksample[plot]'
    python benches/scaling.py --plot FILE.png [--json FILE]

Each point is the median time of a call. In this picture the cost of a call should be a straight line of slope 1 wherever the
line of `np.max` is, and no row should lie far above the others. The line of `np.max` gets steeper once a row is too large for
the cache.
"""

import argparse
import datetime
import json
import statistics
import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from hard_rows import ROWS, hard_calls

import toksample
from toksample._progress import StatusLine
from toksample.bench.machine import machine
from toksample.bench.rows import make_row
from toksample.bench.runner import time_in_turn

VOCABS = [1_000, 4_000, 16_000, 64_000, 262_144, 1_000_000, 4_000_000]
PANELS = [
    "argmax",
    "softmax",
    "temperature 0.7, top_k 50, top_p 0.9",
    "temperature 0.7, top_p 0.9",
    "temperature 1.5, top_p 0.9",
    "temperature 2, top_p 0.9999",
    "temperature 0.7",
    "temperature 0.7, min_p 0.05",
    "temperature 1, top_k V/2, top_p 0.9",
]
REAL = {kind: lambda vocab, kind=kind: make_row(kind, vocab) for kind in ("dialogue", "news", "json")}


def measure():
    """Return the times of the calls and those of np.max, in microseconds for each size of the vocabulary.

    The times of the calls are in a dictionary of dictionaries: first by the name of the panel, then by the name of the row.
    """
    times, floor = {name: {} for name in PANELS}, []
    with StatusLine() as status:
        for vocab in VOCABS:
            rounds = 7 if vocab < 200_000 else 3 if vocab < 1_000_000 else 1
            for kind, make in {**REAL, **ROWS}.items():
                status.show(f"V = {vocab:,}: {kind}")
                row = make(vocab)
                calls = dict(hard_calls(row))
                for name in PANELS:
                    times[name].setdefault(kind, []).append(median_time(calls[name], rounds))
            floor.append(median_time(partial(np.max, row), 101))
    return times, floor


def median_time(function, rounds):
    (times,) = time_in_turn([function], rounds)
    return statistics.median(times)


def report(times, floor):
    """Return the figures, one for each point, with the facts about the run."""
    figures = [
        {"call": name, "row": kind, "vocab": vocab, "microseconds": time}
        for name, rows in times.items()
        for kind, each in rows.items()
        for vocab, time in zip(VOCABS, each, strict=True)
    ]
    figures += [
        {"call": "np.max", "row": None, "vocab": vocab, "microseconds": time}
        for vocab, time in zip(VOCABS, floor, strict=True)
    ]
    return {
        "date": datetime.date.today().isoformat(),
        "command": f"python {' '.join(sys.argv)}",
        "machine": machine(),
        "versions": {"toksample": toksample.__version__, "numpy": np.__version__},
        "figures": figures,
    }


def draw(times, floor, path):
    figure, grid = plt.subplots(3, 3, figsize=(13, 12.5), sharex=True, sharey=True, layout="constrained")
    colors = plt.get_cmap("tab10")
    for axes, name in zip(grid.flat, PANELS, strict=True):
        for number, kind in enumerate(ROWS):
            axes.plot(VOCABS, times[name][kind], color=colors(number), linewidth=1, marker=".", label=kind)
        for number, kind in enumerate(REAL):
            style = {"color": "#22262a", "linewidth": 2, "label": "real-like" if number == 0 else None}
            axes.plot(VOCABS, times[name][kind], **style)
        axes.plot(VOCABS, floor, color="#6b737b", linestyle="--", linewidth=1.2, label="np.max")
        axes.set_title(name, loc="left", fontsize=10, weight="bold")
        axes.set(xscale="log", yscale="log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("logits in the row")
    for axes in grid[:, 0]:
        axes.set_ylabel("microseconds")
    about = f"toksample {toksample.__version__}, {toksample.isa()}, one thread, {machine()['cpu'].split(' (')[0]}"
    figure.suptitle(f"The cost of a call against the size of the vocabulary: {about}", fontsize=12, x=0.01, ha="left")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", required=True, metavar="FILE.png")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    times, floor = measure()
    draw(times, floor, args.plot)
    if args.json:
        Path(args.json).write_text(json.dumps(report(times, floor), indent=1) + "\n", encoding="utf-8")
    print("growth of the time from V = 262,144 to 4,000,000 (15.3 times as many)")
    place = VOCABS.index(262_144)
    for name in PANELS:
        growth = {kind: each[-1] / each[place] for kind, each in times[name].items()}
        worst = max(growth, key=growth.get)
        print(f"  {name:35} worst {growth[worst]:6.1f} ({worst})")
    print(f"  {'np.max':35}       {floor[-1] / floor[place]:6.1f}")


if __name__ == "__main__":
    main()
