"""Hard rows: those on which a sampler's shortcuts do not help, or on which a bad shortcut is slow.

Each row can be made for a vocabulary of any size.
"""

from functools import partial

import numpy as np

import toksample
from toksample.bench.rows import make_row


def _random(vocab):
    return np.random.default_rng(3).random(vocab, np.float32)


ROWS = {
    "all equal": lambda vocab: np.full(vocab, 1.5, np.float32),
    "two values": lambda vocab: np.where(_random(vocab) < 0.5, 1, 2).astype(np.float32),
    "one spike": lambda vocab: np.where(np.arange(vocab) == vocab // 3, 30, 0).astype(np.float32),
    "sorted up": lambda vocab: np.linspace(-20, 20, vocab, dtype=np.float32),
    "sorted down": lambda vocab: np.linspace(20, -20, vocab, dtype=np.float32),
    "uniform": lambda vocab: 10 * _random(vocab),
    "nearly flat": lambda vocab: 0.01 * _random(vocab),
    "heavy ties": lambda vocab: np.round(make_row("chat", vocab)),
    "rising chat": lambda vocab: np.sort(make_row("chat", vocab)),
    "chat": lambda vocab: make_row("chat", vocab),
}


def hard_params(vocab):
    """Return parameters that keep many tokens, by name."""
    return {
        "temperature 0.7, top_k 50, top_p 0.9": {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
        "temperature 0.7, top_p 0.9": {"temperature": 0.7, "top_p": 0.9},
        "temperature 1.5, top_p 0.9": {"temperature": 1.5, "top_p": 0.9},
        "temperature 2, top_p 0.9999": {"temperature": 2.0, "top_p": 0.9999},
        "temperature 0.7": {"temperature": 0.7},
        "temperature 0.7, min_p 0.05": {"temperature": 0.7, "min_p": 0.05},
        "temperature 1, top_k V/2": {"top_k": vocab // 2},
        "temperature 1, top_k V/2, top_p 0.9": {"top_k": vocab // 2, "top_p": 0.9},
    }


def hard_calls(row):
    """Return the name and the function of each call on a row."""
    calls = {
        "argmax": partial(toksample.argmax, row),
        "softmax": partial(toksample.softmax, row, out=np.empty_like(row)),
        "top_k(50)": partial(toksample.top_k, row, min(50, len(row))),
    }
    for name, params in hard_params(len(row)).items():
        calls[name] = partial(toksample.sample, row, **params, seed=1)
    return calls.items()
