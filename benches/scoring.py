"""Times `toksample.score` beside torch's `log_softmax` and `gather`, on the same rows and with the same number of threads.

    python benches/scoring.py                    # 512 rows of 151,936 logits, as Qwen has them; needs torch
    python benches/scoring.py --rows 64 --vocab 262144 --threads 1

Both engines are called in turn. The figures are the medians, and how many times longer torch takes. The log-probabilities of
both are compared with those in float64.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import log_softmax

import toksample

ROUNDS = 9


def make_logits(rows: int, vocab: int) -> np.ndarray:
    """Make rows with the shape of a model's logits: nearly normal, with a heavier upper tail."""
    logits = np.random.default_rng(0).standard_normal((rows, vocab), np.float32)
    logits *= 5 * (1 + np.maximum(logits, 0) / 20)
    return logits


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logits = make_logits(args.rows, args.vocab)
    ids = np.random.default_rng(1).integers(0, args.vocab, args.rows)
    tensor, index = torch.from_numpy(logits), torch.from_numpy(ids)[:, None]

    def of_torch() -> np.ndarray:
        return torch.log_softmax(tensor, dim=-1).gather(1, index)[:, 0].numpy()

    def of_toksample() -> np.ndarray:
        return toksample.score(logits, ids, num_threads=args.threads).logprobs

    calls = {"torch": of_torch, "toksample": of_toksample}
    truth = np.array([log_softmax(np.float64(row))[token] for row, token in zip(logits, ids, strict=True)])
    errors = {name: float(np.abs(call() - truth).max()) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(seconds(call))
    medians = {name: statistics.median(each) for name, each in times.items()}
    print(f"{args.rows} rows of {args.vocab} logits, {args.threads} threads, {toksample.isa()}")
    for name, median in medians.items():
        print(f"{name:10} {median * 1e3:8.1f} ms   largest error {errors[name]:.1e}")
    print(f"torch takes {medians['torch'] / medians['toksample']:.2f} times as long")


if __name__ == "__main__":
    main()
