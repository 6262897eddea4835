"""Draws what each filter does to one real distribution: ``python docs/make_picture.py``, with the extra ``plot``.

It writes ``docs/filters.png``. The row is one of the demo model's, from ``tests/fixtures/real_rows.npz``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import toksample

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 1000  # how many of the most probable tokens are shown
SETTINGS = [
    {"temperature": 0.7},
    {"top_k": 20},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"typical_p": 0.5},
    {"epsilon_cutoff": 0.005},
    {"top_a": 0.2},
    {"eta_cutoff": 0.01},
    {"top_n_sigma": 1.0},
    {"tfs": 0.95},
    {"top_h": 0.5},
    {"xtc_probability": 1.0, "xtc_threshold": 0.02, "seed": 1},
    {"mirostat": 2, "mirostat_tau": 4.0},
    {"dynatemp_range": 0.5},
    {"smoothing_factor": 0.3},
    {"min_p": 0.02, "adaptive_target": 0.1},
]


def main() -> None:
    """Draw a panel for each setting: the probabilities before as a line, and those after as an area."""
    row = np.load(ROOT / "tests" / "fixtures" / "real_rows.npz")["full"][0].astype(np.float32)
    ids = toksample.top_k(row, TOKENS)[1]
    before = toksample.softmax(row)[ids]
    places = np.arange(1, TOKENS + 1)
    figure, axes = plt.subplots(4, 4, figsize=(14, 9), sharex=True, sharey=True, layout="constrained")
    for axis, setting in zip(axes.flat, SETTINGS, strict=True):
        kept, probs = toksample.candidates(row, **setting)
        after = np.zeros(len(row))
        after[kept] = probs
        axis.fill_between(places, np.maximum(after[ids], 1e-6), 1e-6, step="mid", color="#729fcf")
        axis.step(places, before, where="mid", color="#a40000", linewidth=1)
        axis.set(xscale="log", yscale="log", ylim=(1e-5, 1))
        names = ", ".join(f"{name}={value}" for name, value in setting.items() if name != "seed")
        axis.set_title(f"{names}: {len(kept):,} tokens", fontsize=9)
    figure.supxlabel(f"place of the token, the most probable one first ({TOKENS:,} of {len(row):,})")
    figure.supylabel("probability: before (line) and after (area)")
    figure.savefig(ROOT / "docs" / "filters.png", dpi=80)


if __name__ == "__main__":
    main()
