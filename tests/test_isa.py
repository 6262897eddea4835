"""The instruction sets: the environment variable chooses one, and all of them give the same bits."""

import os
import subprocess
import sys

import pytest

import toksample

ALL = ["portable", "avx2", "avx512"]
AVAILABLE = toksample.available_isas()

# Prints the instruction set, and a digest of the answers of every function for fixed rows and parameters.
DIGEST = """
import hashlib, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from rows import DTYPES, FIXTURES, KINDS, cast, make_params, make_rows, make_words, one_row, pick
import toksample
from toksample._parameters import LOGPROBS_MODES

digest = hashlib.sha256()
def add(*arrays):
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())

def everything(rows, params, word):
    add(toksample.argmax(rows), toksample.softmax(rows, params["temperature"]))
    add(toksample.log_softmax(rows, params["temperature"]), *toksample.top_k(rows, (rows.shape[1] + 1) // 2))
    add(toksample.sample(rows, **params, **word), toksample.mask_logits(rows, **params, **word))
    digest.update(repr(toksample.sample(rows, **params, **word, receipt=True)).encode())
    scores = toksample.score(rows, np.arange(len(rows)) % rows.shape[1], temperature=params["temperature"])
    add(scores.logprobs, scores.ranks)
    for mode in LOGPROBS_MODES:
        drawn = toksample.sample(rows, **params, **word, logprobs=min(5, rows.shape[1]), logprobs_mode=mode)
        add(drawn.tokens, drawn.logprobs, drawn.ranks, drawn.top_ids, drawn.top_logprobs)
    for b, row in enumerate(rows):
        add(*toksample.candidates(row, **one_row(params | word, b)))
    plain = {name: values for name, values in params.items() if not name.startswith(("mirostat", "adaptive"))} | word
    add(toksample._native.draw_by_race(rows, plain, None))
    draft = pick(plain, range(1, len(rows)))
    drafted = toksample.sample(rows[1:], **draft)
    add(toksample._native.verify(rows, plain, drafted, rows[1:], draft, None))
    add(*(toksample.sample(rows, **params, **word, n=5, replacement=again) for again in (True, False)))
    kept = toksample.candidates(rows, **params, **word)
    tokens = kept.ids[kept.offsets[1:] - 1]
    add(kept.masses, kept.probs, toksample.replay(-rows.clip(-99), kept.ids, kept.offsets, tokens, temperature=1.5))

rng = np.random.default_rng(99)
for kind in sorted(KINDS):
    for size in [*range(1, 70), 127, 128, 129, 511, 512, 513, 1024, 5000]:
        rows = cast(make_rows(rng, kind, 8, size), DTYPES[size % 4])
        everything(rows, make_params(rng, rows), make_words(rng, 8))
real = np.load(FIXTURES / "real_rows.npz")
for rows in (real["full"], real["part"]):
    for dtype in DTYPES:
        logits = cast(rows.astype(np.float32), dtype)
        everything(logits, make_params(rng, logits), make_words(rng, len(logits)))
print(toksample.isa(), digest.hexdigest())
"""


def run(code, isa, *arguments):
    """Run Python code in a new process with TOKSAMPLE_ISA set, or not set if `isa` is None."""
    environment = {name: value for name, value in os.environ.items() if name != "TOKSAMPLE_ISA"}
    if isa is not None:
        environment["TOKSAMPLE_ISA"] = isa
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_available():
    assert AVAILABLE[0] == "portable"
    assert [name for name in ALL if name in AVAILABLE] == AVAILABLE
    assert toksample.isa() == os.environ.get("TOKSAMPLE_ISA", AVAILABLE[-1])


def test_the_best_is_the_default():
    result = run("import toksample; print(toksample.isa())", None)
    assert result.stdout.split() == [AVAILABLE[-1]]


def test_every_isa_gives_the_same_bits(request):
    answers = [run(DIGEST, isa, str(request.path.parent)) for isa in AVAILABLE]
    for answer in answers:
        assert answer.returncode == 0, answer.stderr
    names, digests = zip(*(answer.stdout.split() for answer in answers), strict=True)
    assert list(names) == AVAILABLE
    assert len(set(digests)) == 1


TRY = """
import numpy as np, toksample
print(toksample.available_isas())
row = np.float32([1, 2])
for call in (
    lambda: toksample.isa(), lambda: toksample.sample(row), lambda: toksample.argmax(row), lambda: toksample.softmax(row),
    lambda: toksample.log_softmax(row), lambda: toksample.top_k(row, 1), lambda: toksample.candidates(row),
    lambda: toksample.mask_logits(row), lambda: toksample.score(row, 0), lambda: toksample.sample(row, logprobs=1),
):
    try:
        print(call())
    except ValueError as error:
        print(error)
"""


@pytest.mark.parametrize(
    "name", ["sse9", "", "AVX2", "avx2 ", "native", *(name for name in ALL if name not in AVAILABLE)]
)
def test_unknown_or_unsupported(name):
    """Every function raises the error, but importing toksample and listing the instruction sets still work."""
    result = run(TRY, name)
    assert result.returncode == 0, result.stderr
    listed, *errors = result.stdout.splitlines()
    assert listed == str(AVAILABLE)
    why = ", which this CPU lacks" if name in ALL else ""
    assert errors == [f'TOKSAMPLE_ISA must be one of {", ".join(AVAILABLE)}, got "{name}"{why}'] * 10
