"""The order of the edits and the filters, by which systems differ, and XTC, the filter that is random."""

import dataclasses
import functools
import itertools
import math
import pickle
import re

import numpy as np
import pytest
import scipy.stats
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
    make_rows,
    make_rules,
    make_words,
    one_row,
    orders,
    with_order,
)

import toksample
from toksample import Sampler, SamplingParams, reference
from toksample._orders import EDITS, ORDERS, STEPS, edits, steps

both = pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])
OTHERS = ("transformers", "vllm", "sglang", "llama.cpp", "mlx-lm")
ROW = np.float32([1.0, 3.0, 2.0, -1.0])


def logits_of(probabilities):
    return np.log(np.array(probabilities)).astype(np.float32)


def kept(row, **params):
    """Return the ids that survive, after a check that kernels and reference agree."""
    answers = toksample.candidates(row, **params), reference.candidates(row, **params)
    assert_same(*answers)
    return answers[0][0].tolist()


# ---- what an order may be ----------------------------------------------------------------------------------------------


def test_the_names_of_orders():
    assert steps(None) == steps("toksample") == ORDERS["toksample"]
    assert tuple(ORDERS) == ("toksample", *OTHERS)
    for name, order in ORDERS.items():
        assert steps(name) == steps(order) == steps(list(order)) == order
        assert "temperature" in order


def test_every_step_has_a_filter():
    assert set(reference.filters.STEPS) == set(STEPS) - {"temperature", "adaptive_p"}
    for step in (*EDITS, *STEPS):  # the kernels know each of them too
        assert toksample.candidates(ROW, order=[step])[0].tolist() == [1, 2, 0, 3]


@both
@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        ("vlm", ValueError, "order must be one of 'toksample', 'transformers', 'vllm', 'sglang', 'llama.cpp', 'mlx-lm', or a "
         "sequence of steps, got 'vlm'"),
        ("top_k", ValueError, "order must be one of .* got 'top_k'"),
        (5, TypeError, "order must be one of .*, or a sequence of steps, got 5"),
        (b"top_k", TypeError, "order must be one of .* got b'top_k'"),
        ({"top_k"}, TypeError, "order must be one of .* got {'top_k'}"),
        (["top_k", "xtc_probability"], ValueError, "order must have steps among logit_bias, .*, got 'xtc_probability'"),
        (["top_k", None], ValueError, "order must have steps among .*, got None"),
        ([["top_k"]], ValueError, r"order must have steps among .*, got \['top_k'\]"),
        (("top_k", "top_k"), ValueError, r"order must apply each parameter once, got top_k twice in \('top_k', 'top_k'\)"),
        (["top_p", "top_p_beyond"], ValueError, "order must apply each parameter once, got top_p twice in "),
        (["dry", "dry"], ValueError, "order must apply each parameter once, got dry_multiplier twice in "),
        (["dry_multiplier"], ValueError, "order must have steps among .*, got 'dry_multiplier'"),
        (["bitmask", "top_p"], ValueError, "order must have steps among .*, got 'bitmask'"),
        (["top_p", "dry", "top_k"], ValueError, "order must have its edits before the temperature and the filters, got dry "
         r"after top_p in \('top_p', 'dry', 'top_k'\)"),
        (["dry", "temperature", "logit_bias"], ValueError, "order must .* got logit_bias after temperature in "),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_orders(module, order, error, message):
    for call in (module.sample, module.candidates, module.mask_logits):
        with pytest.raises(error, match=f"^{message}"):
            call(ROW, order=order)
    for make in (SamplingParams, Sampler):
        with pytest.raises(error, match=f"^{message}"):
            make(order=order)


ON = {
    "temperature": 0.5,
    "top_k": 2,
    "top_p": 0.5,
    "min_p": 0.5,
    "typical_p": 0.5,
    "epsilon_cutoff": 0.5,
    "top_a": 0.5,
    "xtc_probability": 0.5,
    "eta_cutoff": 0.5,
    "top_n_sigma": 0.5,
    "tfs": 0.5,
    "top_h": 0.5,
    "mirostat": 2,
    "adaptive_target": 0.5,
}


@both
@pytest.mark.parametrize("name", sorted(set(STEPS.values())))
def test_a_filter_that_is_on_needs_a_step(module, name):
    order = tuple(step for step in ORDERS["toksample"] if STEPS[step] != name)
    message = re.escape(f"{name} must be off where the order has no step for it, got order {', '.join(order)}")
    batch = np.stack([ROW, ROW])
    off = SamplingParams().keywords()[name]
    for call in (module.sample, module.candidates, module.mask_logits):
        with pytest.raises(ValueError, match=f"^{message}$"):
            call(ROW, **{name: ON[name]}, order=order)
    with pytest.raises(ValueError, match=f"^{message}$"):
        module.sample(batch, **{name: [off, ON[name]]}, order=order)
    with pytest.raises(ValueError, match=f"^{message}$"):
        SamplingParams(**{name: ON[name]}, order=order)
    want = module.candidates(ROW)
    for value in (None, off, *([-1] if name == "top_k" else [])):
        assert_same(module.candidates(ROW, **{name: value}, order=order), want)
        assert SamplingParams(**{name: value}, order=order).order == order
        tokens = module.sample(batch, **{name: [off, value]}, order=order, seed=1)
        assert_same(tokens, module.sample(batch, seed=1))


@both
def test_the_error_shows_the_whole_order(module):
    with pytest.raises(ValueError, match=r"^top_k must be off .*, got order dry, logit_bias, top_p$"):
        module.sample(ROW, top_k=2, order=["dry", "logit_bias", "top_p"])


@both
def test_an_order_without_steps(module):
    assert_same(module.candidates(ROW, order=[]), module.candidates(ROW))
    with pytest.raises(ValueError, match=r"^temperature must be off .*, got order without steps$"):
        module.sample(ROW, temperature=0.0, order=[])


def test_the_default_order_by_its_name():
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((200, 50)).astype(np.float32)
    params, word = make_filters(rng, *rows.shape), make_words(rng, len(rows))
    want = toksample.sample(rows, **params, **word)
    for order in (None, "toksample", ORDERS["toksample"], list(ORDERS["toksample"])):
        assert_same(toksample.sample(rows, **params, **word, order=order), want)


@given(batch=batches, rng=generators, order=orders)
def test_a_row_of_a_batch_is_the_row_alone(batch, rng, order):
    params, word = with_order(make_filters(rng, *batch.shape), order), make_words(rng, len(batch))
    tokens, masked = toksample.sample(batch, **params, **word), toksample.mask_logits(batch, **params, **word)
    for b, row in enumerate(batch):
        alone = one_row(params | word, b)
        assert toksample.sample(row, **alone) == tokens[b]
        assert_same(toksample.mask_logits(row, **alone), masked[b])


@given(order=st.none() | st.sampled_from(sorted(ORDERS)) | orders)
def test_params_and_samplers(order):
    params = SamplingParams(order=order)
    assert steps(params.order) == steps(order)
    assert hash(params) == hash(SamplingParams(order=order))
    assert pickle.loads(pickle.dumps(params)) == params
    if isinstance(order, tuple):
        assert SamplingParams(order=list(order)) == params


def test_samplers_draw_in_the_order():
    row = np.random.default_rng(1).standard_normal(50).astype(np.float32)
    given = {"temperature": 3.0, "top_p": 0.5, "seed": 1}
    want = [toksample.sample(row, **given, order="llama.cpp", position=position) for position in range(40)]
    assert want != [toksample.sample(row, **given, position=position) for position in range(40)]
    for sampler in (Sampler(**given, order="llama.cpp"), Sampler(SamplingParams(**given, order="llama.cpp"))):
        drawn = [sampler(row) for _ in range(20)]
        again = pickle.loads(pickle.dumps(sampler))
        assert again.params.order == "llama.cpp"
        assert drawn + [again(row) for _ in range(20)] == want


# ---- the order of the edits --------------------------------------------------------------------------------------------

BY_HAND = {
    "logit_bias": {"logit_bias": {1: 0.75}},
    "sequence_bias": {"sequence_bias": {(2, 1): -0.5, (3, 1): 9.0}},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 1.5},
    "repetition_penalty": {"repetition_penalty": 1.25},
    "frequency_penalty": {"frequency_penalty": 0.625},
    "presence_penalty": {"presence_penalty": 0.375},
    "dry": {"dry_multiplier": 0.25, "dry_base": 2.0, "dry_allowed_length": 1},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (2, 1.5), "eos_token_ids": [1]},
}
"""Parameters that change the logit of token 1 after the history below."""

HISTORY = {"prompt_ids": [1, 2], "output_ids": [2, 1, 1, 2]}

EXPECTED = {
    "logit_bias": lambda x: x + 0.75,
    "sequence_bias": lambda x: x - 0.5,
    "encoder_repetition_penalty": lambda x: x * 1.5 if x > 0 else x / 1.5,
    "repetition_penalty": lambda x: x / 1.25 if x > 0 else x * 1.25,
    "frequency_penalty": lambda x: x - 2 * 0.625,
    "presence_penalty": lambda x: x - 0.375,
    "dry": lambda x: x - 0.25,  # the last token, 2, was followed by 1 before
    "exponential_decay_length_penalty": lambda x: x + abs(x) * (1.5**2 - 1),
}
"""What they do to it."""


def logit_of(module, row, token, **params):
    """Return the logit of a token after the edits, relative to that of the last token, which nothing changes."""
    ids, probs = module.candidates(row, **params)
    share = dict(zip(ids.tolist(), probs.tolist(), strict=True))
    return float(row[-1]) + np.log(share[token] / share[len(row) - 1])


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(order=st.permutations(sorted(EDITS)), x=st.floats(-2, 2, width=16), rng=generators)
def test_edits_in_any_order(module, dtype, order, x, rng):
    row = np.array([0.0, x, 0.5, -1.0], dtype)
    named = order[: rng.integers(0, 9)]
    on = [step for step in edits(named) if rng.random() < 0.6]
    want = float(dtype(x))
    for step in on:
        want = EXPECTED[step](want)
    params = HISTORY | {name: value for step in on for name, value in BY_HAND[step].items()}
    assert logit_of(module, row, 1, **params, order=named) == pytest.approx(want, abs=1e-4)


def test_edits_that_are_not_named_come_first():
    assert edits(steps("toksample")) == edits(()) == tuple(EDITS)
    assert edits(("top_p", "temperature")) == edits(tuple(EDITS)) == edits(tuple(EDITS)[3:]) == tuple(EDITS)
    assert edits(("dry", "logit_bias", "top_p")) == (
        *("sequence_bias", "encoder_repetition_penalty", "repetition_penalty", "frequency_penalty", "presence_penalty"),
        *("exponential_decay_length_penalty", "dry", "logit_bias"),
    )


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_edits_of_sglang(module, dtype):
    row = np.array([0.0, 2.0, -3.0, 1.0], dtype)
    given = {"repetition_penalty": 2.0, "frequency_penalty": 0.5, "presence_penalty": 0.25}
    given |= {"logit_bias": {1: 0.75, 2: 4.0}, "output_ids": [1, 2, 1]}
    logit = functools.partial(logit_of, module, row, **given)
    assert logit(1) == pytest.approx((2.0 + 0.75) / 2 - 2 * 0.5 - 0.25)
    assert logit(1, order="sglang") == pytest.approx((2.0 - 2 * 0.5 - 0.25) / 2 + 0.75)
    assert logit(2) == pytest.approx((-3.0 + 4.0) / 2 - 0.5 - 0.25)
    assert logit(2, order="sglang") == pytest.approx((-3.0 - 0.5 - 0.25) * 2 + 4.0)
    for order in ("transformers", "vllm", "llama.cpp"):
        assert logit(1, order=order) == logit(1)
    assert logit(1, order="mlx-lm") == pytest.approx(logit(1))
    # A bias of -inf bans its token, wherever it is in the order.
    banned = {"logit_bias": {1: -np.inf}, "repetition_penalty": 2.0, "output_ids": [1]}
    assert 1 not in module.candidates(row, **banned, order="sglang")[0]


@pytest.mark.parametrize("dtype", DTYPES)
@given(rng=generators, data=st.data())
def test_kernels_edit_in_the_order_of_the_reference(dtype, rng, data):
    kind, size = data.draw(st.sampled_from(sorted(KINDS))), data.draw(st.integers(1, 300))
    batch = cast(make_rows(rng, kind, 3, size), dtype)
    params = make_edits(rng, batch.astype(np.float32)) | make_rules(rng, 3, size)
    order = (*data.draw(st.lists(st.sampled_from(list(EDITS)), unique=True)), "temperature", "xtc")
    params |= {"order": order} | make_words(rng, 3)
    want = reference.sample(batch, **params, errors="mark")
    assert_same(toksample.sample(batch, **params, errors="mark"), want)
    for b in np.flatnonzero(want >= 0):
        alone = one_row(params, b)
        assert_same(toksample.candidates(batch[b], **alone), reference.candidates(batch[b], **alone))
        assert_same(toksample.mask_logits(batch[b], **alone), reference.mask_logits(batch[b], **alone))


def test_a_sampler_edits_in_the_order():
    row = np.random.default_rng(1).standard_normal(20).astype(np.float32) * 3
    given = {"repetition_penalty": 1.7, "frequency_penalty": 0.8, "logit_bias": {3: 2.0}, "seed": 1}
    for logits in (row, row.astype(np.float64)):
        sampler = Sampler(**given, order="sglang")
        tokens = [sampler(logits) for _ in range(30)]
        assert sampler.output_ids.tolist() == tokens
        want = [
            toksample.sample(logits, **given, order="sglang", position=position, output_ids=tokens[:position])
            for position in range(30)
        ]
        assert tokens == want
        other = Sampler(**given)
        assert tokens != [other(logits) for _ in range(30)]


def test_a_receipt_of_edits_in_an_order():
    params = SamplingParams(repetition_penalty=1.7, frequency_penalty=0.8, seed=1, order="sglang")
    receipt = toksample.sample(ROW, **params.keywords(), output_ids=[1, 1, 2], receipt=True)
    toksample.verify(receipt, ROW, params, output_ids=[1, 1, 2])
    with pytest.raises(ValueError, match=r"^receipt must be what the .* give, got "):
        toksample.verify(receipt, ROW, dataclasses.replace(params, order=None), output_ids=[1, 1, 2])


# ---- the orders of other systems, by hand ------------------------------------------------------------------------------

CASES = [
    # Where the sum is exactly p, SGLang keeps one token more.
    ([0.5, 0.25, 0.25], {"top_p": 0.5}, {"sglang": 2}, 1),
    ([0.5, 0.25, 0.25], {"top_p": 0.75}, {"sglang": 3}, 2),
    ([0.5, 0.25, 0.25], {"top_p": 0.6}, {}, 2),
    ([0.5, 0.25, 0.25], {"top_p": 0.0}, {}, 1),
    ([0.5, 0.25, 0.25], {"top_p": 1.0}, {}, 3),
    ([0.5, 0.3, 0.2], {"top_p": 0.7}, {}, 2),
    # Ties with the k-th.
    ([0.4, 0.2, 0.2, 0.2], {"top_k": 2}, {"transformers": 4, "vllm": 4}, 2),
    ([0.25, 0.25, 0.25, 0.25], {"top_k": 1}, {"transformers": 4, "vllm": 4}, 1),
    ([0.4, 0.3, 0.2, 0.1], {"top_k": 2}, {}, 2),
    ([0.4, 0.3, 0.2, 0.1], {"top_k": 7}, {}, 4),
    # top_p is a share of what top_k has kept, or comes before it.
    ([0.4, 0.3, 0.2, 0.1], {"top_k": 2, "top_p": 0.5}, {"sglang": 2, "mlx-lm": 2}, 1),
    # top_p is a share of what min_p has kept: a half, a quarter and a quarter of it are left.
    ([0.4, 0.2, 0.2, 0.1, 0.1], {"min_p": 0.4, "top_p": 0.7}, {"vllm": 2}, 3),
    # The temperature comes last. At temperature 1 the first token has a probability of 0.665, and at 0.5 of 0.867.
    (np.exp([3, 2, 1]), {"temperature": 0.5, "top_p": 0.8}, {"llama.cpp": 2, "mlx-lm": 2}, 1),
    (np.exp([3, 2, 1]), {"temperature": 0.5, "min_p": 0.2}, {"llama.cpp": 2, "mlx-lm": 2}, 1),
    (np.exp([3, 2, 1]), {"temperature": 2.0, "top_p": 0.6}, {"llama.cpp": 1, "mlx-lm": 1}, 2),
    (np.exp([3, 2, 1]), {"temperature": 0.0, "top_p": 0.9}, {}, 1),
    # top_k after XTC counts the tokens that XTC has left.
    ([0.4, 0.3, 0.2, 0.1], {"top_k": 2, "xtc_probability": 1.0, "xtc_threshold": 0.25}, {"mlx-lm": 2}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("probabilities", "params", "differ", "want"), CASES, ids=str)
def test_orders_by_hand(probabilities, params, differ, want):
    row = logits_of(probabilities)
    for name in ORDERS:
        if {name for name in params if name.startswith("xtc_p")} <= {STEPS.get(step) for step in ORDERS[name]}:
            assert len(kept(row, **params, order=name)) == differ.get(name, want), name


def test_the_temperature_applies_even_if_it_is_last():
    ids, probs = toksample.candidates(np.float32([3, 2, 1]), temperature=0.5, top_p=0.8, order="llama.cpp")
    assert ids.tolist() == [0, 1]
    assert probs == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))], rel=1e-5)


# ---- the orders of other systems, in float64 ---------------------------------------------------------------------------
#
# Each function is written as the code of its system is, and returns logits with -inf for each token that is dropped. Tokens
# are sorted by descending logit, and by ascending id among equal ones. Systems say nothing about the latter.


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def sorted_ids(x):
    return np.argsort(-x, kind="stable")


def drop(x, dropped):
    return np.where(dropped, -np.inf, x)


def drop_below_kth(x, k):
    return drop(x, x < np.sort(x)[-min(k, len(x))]) if k else x


def drop_up_to(x, probs, rest):
    """Drop the least probable tokens that sum to at most `rest`, but never the most probable one."""
    ids = sorted_ids(x)[::-1]
    dropped = np.cumsum(probs[ids]) <= rest
    dropped[-1] = False
    x = x.copy()
    x[ids[dropped]] = -np.inf
    return x


def transformers(x, temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff):
    x = drop_below_kth(x / temperature, top_k)
    if top_p < 1:
        x = drop_up_to(x, softmax(x), 1 - top_p)
    x = drop(x, softmax(x) < min_p * softmax(x).max())
    if typical_p < 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(softmax(x))
            distance = np.abs(surprise - np.nansum(softmax(x) * surprise))
        nearest = np.argsort(distance, kind="stable")
        last = np.count_nonzero(np.cumsum(softmax(x)[nearest]) < typical_p)
        x = drop(x, distance > distance[nearest[last]])
    return drop(x, (softmax(x) < epsilon_cutoff) & (x < x.max()))


def vllm(x, temperature, top_k, top_p, min_p):
    x = x / temperature
    x = drop(x, softmax(x) < min_p * softmax(x).max())
    x = drop_below_kth(x, top_k)
    return drop_up_to(x, softmax(x), 1 - top_p) if top_p < 1 else x


def sglang(x, temperature, top_k, top_p, min_p):
    x = x / temperature
    ids = sorted_ids(x)
    probs = softmax(x)[ids]
    dropped = np.cumsum(probs) - probs > top_p
    dropped |= np.arange(len(x)) >= (top_k or len(x))
    dropped |= probs < probs[0] * min_p
    x[ids[dropped]] = -np.inf
    return x


def llama_cpp(x, temperature, top_k, top_p, min_p, typical_p, xtc_probability, xtc_threshold):
    ids = sorted_ids(x)[: top_k or len(x)]
    if typical_p < 1:
        probs = softmax(x[ids])
        surprise = -np.log(probs)
        nearest = np.argsort(np.abs(surprise - (probs * surprise).sum()), kind="stable")
        ids = ids[np.sort(nearest[: np.count_nonzero(np.cumsum(probs[nearest]) <= typical_p) + 1])]
    if top_p < 1:
        ids = ids[: np.count_nonzero(np.cumsum(softmax(x[ids])) < top_p) + 1]
    if min_p > 0:
        ids = ids[x[ids] >= x[ids[0]] + math.log(min_p)]
    if xtc_probability == 1 and xtc_threshold <= 0.5:
        last = np.count_nonzero(softmax(x[ids]) >= xtc_threshold) - 1
        ids = ids[max(last, 0) :]
    return drop(x, ~np.isin(np.arange(len(x)), ids)) / temperature


def mlx_lm(x, temperature, top_k, top_p, min_p, xtc_probability, xtc_threshold):
    probs = softmax(x)
    if top_p < 1:
        x = drop_up_to(x, probs, 1 - top_p)
    if min_p > 0:
        x = drop(x, x < x.max() + math.log(min_p))
    if xtc_probability == 1:
        probs = softmax(x)
        x = drop(x, probs > np.where(probs > xtc_threshold, probs, np.inf).min())
    if top_k:
        x = drop(x, ~np.isin(np.arange(len(x)), sorted_ids(x)[:top_k]))
    return x / temperature


SYSTEMS = {"transformers": transformers, "vllm": vllm, "sglang": sglang, "llama.cpp": llama_cpp, "mlx-lm": mlx_lm}
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0}


def some_params(rng, size):
    """Make parameters of which some are on. No decision is close to a boundary, but for the ties of the row."""
    values = {
        "temperature": rng.uniform(0.3, 2),
        "top_k": int(rng.integers(1, size + 3)),
        "top_p": rng.uniform(0.05, 0.99),
        "min_p": rng.uniform(0.001, 0.4),
        "typical_p": rng.uniform(0.1, 0.95),
        "epsilon_cutoff": 10.0 ** rng.uniform(-4, -0.5),
    }
    on = {name: value for name, value in values.items() if rng.random() < 0.5}
    return OFF | on | {"xtc_probability": float(rng.integers(0, 2)), "xtc_threshold": rng.uniform(0.01, 0.5)}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("has_ties", [False, True], ids=["without ties", "with ties"])
def test_orders_are_those_of_their_systems(name, has_ties):
    rng = np.random.default_rng(len(name) + has_ties)
    system = SYSTEMS[name]
    its_own = system.__code__.co_varnames[1 : system.__code__.co_argcount]
    different = 0
    for _ in range(1_500):
        row = (rng.uniform(0.5, 3) * rng.standard_normal(rng.integers(2, 60))).astype(np.float32)
        params = some_params(rng, len(row))
        if has_ties:
            row = np.round(2 * row) / 2
            params |= {"typical_p": 1.0, "xtc_probability": 0.0}  # whose ties other systems cut in another way
        params = {parameter: params[parameter] for parameter in its_own}
        want = system(row.astype(np.float64), **params)
        ids, probs = toksample.candidates(row, **params, order=name)
        assert sorted(ids.tolist()) == np.flatnonzero(want > -np.inf).tolist(), (row, params)
        assert probs == pytest.approx(softmax(want)[ids], rel=2e-5)
        different += len(toksample.candidates(row, **params)[0]) != len(ids)
    # The order matters, except that transformers only treats ties differently.
    assert (different > 20) == (has_ties or name != "transformers")


# ---- XTC ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probabilities", "threshold", "want"),
    [
        # All that reach the threshold go, but the last of them: among equal ones, the one with the highest id stays.
        ([0.5, 0.25, 0.25], 0.25, [2]),
        ([0.5, 0.25, 0.25], 0.2500001, [0, 1, 2]),
        ([0.5, 0.25, 0.25], 0.5, [0, 1, 2]),
        ([0.5, 0.25, 0.125, 0.125], 0.25, [1, 2, 3]),
        ([0.125, 0.25, 0.5, 0.125], 0.2, [1, 0, 3]),
        ([0.25, 0.25, 0.25, 0.25], 0.25, [3]),
        ([0.25, 0.25, 0.25, 0.25], 0.26, [0, 1, 2, 3]),
        ([0.5, 0.5], 0.5, [1]),
        ([0.5, 0.5], np.nextafter(0.5, 1), [0, 1]),
        ([0.5, 0.5], 1.0, [0, 1]),
        ([1.0], 0.0, [0]),
        ([1.0], 1.0, [0]),
        ([0.5, 0.3, 0.2], 0.0, [2]),
        ([0.5, 0.3, 0.2], None, [2]),  # None is 0.1
        ([0.6, 0.35, 0.05], None, [1, 2]),
    ],
    ids=str,
)  # fmt: skip
def test_xtc_at_its_boundaries(probabilities, threshold, want):
    assert kept(logits_of(probabilities), xtc_probability=1.0, xtc_threshold=threshold) == want


@both
def test_xtc_by_an_independent_formula(module):
    rng = np.random.default_rng(5)
    dropped = 0
    for _ in range(300):
        row = (rng.uniform(0.2, 3) * rng.standard_normal(rng.integers(1, 80))).astype(np.float32)
        row[rng.random(len(row)) < 0.2] = -np.inf
        row[0] = 0
        temperature, threshold, top_k = rng.uniform(0.3, 2), rng.uniform(0, 0.4), int(rng.integers(1, 90))
        ids = [token for token in sorted_ids(row)[:top_k] if row[token] > -np.inf]
        probs = softmax(row[ids].astype(np.float64) / temperature)
        above = int(np.count_nonzero(probs >= threshold))
        params = {"temperature": temperature, "top_k": top_k, "xtc_threshold": threshold}
        for probability, want in ((1.0, ids[max(above - 1, 0) :]), (0.0, ids), (None, ids)):
            assert module.candidates(row, **params, xtc_probability=probability)[0].tolist() == want
        dropped += above > 1
    assert 50 < dropped < 250


@pytest.mark.parametrize("tokens", [2, 64, 65, 5_000, 100_000])
def test_xtc_alone_weighs_the_whole_row_where_it_must(tokens):
    """The maxima of the blocks are less than the row, so a threshold near a token's probability is the hard case."""
    rng = np.random.default_rng(tokens)
    dropped = 0
    for _ in range(20):
        row = rng.standard_normal(tokens).astype(np.float32)
        row[rng.choice(tokens, 2, replace=False)] += np.log(tokens, dtype=np.float32) + 1
        second = float(np.sort(toksample.softmax(row))[-2])
        for threshold in (second / 2, second * (1 - 1e-6), second, min(second * (1 + 1e-6), 1), min(second * 1.5, 1)):
            params = {"xtc_probability": 1.0, "xtc_threshold": threshold}
            (ids, probs), (want_ids, want_probs) = (
                module.candidates(row, **params) for module in (toksample, reference)
            )
            assert ids.tolist() == want_ids.tolist()
            assert probs.tolist() == want_probs.tolist()
            assert toksample.sample(row, **params, seed=3) == reference.sample(row, **params, seed=3)
            dropped += len(ids) < tokens
    assert 20 <= dropped <= 80  # at the lowest threshold always, and never at the highest


@both
def test_xtc_looks_at_what_earlier_filters_have_kept(module):
    row = logits_of([0.4, 0.3, 0.2, 0.1])
    xtc = {"xtc_probability": 1.0, "xtc_threshold": 0.35}
    assert module.candidates(row, **xtc)[0].tolist() == [0, 1, 2, 3]
    assert module.candidates(row, **xtc, top_k=2)[0].tolist() == [1]  # 0.57 and 0.43 are left
    assert module.candidates(row, **xtc, top_k=2, order=["xtc", "top_k"])[0].tolist() == [0, 1]
    assert module.candidates(row, **xtc, temperature=0.5)[0].tolist() == [0, 1, 2, 3]  # 0.53 and 0.3
    assert module.candidates(row, **(xtc | {"xtc_threshold": 0.25}), temperature=0.5)[0].tolist() == [1, 2, 3]
    # min_p after XTC is a share of the most probable token that is left.
    after = {"xtc_threshold": 0.25, "xtc_probability": 1.0, "min_p": 0.6, "order": ["xtc", "min_p"]}
    assert module.candidates(row, **after)[0].tolist() == [1, 2]


POSITIONS = 20_000
XTC = {"xtc_probability": 0.3, "xtc_threshold": 0.15}
WORDS = {
    "over positions": lambda n: {"seed": 1, "stream": 0, "position": n},
    "over seeds": lambda n: {"seed": n, "stream": 0, "position": 0},
    "over streams": lambda n: {"seed": 1, "stream": n, "position": 0},
}


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS.keys())
def test_how_often_xtc_acts_and_what_is_drawn(word):
    """The probabilities are those of the tokens with XTC and without it, and the two random words are independent."""
    row = logits_of([0.4, 0.3, 0.2, 0.1])
    rows = np.broadcast_to(row, (POSITIONS, 4))
    acts = toksample.mask_logits(rows, **XTC, **word(range(POSITIONS)))[:, 0] == -np.inf
    tokens = toksample.sample(rows, **XTC, **word(range(POSITIONS)))
    assert scipy.stats.binomtest(int(acts.sum()), POSITIONS, 0.3).pvalue > 1e-3
    # Of two positions in a row, 0.09 have both.
    pairs = int((acts[::2] & acts[1::2]).sum())
    assert scipy.stats.binomtest(pairs, POSITIONS // 2, 0.09).pvalue > 1e-3
    for drawn, probabilities in ((tokens[~acts], [0.4, 0.3, 0.2, 0.1]), (tokens[acts], [0, 0, 2 / 3, 1 / 3])):
        counts = np.bincount(drawn, minlength=4)
        possible = np.array(probabilities) > 0
        assert counts[~possible].sum() == 0
        expected = np.array(probabilities)[possible] * len(drawn)
        assert scipy.stats.chisquare(counts[possible], expected).pvalue > 1e-3


@both
def test_the_set_that_is_drawn_from(module):
    """With the same seed, stream and position, candidates and mask_logits show what sample draws from."""
    row = np.random.default_rng(2).standard_normal(30).astype(np.float32)
    params = {"temperature": 0.8, "top_p": 0.95, "xtc_probability": 0.5, "xtc_threshold": 0.05}
    sizes = set()
    for position, stream in itertools.product(range(60), (0, 7)):
        word = {"seed": 9, "stream": stream, "position": position}
        ids, _ = module.candidates(row, **params, **word)
        sizes.add(len(ids))
        masked = module.mask_logits(row, **params, **word)
        assert np.flatnonzero(masked > -np.inf).tolist() == sorted(ids.tolist())
        (float32_row,), _ = reference.functions.edited_rows(row, {})
        masses = reference.mass(float32_row, 0.8)[ids]
        drawn = reference.draw(ids, masses, reference.draw_word(9, stream, position))
        assert module.sample(row, **params, **word) == drawn
    assert len(sizes) == 2


@both
def test_draws_without_xtc_are_unchanged(module):
    row = np.random.default_rng(4).standard_normal(40).astype(np.float32)
    for position in range(50):
        plain = module.sample(row, seed=3, position=position)
        assert plain == reference.draw(np.arange(40), reference.mass(row, 1.0), reference.draw_word(3, 0, position))
        for off in ({"xtc_probability": 0.0}, {"xtc_threshold": 0.3}, {"xtc_probability": 1.0, "xtc_threshold": 0.6}):
            assert module.sample(row, seed=3, position=position, **off) == plain


@both
def test_xtc_of_each_row(module):
    rows = np.broadcast_to(logits_of([0.4, 0.3, 0.2, 0.1]), (4, 4))
    masked = module.mask_logits(rows, xtc_probability=[0.0, 1.0, 1.0, 1.0], xtc_threshold=[0.1, 0.15, 0.25, 0.5])
    assert (masked > -np.inf).tolist() == [
        [True] * 4,
        [False, False, True, True],
        [False, True, True, True],
        [True] * 4,
    ]


@both
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("exempt", "want"),
    [
        (None, [2, 3]),
        ([], [2, 3]),
        ([2, 3], [2, 3]),  # which stay in any case
        ([0], [0, 1, 2, 3]),
        ([1], [0, 1, 2, 3]),
        ((3, 1), [0, 1, 2, 3]),
        (np.array([1, 1]), [0, 1, 2, 3]),
    ],
)
def test_xtc_drops_nothing_if_it_would_drop_an_exempt_token(module, dtype, exempt, want):
    row = cast(logits_of([0.4, 0.3, 0.2, 0.1]), dtype)
    given = {"xtc_probability": 1.0, "xtc_threshold": 0.15, "xtc_exempt_token_ids": exempt}
    assert module.candidates(row, **given)[0].tolist() == want
    assert np.flatnonzero(module.mask_logits(row, **given) > -np.inf).tolist() == want
    ids = [] if exempt is None else list(exempt)
    smooth = module.candidates(row, **given, smoothing_factor=1e-3)[0].tolist()  # all are nearly equal
    assert smooth == ([0, 1, 2, 3] if ids else [3])
    left = module.candidates(row, **given, suppress_tokens=[0, 1])[0].tolist()  # token 2 is dropped if it may be
    assert left == ([2, 3] if 2 in ids else [3])
    assert module.candidates(row, **(given | {"xtc_probability": 0.0}))[0].tolist() == [0, 1, 2, 3]


@both
def test_each_row_has_exempt_tokens_of_its_own(module):
    rows = np.broadcast_to(logits_of([0.4, 0.3, 0.2, 0.1]), (3, 4))
    given = {"xtc_probability": 1.0, "xtc_threshold": 0.15}
    for exempt, want in (([[0], None, [2]], [4, 2, 2]), ([1], [4, 4, 4])):
        masked = module.mask_logits(rows, **given, xtc_exempt_token_ids=exempt)
        assert (masked > -np.inf).sum(axis=1).tolist() == want
    for wrong in ([4], [[4], None, None]):
        with pytest.raises(ValueError, match=r"^xtc_exempt_token_ids must be in \[0, 4\), got 4"):
            module.sample(rows, **given, xtc_exempt_token_ids=wrong)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_exempt_tokens_of_long_rows(kind):
    rng = np.random.default_rng(6)
    (row,) = make_rows(rng, kind, 1, 20_011)
    for threshold in (1e-7, 2e-5, 1e-3):
        for filters in ({}, {"top_p": 0.99}, {"typical_p": 0.9}, {"min_tokens_to_keep": 9_000}):
            given = {**filters, "temperature": 3.0, "xtc_probability": 1.0, "xtc_threshold": threshold}
            for exempt in ([int(rng.integers(len(row)))], [int(np.argmax(row))]):
                got = toksample.mask_logits(row, **given, xtc_exempt_token_ids=exempt)
                assert_same(got, reference.mask_logits(row, **given, xtc_exempt_token_ids=exempt))


def test_xtc_without_a_seed_takes_fresh_entropy():
    row = logits_of([0.5, 0.3, 0.2])
    sizes = {len(toksample.candidates(row, xtc_probability=0.5)[0]) for _ in range(200)}
    assert sizes == {1, 3}
    rows = np.broadcast_to(row, (200, 3))
    kept_of_each = (toksample.mask_logits(rows, xtc_probability=0.5) > -np.inf).sum(axis=1)
    assert set(kept_of_each.tolist()) == {1, 3}
    assert set(toksample.sample(rows, xtc_probability=1.0).tolist()) == {2}


def test_xtc_at_the_ends_of_its_probability():
    """The smallest probability that can act needs the smallest random word, which does not come up here."""
    row = np.broadcast_to(logits_of([0.5, 0.3, 0.2]), (1_000, 3))
    words = {"seed": 1, "stream": 0, "position": range(1_000)}
    for probability, want in ((5e-324, 3), (2.0**-64, 3), (1 - 2.0**-53, 1), (1.0, 1)):
        masked = toksample.mask_logits(row, xtc_probability=probability, **words)
        assert set((masked > -np.inf).sum(axis=1).tolist()) == {want}
        assert_same(masked, reference.mask_logits(row, xtc_probability=probability, **words))
    # The word decides: 2**-64 acts for the word 0 alone, and a probability of 1 for each.
    masses = reference.mass(logits_of([0.5, 0.3, 0.2]), 1.0)
    assert reference.filters.keep_xtc(masses, 2.0**-64, 0.1, 0) == (2, 3)
    assert reference.filters.keep_xtc(masses, 2.0**-64, 0.1, 1) == (0, 3)
    assert reference.filters.keep_xtc(masses, 5e-324, 0.1, 0) == (0, 3)
    assert reference.filters.keep_xtc(masses, 1.0, 0.1, 2**64 - 1) == (2, 3)


# ---- min_tokens_to_keep --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "want"),
    [
        ({"top_k": 1}, [0, 1, 2]),
        ({"top_k": 4}, [0, 1, 2, 3]),
        ({"top_p": 0.1}, [0, 1, 2]),
        ({"min_p": 1.0}, [0, 1, 2]),
        ({"epsilon_cutoff": 0.9}, [0, 1, 2]),
        ({"top_a": 1.0}, [0, 1, 2]),
        ({"typical_p": 0.01}, [0, 1, 2]),  # surprises 1, 2, 3, 4, 4 bits, of which 1.875 are expected
        ({"xtc_probability": 1.0, "xtc_threshold": 0.1}, [2, 3, 4]),
        ({"xtc_probability": 1.0, "xtc_threshold": 0.01}, [0, 1, 2, 3, 4]),  # or one token would be left
        ({"top_p": 0.1, "xtc_probability": 1.0, "xtc_threshold": 0.3}, [0, 1, 2]),
    ],
)
def test_each_filter_keeps_the_fewest(params, want):
    row = logits_of([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16])
    assert kept(row, min_tokens_to_keep=3, **params) == want


def test_the_fewest_are_no_more_than_there_are():
    row = np.where(np.arange(300) % 3 == 0, np.float32(1), -np.inf).astype(np.float32)
    for fewest in (2, 99, 100, 101, 2**64 - 1):
        assert kept(row, top_k=1, min_tokens_to_keep=fewest) == list(range(0, 3 * min(fewest, 100), 3))
        assert kept(row, top_k=7, min_p=1.0, min_tokens_to_keep=fewest) == list(
            range(0, 3 * min(max(7, fewest), 100), 3)
        )
    for off in (None, 0, 1):
        assert kept(row, top_k=1, min_tokens_to_keep=off) == [0]


@pytest.mark.parametrize("size", [5_000, 40_000])
@given(rng=generators, order=st.one_of(st.none(), orders))
def test_the_fewest_of_long_rows(size, rng, order):
    row = (rng.standard_normal(size) * 10.0 ** rng.uniform(-2, 1)).astype(np.float32)
    params = {name: values[0] for name, values in make_filters(rng, 1, size).items()}
    params = with_order(params, order) if order else params
    params["min_tokens_to_keep"] = int(rng.integers(2, 10.0 ** rng.uniform(1, 5)))
    params["seed"] = 7
    assert_same(toksample.candidates(row, **params), reference.candidates(row, **params))
    assert toksample.sample(row, **params) == reference.sample(row, **params)
