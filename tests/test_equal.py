"""The kernels return what the reference returns, to the bit, and the batch, the threads and the strides change nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import (
    DTYPES,
    KINDS,
    assert_same,
    batches,
    cast,
    generators,
    make_edits,
    make_filters,
    make_params,
    make_rows,
    make_words,
    one_row,
    ordered_params,
    pick,
    rows,
    temperatures,
    words,
)

import toksample
from toksample import reference
from toksample._orders import ORDERS

dtypes = pytest.mark.parametrize("dtype", DTYPES)


# ---- kernel == reference -----------------------------------------------------------------------------------------------


@dtypes
@given(row=rows)
def test_argmax(dtype, row):
    row = cast(row, dtype)
    assert_same(toksample.argmax(row), reference.argmax(row))


@dtypes
@given(row=rows, temperature=temperatures)
def test_softmax(dtype, row, temperature):
    row = cast(row, dtype)
    assert_same(toksample.softmax(row, temperature), reference.softmax(row, temperature))


@dtypes
@given(row=rows, temperature=temperatures)
def test_log_softmax(dtype, row, temperature):
    row = cast(row, dtype)
    assert_same(toksample.log_softmax(row, temperature), reference.log_softmax(row, temperature))


@dtypes
@given(row=rows, share=st.floats(0, 1))
def test_top_k(dtype, row, share):
    row = cast(row, dtype)
    k = max(1, round(share * len(row)))
    assert_same(toksample.top_k(row, k), reference.top_k(row, k))


@dtypes
@given(row=rows, params=ordered_params, rng=generators, word=words)
def test_sample(dtype, row, params, rng, word):
    params |= one_row(make_edits(rng, row[None]), 0)
    row = cast(row, dtype)
    assert_same(toksample.sample(row, **params, **word), reference.sample(row, **params, **word))


@dtypes
@given(row=rows, params=ordered_params, rng=generators, word=words)
def test_candidates(dtype, row, params, rng, word):
    params |= one_row(make_edits(rng, row[None]), 0)
    row = cast(row, dtype)
    assert_same(toksample.candidates(row, **params, **word), reference.candidates(row, **params, **word))


@dtypes
@given(row=rows, params=ordered_params, rng=generators, word=words)
def test_mask_logits(dtype, row, params, rng, word):
    params |= one_row(make_edits(rng, row[None]), 0)
    row = cast(row, dtype)
    assert_same(toksample.mask_logits(row, **params, **word), reference.mask_logits(row, **params, **word))


# Each function as a call on rows and per-row parameters, for the tests of what all of them must do.
FUNCTIONS = {
    "argmax": lambda module, rows, params, word, **keywords: module.argmax(rows, **keywords),
    "softmax": lambda module, rows, params, word, **keywords: module.softmax(rows, params["temperature"], **keywords),
    "log_softmax": lambda module, rows, params, word, **keywords: module.log_softmax(
        rows, params["temperature"], **keywords
    ),
    "top_k": lambda module, rows, params, word, **keywords: module.top_k(rows, (rows.shape[-1] + 1) // 2, **keywords),
    "sample": lambda module, rows, params, word, **keywords: module.sample(rows, **params, **word, **keywords),
    "sample n": lambda module, rows, params, word, **keywords: module.sample(
        rows, **params, **word, n=3, replacement=False, **keywords
    ),
    "mask_logits": lambda module, rows, params, word, **keywords: module.mask_logits(
        rows, **params, **word, **keywords
    ),
}
functions = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())


@functions
@dtypes
@given(batch=batches, rng=generators)
def test_batch(function, dtype, batch, rng):
    params, word = make_params(rng, batch), make_words(rng, len(batch))
    batch = cast(batch, dtype)
    assert_same(function(toksample, batch, params, word), function(reference, batch, params, word))


PARAMETER_SETS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.5, "top_p": 0.9},
    {"temperature": 2.0, "top_p": 0.9999},
    {"temperature": 0.7, "min_p": 0.05},
    {"temperature": 1.0, "top_k": 5_000, "min_p": 1e-6},
    {"temperature": 100.0, "top_k": 16_384, "top_p": 0.5, "min_p": 0.1},
    {"temperature": 0.01, "top_p": 0.999},
    {"temperature": 1.0, "typical_p": 0.9},
    {"temperature": 1.5, "top_k": 20_000, "typical_p": 0.2},
    {"temperature": 1.0, "epsilon_cutoff": 3e-4},
    {"temperature": 1.5, "top_p": 0.999, "epsilon_cutoff": 1e-7},
    {"temperature": 100.0, "epsilon_cutoff": 1 / 32_768},
    {"temperature": 1.0, "top_a": 0.2},
    {"temperature": 1.5, "top_k": 20_000, "top_a": 1e-3, "epsilon_cutoff": 1e-6},
    {"temperature": 1.5, "top_n_sigma": 1.0},
    {"temperature": 100.0, "top_n_sigma": 4.0},
    {"temperature": 1.0, "top_k": 20_000, "top_n_sigma": 2.0},
    {"temperature": 1.5, "eta_cutoff": 1e-3},
    {"temperature": 1.5, "top_k": 20_000, "eta_cutoff": 1e-5},
    {"temperature": 1.0, "tfs": 0.95},
    {"temperature": 1.5, "tfs": 0.999},
    {"temperature": 1.5, "top_k": 20_000, "tfs": 0.9},
    {"temperature": 1.0, "top_h": 0.5},
    {"temperature": 100.0, "top_h": 0.5},
    {"temperature": 1.5, "top_k": 20_000, "top_h": 0.9},
    {"temperature": 1.5, "xtc_probability": 1.0, "xtc_threshold": 0.01},
    {"temperature": 100.0, "xtc_probability": 1.0, "xtc_threshold": 1 / 40_000},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "xtc_probability": 1.0, "order": ORDERS["llama.cpp"]},
    {"temperature": 2.0, "top_k": 50, "top_p": 0.999, "min_p": 1e-4, "order": ORDERS["vllm"]},
    {"temperature": 2.0, "top_p": 0.999, "order": ("top_p", "temperature")},
]


@pytest.mark.parametrize("params", PARAMETER_SETS, ids=repr)
def test_real_rows(real_batch, real_row, as_dtype, params):
    for row in [*as_dtype(real_batch[::2]), as_dtype(real_row)]:
        ids, probs = reference.candidates(row, **params)
        assert_same(toksample.candidates(row, **params), (ids, probs))
        masked = toksample.mask_logits(row, **params)
        assert_same(np.flatnonzero(masked != -np.inf), np.sort(ids))
        (edited,), _ = reference.functions.edited_rows(row, {})
        survivors = reference.survivors(edited, reference.Filters(**params))
        for seed in range(20):
            want = reference.draw(*survivors, reference.draw_word(seed, 0, 7))
            assert_same(toksample.sample(row, **params, seed=seed, position=7), want)


@pytest.mark.parametrize("temperature", [0.0, 0.01, 0.7, 1.5, 100.0])
def test_real_rows_of_probabilities(real_batch, real_row, as_dtype, temperature):
    for logits in (as_dtype(real_batch), as_dtype(real_row)):
        assert_same(toksample.softmax(logits, temperature), reference.softmax(logits, temperature))
        assert_same(toksample.log_softmax(logits, temperature), reference.log_softmax(logits, temperature))


@pytest.mark.parametrize("k", [1, 2, 50, 300, 5_000, 32_767, 32_768])
def test_real_rows_of_top_k(real_batch, real_row, as_dtype, k):
    for logits in (as_dtype(real_batch), as_dtype(real_row)):
        assert_same(toksample.argmax(logits), reference.argmax(logits))
        assert_same(toksample.top_k(logits, k), reference.top_k(logits, k))


@pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])
@pytest.mark.parametrize("size", [3, 70, 20_000])
def test_fewer_tokens_than_top_k(module, size):
    row = np.full(size, -np.inf, np.float32)
    row[size // 2] = 1.0
    for k in (2, size - 1, size, size + 1):
        assert np.flatnonzero(module.mask_logits(row, top_k=k) == 1.0).tolist() == [size // 2]
        assert module.candidates(row, top_k=k)[0].tolist() == [size // 2]
        assert module.sample(row, top_k=k, seed=1) == size // 2
        assert module.top_k(row, min(k, size))[1][0] == size // 2


LONG_SETS = [
    {"top_k": 3},
    {"top_k": 10_000},
    {"top_k": 15_000, "top_p": 0.9},
    {"top_k": 15_000, "top_p": 0.999, "min_p": 0.9},
    {"top_p": 0.01},
    {"top_p": 0.5},
    {"top_p": 0.9},
    {"top_p": 0.9999},
    {"top_p": 0.9, "min_p": 0.99},
    {"min_p": 1e-3},
    {"typical_p": 0.0},
    {"typical_p": 0.9},
    {"top_p": 0.99, "typical_p": 0.3},
    {"epsilon_cutoff": 1e-6},
    {"epsilon_cutoff": 5e-5},
    {"top_k": 15_000, "epsilon_cutoff": 5e-5},
    {"top_p": 0.9, "epsilon_cutoff": 1e-5, "top_a": 0.9},
    {"typical_p": 0.9, "epsilon_cutoff": 5e-5},
    {"top_a": 1e-6},
    {"top_a": 1.0},
    {"min_p": 1e-3, "top_a": 0.5},
    {"top_n_sigma": 0.5},
    {"top_n_sigma": 3.0},
    {"top_k": 15_000, "top_n_sigma": 1.5},
    {"typical_p": 0.9, "top_n_sigma": 0.7},
    {"eta_cutoff": 1e-4},
    {"top_k": 15_000, "eta_cutoff": 1e-8, "top_n_sigma": 2.0},
    {"tfs": 0.5},
    {"tfs": 0.97},
    {"top_k": 15_000, "tfs": 0.999},
    {"typical_p": 0.9, "tfs": 0.9},
    {"top_h": 0.9},
    {"top_k": 15_000, "top_h": 1.0},
    {"min_p": 0.9, "tfs": 0.99, "top_h": 0.3},
    {"xtc_probability": 1.0, "xtc_threshold": 1e-4},
    {"xtc_probability": 1.0, "xtc_threshold": 5e-5, "top_p": 0.9},
    {"top_k": 10_000, "min_p": 1e-3, "order": ("min_p", "temperature", "top_k_with_ties")},
    {"top_p": 0.9, "order": ("top_p_beyond", "temperature")},
    {"typical_p": 0.9, "top_p": 0.9, "xtc_probability": 1.0, "xtc_threshold": 1e-4, "order": ORDERS["llama.cpp"]},
    {"xtc_probability": 1.0, "xtc_threshold": 1e-4, "top_k": 100, "order": ("temperature", "xtc", "top_k")},
]


@pytest.mark.parametrize("size", [4_095, 4_096, 20_011])
@pytest.mark.parametrize("temperature", [0.3, 2.0, 1e4])
@pytest.mark.parametrize("kind", [*KINDS, "nearly flat", "one spike"])
def test_what_is_too_much_for_a_list(kind, temperature, size):
    """With flat rows, ties and a large k, passes over the row find what survives (src/kernels/prefix.rs)."""
    rng = np.random.default_rng(size)
    if kind == "nearly flat":
        row = (0.01 * rng.random(size)).astype(np.float32)
    elif kind == "one spike":
        row = np.where(np.arange(size) == size // 3, 30, 0).astype(np.float32)
    else:
        (row,) = make_rows(rng, kind, 1, size)
    order = reference.order(row)
    for params in LONG_SETS:
        filters = reference.Filters(temperature=temperature, **params)
        ids, kept_masses = reference.survivors(row, filters)
        masked = toksample.mask_logits(row, temperature=temperature, **params)
        finite = np.sort(ids[row[ids] != -np.inf])
        assert_same(np.flatnonzero(masked != -np.inf), finite)
        tokens = toksample.sample(
            np.broadcast_to(row, (5, size)),
            temperature=temperature,
            **params,
            seed=size,
            stream=range(5),
            num_threads=1,
        )
        words = [reference.draw_word(size, stream, 0) for stream in range(5)]
        assert tokens.tolist() == [reference.draw(ids, kept_masses, word) for word in words]
    values, ids = toksample.top_k(row, size // 2)
    assert_same(ids, order[: size // 2])
    assert_same(values, row[order[: size // 2]])


@pytest.mark.parametrize("kind", ["few values", "normal", "thresholds", "neighbours"])
def test_largest_row(kind):
    (row,) = make_rows(np.random.default_rng(11), kind, 1, 2**22)
    params = {"temperature": 1.5, "top_p": 0.999}
    assert_same(toksample.softmax(row, 1.5), reference.softmax(row, 1.5))
    assert_same(toksample.candidates(row, **params), reference.candidates(row, **params))
    unfiltered = reference.survivors(row, reference.Filters(1.5, 0, 1.0, 0.0))
    for seed in range(5):
        want = reference.draw(*unfiltered, reference.draw_word(seed, 0, 0))
        assert toksample.sample(row, temperature=1.5, seed=seed) == want


# ---- one answer whatever the form of the call --------------------------------------------------------------------------


@functions
@given(batch=batches, rng=generators)
def test_a_row_of_a_batch_is_the_row_alone(function, batch, rng):
    params, word = make_params(rng, batch), make_words(rng, len(batch))
    together = function(toksample, batch, params, word)
    for b, row in enumerate(batch):
        alone = function(toksample, row, one_row(params, b), one_row(word, b))
        if isinstance(alone, tuple):
            assert_same(tuple(part[b] for part in together), alone)
        else:
            assert_same(together[b].item() if isinstance(alone, int) else together[b], alone)


@given(batch=batches, seed=st.integers(0, 2**64 - 1), position=st.integers(0, 2**64 - 1))
def test_the_stream_of_a_row_is_its_index(batch, seed, position):
    tokens = toksample.sample(batch, seed=seed, position=position)
    streams = list(range(len(batch)))
    assert_same(tokens, toksample.sample(batch, seed=seed, position=position, stream=streams))
    alone = [toksample.sample(row, seed=seed, position=position, stream=b) for b, row in enumerate(batch)]
    assert tokens.tolist() == alone
    assert toksample.sample(batch[0], seed=seed, position=position) == tokens[0]


@functions
@given(batch=batches, rng=generators, num_threads=st.sampled_from([2, 3, 4, 7, 64, 2**40]))
def test_any_number_of_threads_is_one_thread(function, batch, rng, num_threads):
    params, word = make_params(rng, batch), make_words(rng, len(batch))
    one = function(toksample, batch, params, word, num_threads=1)
    assert_same(function(toksample, batch, params, word, num_threads=num_threads), one)
    assert_same(function(toksample, batch, params, word), one)


@functions
def test_any_number_of_threads_on_real_rows(function, real_batch):
    batch = np.tile(real_batch, (4, 1))
    rng = np.random.default_rng(5)
    params, word = make_params(rng, batch), make_words(rng, len(batch))
    one = function(toksample, batch, params, word, num_threads=1)
    for num_threads in (None, 2, 3, 24):
        assert_same(function(toksample, batch, params, word, num_threads=num_threads), one)


# Arrays with the same values as `batch`, but laid out differently in memory.
LAYOUTS = {
    "rows apart": lambda batch: np.tile(batch, 2)[:, : batch.shape[1]],
    "rows apart by an odd number": lambda batch: np.pad(batch, ((0, 0), (3, 4)))[:, 3:-4],
    "every other row": lambda batch: np.repeat(batch, 2, axis=0)[::2],
    "rows backwards": lambda batch: batch[::-1].copy()[::-1],
    "rows backwards and apart": lambda batch: np.repeat(batch[::-1], 3, axis=0)[::-3],
    "tokens apart": lambda batch: np.repeat(batch, 2, axis=1)[:, ::2],
    "tokens backwards": lambda batch: batch[:, ::-1].copy()[:, ::-1],
    "Fortran order": lambda batch: np.asfortranarray(batch),
}


@functions
@dtypes
@given(batch=batches, rng=generators, layout=st.sampled_from(sorted(LAYOUTS)))
def test_strided_is_contiguous(function, dtype, batch, rng, layout):
    params, word = make_params(rng, batch), make_words(rng, len(batch))
    batch = cast(batch, dtype)
    strided = LAYOUTS[layout](batch)
    assert_same(strided, batch)
    before = strided.copy()
    assert_same(function(toksample, strided, params, word), function(toksample, batch, params, word))
    assert_same(strided, before)


@functions
def test_one_row_seen_many_times(function):
    rng = np.random.default_rng(3)
    row = make_rows(rng, "normal", 1, 100)[0]
    seen = np.broadcast_to(row, (5, 100))
    assert seen.strides[0] == 0
    params, word = make_params(rng, seen), make_words(rng, 5)
    assert_same(function(toksample, seen, params, word), function(toksample, seen.copy(), params, word))


@given(row=rows, params=ordered_params, word=words)
def test_a_strided_single_row_is_contiguous(row, params, word):
    for strided in (np.repeat(row, 3)[::3], row[::-1].copy()[::-1]):
        assert toksample.sample(strided, **params, **word) == toksample.sample(row, **params, **word)
        assert_same(toksample.candidates(strided, **params, **word), toksample.candidates(row, **params, **word))


@given(batch=batches, rng=generators)
def test_permuted_rows_give_permuted_tokens(batch, rng):
    params, word = make_params(rng, batch), make_words(rng, len(batch))
    place = rng.permutation(len(batch))
    tokens = toksample.sample(batch, **params, **word)
    moved = pick(params | word, place)
    assert_same(toksample.sample(batch[place], **moved), tokens[place])


@functions
@dtypes
def test_logits_are_never_written(function, dtype):
    rng = np.random.default_rng(8)
    for kind in ("normal", "banned", "denormal"):
        batch = cast(make_rows(rng, kind, 6, 200), dtype)
        params, word = make_params(rng, batch), make_words(rng, len(batch))
        before = batch.copy()
        want = function(toksample, batch, params, word)
        assert_same(batch, before)
        batch.flags.writeable = False
        for values in (params | word).values():
            if isinstance(values, np.ndarray):
                values.flags.writeable = False
        assert_same(function(toksample, batch, params, word), want)
        assert_same(batch, before)


@functions
def test_results_share_no_memory_with_the_logits(function):
    rng = np.random.default_rng(8)
    batch = make_rows(rng, "normal", 6, 200)
    results = function(toksample, batch, make_params(rng, batch), make_words(rng, 6))
    for result in results if isinstance(results, tuple) else (results,):
        assert not np.shares_memory(result, batch)
        assert result.flags.writeable
        assert result.flags.c_contiguous


@pytest.mark.parametrize("module", [toksample, reference])
@dtypes
def test_out(module, dtype):
    rng = np.random.default_rng(9)
    batch = cast(make_rows(rng, "normal", 6, 200), dtype)
    for logits in (batch, batch[3], batch[:0]):
        shape = logits.shape
        for function in (module.softmax, module.log_softmax):
            out = np.full(shape, 7, np.float32)
            assert function(logits, 0.5, out=out) is out
            assert_same(out, function(logits, 0.5))
        out = np.full(shape[:-1], 7, np.int64)
        assert module.sample(logits, seed=3, out=out) is out
        assert out.tolist() == np.asarray(module.sample(logits, seed=3)).tolist()


def test_out_that_is_part_of_a_larger_array():
    rng = np.random.default_rng(9)
    batch = make_rows(rng, "normal", 6, 200)
    whole = np.full((10, 200), 7, np.float32)
    toksample.softmax(batch, out=whole[2:8])
    assert_same(whole[2:8], toksample.softmax(batch))
    assert np.all(whole[:2] == 7)
    assert np.all(whole[8:] == 7)


@given(batch=batches, rng=generators)
def test_marked_rows_leave_the_others_as_they_are(batch, rng):
    params, word = make_filters(rng, *batch.shape), make_words(rng, len(batch))
    want = toksample.sample(batch, **params, **word)
    wrong = rng.random(len(batch)) < 0.4
    batch[wrong, rng.integers(0, batch.shape[1])] = rng.choice([np.nan, np.inf])
    got = toksample.sample(batch, **params, **word, errors="mark")
    assert_same(got, np.where(wrong, -1, want))
    assert_same(got, reference.sample(batch, **params, **word, errors="mark"))
