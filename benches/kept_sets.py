"""Measures kept sets and their replay, beside the same in numpy and, where it is installed, in torch.

    python benches/kept_sets.py [--rows 512] [--vocab 151936] [--rounds 11] [--threads 1 2]

The rows are made (toksample.bench.rows), and the parameters are top_k 50 and top_p 0.9. The new logits are the old ones with
some noise. The figures are medians in milliseconds for the whole batch, and multiples of the time of `logits.max(axis=1)`. The
functions are called in turn, and each timed call follows an untimed one. Before that, their answers are compared. numpy uses
one thread in any case.
"""

import argparse
import importlib.util
import statistics
import time

import numpy as np

import toksample
from toksample._progress import StatusLine
from toksample.bench.machine import machine
from toksample.bench.rows import make_rows

TOP_K, TOP_P = 50, 0.9


# ---- numpy -------------------------------------------------------------------------------------------------------------


def kept_by_numpy(logits):
    """Return the kept ids of each row, padded to the longest, and which of them are padding."""
    ids = np.argpartition(-logits, TOP_K, axis=1)[:, :TOP_K]
    values = np.take_along_axis(logits, ids, axis=1)
    place = np.argsort(-values, axis=1, kind="stable")
    ids, values = np.take_along_axis(ids, place, axis=1), np.take_along_axis(values, place, axis=1)
    probs = np.exp(values - values[:, :1])
    probs /= probs.sum(axis=1, keepdims=True)
    before = np.cumsum(probs, axis=1) - probs
    return ids, before >= TOP_P


def padded(kept):
    """Return kept sets as an array with a row for each, and which of its places are padding."""
    lengths = np.diff(kept.offsets)
    is_padding = np.arange(lengths.max()) >= lengths[:, None]
    ids = np.zeros(is_padding.shape, np.int64)
    ids[~is_padding] = kept.ids
    return ids, is_padding


def replay_by_numpy(logits, ids, is_padding, places):
    """Gather the kept logits, and return the log-softmax of the tokens at these places."""
    values = np.take_along_axis(logits, ids, axis=1).astype(np.float64)
    values[is_padding] = -np.inf
    values -= values.max(axis=1, keepdims=True)
    return values[np.arange(len(values)), places] - np.log(np.exp(values).sum(axis=1))


# ---- torch -------------------------------------------------------------------------------------------------------------


def torch_functions(torch, old, new, ids, is_padding, tokens, places):
    """Yield a name, a function and whether it is a replay."""
    old, new, ids, is_padding, tokens, places = map(torch.from_numpy, (old, new, ids, is_padding, tokens, places))
    rows = torch.arange(len(old))

    def kept():
        values, ids = old.topk(TOP_K)
        probs = values.softmax(dim=1)
        return ids, probs.cumsum(dim=1) - probs >= TOP_P

    def gathered():
        values = new.gather(1, ids).masked_fill(is_padding, -torch.inf)
        return values.log_softmax(dim=1)[rows, places]

    def masked():
        banned = torch.full_like(new, -torch.inf)
        banned[rows[:, None].expand_as(ids)[~is_padding], ids[~is_padding]] = 0
        return (new + banned).log_softmax(dim=1)[rows, tokens]

    yield "torch: topk, softmax, cumsum", kept, False
    yield "torch: gather, log_softmax", gathered, True
    yield "torch: mask, log_softmax", masked, True


# ---- the comparison ----------------------------------------------------------------------------------------------------


def functions(old, new, threads):
    """Yield a name and a function for each row of the table."""
    toksample.set_num_threads(threads)
    kept = toksample.candidates(old, top_k=TOP_K, top_p=TOP_P)
    ids, is_padding = padded(kept)
    lengths = np.diff(kept.offsets)
    places = lengths // 2  # of the token to replay
    tokens = kept.ids[kept.offsets[:-1] + places]
    want = toksample.replay(new, kept.ids, kept.offsets, tokens)

    def check(name, is_replay, answer):
        if is_replay:
            np.testing.assert_allclose(np.asarray(answer), want, atol=1e-4, err_msg=name)
        else:
            other, dropped = map(np.asarray, answer)
            near = np.abs(np.count_nonzero(~dropped, axis=1) - lengths)
            assert near.max() <= 1, name  # sums that are rounded may keep one token more or less
            assert np.array_equal(other[:, 0], ids[:, 0]), name

    yield "max of each row (numpy)", lambda: old.max(axis=1)
    yield "toksample.candidates", lambda: toksample.candidates(old, top_k=TOP_K, top_p=TOP_P)
    numpy_kept = "numpy: argpartition, exp, cumsum"
    check(numpy_kept, False, kept_by_numpy(old))
    yield numpy_kept, lambda: kept_by_numpy(old)
    yield "toksample.replay", lambda: toksample.replay(new, kept.ids, kept.offsets, tokens)
    numpy_replay = "numpy: take_along_axis, exp, log"
    check(numpy_replay, True, replay_by_numpy(new, ids, is_padding, places))
    yield numpy_replay, lambda: replay_by_numpy(new, ids, is_padding, places)
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
        for name, function, is_replay in torch_functions(torch, old, new, ids, is_padding, tokens, places):
            check(name, is_replay, function())
            yield name, function


def in_turn(functions, rounds, threads, progress):
    """Return the median time of each function in milliseconds. With one thread, only time in which it had a core counts."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    times = [[] for _ in functions]
    for turn in range(rounds):
        progress(f"round {turn + 1} of {rounds}")
        for function, each in zip(functions, times, strict=True):
            function()
            start = clock()
            function()
            each.append((clock() - start) * 1e3)
    return [statistics.median(each) for each in times]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    args = parser.parse_args()
    old = make_rows(args.vocab, args.rows)
    new = old + np.random.default_rng(0).normal(scale=0.1, size=old.shape).astype(np.float32)
    kept = toksample.candidates(old, top_k=TOP_K, top_p=TOP_P)
    print(f"{args.rows} rows of {args.vocab:,} logits, top_k {TOP_K}, top_p {TOP_P}: {len(kept.ids):,} tokens kept")
    print(", ".join(f"{name}: {fact}" for name, fact in machine().items()))
    for threads in args.threads:
        names, calls = zip(*functions(old, new, threads), strict=True)
        with StatusLine() as status:
            medians = in_turn(calls, args.rounds, threads, status.show)
        print(f"\n{f'threads: {threads}':40}{'ms':>10}{'x max':>10}")
        for name, median in zip(names, medians, strict=True):
            print(f"{name:40}{median:>10.2f}{median / medians[0]:>10.3f}")


if __name__ == "__main__":
    main()
