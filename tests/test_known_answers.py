"""The known answers: the reference produces the committed file, and the kernels return what the file says.

`known_answers.rs` checks the Rust core against the same file, also where there is no Python.
"""

from pathlib import Path

import make_known_answers
import numpy as np
import pytest
from rows import cast

import toksample

FILE = Path(__file__).parent / "known_answers.txt"


def test_the_reference_gives_the_committed_file():
    assert make_known_answers.text() == FILE.read_text(encoding="ascii")


def read_cases():
    """Read the file: the line of each row, and for each of its parameters the lines `keep`, `first` and `draw`, as words."""
    rows = {}
    for line in FILE.read_text(encoding="ascii").splitlines():
        kind, *words = line.split()
        if kind == "row":
            cases = []
            rows[words[0]] = (words, cases)
        elif kind in ("keep", "with"):
            case = {kind: words}
            cases.append(case)
        elif kind in ("first", "draw"):
            case[kind] = words
        else:
            assert kind == "#"
    return rows


ROWS = read_cases()


def test_the_file_has_every_row_and_parameter():
    assert [row[0] for row in make_known_answers.ROWS] == list(ROWS)
    for _, cases in ROWS.values():
        assert [case["with"][0] for case in cases if "with" in case] == make_known_answers.NAMED
        assert len(cases) == len(make_known_answers.PARAMS) + len(make_known_answers.NAMED)


@pytest.mark.parametrize("name", list(ROWS))
def test_the_kernels_give_what_the_file_says(name):
    (_, dtype, *recipe), cases = ROWS[name]
    wide = make_known_answers.make_row(*map(int, recipe))
    row = cast(wide, dtype)
    assert np.array_equal(row.astype(np.float32), wide), f"{dtype} does not hold the row exactly"
    for case in cases:
        if "with" in case:
            named, count, total, digest = case["with"]
            params = make_known_answers.read_named(named)
        else:
            temperature, k, p, least, count, total, digest = case["keep"]
            params = {"temperature": float(temperature), "top_k": int(k), "top_p": float(p), "min_p": float(least)}
        ids, probs = toksample.candidates(row, **params)
        # A probability is a mass divided by the sum of masses. The file has the sum, so the mass can be computed.
        masses = np.rint(probs * float(total)).astype(np.uint64)
        assert (len(ids), int(masses.sum())) == (int(count), int(total)), params
        assert np.array_equal(masses.astype(np.float64) / float(total), probs), params
        assert [f"{i}:{m}" for i, m in zip(ids[:6], masses[:6], strict=True)] == case["first"], params
        assert make_known_answers.digest(ids, masses) == digest, params

        masked = toksample.mask_logits(row, **params)
        assert np.array_equal(np.flatnonzero(masked != -np.inf), np.sort(ids)), params

        seed, stream, position, *tokens = map(int, case["draw"])
        drawn = [
            toksample.sample(row, **params, seed=seed, stream=stream, position=position + step)
            for step in range(len(tokens))
        ]
        assert drawn == tokens, params
