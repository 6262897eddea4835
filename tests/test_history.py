"""Methods that look at the order of the history, and rules for some of the tokens: against independent formulas, and kernels
against the reference."""

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import (
    DTYPES,
    FLOAT32_MAX,
    assert_same,
    cast,
    generators,
    make_rules,
)
from rows import rows as any_rows

import toksample
from toksample import Sampler, SamplingParams, reference

INF = math.inf
both = pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])
dtypes = pytest.mark.parametrize("dtype", DTYPES)
real_or_double = pytest.mark.parametrize("real", [np.float32, np.float64])
ROW = np.float32([1.0, 3.0, 2.0, -1.0, 0.5])
ORDER = [1, 2, 0, 4, 3]
short_histories = st.lists(st.integers(0, 4), max_size=40)


def kept(module, logits, **parameters):
    """The ids that survive, in the order of the candidates, after a check that all functions agree."""
    ids, _ = module.candidates(logits, **parameters)
    masked = module.mask_logits(logits, **parameters)
    assert np.flatnonzero(masked != -np.inf).tolist() == sorted(ids.tolist())
    assert module.sample(logits, **parameters, seed=1) in ids
    assert module.sample(logits, **parameters, temperature=0) == ids[0]
    return ids.tolist()


def assert_edited(module, row, want, **parameters):
    """Assert that the edits of these parameters make another row of this one; or that both are without an answer."""
    if np.all(want == -np.inf):
        assert module.sample(row, **parameters, errors="mark") == -1
        return
    ids, probs = module.candidates(row, **parameters)
    assert_same((ids, probs), module.candidates(want))
    for seed in range(3):
        assert module.sample(row, **parameters, seed=seed) == module.sample(want, seed=seed)
    assert_same(module.mask_logits(row, **parameters), np.where(want == -np.inf, row.dtype.type(-np.inf), row))


def clip(x):
    largest = np.finfo(type(x)).max
    return np.clip(x, -largest, largest)


def finite(row, real):
    return np.where(row == -np.inf, -FLOAT32_MAX, row).astype(real)


def error_of(function, *args, **keywords):
    with pytest.raises((ValueError, TypeError)) as info:
        function(*args, **keywords)
    return f"{type(info.value).__name__}: {info.value}"


# ---- no_repeat_ngram_size --------------------------------------------------------------------------------------------


def banned_by_transformers(history, n):
    """What NoRepeatNGramLogitsProcessor of transformers bans: a table of all n-grams, by all of their tokens but the last."""
    if len(history) + 1 < n:
        return set()
    table = {}
    for start in range(len(history) - n + 1):
        *before, last = history[start : start + n]
        table.setdefault(tuple(before), set()).add(last)
    return table.get(tuple(history[len(history) + 1 - n :]), set())


@both
@given(row=any_rows, history=short_histories, n=st.integers(1, 8), split=st.integers(0, 40))
def test_ngrams_are_those_of_transformers(module, row, history, n, split):
    history = [token % len(row) for token in history]
    want = row.copy()
    want[list(banned_by_transformers(history, n))] = -INF
    ids = {"prompt_ids": history[:split], "output_ids": history[split:]}
    assert_edited(module, row, want, no_repeat_ngram_size=n, **ids)


@both
@pytest.mark.parametrize(
    ("n", "history", "want"),
    [
        (1, [1, 1, 4], [2, 0, 3]),
        (2, [1, 2, 1], [1, 0, 4, 3]),
        (2, [1, 1], [2, 0, 4, 3]),
        (2, [1], ORDER),
        (3, [1, 2, 0, 1, 2, 4, 1, 2], [1, 2, 3]),
        (3, [1, 2], ORDER),
        (8, [1, 1, 1], ORDER),
        (2**64 - 1, [1, 1, 1], ORDER),
        (0, [1, 1, 1], ORDER),
        (None, [1, 1, 1], ORDER),
        (2, None, ORDER),
    ],
)
def test_ngrams_by_hand(module, n, history, want):
    for split in range(len(history or []) + 1):
        ids = {"prompt_ids": history and history[:split], "output_ids": history and history[split:]}
        assert kept(module, ROW, no_repeat_ngram_size=n, **ids) == want
        # The window is that of the penalties, and not of n-grams.
        assert kept(module, ROW, no_repeat_ngram_size=n, penalty_window=1, **ids) == want


# ---- DRY -------------------------------------------------------------------------------------------------------------


def matches_of_webui(history, breakers, least):
    """The rule of DRYLogitsProcessor of text-generation-webui, but for its limit: each earlier place of the last token."""
    lengths = {}
    if not history or history[-1] in breakers:
        return lengths
    for place in range(len(history) - 1):
        token = history[place + 1]
        if history[place] != history[-1] or token in breakers:
            continue
        length = 1
        while length <= place:
            same = history[place - length] == history[-1 - length]
            if not same or history[-1 - length] in breakers:
                break
            length += 1
        lengths[token] = max(length, lengths.get(token, 0))
    return {token: length for token, length in lengths.items() if length >= least}


dry_params = st.fixed_dictionaries(
    {
        "dry_multiplier": st.one_of(st.sampled_from([0.8, 1.0, 1e30, 1e-30, 5e-324]), st.floats(0.01, 5)),
        "dry_base": st.one_of(st.sampled_from([1.0, 1.75, 2.0, 1e30]), st.floats(1, 3)),
        "dry_allowed_length": st.integers(1, 5),
        "dry_penalty_last_n": st.one_of(st.just(0), st.integers(1, 45), st.just(2**64 - 1)),
        "dry_sequence_breakers": st.lists(st.integers(0, 5), max_size=2),
    }
)


@both
@real_or_double
@given(row=any_rows, history=short_histories, params=dry_params, split=st.integers(0, 40))
def test_dry_is_that_of_other_systems(module, real, row, history, params, split):
    row = finite(row, real)
    history = [token % len(row) for token in history]
    params["dry_sequence_breakers"] = breakers = [token % len(row) for token in params["dry_sequence_breakers"]]
    window, least = params["dry_penalty_last_n"], params["dry_allowed_length"]
    want = row.copy()
    with np.errstate(all="ignore"):
        for token, length in matches_of_webui(history[-window:] if window else history, breakers, least).items():
            penalty = params["dry_multiplier"] * reference.edits.power(params["dry_base"], length - least)
            want[token] = clip(row[token] - clip(real(penalty)))
    assert_edited(module, row, want, **params, prompt_ids=history[:split], output_ids=history[split:])


@both
@pytest.mark.parametrize(
    ("history", "params", "penalties"),
    [
        ([1, 2, 4, 1, 2], {}, {4: 1}),
        ([1, 2, 4, 1, 2], {"dry_allowed_length": 1}, {4: 2}),
        ([1, 2, 4, 1, 2], {"dry_allowed_length": 3}, {}),
        ([0, 1, 2, 4, 0, 1, 2], {}, {4: 2}),
        ([0, 1, 2, 4, 0, 1, 2], {"dry_base": 3}, {4: 3}),
        ([0, 1, 2, 4, 0, 1, 2], {"dry_multiplier": 0.5}, {4: 1}),
        ([0, 1, 2, 4, 3, 1, 2, 4, 0, 1, 2], {}, {4: 2}),  # the longer match counts
        ([1, 2, 4, 3, 1, 2, 0, 1, 2], {}, {4: 1, 3: 0, 0: 1}),  # each token that has followed
        ([1, 1, 1, 1], {}, {1: 2}),  # a match may overlap the end
        ([0, 1, 2, 4, 0, 1, 2], {"dry_sequence_breakers": [0]}, {4: 1}),
        ([0, 1, 2, 4, 0, 1, 2], {"dry_sequence_breakers": [1]}, {}),
        ([0, 1, 2, 4, 0, 1, 2], {"dry_sequence_breakers": [3, 2]}, {}),
        ([0, 1, 2, 4, 0, 1, 2], {"dry_sequence_breakers": [4]}, {}),  # which is not penalized itself
        ([0, 1, 2, 4, 0, 1, 2], {"dry_penalty_last_n": 6}, {4: 1}),  # the window begins with the first 1
        ([0, 1, 2, 4, 0, 1, 2], {"dry_penalty_last_n": 5}, {}),
        ([0, 1, 2, 4, 0, 1, 2], {"dry_multiplier": None}, {}),
        ([0, 1, 2, 4, 0, 1, 2], {"dry_multiplier": 0}, {}),
        ([0, 1, 2, 4, 0, 1, 2], {"dry_base": None, "dry_allowed_length": None, "dry_penalty_last_n": None}, {4: 1.75}),
    ],
)
def test_dry_by_hand(module, history, params, penalties):
    want = ROW.copy()
    for token, penalty in penalties.items():
        want[token] -= np.float32(penalty)
    given = {"dry_multiplier": 1.0, "dry_base": 2.0} | params
    for split in range(len(history) + 1):
        ids = {"prompt_ids": history[:split], "output_ids": history[split:]}
        assert_edited(module, ROW, want, **given, **ids)
        # n-grams look at the whole history, whatever the window of DRY.
        assert_edited(module, ROW, want, **given, **ids, no_repeat_ngram_size=9)


@both
@real_or_double
def test_a_long_match_never_bans(module, real):
    row, history = ROW.astype(real), [2] * 3_000
    want = row.copy()
    want[2] = -np.finfo(real).max
    assert_edited(module, row, want, dry_multiplier=1e30, dry_base=1e30, output_ids=history)


@given(base=st.floats(1e-30, 1e30), exponent=st.integers(0, 3_000))
def test_a_power_is_nearly_that_of_exact_arithmetic(base, exponent):
    got, most = reference.edits.power(base, exponent), float(np.finfo(float).max)
    assert 0 <= got <= most
    log2 = exponent * math.log2(base)
    if -1_000 < log2 < 1_000:
        want = Fraction(base) ** exponent
        assert abs(Fraction(got) / want - 1) < Fraction(2 * exponent + 1, 2**52)
    elif log2 > 1_030:
        assert got == most


# ---- the prompt, sequences and the end of the text ---------------------------------------------------------------------


@both
@real_or_double
@given(row=any_rows, rng=generators, p=st.one_of(st.sampled_from([1.0, 1e-30, 1e30, 2.0]), st.floats(0.1, 10)))
def test_encoder_repetition_penalty_is_that_of_transformers(module, real, row, rng, p):
    row = finite(row, real)
    prompt, output = rng.integers(0, len(row), (2, 6)).tolist()
    want = row.copy()
    with np.errstate(all="ignore"):
        for token in set(prompt):
            want[token] = clip(row[token] / real(p) if row[token] < 0 else row[token] * real(p))
    assert_edited(module, row, want, encoder_repetition_penalty=p, prompt_ids=prompt, output_ids=output)
    # The window is not for it.
    assert_edited(
        module, row, want, encoder_repetition_penalty=p, prompt_ids=prompt, output_ids=output, penalty_window=1
    )


@both
@real_or_double
@given(row=any_rows, rng=generators)
def test_sequence_bias_is_that_of_transformers(module, real, row, rng):
    row = finite(row, real)
    history = rng.integers(0, min(len(row), 3), 6).tolist()
    values = [1.5, -2.0, -INF, 3.4e38, -3.4e38, 1e-45, rng.normal()]
    bias = {}
    for _ in range(12):
        length = int(rng.integers(1, 5))
        key = tuple(rng.integers(0, min(len(row), 3), length).tolist())
        bias[key if length > 1 or rng.random() < 0.5 else key[0]] = float(rng.choice(values))
    sums = {}
    for key, value in bias.items():
        *others, last = key if isinstance(key, tuple) else (key,)
        if len(others) <= len(history) and history[len(history) - len(others) :] == others:
            sums[last] = sums.get(last, 0.0) + value
    want = row.copy()
    with np.errstate(all="ignore"):
        for token, value in sums.items():
            want[token] = -np.inf if value == -INF else clip(row[token] + clip(real(value)))
    for split in (0, 1, 3, 6):
        ids = {"prompt_ids": history[:split], "output_ids": history[split:]}
        assert_edited(module, row, want, sequence_bias=bias, **ids)


@both
def test_sequences_by_hand(module):
    ids = {"prompt_ids": [0, 3], "output_ids": [4, 2]}
    for key in (3, (3,), (2, 3), (4, 2, 3), (0, 3, 4, 2, 3), (np.int8(2), np.uint64(3))):
        assert kept(module, ROW, sequence_bias={key: 9}, **ids) == [3, 1, 2, 0, 4]
        word = [key] if isinstance(key, int) else list(key)
        assert kept(module, ROW, bad_words_ids=[word], **ids) == [1, 2, 0, 4]
    for key in ((4, 3), (3, 2, 3), (1, 0, 3, 4, 2, 3)):
        assert kept(module, ROW, sequence_bias={key: 9}, **ids) == ORDER
        assert kept(module, ROW, bad_words_ids=[key], **ids) == ORDER
    assert kept(module, ROW, bad_words_ids=[[1], (2, 2), np.array([4, 2, 0])], **ids) == [4, 3]
    for nothing in (None, [], ()):
        assert kept(module, ROW, bad_words_ids=nothing, **ids) == ORDER
    assert kept(module, ROW, sequence_bias={}, **ids) == ORDER
    # Biases of one token are added up before they are rounded.
    assert (
        kept(module, ROW, sequence_bias={0: 3e38, (2, 0): 3e38, (4, 2, 0): -3.4e38, (3, 4, 2, 0): -3e38}, **ids)[-1]
        == 0
    )
    assert kept(module, ROW, sequence_bias={1: -9}, logit_bias={1: 9}) == ORDER


@both
@real_or_double
@given(row=any_rows, rng=generators, count=st.integers(0, 12), start=st.integers(0, 12), factor=st.floats(0.2, 4))
def test_exponential_decay_is_that_of_transformers(module, real, row, rng, count, start, factor):
    row = finite(row, real)
    eos = rng.integers(0, len(row), 2).tolist()
    output = rng.integers(0, len(row), count)
    want = row.copy()
    if count > start:
        growth = clip(real(reference.edits.power(factor, count - start) - 1))
        with np.errstate(all="ignore"):
            for token in set(eos):
                want[token] = clip(row[token] + abs(row[token]) * growth)
    given = {"exponential_decay_length_penalty": (start, factor), "eos_token_ids": eos, "output_ids": output}
    assert_edited(module, row, want, **given, prompt_ids=[0])


@both
def test_exponential_decay_by_hand(module):
    def after(count, **parameters):
        return kept(module, ROW, output_ids=[0] * count, eos_token_ids=[4, 3], **parameters)

    decay = {"exponential_decay_length_penalty": (2, 2.0)}  # 0.5 and -1 become 1 and 0, 2 and 2, 4 and 6
    assert [after(count, **decay) for count in (0, 2, 3)] == [ORDER, ORDER, [1, 2, 0, 4, 3]]
    assert [after(count, **decay) for count in (4, 5, 6)] == [[1, 2, 3, 4, 0], [3, 4, 1, 2, 0], [3, 4, 1, 2, 0]]
    assert after(10**4, **decay)[:2] == [3, 4]  # both are the largest number, and 3 is the lower id
    assert after(9, exponential_decay_length_penalty=[8, 0.5]) == [1, 2, 0, 4, 3]
    assert after(9, exponential_decay_length_penalty=None) == ORDER


# ---- bans ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("parameters", "want"),
    [
        ({"allowed_token_ids": [0, 3, 3]}, [0, 3]),
        ({"allowed_token_ids": (4,)}, [4]),
        ({"allowed_token_ids": np.array([4, 1], np.uint8)}, [1, 4]),
        ({"allowed_token_ids": None}, ORDER),
        ({"suppress_tokens": [1, 2, 1]}, [0, 4, 3]),
        ({"suppress_tokens": []}, ORDER),
        ({"suppress_tokens": [1], "allowed_token_ids": [1, 0]}, [0]),
        ({"begin_suppress_tokens": [1]}, [2, 0, 4, 3]),
        ({"begin_suppress_tokens": [1], "prompt_ids": [1]}, [2, 0, 4, 3]),
        ({"begin_suppress_tokens": [1], "output_ids": [1]}, ORDER),
        ({"min_new_tokens": 1, "eos_token_ids": [1, 0]}, [2, 4, 3]),
        ({"min_new_tokens": 2, "eos_token_ids": [1], "output_ids": [0]}, [2, 0, 4, 3]),
        ({"min_new_tokens": 2, "eos_token_ids": [1], "output_ids": [0, 0]}, ORDER),
        ({"min_new_tokens": 2**64 - 1, "eos_token_ids": [1], "prompt_ids": [0, 0]}, [2, 0, 4, 3]),
        ({"min_new_tokens": 2}, ORDER),
        ({"eos_token_ids": [1]}, ORDER),
        ({"forced_bos_token_id": 3}, [3]),
        ({"forced_bos_token_id": 3, "prompt_ids": [0]}, [3]),
        ({"forced_bos_token_id": 3, "output_ids": [0]}, ORDER),
        ({"forced_eos_token_id": 3}, ORDER),
        ({"forced_eos_token_id": 3, "max_new_tokens": 1}, [3]),
        ({"forced_eos_token_id": 3, "max_new_tokens": 2}, ORDER),
        ({"forced_eos_token_id": 3, "max_new_tokens": 2, "output_ids": [1]}, [3]),
        ({"forced_eos_token_id": 3, "max_new_tokens": 2, "output_ids": [1, 1]}, ORDER),
        ({"forced_eos_token_id": 3, "max_new_tokens": None}, ORDER),
        ({"bitmask": np.int32([0b01111]), "allowed_token_ids": [0, 1, 4], "suppress_tokens": [1]}, [0]),
    ],
)
def test_bans_by_hand(module, parameters, want):
    assert kept(module, ROW, **parameters) == want


@both
@dtypes
def test_what_is_banned_is_not_looked_at(module, dtype):
    row = cast(ROW, dtype).copy()
    row[1] = np.nan
    for bans in (
        {"allowed_token_ids": [0, 2, 3, 4]},
        {"suppress_tokens": [1]},
        {"logit_bias": {1: -INF, 0: 0.5}},
        {"logit_bias": {1: -INF}, "repetition_penalty": 2.0, "prompt_ids": [1], "order": "sglang"},
        {"begin_suppress_tokens": [1]},
        {"min_new_tokens": 1, "eos_token_ids": [1]},
        {"bad_words_ids": [[1]]},
        {"sequence_bias": {1: -INF}},
        {"no_repeat_ngram_size": 1, "prompt_ids": [1]},
    ):
        assert kept(module, row, **bans) == [2, 0, 4, 3][: 4 - ("no_repeat_ngram_size" in bans) * 0]
    assert kept(module, row, forced_bos_token_id=3) == [3]
    text = "ValueError: logits must be finite or -inf, got nan at id 1"
    given = {
        "dry_multiplier": 1.0,
        "encoder_repetition_penalty": 2.0,
        "prompt_ids": [1, 1, 1, 1],
        "suppress_tokens": [0],
    }
    assert error_of(module.sample, row, **given) == text


@both
@dtypes
@pytest.mark.parametrize("size", [640, 701, 1100])
def test_what_a_bitmask_bans_is_not_looked_at(module, dtype, size):
    rng = np.random.default_rng(size)
    for place in range(0, size, 1 if module is toksample else 97):
        row, allowed = cast(rng.normal(size=size).astype(np.float32), dtype), rng.random(size) < 0.5
        row[place] = rng.choice([np.nan, -np.nan, np.inf])
        for is_allowed in (False, True):
            allowed[place] = is_allowed
            bits = np.zeros(-(-size // 32) * 32, bool)
            bits[:size] = allowed
            bitmask = np.packbits(bits, bitorder="little").view(np.int32)
            if is_allowed:
                text = f"ValueError: logits must be finite or -inf, got {abs(float(row[place]))} at id {place}"
                assert error_of(module.sample, row, bitmask=bitmask) == text
            else:
                first = np.flatnonzero(allowed)[np.argmax(row[allowed])]
                assert kept(module, row, bitmask=bitmask, top_k=1) == [first]


@both
@dtypes
def test_a_row_of_which_nothing_is_left(module, dtype):
    row, only = cast(ROW, dtype), "ValueError: logits must have a finite value, got only -inf"
    for bans in (
        {"allowed_token_ids": []},
        {"suppress_tokens": range(5)},
        {"forced_bos_token_id": 1, "suppress_tokens": [1]},
        {"forced_bos_token_id": 1, "forced_eos_token_id": 2, "max_new_tokens": 1},
        {"no_repeat_ngram_size": 1, "output_ids": range(5)},
        {"bad_words_ids": [[0], [1], [2], [3], [4]]},
    ):
        assert error_of(module.sample, row, **bans) == only
        assert module.sample(row, errors="mark", **bans) == -1
    batch = np.stack([row, row])
    assert module.sample(batch, temperature=0, errors="mark", allowed_token_ids=[[], [2]]).tolist() == [-1, 2]


def test_a_ban_does_not_last():
    """What is known of one row is not there in the next one, though they share memory."""
    rng = np.random.default_rng(1)
    for size in (5, 64, 1_000, 70):
        row = rng.standard_normal(size).astype(np.float32)
        plain = toksample.candidates(row)
        for _ in range(2):
            toksample.sample(row, allowed_token_ids=[1])
            toksample.sample(row, no_repeat_ngram_size=1, dry_multiplier=1, prompt_ids=[0] * 5)
            toksample.sample(row, encoder_repetition_penalty=9, prompt_ids=[0, 1], sequence_bias={2: 5})
            assert_same(toksample.candidates(row, logit_bias={0: 0.0}), plain)
            assert_same(toksample.candidates(row, repetition_penalty=1.0, suppress_tokens=[]), plain)


# ---- all of them -----------------------------------------------------------------------------------------------------


@both
@real_or_double
def test_the_order_of_all_edits(module, real):
    row = np.array([4.0, -4.0, 1.0, 9.0, 9.0], real)
    given = {
        "suppress_tokens": [3],
        "bad_words_ids": [[1, 4]],
        "logit_bias": {0: 2.0, 1: 5.0, 3: 100.0, 4: 100.0},  # 6, 1, 1
        "sequence_bias": {(0, 1, 0): -2.0},  # 4, 1, 1
        "encoder_repetition_penalty": 4.0,  # 16, 1, 1
        "repetition_penalty": 2.0,  # 8, 0.5, 1
        "frequency_penalty": 0.5,  # 8, 0, 1
        "presence_penalty": 1.25,  # 8, -1.25, 1
        "dry_multiplier": 1.5,
        "dry_allowed_length": 1,  # 6.5, -1.25, 1
        "exponential_decay_length_penalty": (0, 2.0),
        "eos_token_ids": [0, 1],  # 13, 0, 1
        "prompt_ids": [1, 0, 0],
        "output_ids": [1],
    }
    # Token 1 is in the prompt too: -4 + 5 = 1, times 4, over 2, minus 0.5 and 1.25 is 0.25, which doubles.
    want = np.array([13.0, 0.5, 1.0, -INF, -INF], real)
    assert_edited(module, row, want, **given)


@dtypes
@given(row=any_rows, rng=generators)
def test_rules_of_kernels(dtype, row, rng):
    rules = {name: values[0] for name, values in make_rules(rng, 1, len(row)).items()}
    row = cast(row, dtype)
    for more in ({}, {"top_k": 7}, {"top_p": 0.8}):
        for function in ("sample", "mask_logits"):
            more |= {"errors": "mark", "seed": 3} if function == "sample" else {}
            kernel, same = (getattr(module, function) for module in (toksample, reference))
            if function == "mask_logits":
                more = {name: value for name, value in more.items() if name != "errors"}
                if reference.sample(row, **rules, **more, errors="mark") == -1:
                    continue
            assert_same(kernel(row, **rules, **more), same(row, **rules, **more))


@dtypes
@given(rng=generators, size=st.integers(1, 200), count=st.integers(0, 5))
def test_rules_of_a_batch(dtype, rng, size, count):
    batch = cast((rng.standard_normal((count, size)) * 3).astype(np.float32), dtype)
    rules = make_rules(rng, count, size)
    want = reference.sample(batch, **rules, errors="mark", seed=2)
    assert_same(toksample.sample(batch, **rules, errors="mark", seed=2), want)
    for b in range(count):
        alone = {name: values[b] for name, values in rules.items()}
        assert toksample.sample(batch[b], **alone, errors="mark", seed=2, stream=b) == want[b]


@both
def test_one_value_for_all_rows(module):
    batch = np.stack([ROW] * 3)
    for name, value, want in [
        ("allowed_token_ids", [0, 3], [0, 0, 0]),
        ("allowed_token_ids", np.array([0, 3]), [0, 0, 0]),
        ("allowed_token_ids", [[0], None, (3,)], [0, 1, 3]),
        ("allowed_token_ids", np.array([[0], [2], [3]]), [0, 2, 3]),
        ("suppress_tokens", [1], [2, 2, 2]),
        ("suppress_tokens", [[1], None, [1, 2]], [2, 1, 0]),
        ("suppress_tokens", [None, None, []], [1, 1, 1]),
        ("begin_suppress_tokens", ([1], [], [2]), [2, 1, 1]),
        ("forced_bos_token_id", 4, [4, 4, 4]),
        ("forced_bos_token_id", [4, None, 0], [4, 1, 0]),
        ("forced_bos_token_id", np.array([4, 3, 0]), [4, 3, 0]),
        ("sequence_bias", {3: 9.0}, [3, 3, 3]),
        ("sequence_bias", [{3: 9.0}, None, {}], [3, 1, 1]),
        ("bad_words_ids", [[1], [2]], [0, 0, 0]),
        ("bad_words_ids", [[[1], [2]], None, [[1]]], [0, 1, 2]),
        ("bad_words_ids", [[], [], []], [1, 1, 1]),
        ("bad_words_ids", [[[1]], [], None], [2, 1, 1]),
    ]:
        assert module.sample(batch, temperature=0, **{name: value}).tolist() == want, (name, value)
    ids = {"output_ids": [[0], [0, 0], None], "eos_token_ids": [0]}
    assert module.sample(batch, temperature=0, exponential_decay_length_penalty=(0, 2.5), **ids).tolist() == [1, 0, 1]
    decays = [None, (0, 3.0), (0, 9.0)]
    assert module.sample(batch, temperature=0, exponential_decay_length_penalty=decays, **ids).tolist() == [1, 0, 1]
    ids["eos_token_ids"] = [[0], [4], None]
    assert module.sample(batch, temperature=0, exponential_decay_length_penalty=(0, 2.5), **ids).tolist() == [1, 4, 1]


# ---- errors ----------------------------------------------------------------------------------------------------------

ID_LISTS = ("allowed_token_ids", "suppress_tokens", "begin_suppress_tokens", "eos_token_ids", "dry_sequence_breakers")
MAPPING = "a mapping from token ids, or tuples of them, to numbers"
PAIR = "a pair of a start in [0, 2**64) and a factor in [1e-30, 1e30]"


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("names", "value", "text"),
    [
        (ID_LISTS, [0, 5], "ValueError: NAME must be in [0, 5), got 5"),
        (ID_LISTS, [-1], "ValueError: NAME must be in [0, 5), got -1"),
        (ID_LISTS, np.array([9]), "ValueError: NAME must be in [0, 5), got 9"),
        (ID_LISTS, 1, "TypeError: NAME must be a sequence of token ids, got 1"),
        (ID_LISTS, [1.0], "TypeError: NAME must be a sequence of token ids, got [1.0]"),
        (ID_LISTS, [[1]], "TypeError: NAME must be a sequence of token ids, got [[1]]"),
        (ID_LISTS, "1", "TypeError: NAME must be a sequence of token ids, got '1'"),
        (["forced_bos_token_id", "forced_eos_token_id"], 5, "ValueError: NAME must be in [0, 5), got 5"),
        (["forced_bos_token_id", "forced_eos_token_id"], 1.0, "TypeError: NAME must be a token id, got 1.0"),
        (["forced_bos_token_id", "forced_eos_token_id"], [1], "TypeError: NAME must be a token id, got [1]"),
        (["sequence_bias"], {5: 1.0}, "ValueError: NAME must be in [0, 5), got 5"),
        (["sequence_bias"], {(1, 7): 1.0}, "ValueError: NAME must be in [0, 5), got 7"),
        (["sequence_bias"], {(): 1.0}, "ValueError: NAME must have no empty tuple, got {(): 1.0}"),
        (["sequence_bias"], {(1, 2): INF}, "ValueError: NAME must be in [-3.4e38, 3.4e38] or -inf, got inf for (1, 2)"),
        (["sequence_bias"], {(1, 2): "1"}, f"TypeError: NAME must be {MAPPING}, got {{(1, 2): '1'}}"),
        (["sequence_bias"], {"12": 1}, f"TypeError: NAME must be {MAPPING}, got {{'12': 1}}"),
        (["sequence_bias"], [[[1], 2.0]], f"TypeError: NAME must be {MAPPING}, got [[[1], 2.0]]"),
        (["bad_words_ids"], [[1, 5]], "ValueError: NAME must be in [0, 5), got 5"),
        (["bad_words_ids"], [[1], []], "ValueError: NAME must have no empty sequence, got [[1], []]"),
        (["bad_words_ids"], [1], "TypeError: NAME must be a list of sequences of token ids, got [1]"),
        (["bad_words_ids"], [None], "TypeError: NAME must be a list of sequences of token ids, got [None]"),
        (["bad_words_ids"], 1, "TypeError: NAME must be a list of sequences of token ids, got 1"),
        (["bad_words_ids"], [[1.5]], "TypeError: NAME must be a sequence of token ids, got [[1.5]]"),
        (["exponential_decay_length_penalty"], (1, 0.0), f"ValueError: NAME must be {PAIR}, got (1, 0.0)"),
        (["exponential_decay_length_penalty"], (-1, 2.0), f"ValueError: NAME must be {PAIR}, got (-1, 2.0)"),
        (["exponential_decay_length_penalty"], (1, math.nan), f"ValueError: NAME must be {PAIR}, got (1, nan)"),
        (["exponential_decay_length_penalty"], (1.5, 2.0), f"TypeError: NAME must be {PAIR}, got (1.5, 2.0)"),
        (["exponential_decay_length_penalty"], (1, "2"), f"TypeError: NAME must be {PAIR}, got (1, '2')"),
        (["exponential_decay_length_penalty"], (1, 2, 3), f"TypeError: NAME must be {PAIR}, got (1, 2, 3)"),
        (["exponential_decay_length_penalty"], 2.0, f"TypeError: NAME must be {PAIR}, got 2.0"),
    ],
    ids=repr,
)
def test_wrong_rules(module, dtype, names, value, text):
    for name in names:
        want = text.replace("NAME", name)
        assert error_of(module.sample, ROW.astype(dtype), **{name: value}) == want
        if "[0, 5)" not in text:
            assert error_of(SamplingParams, **{name: value}) == want


@both
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        *[
            (name, [[1], [2]], "ValueError: NAME must have one value for each of the 3 rows, got 2")
            for name in ID_LISTS
        ],
        ("suppress_tokens", [None, [1], [5]], "ValueError: NAME must be in [0, 5), got 5 (row 2)"),
        ("suppress_tokens", [1, [1], [1]], "TypeError: NAME must be a sequence of token ids, got [1, [1], [1]]"),
        ("forced_bos_token_id", [1, None, 9], "ValueError: NAME must be in [0, 5), got 9 (row 2)"),
        ("forced_bos_token_id", [1, 2], "ValueError: NAME must have one value for each of the 3 rows, got 2"),
        ("sequence_bias", [{1: 1}, {9: 1}, None], "ValueError: NAME must be in [0, 5), got 9 (row 1)"),
        ("sequence_bias", [{}], "ValueError: NAME must have one value for each of the 3 rows, got 1"),
        ("bad_words_ids", [[[1]], [[1], [6]], None], "ValueError: NAME must be in [0, 5), got 6 (row 1)"),
        ("bad_words_ids", [[[1]], [[1]]], "ValueError: NAME must have one value for each of the 3 rows, got 2"),
        (
            "exponential_decay_length_penalty",
            [(1, 2.0)],
            "ValueError: NAME must have one value for each of the 3 rows, got 1",
        ),
        (
            "exponential_decay_length_penalty",
            [None, (1, 0), None],
            f"ValueError: NAME must be {PAIR}, got (1, 0) (row 1)",
        ),
    ],
    ids=repr,
)
def test_wrong_rules_of_a_batch(module, name, value, text):
    assert error_of(module.sample, np.stack([ROW] * 3), **{name: value}) == text.replace("NAME", name)


@both
@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("no_repeat_ngram_size", -1, "in [0, 2**64), got -1"),
        ("dry_multiplier", -0.5, "in [0, 1e30], got -0.5"),
        ("dry_base", 0.99, "in [1, 1e30], got 0.99"),
        ("dry_allowed_length", 0, "in [1, 2**64), got 0"),
        ("dry_penalty_last_n", -1, "in [0, 2**64), got -1"),
        ("encoder_repetition_penalty", 0.0, "in [1e-30, 1e30], got 0.0"),
        ("min_new_tokens", -1, "in [0, 2**64), got -1"),
        ("max_new_tokens", 2**64, f"in [0, 2**64), got {2**64}"),
    ],
)
def test_numbers_out_of_range(module, name, value, text):
    for function in (module.sample, module.mask_logits):
        assert error_of(function, ROW, **{name: value}) == f"ValueError: {name} must be {text}"
    assert error_of(SamplingParams, **{name: value}) == f"ValueError: {name} must be {text}"


# ---- samplers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "want"),
    [
        ({"no_repeat_ngram_size": 1}, [1, 2, 0, 4]),
        ({"no_repeat_ngram_size": 2}, [1, 1, 2, 1]),
        ({"dry_multiplier": 5.0, "dry_allowed_length": 1}, [1, 1, 2, 1]),
        ({"begin_suppress_tokens": [1]}, [2, 1, 1, 1]),
        ({"min_new_tokens": 2, "eos_token_ids": [1]}, [2, 2, 1, 1]),
        ({"forced_bos_token_id": 3}, [3, 1, 1, 1]),
        ({"forced_eos_token_id": 3, "max_new_tokens": 4}, [1, 1, 1, 3]),
        ({"bad_words_ids": [[1, 1]]}, [1, 2, 1, 2]),
        ({"sequence_bias": {(1, 1, 3): 9.0}}, [1, 1, 3, 1]),
        ({"exponential_decay_length_penalty": (1, 3.0), "eos_token_ids": [2]}, [1, 1, 2, 2]),
        ({"allowed_token_ids": [0, 4]}, [0, 0, 0, 0]),
        ({"suppress_tokens": [1]}, [2, 2, 2, 2]),
    ],
)
def test_a_sampler_keeps_what_the_methods_need(parameters, want):
    sampler = Sampler(temperature=0, **parameters)
    assert SamplingParams(**parameters).needs_history is sampler.params.needs_history
    assert [sampler(ROW) for _ in range(4)] == want
    batch = np.stack([ROW, ROW])
    sampler = Sampler(temperature=0, **parameters)
    assert [sampler(batch).tolist() for _ in range(4)] == [[token] * 2 for token in want]
    assert (sampler.output_ids is not None) is sampler.params.needs_history
    assert hash(SamplingParams(**parameters)) == hash(SamplingParams(**parameters))
    half = pickle.loads(pickle.dumps(sampler))
    assert half(batch).tolist() == sampler(batch).tolist()


def test_the_prompt_of_a_sampler():
    for prompt in ([1, 2, 1], np.array([1, 2, 1])):
        assert Sampler(temperature=0, no_repeat_ngram_size=2, prompt_ids=prompt)(ROW) == 1
        assert Sampler(temperature=0, no_repeat_ngram_size=1, prompt_ids=prompt)(ROW) == 0
        assert Sampler(temperature=0, encoder_repetition_penalty=0.5, prompt_ids=prompt)(ROW) == 1
        assert Sampler(temperature=0, encoder_repetition_penalty=0.1, prompt_ids=prompt)(ROW) == 0


def test_values_of_params_do_not_change():
    ids, words, bias = [1], [[1, 2]], {(1, 2): 3}
    params = SamplingParams(
        suppress_tokens=ids, bad_words_ids=words, sequence_bias=bias, allowed_token_ids=np.array([3])
    )
    ids.append(2)
    words[0].append(3)
    bias[4] = 1.0
    assert params.suppress_tokens == (1,)
    assert params.bad_words_ids == ((1, 2),)
    assert params.sequence_bias == {(1, 2): 3.0}
    assert params.allowed_token_ids == (3,)


def test_prefix_allowed_tokens():
    seen = []

    def after(row, ids):
        seen.append((row, ids.tolist()))
        return [(ids[-1] + 1 + row) % 5, 4]

    sampler = Sampler(temperature=0, prefix_allowed_tokens_fn=after, prompt_ids=[3, 0])
    assert [sampler(ROW) for _ in range(4)] == [1, 2, 4, 0]
    assert seen == [(0, [3, 0]), (0, [3, 0, 1]), (0, [3, 0, 1, 2]), (0, [3, 0, 1, 2, 4])]
    seen.clear()
    batch = np.stack([ROW, ROW])
    sampler = Sampler(temperature=0, prefix_allowed_tokens_fn=after, prompt_ids=[[0], [2, 3]])
    assert [sampler(batch).tolist() for _ in range(2)] == [[1, 0], [2, 2]]
    assert seen == [(0, [0]), (1, [2, 3]), (0, [0, 1]), (1, [2, 3, 0])]
    assert Sampler(temperature=0, prefix_allowed_tokens_fn=lambda row, ids: np.array([0, 3]))(ROW) == 0
    with pytest.raises(ValueError, match=r"got only -inf"):
        Sampler(prefix_allowed_tokens_fn=lambda row, ids: [])(ROW)
    with pytest.raises(ValueError, match=r"^allowed_token_ids must be in \[0, 5\), got 7$"):
        Sampler(prefix_allowed_tokens_fn=lambda row, ids: [7])(ROW)
    with pytest.raises(TypeError, match=r"^prefix_allowed_tokens_fn must be callable, got 1$"):
        Sampler(prefix_allowed_tokens_fn=1)
    with pytest.raises(TypeError, match=r"^prefix_allowed_tokens_fn and allowed_token_ids must not both be given"):
        Sampler(prefix_allowed_tokens_fn=after, allowed_token_ids=[1])


def test_generate_knows_when_it_ends():
    def generate(params=None, **keywords):
        return list(toksample.generate(lambda ids: ROW, [0], params, **keywords))

    assert generate(temperature=0, max_new_tokens=3, forced_eos_token_id=4) == [1, 1, 4]
    # From the third token on, an end is more likely: 2.0, 4.0, ... for token 2, where token 1 has 3.0.
    decay = {"temperature": 0, "exponential_decay_length_penalty": (1, 2.0)}
    assert generate(**decay, eos_token_ids=[2]) == [1, 1]
    assert generate(**decay, stop_token_ids=[2]) == [1, 1]
    params = toksample.SamplingParams(temperature=0, eos_token_ids=[1], min_new_tokens=2, max_new_tokens=3)
    assert generate(params) == [2, 2]
    assert generate(params, min_new_tokens=1) == [2]
    assert generate(params, stop_token_ids=[2], max_new_tokens=2) == [0, 0]
    ends = toksample.GenerationConfig(params)
    assert generate(ends) == [2, 2]
    assert generate(ends, stop_token_ids=[2]) == [1, 1, 1]
    forced = toksample.SamplingParams(temperature=0, forced_eos_token_id=4)
    assert generate(forced, max_new_tokens=2) == [1, 4]
    assert generate(toksample.GenerationConfig(forced, max_length=4, stop_token_ids=[4])) == [1, 1]


# ---- long histories --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [1, 2, 7, 1_000, 10**9])
def test_long_histories(period):
    """A history that repeats itself all the time, for which a naive search is quadratic; and one that does not."""
    rng = np.random.default_rng(period)
    row = rng.standard_normal(5_000).astype(np.float32)
    history = np.resize(rng.integers(0, 5_000, min(period, 3_000)), 3_000)
    for parameters in (
        {"no_repeat_ngram_size": 5},
        {"no_repeat_ngram_size": 500},
        {"dry_multiplier": 0.8},
        {"dry_multiplier": 0.8, "dry_allowed_length": 1, "dry_penalty_last_n": 2_000, "dry_sequence_breakers": [7, 1]},
        {"dry_multiplier": 2.0, "dry_sequence_breakers": history[:1]},
    ):
        parameters |= {"prompt_ids": history[:700], "output_ids": history[700:]}
        assert_same(toksample.candidates(row, **parameters), reference.candidates(row, **parameters))
