"""Compares kernels and reference on any number of random cases. A case is a row, its parameters and its random word.

    python tests/stress.py --cases 10000000 --jobs 2
    python tests/stress.py --seed 1 --batch 17           # only this batch, to reproduce a failure that was printed

A case compares what the filters keep (`mask_logits`) and the token that is drawn (`sample`). The reference sorts and weighs
each row once, and uses this for both, with its own functions `survivors` and `draw`.
"""

import argparse
import itertools
import multiprocessing
import sys
import time

import numpy as np
from rows import DTYPES, KINDS, LENGTHS, LONG_LENGTHS, cast, make_params, make_rows, make_words, one_row

import toksample
from toksample import reference

BATCH_ROWS = 250


def make_batch(seed, number):
    """Make batch `number` of a run: logits of one kind, length and type, and parameters for each row."""
    rng = np.random.default_rng([seed, number])
    lengths, rows = [(LENGTHS, BATCH_ROWS), (LONG_LENGTHS, 60), ([*range(2_000, 9_000, 7)], 10)][
        rng.choice(3, p=[0.75, 0.15, 0.1])
    ]
    size = int(rng.choice(lengths))
    kind, dtype = rng.choice(sorted(KINDS)), rng.choice(DTYPES)
    logits = cast(make_rows(rng, kind, rows, size), dtype)
    return f"{kind}, {dtype}, {size} tokens", logits, make_params(rng, logits), make_words(rng, rows)


def check_batch(seed, number):
    """Return the number of cases of the batch, and a text for each case that fails."""
    name, logits, params, word = make_batch(seed, number)
    tokens = toksample.sample(logits, **params, **word)
    receipts = toksample.sample(logits, **params, **word, receipt=True)
    masked = toksample.mask_logits(logits, **params, **word)
    failures = []
    filters = {name: params[name] for name in reference.Filters._fields if name in params}
    for b, row in enumerate(reference.functions.edited_rows(logits, params)[0]):
        case, words = one_row(params, b), one_row(word, b)
        place = words["seed"], words["stream"], words["position"]
        ids, masses = reference.survivors(
            row, reference.Filters(**one_row(filters, b), word=reference.filter_word(*place))
        )
        want = reference.draw_interval(ids, masses, reference.draw_word(*place))
        got = receipts[b]
        drawn = reference.Drawn(got.token, got.total, got.target, got.start, got.stop)
        kept = np.flatnonzero(masked[b] != -np.inf)
        values_are_kept = np.array_equal(masked[b][kept], logits.astype(masked.dtype, copy=False)[b][kept])
        is_right = tokens[b] == want.token and drawn == want and values_are_kept
        if not is_right or not np.array_equal(kept, np.sort(ids)):
            failures.append(
                f"--seed {seed} --batch {number}, row {b} ({name}), {case}, {words}: "
                f"got token {tokens[b]} and {drawn} of {len(kept)} kept, want {want} of {len(ids)}"
            )
    return len(logits), failures


def _check_batch(work):
    return check_batch(*work)


def check(cases, seed=0, jobs=1, progress=None):
    """Check at least this many cases. Return the number that was checked, and the failures."""
    done, failures = 0, []
    work = ((seed, number) for number in itertools.count())
    # Batches are returned in order, so a run has the same cases with any number of jobs.
    with multiprocessing.get_context("spawn").Pool(jobs) if jobs > 1 else _Here() as pool:
        while done < cases:
            for count, failed in pool.map(_check_batch, list(itertools.islice(work, 64 * jobs))):
                if done < cases:
                    done += count
                    failures += failed
            if progress is not None:
                progress(done, failures)
    return done, failures


class _Here:
    """Has the interface of a pool, but works in this process."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def map(self, function, work):
        return map(function, work)


def main():
    parser = argparse.ArgumentParser(description="Compare kernels and reference on random cases.")
    parser.add_argument("--cases", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--batch", type=int, help="check this batch of the seed alone")
    options = parser.parse_args()
    start = time.monotonic()

    def progress(done, failures):
        rate = done / (time.monotonic() - start)
        left = max(options.cases - done, 0) / rate / 60
        sys.stderr.write(f"\r{done:>12,} cases  {len(failures)} failed  {rate:,.0f}/s  {left:.0f} min left ")

    if options.batch is not None:
        done, failures = check_batch(options.seed, options.batch)
    else:
        done, failures = check(options.cases, options.seed, options.jobs, progress)
        sys.stderr.write("\n")
    for failure in failures[:100]:
        print(failure)
    print(f"{done:,} cases on {toksample.isa()}, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
