"""Receipts: kernel and reference give the same, the numbers are what they claim to be, and the check finds what differs."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from rows import (
    DTYPES,
    KINDS,
    assert_same,
    cast,
    make_params,
    make_rows,
    make_rules,
    make_words,
    one_row,
    ordered_params,
    rows,
    words,
)

import toksample
from toksample import Receipt, Sampler, SamplingParams, _native, reference, verify
from toksample._series import log2

ROW = np.float32([1.0, 3.0, 2.0, -1.0, -np.inf])
RECEIPT = toksample.sample(ROW, temperature=0.7, seed=1, receipt=True)


# ---- kernel and reference ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_kernels_and_reference_agree(kind):
    rng = np.random.default_rng(sorted(KINDS).index(kind))
    for dtype in DTYPES * 3:
        size = int(rng.choice([1, 2, 17, 64, 65, 200, 700, 3000]))
        logits = cast(make_rows(rng, kind, 6, size), dtype)
        params = make_params(rng, logits) | make_words(rng, 6)
        receipts = toksample.sample(logits, **params, receipt=True)
        assert receipts == reference.sample(logits, **params, receipt=True)
        assert [receipt.token for receipt in receipts] == toksample.sample(logits, **params).tolist()
        verify(receipts, logits, **params)
        for b, row in enumerate(logits):
            alone = one_row(params, b)
            assert toksample.sample(row, **alone, receipt=True) == receipts[b]
            verify(receipts[b], row, **alone)


@given(rows, ordered_params, words)
def test_kernels_and_reference_agree_on_any_row(row, params, word):
    receipt = toksample.sample(row, **params, **word, receipt=True)
    assert receipt == reference.sample(row, **params, **word, receipt=True)
    verify(receipt, row, **params)


def test_rules_and_marks():
    rng = np.random.default_rng(5)
    marks = 0
    for size in (2, 9, 40, 300) * 4:
        logits = make_rows(rng, "few values", 8, size)
        params = make_rules(rng, 8, size) | {"temperature": 1.3, "seed": 3}
        receipts = toksample.sample(logits, **params, receipt=True, errors="mark")
        assert receipts == reference.sample(logits, **params, receipt=True, errors="mark")
        tokens = toksample.sample(logits, **params, errors="mark")
        assert tokens.tolist() == [-1 if receipt is None else receipt.token for receipt in receipts]
        marks += receipts.count(None)
    assert marks > 3
    assert toksample.sample(np.float32([np.nan]), receipt=True, errors="mark") is None


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_batch_on_threads(threads):
    logits = np.random.default_rng(6).standard_normal((9, 30_000)).astype(np.float32) * 3
    params = {"top_p": [1.0, 0.9, 0.99] * 3, "temperature": [1.0, 2.0, 0.0] * 3, "seed": 4}
    receipts = toksample.sample(logits, **params, receipt=True, num_threads=threads)
    assert receipts == reference.sample(logits, **params, receipt=True)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 5.0},
        {"top_k": 20},
        {"top_k": 15_000},
        {"temperature": 3.0, "top_p": 0.95},
        {"min_p": 1e-9, "temperature": 3.0},
        {"temperature": 4.0, "xtc_probability": 1.0, "xtc_threshold": 1e-4},
        {"temperature": 4.0, "top_p": 0.999, "xtc_probability": 1.0, "xtc_threshold": 1e-4},
        {"smoothing_factor": 0.01},
        {"temperature": 0.0},
    ],
)
def test_each_way_to_hold_the_kept_tokens(params):
    """They are all tokens, a list, a long prefix, or a long prefix without some of its tokens."""
    row = np.random.default_rng(8).standard_normal(40_000).astype(np.float32) * 2
    for position in range(8):
        receipt = toksample.sample(row, **params, seed=9, position=position, receipt=True)
        verify(receipt, row, **params, seed=9, stream=0, position=position)


# ---- what the numbers mean -----------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_mass_line():
    rng = np.random.default_rng(11)
    for size in (1, 3, 50, 999):
        row = make_rows(rng, "normal", 1, size)[0]
        receipt = toksample.sample(row, top_p=0.9, seed=5, stream=6, position=7, receipt=True)
        ids, probs = toksample.candidates(row, top_p=0.9)
        masses = np.rint(probs * receipt.total).astype(object)
        word = np.random.Philox(key=[5, 0], counter=[6, 6, 0, 0]).random_raw()  # numpy counts before it draws
        assert (receipt.seed, receipt.stream, receipt.position, receipt.word) == (5, 6, 7, word)
        assert receipt.total == masses.sum()
        assert receipt.target == receipt.word * receipt.total // 2**64
        assert receipt.start == masses[ids < receipt.token].sum()
        assert receipt.stop == masses[ids <= receipt.token].sum()
        assert receipt.start <= receipt.target < receipt.stop
        assert receipt.mirostat_mu is None


def test_greedy():
    receipt = toksample.sample(ROW, temperature=0, seed=2**64 - 1, position=3, receipt=True)
    assert (receipt.token, receipt.total, receipt.start, receipt.stop) == (1, 2**41, 0, 2**41)
    assert receipt.target == receipt.word >> 23
    verify(toksample.sample(ROW, temperature=0, receipt=True), ROW, temperature=0)


def test_without_a_seed_each_call_takes_its_own():
    receipts = [toksample.sample(ROW, receipt=True) for _ in range(20)]
    assert len({receipt.seed for receipt in receipts}) == 20
    for receipt in receipts:
        verify(receipt, ROW)


# ---- the sampler ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1.5, "seed": 3},
        {"presence_penalty": 0.7, "repetition_penalty": 1.2, "seed": 4, "stream": 9},
        {"mirostat": 2, "mirostat_tau": 1.5, "seed": 5},
        {"mirostat": 1, "mirostat_tau": 2.0, "frequency_penalty": 0.2, "top_p": 0.95},
        {"adaptive_target": 0.3, "min_p": 0.02, "seed": 6},
        {"adaptive_target": 0.2, "adaptive_decay": 0.5, "mirostat": 2, "presence_penalty": 0.3},
    ],
)
@pytest.mark.parametrize("shape", [(30,), (3, 30)])
def test_receipts_of_a_sampler(params, shape):
    rng = np.random.default_rng(13)
    sampler = Sampler(**params, prompt_ids=None)
    twin = Sampler(SamplingParams(**{**params, "seed": sampler.seed}))
    for position in range(12):
        logits = rng.standard_normal(shape).astype(np.float32) * 2
        history, mu, average = twin.output_ids, twin.mirostat_mu, twin.adaptive_average
        given = {} if history is None else {"output_ids": history.copy()}
        tokens, receipts = twin(logits), sampler(logits, receipt=True)
        each = receipts if len(shape) == 2 else [receipts]
        assert [receipt.token for receipt in each] == np.atleast_1d(tokens).tolist()
        assert {receipt.position for receipt in each} == {position}
        verify(receipts, logits, sampler.params, **given)
        verify(receipts, logits, twin.params, position=position, **given)
        if "mirostat" in params:
            assert [receipt.mirostat_mu for receipt in each] == np.broadcast_to(mu, len(each)).tolist()
            verify(receipts, logits, sampler.params, mirostat_mu=mu, **given)
        if "adaptive_target" in params:
            assert [receipt.adaptive_average for receipt in each] == np.broadcast_to(average, len(each)).tolist()
            verify(receipts, logits, sampler.params, adaptive_average=average, **given)
        assert_same(sampler.mirostat_mu, twin.mirostat_mu)
        assert_same(sampler.adaptive_average, twin.adaptive_average)
        assert_same(sampler.output_ids, twin.output_ids)
    if "mirostat" in params and len(shape) == 1:
        with pytest.raises(ValueError, match="mirostat_mu"):
            verify(receipts, logits, sampler.params, mirostat_mu=mu + 0.25, **given)
    if "adaptive_target" in params and len(shape) == 1:
        with pytest.raises(ValueError, match="adaptive_average"):
            verify(receipts, logits, sampler.params, adaptive_average=average / 2, **given)


def test_the_next_limit_follows_from_a_receipt():
    sampler = Sampler(mirostat=2, mirostat_tau=3.0, mirostat_eta=0.5, seed=1)
    receipt = sampler(np.arange(50, dtype=np.float32) / 10, receipt=True)
    surprise = log2(receipt.total) - log2(receipt.stop - receipt.start)
    assert sampler.mirostat_mu == receipt.mirostat_mu - 0.5 * (surprise - 3.0)


def test_the_surprise_where_xtc_drops_tokens_of_a_long_prefix():
    row = np.random.default_rng(17).standard_normal(40_000).astype(np.float32)
    params = {"xtc_probability": 1.0, "xtc_threshold": 1e-4, "mirostat": 2, "order": ("mirostat", "xtc")}
    sampler = Sampler(**params, mirostat_tau=20.0, mirostat_eta=1.0, seed=1)
    token = sampler(row)
    ids, probs = toksample.candidates(row, **params, mirostat_mu=40.0, seed=1)
    assert 1024 < len(ids) < 40_000
    (prob,) = probs[ids == token]
    assert sampler.mirostat_mu == pytest.approx(40 - (-np.log2(prob) - 20), abs=1e-12)


def test_a_sampler_that_fails_gives_its_position_back():
    sampler = Sampler(seed=1)
    for receipt in (True, "yes"):
        with pytest.raises((ValueError, TypeError)):
            sampler(np.float32([np.nan]), receipt=receipt)
    assert sampler.position == 0


# ---- the check -----------------------------------------------------------------------------------------------------------


STATE = ("mirostat_mu", "adaptive_average")
"""The fields that are floats, or None where the method is off."""


@pytest.mark.parametrize("name", [name for name in Receipt.__slots__ if name not in ("version", *STATE)])
def test_a_changed_field_is_found(name):
    for step in (1, -1):
        value = getattr(RECEIPT, name) + step
        if value < 0:
            continue
        changed = dataclasses.replace(RECEIPT, **{name: value})
        with pytest.raises(
            ValueError, match=rf"^receipt must be what the logits and the parameters give, got .*\b{name} "
        ):
            verify(changed, ROW, temperature=0.7, seed=1, stream=0, position=0)


def test_an_error_says_what_differs():
    changed = dataclasses.replace(RECEIPT, token=2, stop=5)
    found = f"token 2 instead of 1, stop 5 instead of {RECEIPT.stop}"
    text = f"receipt must be what the logits and the parameters give, got {found}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        verify(changed, ROW, temperature=0.7)
    receipts = toksample.sample(np.stack([ROW, ROW]), temperature=0.7, seed=1, receipt=True)
    receipts[1] = dataclasses.replace(receipts[1], token=2)
    with pytest.raises(ValueError, match=r"got token 2 instead of 1 \(row 1\)$"):
        verify(receipts, np.stack([ROW, ROW]), temperature=0.7)
    for name in STATE:
        changed = dataclasses.replace(RECEIPT, **{name: 0.5})
        with pytest.raises(ValueError, match=rf"got {name} 0\.5 instead of None$"):
            verify(changed, ROW, temperature=0.7)


def test_another_seed_other_logits_and_other_parameters_are_found():
    for name, value in {"seed": 2, "position": 1}.items():
        with pytest.raises(ValueError, match=rf"\b{name} {value - 1} instead of {value}, word "):
            verify(RECEIPT, ROW, temperature=0.7, **{name: value})
    for other in ({"temperature": 0.7000001}, {"temperature": 0.7, "top_k": 2}, {}):
        with pytest.raises(ValueError, match=r"\btotal "):
            verify(RECEIPT, ROW, **other)
    with pytest.raises(ValueError, match=r"\btotal "):
        verify(RECEIPT, np.nextafter(ROW, np.float32(0)), temperature=0.7)


def test_params_and_what_belongs_to_a_call():
    params = SamplingParams(temperature=0.7)
    verify(RECEIPT, ROW, params, seed=1, stream=0, position=0, output_ids=[1], prompt_ids=[])
    with pytest.raises(ValueError, match=r"\bstream 0 instead of 3"):
        verify(RECEIPT, ROW, params, stream=3)
    with pytest.raises(ValueError, match=r"\bseed 1 instead of 2"):
        verify(RECEIPT, ROW, dataclasses.replace(params, seed=2))
    with pytest.raises(TypeError, match=r"^params and keywords must not both be given, got params and seed$"):
        verify(RECEIPT, ROW, dataclasses.replace(params, seed=1), seed=1)


def test_mirostat_in_some_rows_of_a_batch():
    logits = np.stack([ROW, ROW, ROW])
    params = {"mirostat": [0, 2, 1], "mirostat_mu": [1.0, 2.0, 3.0], "temperature": 1.5, "seed": 2}
    receipts = toksample.sample(logits, **params, receipt=True)
    assert [receipt.mirostat_mu for receipt in receipts] == [None, 2.0, 3.0]
    verify(receipts, logits, mirostat=[0, 2, 1], temperature=1.5)
    with pytest.raises(ValueError, match=r"got mirostat_mu 2\.0 instead of 2\.5 \(row 1\)$"):
        verify(receipts, logits, mirostat=[0, 2, 1], temperature=1.5, mirostat_mu=[1.0, 2.5, 3.0])


def test_adaptive_p_in_some_rows_of_a_batch():
    logits = np.stack([ROW, ROW, ROW])
    params = {"adaptive_target": [-1, 0.3, 0.4], "temperature": 1.5}
    receipts = toksample.sample(logits, **params, adaptive_average=[0.1, 0.5, 0.25], seed=2, receipt=True)
    assert [receipt.adaptive_average for receipt in receipts] == [None, 0.5, 0.25]
    verify(receipts, logits, **params)
    with pytest.raises(ValueError, match=r"got total .*, adaptive_average 0\.5 instead of 0\.75 \(row 1\)$"):
        verify(receipts, logits, **params, adaptive_average=[0.1, 0.75, 0.25])
    # A changed average is found by the numbers that follow from it.
    changed = dataclasses.replace(receipts[2], adaptive_average=0.5)
    with pytest.raises(ValueError, match=r"\btotal "):
        verify(changed, ROW, adaptive_target=0.4, temperature=1.5)


@pytest.mark.parametrize(
    ("receipt", "logits", "text"),
    [
        (RECEIPT, np.zeros((2, 5)), "logits must be of shape (V,) for one receipt, got shape (2, 5)"),
        ([RECEIPT], np.zeros(5), "logits must be of shape (1, V) for 1 receipts, got shape (5,)"),
        ([RECEIPT], np.zeros((2, 5)), "logits must be of shape (1, V) for 1 receipts, got shape (2, 5)"),
        (RECEIPT, np.zeros(1), "token must be in [0, 1), got 1"),
        ([RECEIPT], np.zeros((1, 1)), "token must be in [0, 1), got 1 (row 0)"),
        (RECEIPT, np.float32([np.nan, 1]), "logits must be finite or -inf, got nan at id 0"),
    ],
)
def test_a_receipt_for_other_rows(receipt, logits, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        verify(receipt, logits)


@pytest.mark.parametrize(
    ("arguments", "keywords", "text"),
    [
        ((None, ROW), {}, "receipt must be a Receipt, or a sequence of them, got None"),
        (([None], ROW), {}, "receipt must be a Receipt, or a sequence of them, got [None]"),
        ((RECEIPT, ROW, {}), {}, "params must be a SamplingParams, got {}"),
        (
            (RECEIPT, ROW, SamplingParams()),
            {"top_k": 1},
            "params and keywords must not both be given, got params and top_k",
        ),
        ((RECEIPT, ROW), {"typical": 1}, "got an unexpected keyword argument 'typical'; did you mean 'typical_p'?"),
    ],
)
def test_wrong_types(arguments, keywords, text):
    with pytest.raises(TypeError) as info:
        verify(*arguments, **keywords)
    assert str(info.value) == text


def test_no_compiled_code_takes_part(monkeypatch):
    def fail(*arguments, **keywords):
        raise AssertionError

    receipts = toksample.sample(np.stack([ROW, ROW]), temperature=0.7, top_p=0.9, seed=1, receipt=True)
    for name in _native.__all__:
        monkeypatch.setattr(_native, name, fail)
    verify(receipts, np.stack([ROW, ROW]), temperature=0.7, top_p=0.9)
    verify(RECEIPT, ROW.astype(np.float64), temperature=0.7)


def test_the_page_has_every_field():
    page = (Path(__file__).parent.parent / "docs" / "receipts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    assert re.findall(r"`(\w+)`", "".join(rows[: len(Receipt.__slots__) - 3])) == list(Receipt.__slots__)


# ---- the class -----------------------------------------------------------------------------------------------------------


def test_json():
    largest = dict.fromkeys(Receipt.__slots__, 2**64 - 1) | {"version": 1} | dict.fromkeys(STATE, 0.1)
    for receipt in (RECEIPT, Receipt(**largest)):
        text = json.dumps(receipt.to_dict())
        assert Receipt.from_dict(json.loads(text)) == receipt
        assert all(type(value) in (int, float, type(None)) for value in receipt.to_dict().values())
    assert list(RECEIPT.to_dict()) == [field.name for field in dataclasses.fields(Receipt)]


def test_integers_of_numpy_become_plain():
    receipt = dataclasses.replace(RECEIPT, token=np.int64(1), word=np.uint64(RECEIPT.word))
    assert receipt == RECEIPT
    assert type(receipt.token) is type(receipt.word) is int


FIELDS = ", ".join(Receipt.__slots__)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"version": 2, "other": 1}, ValueError, "version must be 1, got 2"),
        ({"version": "1"}, ValueError, "version must be 1, got '1'"),
        ({"word": 2**64}, ValueError, f"word must be in [0, 2**64), got {2**64}"),
        ({"token": -1}, ValueError, "token must be in [0, 2**64), got -1"),
        ({"seed": 1.8e19}, TypeError, "seed must be an integer, got 1.8e+19"),
        ({"mirostat_mu": "high"}, TypeError, "mirostat_mu must be a number, got 'high'"),
        ({"mirostat_mu": float("nan")}, ValueError, "mirostat_mu must be in [-1e30, 1e30], got nan"),
        ({"adaptive_average": 1.5}, ValueError, "adaptive_average must be in [0, 1], got 1.5"),
        ({"other": 1}, ValueError, f"receipt must have no fields but {FIELDS}, got 'other'"),
        (
            {"word": None, "seed": None},
            ValueError,
            f"receipt must have the fields {FIELDS}, got none that is called seed",
        ),
    ],
)
def test_wrong_dictionaries(change, error, text):
    receipt = {
        name: value for name, value in (RECEIPT.to_dict() | change).items() if name not in change or value is not None
    }
    with pytest.raises(error) as info:
        Receipt.from_dict(receipt)
    assert str(info.value) == text


def test_a_receipt_is_made_of_a_mapping():
    with pytest.raises(TypeError, match=r"^receipt must be a mapping from the names of fields to numbers, got \[\]$"):
        Receipt.from_dict([])
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECEIPT.token = 2


@pytest.mark.parametrize("function", [toksample.sample, reference.sample, lambda row, **rest: Sampler()(row, **rest)])
def test_the_argument(function):
    assert type(function(ROW, receipt=False)) is type(function(ROW, receipt=None)) is int
    assert type(function(ROW, receipt=np.bool_(True))) is Receipt
    with pytest.raises(TypeError, match=r"^receipt must be True or False, got 1$"):
        function(ROW, receipt=1)


@pytest.mark.parametrize("function", [toksample.sample, reference.sample])
def test_receipts_and_an_array_to_write_to(function):
    with pytest.raises(TypeError, match=r"^out and receipt must not both be given, got both$"):
        function(ROW, receipt=True, out=np.empty((), np.int64))
