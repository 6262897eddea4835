"""What the calls are made on: rows of logits with the statistics of a real model's rows, and what changes their logits."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]

# Five rows of Gemma 3 270M, whose vocabulary has 262,144 tokens, from peaked to flat. Each has its largest logit, and the
# distances from it to the logits of the ranks in _RANKS. The texts before the predicted tokens were: a Python function up to
# "return"; an opening quotation mark; "The government announced today that it will"; an open list in JSON; and a chat up to
# its next turn. 0.9 of the probability is in 1, 132, 215, 1,414 and 4,263 tokens, and at temperature 1.5 in 6, 3,140, 823,
# 8,216 and 48,963.
# fmt: off
_RANKS = (
    1, 2, 3, 4, 5, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 2896, 4096,
    5793, 8192, 11585, 16384, 23170, 32768, 46341, 65536, 92682, 131072, 185364, 222822, 249037, 259522, 261882,
    262144,
)
_GAPS = {
    "python": (
        13.9,
        (
            0.00, 5.34, 5.92, 6.24, 6.32, 6.45, 7.32, 7.85, 8.76, 10.13, 10.94, 11.82, 12.62, 13.28, 13.96, 14.79, 15.71,
            16.49, 17.22, 17.90, 18.67, 19.43, 20.24, 21.11, 21.98, 22.84, 23.72, 24.65, 25.62, 26.57, 27.56, 28.65,
            29.87, 31.30, 33.14, 35.91, 38.54, 42.92, 51.75, 52.36, 55.69,
        ),
    ),
    "dialogue": (
        23.8,
        (
            0.00, 1.97, 2.39, 2.55, 2.83, 2.90, 3.16, 3.49, 3.85, 4.07, 4.47, 4.94, 5.36, 5.97, 6.45, 6.90, 7.52, 8.21,
            8.87, 9.52, 10.12, 10.70, 11.30, 11.96, 12.67, 13.48, 14.43, 15.52, 16.74, 17.89, 19.02, 20.10, 21.14, 22.23,
            23.47, 25.32, 27.16, 30.13, 34.94, 35.57, 37.39,
        ),
    ),
    "news": (
        22.1,
        (
            0.00, 1.35, 1.49, 1.52, 1.56, 1.66, 1.88, 2.06, 2.21, 2.38, 2.78, 3.08, 3.56, 4.06, 4.52, 5.07, 5.69, 6.28,
            7.06, 7.92, 8.95, 10.10, 11.16, 12.27, 13.39, 14.54, 15.65, 16.74, 17.82, 18.87, 19.89, 20.88, 21.92, 23.11,
            24.59, 26.78, 28.86, 32.03, 37.09, 37.45, 39.69,
        ),
    ),
    "json": (
        16.0,
        (
            0.00, 0.44, 0.53, 0.58, 0.67, 0.70, 0.85, 1.24, 1.59, 1.78, 2.07, 2.46, 2.81, 3.15, 3.42, 3.76, 4.17, 4.57,
            4.98, 5.40, 5.87, 6.39, 6.95, 7.58, 8.23, 9.01, 9.83, 10.78, 11.77, 12.85, 14.04, 15.26, 16.49, 17.71, 18.97,
            20.57, 22.02, 24.15, 26.26, 27.59, 29.53,
        ),
    ),
    "chat": (
        7.4,
        (
            0.00, 1.86, 1.95, 1.98, 2.36, 2.46, 2.65, 2.95, 3.26, 3.53, 3.90, 4.12, 4.45, 4.71, 5.14, 5.40, 5.81, 6.17,
            6.53, 6.90, 7.31, 7.73, 8.17, 8.61, 9.09, 9.56, 10.08, 10.61, 11.19, 11.81, 12.46, 13.18, 13.96, 14.83, 15.86,
            17.29, 18.69, 20.91, 23.40, 24.35, 26.59,
        ),
    ),
}
# fmt: on

KINDS = tuple(_GAPS)
"""The kinds of rows, from peaked to flat."""


def make_row(kind: str, vocab: int, seed: int = 0) -> Rows:
    """Return a row like a real one.

    The sorted logits are interpolated over the logarithm of the rank, which is stretched or compressed for another size of
    the vocabulary. Large logits are more frequent at low ids, because in a real vocabulary common tokens have low ids.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    vocab : int
        The number of logits.
    seed : int, optional
        Rows of one kind have the same logits, and each seed puts them in different places.
    """
    largest, gaps = _GAPS[kind]
    stretch = math.log(_RANKS[-1]) / math.log(vocab) if vocab > 1 else 1.0
    log_ranks = np.log(np.arange(1, vocab + 1)) * stretch
    descending = largest - np.interp(log_ranks, np.log(_RANKS), gaps)
    place = np.arange(vocab) / vocab
    prior = -0.35 * np.log(place + 0.005) - 1.2 * (place > 15 / 16)
    ids = np.argsort(-(prior + np.random.default_rng([seed, KINDS.index(kind)]).normal(size=vocab)))
    row = np.empty(vocab, np.float32)
    row[ids] = descending
    return row


def make_rows(vocab: int, count: int) -> Rows:
    """Return rows of all kinds in turn, no two of them equal."""
    return np.stack([make_row(KINDS[b % len(KINDS)], vocab, b // len(KINDS)) for b in range(count)])


def make_history(rows: Rows) -> npt.NDArray[np.int64]:
    """Return the ids of 1,000 tokens that came before, the same for each row.

    As in a text, common tokens, which have low ids, are there often, and most others once. So that the penalties matter, the
    50 last tokens are every other one of the 100 most probable tokens of the first row.
    """
    common = (rows.shape[-1] * np.random.default_rng(3).random(950) ** 4).astype(np.int64)
    ids = np.concatenate([common, np.resize(_most_probable(rows, 100)[::2], 50)])
    return np.tile(ids, (*rows.shape[:-1], 1))


def make_logit_bias(rows: Rows) -> dict[int, float]:
    """Return biases for 20 tokens: they make the 10 most probable ones of the first row less likely, and others more."""
    others = np.random.default_rng(4).choice(rows.shape[-1], min(10, rows.shape[-1]), replace=False)
    return dict.fromkeys(others.tolist(), 5.0) | dict.fromkeys(_most_probable(rows, 10), -10.0)


def _most_probable(rows: Rows, count: int) -> list[int]:
    ids: list[int] = np.argsort(-np.atleast_2d(rows)[0])[:count].tolist()
    return ids


def make_bitmask(rows: Rows) -> npt.NDArray[np.int32]:
    """Return a bitmask of the tokens that are allowed, about half of them: bit i % 32 of word i // 32."""
    words = -(-rows.shape[-1] // 32)
    return np.random.default_rng(2).integers(-(2**31), 2**31, (*rows.shape[:-1], words), dtype=np.int32)


def unpack_bitmask(mask: npt.NDArray[np.int32], vocab: int) -> npt.NDArray[np.bool_]:
    """Return for each token whether it is allowed."""
    return np.unpackbits(mask.view(np.uint8), axis=-1, bitorder="little")[..., :vocab].astype(bool)
