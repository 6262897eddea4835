"""Measures speculative decoding: the tables of docs/speculation.md.

    python benches/speculation.py acceptance        # how many tokens of a draft each mode accepts, as exact sums
    OPENBLAS_NUM_THREADS=1 python benches/speculation.py demo

`demo` needs the extra `demo`. It measures the time of a pass of several tokens, and texts with and without a draft, as CPU
time of the process, because that depends less on what else the machine does.
"""

import sys
import time
from pathlib import Path

import numpy as np

import toksample
from toksample.reference import Filters, survivors

ROWS = Path(__file__).parent.parent / "tests" / "fixtures" / "real_rows.npz"
PARAMETERS = ({}, {"temperature": 0.7, "top_k": 50, "top_p": 0.9}, {"temperature": 1.5, "top_p": 0.9})
COPIES = 10  # of each row, with different noise
LENGTH = 96  # of a text
PROMPTS = {
    "a story": "Once upon a time",
    "a list of months": "List of the months and their days:\nJanuary: 31 days\nFebruary: 28 days\nMarch: 31 days\n"
    "April: 30 days\nMay:",
    "a class in Python": "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n\n"
    "    def add(self, other):\n        return Point(self.x + other.x, self.y + other.y)\n\n"
    "    def subtract(self, other):\n",
    "a text and its correction": "Text with errors: The quick brown fox jump over the lazy dog, and then it run to the river, "
    "where it drink some water and look at the fishes that swim there.\n"
    "The same text without errors: The quick brown fox jumps over the lazy dog,",
}


# ---- acceptance --------------------------------------------------------------------------------------------------------


def probabilities(row, params):
    ids, masses = survivors(row, Filters(**params))
    probs = np.zeros(len(row))
    probs[ids] = masses / masses.sum()
    return probs


def same_draw(p, q):
    """Return the probability that one word draws the same token: the overlap of each token's intervals on the two lines."""
    ends, others = np.cumsum(p), np.cumsum(q)
    return np.maximum(0, np.minimum(ends, others) - np.maximum(ends - p, others - q)).sum()


def same_winner(p, q):
    """Return the probability that two races have the same winner: the sum over x of 1 / sum_y max(p_y / p_x, q_y / q_x)."""
    ratios = np.divide(p, q, out=np.full(len(p), np.inf), where=q > 0)
    order = np.flatnonzero((p > 0) | (q > 0))
    order = order[np.argsort(ratios[order], kind="stable")]
    both = np.flatnonzero((p > 0) & (q > 0))
    places = np.searchsorted(ratios[order], ratios[both])  # up to there, q_y / q_x is the larger one
    below, above = np.append(0, np.cumsum(q[order])), np.append(np.cumsum(p[order][::-1])[::-1], 0)
    return (1 / (above[places] / p[both] + below[places] / q[both])).sum()


def measure_acceptance():
    rng = np.random.default_rng(0)
    print("| rows of | parameters | noise | same_text | race | rejection |")
    for name in ("part", "full"):
        rows = np.load(ROWS)[name].astype(np.float32)
        for params in PARAMETERS:
            for noise in (0.1, 0.3, 1.0, 2.0):
                found = []
                for row in np.repeat(rows, COPIES, axis=0):
                    p = probabilities(row, params)
                    q = probabilities(row + rng.normal(scale=noise, size=row.shape).astype(np.float32), params)
                    found.append((same_draw(p, q), same_winner(p, q), np.minimum(p, q).sum()))
                a, b, c = np.mean(found, axis=0)
                print(f"| {rows.shape[1]:,} | {params} | {noise} | {a:.3f} | {b:.3f} | {c:.3f} |", flush=True)


# ---- the demo model ----------------------------------------------------------------------------------------------------


def cpu_time(call):
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def measure_passes(model):
    ids = model.tokenizer.encode(" ".join(PROMPTS.values()))[:100]
    best = {}
    for _ in range(4):
        for tokens in (1, 2, 3, 5, 9, 16):
            model(ids[:-tokens])
            seconds, _ = cpu_time(lambda tokens=tokens: model(ids, logits_to_keep=tokens))
            best[tokens] = min(seconds, best.get(tokens, seconds))
    for tokens, seconds in best.items():
        print(
            f"a pass of {tokens} tokens: {1e3 * seconds:.0f} ms, {seconds / best[1]:.2f} times that of one", flush=True
        )


def measure_texts(model):
    for name, prompt in PROMPTS.items():
        for params in ({"temperature": 0}, {"temperature": 0.7, "top_k": 50, "seed": 2}):
            texts, figures = [], []
            for draft in (None, toksample.PromptLookup(3, 8), toksample.PromptLookup(2, 8)):
                calls = []

                def counting(ids, calls=calls, **keywords):
                    calls.append(len(ids))
                    return model(ids, **keywords)

                ids = model.tokenizer.encode(prompt)
                model.reset()
                model(ids)  # which is not timed
                tokens = toksample.generate(counting, ids, draft=draft, max_new_tokens=LENGTH, **params)
                seconds, text = cpu_time(lambda tokens=tokens: list(tokens))
                texts.append(text)
                figures.append(f"{len(text) / seconds:.1f} tokens/s in {len(calls)} calls")
            same = "the same text" if texts[1] == texts[2] == texts[0] else "OTHER TEXTS"
            print(f"| {name} | {params} | {' | '.join(figures)} | {same}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["acceptance"]:
        measure_acceptance()
    elif sys.argv[1:] == ["demo"]:
        from toksample.demo import load_model

        model = load_model()
        measure_passes(model)
        measure_texts(model)
    else:
        sys.exit(__doc__)
