"""Speculative decoding: a draft never changes the text, and kernels and reference decide the same."""

import numpy as np
import pytest
from hypothesis import given
from rows import DTYPES, assert_same, batches, cast, generators, ordered_params, words
from scipy.special import softmax
from scipy.stats import chi2_contingency
from test_distribution import LEAST_P, p_value

import toksample
from toksample import SamplingParams, reference

V = 30
PARAMS = SamplingParams(temperature=1.2, top_p=0.95, seed=3, stream=8)
FILTERS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
    {"temperature": 1.5, "top_p": 0.9},
    {"temperature": 2.0, "top_p": 0.9999},
    {"temperature": 1.0, "top_k": 20_000},
    {"temperature": 1.5, "top_k": 20_000, "typical_p": 0.2},
    {"temperature": 100.0, "xtc_probability": 1.0, "xtc_threshold": 1 / 40_000},
    {"temperature": 100.0, "top_k": 20_000, "xtc_probability": 1.0, "xtc_threshold": 1 / 40_000},
    {"temperature": 1.0, "smoothing_factor": 0.1, "min_p": 0.001},
    {"temperature": 0.7, "repetition_penalty": 1.2, "frequency_penalty": 0.1},
]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
modules = pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])


def target(ids):
    """Return the logits of a model that looks at the last three ids."""
    return np.random.default_rng([7, *ids[-3:]]).normal(scale=2, size=V).astype(np.float32)


def target_rows(ids, drafted):
    """Return the logits after the ids and after each drafted token."""
    return np.stack([target([*ids, *drafted[:i]]) for i in range(len(drafted) + 1)])


def text_without_draft(mode, params, length, prompt):
    sampler = toksample.Sampler(params, prompt_ids=prompt)
    text = []
    for position in range(length):
        logits = target([*prompt, *text])
        if mode == "same_text":
            text.append(sampler(logits))
        else:
            history = {"prompt_ids": prompt, "output_ids": text}
            result = reference.verify_draft(logits[None], [], params, mode=mode, position=position, **history)
            text += result.tokens.tolist()
    return text


def good(ids, k, truth):
    return truth[:k]


def bad(ids, k, truth):
    return [(ids[-1] + 1 + i) % V for i in range(k)]


def adversarial(ids, k, truth):
    """Make a draft that is right up to a last token that is always wrong, and never the most probable one."""
    return [*truth[: k - 1], *((token + 1) % V for token in truth[k - 1 : k])]


DRAFTS = {"good": good, "bad": bad, "adversarial": adversarial}


def assert_verified(got, want):
    assert isinstance(got, toksample.Verified)
    assert_same((got.tokens, got.accepted), (want.tokens, want.accepted))


# ---- same text ---------------------------------------------------------------------------------------------------------


@modules
@pytest.mark.parametrize("mode", ["same_text", "race"])
@pytest.mark.parametrize("draft", DRAFTS.values(), ids=DRAFTS.keys())
@pytest.mark.parametrize("k", [0, 1, 2, 5, 11])
@pytest.mark.parametrize(
    "keywords",
    [
        {"temperature": 1.2, "top_p": 0.95},
        {"temperature": 0},
        {"temperature": 2.0, "xtc_probability": 0.5, "xtc_threshold": 0.05},
        {"frequency_penalty": 2.0, "repetition_penalty": 1.5, "no_repeat_ngram_size": 3, "dry_multiplier": 1.0},
        {"eos_token_ids": [4, 5], "min_new_tokens": 9, "logit_bias": {4: 30.0, 3: -np.inf}},
    ],
    ids=lambda keywords: next(iter(keywords)),
)
def test_the_text_is_the_same_with_any_draft(module, mode, draft, k, keywords):
    params = SamplingParams(**keywords, seed=3, stream=8)
    length, prompt = 24, [1, 2]
    truth = text_without_draft(mode, params, length + k + 1, prompt)
    text, accepted = [], 0
    while len(text) < length:
        ids, n = [*prompt, *text], len(text)
        drafted = draft(ids, k, truth[n:])
        result = module.verify_draft(
            target_rows(ids, drafted), drafted, params, mode=mode, position=n, prompt_ids=prompt, output_ids=text
        )
        assert result.tokens.dtype == np.int64
        assert len(result.tokens) == result.accepted + 1
        assert result.tokens[:-1].tolist() == drafted[: result.accepted]
        accepted += result.accepted
        text += result.tokens.tolist()
    assert text == truth[: len(text)]
    if draft is good:
        assert accepted == len(text) - -(-len(text) // (k + 1))  # all but one token of each step
    if draft is adversarial and k > 0:
        assert accepted == len(text) - -(-len(text) // k)


@dtypes
@given(batch=batches, params=ordered_params, rng=generators, word=words)
def test_same_text_of_kernels(dtype, batch, params, rng, word):
    params = {name: value for name, value in params.items() if not name.startswith(("mirostat", "adaptive"))}
    word["position"] = min(word["position"], 2**64 - len(batch))
    rows = cast(batch, dtype)
    positions = [word["position"] + i for i in range(len(rows))]
    drawn = np.atleast_1d(reference.sample(rows, **params, **word | {"position": positions}))
    wrong = rng.integers(0, len(rows))
    drafted = drawn[:-1].copy()
    drafted[wrong:] = rng.integers(0, rows.shape[1], len(drafted[wrong:]))
    got = toksample.verify_draft(rows, drafted, **params, **word)
    assert_verified(got, reference.verify_draft(rows, drafted.tolist(), **params, **word))
    assert got.accepted >= min(wrong, len(drafted))
    assert_same(got.tokens, drawn[: got.accepted + 1])


@modules
def test_parameters_may_be_keywords_or_in_one_object(module):
    rows = target_rows([1], [2, 3])
    one = module.verify_draft(rows, [2, 3], PARAMS)
    assert_verified(module.verify_draft(rows, np.int32([2, 3]), temperature=1.2, top_p=0.95, seed=3, stream=8), one)


@modules
def test_the_stream_is_0_for_all_rows(module):
    rows = np.zeros((9, V), np.float32)
    tokens = [int(module.sample(rows[0], seed=1, position=5 + i)) for i in range(9)]
    assert module.verify_draft(rows, tokens[:8], seed=1, position=5).tokens.tolist() == tokens


@modules
def test_without_a_seed_the_seed_is_fresh(module):
    rows = np.zeros((1, 10_000), np.float32)
    assert len({int(module.verify_draft(rows, []).tokens[0]) for _ in range(20)}) > 10


@modules
def test_each_row_has_its_own_bitmask(module):
    rows = np.zeros((3, V), np.float32)
    masks = np.int32([[1 << 4], [1 << 7], [1 << 9]])
    assert module.verify_draft(rows, [4, 7], seed=1, bitmask=masks).tokens.tolist() == [4, 7, 9]
    assert module.verify_draft(rows, [4, 9], seed=1, bitmask=masks).tokens.tolist() == [4, 7]


@pytest.mark.parametrize("mode", ["same_text", "race", "rejection"])
def test_threads_change_nothing(mode):
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(40, 5_000)).astype(np.float32)
    call = {"mode": mode, "seed": 1, "top_k": 3_000}
    if mode == "rejection":
        call["draft_logits"] = rows[:-1] + rng.normal(scale=0.01, size=(39, 5_000)).astype(np.float32)
        drafted = toksample.sample(call["draft_logits"], seed=1, stream=0, position=np.arange(39), top_k=3_000)
    elif mode == "race":
        drafted = race(toksample, rows, {"top_k": 3_000}, {"seed": 1, "position": 0})[:-1]
    else:
        drafted = toksample.sample(rows, seed=1, stream=0, position=np.arange(40), top_k=3_000)[:-1]
    want = toksample.verify_draft(rows, drafted, **call, num_threads=1)
    assert want.accepted == 39 or mode == "rejection"
    for threads in (2, 3, None):
        assert_verified(toksample.verify_draft(rows, drafted, **call, num_threads=threads), want)


# ---- race --------------------------------------------------------------------------------------------------------------


def race(module, rows, params, word):
    """Return the winner of each row, by a call without draft tokens for each."""
    calls = ((row[None], word | {"position": word["position"] + i}) for i, row in enumerate(rows))
    return [int(module.verify_draft(row, [], mode="race", **params, **one).tokens[0]) for row, one in calls]


@dtypes
@given(batch=batches, params=ordered_params, rng=generators, word=words)
def test_race_of_kernels(dtype, batch, params, rng, word):
    params = {name: value for name, value in params.items() if not name.startswith(("mirostat", "adaptive"))}
    word["position"] = min(word["position"], 2**64 - len(batch))
    rows = cast(batch, dtype)
    won = race(reference, rows, params, word)
    drafted = won[:-1]
    drafted[rng.integers(0, len(rows)) :] = []
    drafted += rng.integers(0, rows.shape[1], len(rows) - 1 - len(drafted)).tolist()
    got = toksample.verify_draft(rows, drafted, mode="race", **params, **word)
    assert got.tokens.tolist() == won[: got.accepted + 1]
    assert_verified(got, reference.verify_draft(rows, drafted, mode="race", **params, **word))


@pytest.mark.parametrize("place", range(11))
def test_race_of_real_rows(real_batch, place):
    history = {"prompt_ids": [1, 2, 3], "output_ids": [5, 6]}
    for row in real_batch[[place % 6, (place + 1) % 6]]:
        call = {"mode": "race", **FILTERS[place], **history, "seed": 7, "stream": 2, "position": 2**40}
        assert_verified(toksample.verify_draft(row[None], [], **call), reference.verify_draft(row[None], [], **call))


def races(row, params, count, seed=0):
    """Return the winners of many races in one row."""
    rows = np.broadcast_to(row, (2_000, len(row)))
    calls = (
        {**params, "seed": seed, "stream": stream, "position": np.arange(2_000, dtype=np.uint64)}
        for stream in range(count // 2_000)
    )
    return np.concatenate([toksample._native.draw_by_race(rows, call, None) for call in calls])


@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0.7, "top_p": 0.9}, {"temperature": 3.0, "min_p": 0.05}], ids=repr
)
@pytest.mark.parametrize("size", [12, 40, 1_000])
def test_a_race_gives_the_distribution_of_the_row(params, size):
    row = (2 * np.random.default_rng(size).standard_normal(size)).astype(np.float32)
    tokens, want = races(row, params, 200_000), distribution(row, params)
    assert p_value(tokens, want) > LEAST_P
    assert p_value(tokens, want**1.2 / (want**1.2).sum()) < 1e-6


def test_races_are_independent_of_one_another_and_of_draws():
    row = np.zeros(5, np.float32)
    tokens = races(row, {}, 200_000)
    drawn = np.concatenate(
        [
            toksample.sample(np.broadcast_to(row, (2_000, 5)), seed=0, stream=stream, position=np.arange(2_000))
            for stream in range(100)
        ]
    )
    for other in (drawn, np.roll(tokens, 1), np.roll(tokens, 2_000), races(row, {}, 200_000, seed=1)):
        table = np.zeros((5, 5))
        np.add.at(table, (tokens, other), 1)
        assert chi2_contingency(table).pvalue > LEAST_P


@pytest.mark.parametrize("noise", [0.1, 0.5, 2.0])
def test_a_race_accepts_as_many_tokens_as_it_should(noise):
    """Compare with the probability that two exponential races with the same clocks have the same winner."""
    rng = np.random.default_rng(3)
    row = (2 * rng.standard_normal(300)).astype(np.float32)
    other = row + rng.normal(scale=noise, size=300).astype(np.float32)
    p, q = distribution(row, {}), distribution(other, {})
    want = sum(1 / np.maximum(p / p[x], q / q[x]).sum() for x in range(300))
    rate = np.mean(races(row, {}, 40_000) == races(other, {}, 40_000))
    assert abs(rate - want) < 5 * np.sqrt(want * (1 - want) / 40_000)
    inverse = np.maximum(np.minimum(p.cumsum(), q.cumsum()) - np.maximum(p.cumsum() - p, q.cumsum() - q), 0).sum()
    assert inverse < 0.8 * rate  # what a draw with the same word would give


# ---- generate ----------------------------------------------------------------------------------------------------------


class Model:
    """The target as a model for a draft. It counts its calls."""

    def __init__(self, give=lambda rows: rows):
        self.calls = 0
        self.give = give

    def __call__(self, ids, logits_to_keep=1):
        self.calls += 1
        ids = list(ids)
        rows = target_rows(ids[: len(ids) - logits_to_keep + 1], ids[len(ids) - logits_to_keep + 1 :])
        return self.give(rows)


@pytest.mark.parametrize("draft", DRAFTS.values(), ids=DRAFTS.keys())
@pytest.mark.parametrize("k", [0, 1, 3, 12])
@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"temperature": 0},
        {"mirostat": 2, "mirostat_tau": 3.0, "mirostat_eta": 0.7},
        {"presence_penalty": 1.0, "repetition_penalty": 1.2, "xtc_probability": 0.5, "xtc_threshold": 0.05},
        {"min_new_tokens": 20, "stop_token_ids": [4, 7, 9]},
        {"stop_token_ids": [3, 8, 15, 22]},
        {"max_new_tokens": 1},
        {"max_new_tokens": 0},
    ],
    ids=lambda keywords: next(iter(keywords), "none"),
)
def test_generate_yields_the_same_text(draft, k, keywords):
    keywords = {"max_new_tokens": 30, "seed": 2, "stream": 5, **keywords}
    alone, helped = Model(), Model()
    want = list(toksample.generate(alone, [1, 2], **keywords))
    truth = [*want, *range(V)]
    got = list(toksample.generate(helped, [1, 2], draft=lambda ids: draft(ids, k, truth[len(ids) - 2 :]), **keywords))
    assert got == want
    if draft is good and not keywords.get("stop_token_ids"):
        assert helped.calls == -(-len(want) // (k + 1))
    assert helped.calls <= alone.calls


def test_generate_with_a_sampler_of_another_kind():
    class Largest:
        def __call__(self, logits):
            return int(np.argmax(logits))

    want = list(toksample.generate(Model(), [1, 2], Largest(), max_new_tokens=9))
    truth = [1, 2, *want]
    draft = lambda ids: truth[len(ids) : len(ids) + 4]  # noqa: E731
    assert list(toksample.generate(Model(), [1, 2], Largest(), draft=draft, max_new_tokens=9)) == want


@pytest.mark.parametrize(
    "give",
    [
        lambda rows: rows[None],
        lambda rows: rows.tolist(),
        lambda rows: [rows.tolist()],
        lambda rows: rows.astype(np.float64),
        lambda rows: memoryview(rows),
    ],
)
def test_the_model_may_return_rows_of_any_kind(give):
    keywords = {"max_new_tokens": 20, "seed": 2, "temperature": 0.5}
    want = list(toksample.generate(Model(), [1, 2], **keywords))
    truth = [1, 2, *want]
    draft = lambda ids: np.int64(truth[len(ids) : len(ids) + 3])  # noqa: E731
    assert list(toksample.generate(Model(give), [1, 2], draft=draft, **keywords)) == want


@pytest.mark.parametrize(
    ("give", "shape"),
    [
        (lambda rows: rows[-1], r"\(30,\)"),
        (lambda rows: rows[1:], r"\(2, 30\)"),
        (lambda rows: np.stack([rows, rows]), r"\(2, 3, 30\)"),
        (lambda rows: None, r"\(\)"),
    ],
)
def test_a_model_that_returns_other_steps(give, shape):
    tokens = toksample.generate(Model(give), [1, 2], draft=lambda ids: [3, 4], seed=1)
    rule = r"logits must be of shape \(3, V\) or \(1, 3, V\), for logits_to_keep=3, got shape "
    with pytest.raises(ValueError, match=rule + shape):
        next(tokens)


@pytest.mark.parametrize(
    ("draft", "error", "message"),
    [
        (lambda ids: None, TypeError, "draft must return a sequence of token ids, got None"),
        (lambda ids: 3, TypeError, "draft must return a sequence of token ids, got 3"),
        (lambda ids: [1.5], TypeError, r"draft must return a sequence of token ids, got \[1.5\]"),
        (lambda ids: "ab", TypeError, "draft must return a sequence of token ids, got 'ab'"),
        (lambda ids: [1, -1], ValueError, r"draft must return token ids >= 0, got \[1, -1\]"),
    ],
)
def test_a_draft_that_returns_no_token_ids(draft, error, message):
    with pytest.raises(error, match=message):
        next(toksample.generate(Model(), [1, 2], draft=draft))


def test_a_draft_must_be_callable():
    with pytest.raises(TypeError, match=r"draft must be callable, got \[1\]"):
        toksample.generate(Model(), [1, 2], draft=[1])


# ---- prompt lookup -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ngram", "tokens", "ids", "want"),
    [
        (1, 2, [], []),
        (1, 2, [7], []),
        (1, 2, [7, 8], []),
        (1, 2, [7, 8, 9, 7], [8, 9]),
        (1, 3, [7, 1, 2, 7, 3, 4, 7], [3, 4, 7]),  # the last occurrence
        (2, 9, [1, 2, 3, 4, 1, 2], [3, 4, 1, 2, 3, 4, 1, 2, 3]),
        (2, 2, [1, 2, 3, 5, 2], []),
        (3, 1, [1, 2, 3, 9, 2, 3], []),
        (3, 1, [1, 2, 3, 9, 1, 2, 3], [9]),
        (3, 4, [5, 5, 5], []),
        (3, 4, [5, 5, 5, 5], [5, 5, 5, 5]),
    ],
)
def test_prompt_lookup(ngram, tokens, ids, want):
    draft = toksample.PromptLookup(ngram=ngram, tokens=tokens)
    assert draft(ids) == draft(np.array(ids, np.int64)) == want


def test_prompt_lookup_of_a_text_that_repeats_itself():
    calls = []

    def model(ids, logits_to_keep):
        calls.append(logits_to_keep)
        return np.eye(10, dtype=np.float32)[(np.array(ids[-logits_to_keep:]) + 1) % 10]  # counts up

    keywords = {"temperature": 0, "draft": toksample.PromptLookup(), "max_new_tokens": 40}
    assert list(toksample.generate(model, list(range(10)) * 2, **keywords)) == [i % 10 for i in range(40)]
    assert calls == [9, 9, 9, 9, 4]


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"ngram": 0}, ValueError, "ngram must be >= 1, got 0"),
        ({"tokens": 0}, ValueError, "tokens must be >= 1, got 0"),
        ({"tokens": 1.5}, TypeError, "tokens must be an integer, got 1.5"),
    ],
)
def test_errors_of_prompt_lookup(keywords, error, message):
    with pytest.raises(error, match=message):
        toksample.PromptLookup(**keywords)


# ---- rejection ---------------------------------------------------------------------------------------------------------


def drawn_or_any(rng, rows, params, word):
    """Return for each row a token that the parameters keep: the one that a seed draws, or any of them."""
    tokens = []
    for b, row in enumerate(rows):
        ids, probs = reference.candidates(row, **params, **word | {"position": word["position"] + b})
        tokens.append(int(rng.choice(ids[probs > 0])))
    return tokens


@dtypes
@given(batch=batches, params=ordered_params, other=ordered_params, rng=generators, word=words)
def test_rejection_of_kernels(dtype, batch, params, other, rng, word):
    params, other = (
        {name: value for name, value in one.items() if not name.startswith(("mirostat", "adaptive"))}
        for one in (params, other)
    )
    word["position"] = min(word["position"], 2**64 - len(batch))
    rows = cast(batch, dtype)
    kind = rng.integers(0, 3)
    if kind == 0:
        draft_rows = cast(batch[:-1] + rng.normal(scale=0.1, size=batch[:-1].shape).astype(np.float32), dtype)
    else:
        draft_rows = cast(batch[1:] if kind == 1 else batch[:-1], DTYPES[rng.integers(0, 4)])
    other = other if rng.random() < 0.5 else params
    drafted = drawn_or_any(rng, draft_rows, other, word)
    if drafted and rng.random() < 0.1:
        drafted[rng.integers(0, len(drafted))] = int(rng.integers(0, rows.shape[1]))
    keywords = {
        "mode": "rejection",
        "draft_logits": draft_rows,
        "draft_params": SamplingParams(**other),
        **params,
        **word,
    }
    assert_same(outcome(toksample, rows, drafted, keywords), outcome(reference, rows, drafted, keywords))


def outcome(module, rows, drafted, keywords):
    """Return what a call returns, or the text of its error."""
    try:
        result = module.verify_draft(rows, drafted, **keywords)
    except ValueError as error:
        return str(error)
    return result.tokens, result.accepted


def next_tokens(module, target_rows, target, drafted, draft_rows, draft):
    """Return what comes at each place of a draft, after the first token that is not accepted as well."""
    if module is reference:
        rows = [reference.speculation.kept_rows(*one) for one in ((target_rows, target), (draft_rows, draft))]
        return reference.speculation.tokens_by_rejection(*rows, np.int64(drafted))
    return toksample._native.verify(target_rows, target, np.int64(drafted), draft_rows, draft, None)


@pytest.mark.parametrize("apart", [0, 1, 4])
@pytest.mark.parametrize("place", range(len(FILTERS)))
def test_rejection_of_real_rows(real_batch, place, apart):
    """Compare the tokens at all places, those after a rejection as well."""
    params, draft = FILTERS[place], FILTERS[(place + apart) % len(FILTERS)]
    rng = np.random.default_rng(4)
    target_rows = real_batch[[0, 1, 2, 3, 4, 5]]
    draft_rows = target_rows[:5] + rng.normal(scale=0.5, size=target_rows[:5].shape).astype(np.float32)
    draft_rows[4] = target_rows[0]  # a draft of another text
    history = {"prompt_ids": [[1, 2, 3]] * 6, "output_ids": [[5, 6]] * 6}
    for seed in range(3):
        word = {"seed": seed, "stream": 1}
        target = {**params, **word, **history, "position": np.arange(6)}
        own = {**draft, **word, "position": np.arange(5), **{name: ids[:5] for name, ids in history.items()}}
        drafted = toksample.sample(draft_rows, **own)
        arguments = target_rows, target, drafted, draft_rows, own
        assert_same(next_tokens(toksample, *arguments), next_tokens(reference, *arguments))


def small_rows():
    rng = np.random.default_rng(5)
    row = (2 * rng.standard_normal(40)).astype(np.float32)
    return {
        "good": (row, row + rng.normal(scale=0.3, size=40).astype(np.float32)),
        "the same": (row, row),
        "bad": (row, (2 * rng.standard_normal(40)).astype(np.float32)),
        "adversarial": (row, -row),  # the most probable tokens of one are the least probable of the other
        "uniform": (row, np.zeros(40, np.float32)),
        "without what is likely": (row, np.where(row > np.sort(row)[-5], -np.inf, row)),
        "disjoint": (np.where(np.arange(40) < 20, row, -np.inf), np.where(np.arange(40) < 20, -np.inf, row)),
    }


WAYS = {
    "no parameters": ({}, {}),
    "filters": ({"temperature": 0.8, "top_p": 0.9}, {"temperature": 0.8, "top_p": 0.9}),
    "other filters": ({"temperature": 0.8, "top_p": 0.95}, {"temperature": 1.3, "top_k": 7}),
    "greedy draft": ({"temperature": 0.8}, {"temperature": 0.0}),
    "greedy target": ({"temperature": 0.0}, {"temperature": 0.8}),
    "both greedy": ({"temperature": 0.0}, {"temperature": 0.0}),
    "xtc": ({"xtc_probability": 0.5, "xtc_threshold": 0.05}, {"xtc_probability": 0.5, "xtc_threshold": 0.05}),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("rows", small_rows().values(), ids=small_rows().keys())
def test_rejection_gives_the_distribution_of_the_target(rows, way):
    """The chi-square test of test_distribution.py, on tokens of drafts that were drawn with the same seed and position."""
    (row, draft_row), (params, draft) = rows, way
    tokens, accepted, places = [], [], 2_000
    for seed in range(60):
        word = {"seed": seed, "stream": 3, "position": np.arange(places, dtype=np.uint64)}
        draft_rows = np.broadcast_to(draft_row, (places, 40))
        drafted = toksample.sample(draft_rows, **draft, **word)
        target = {**params, **word, "position": np.arange(places + 1, dtype=np.uint64)}
        target_rows = np.broadcast_to(row, (places + 1, 40))
        got = next_tokens(toksample, target_rows, target, drafted, draft_rows, {**draft, **word})[:-1]
        tokens.append(got)
        accepted.append(got == drafted)
    tokens, want, of_draft = np.concatenate(tokens), distribution(row, params), distribution(draft_row, draft)
    assert tokens.min() >= 0
    if np.count_nonzero(want) == 1:
        assert np.all(tokens == want.argmax())
    else:
        assert p_value(tokens, want) > LEAST_P
        biased = want**1.05 / (want**1.05).sum()
        assert p_value(tokens, biased) < 1e-6
    if "xtc_probability" not in params:  # which decides about the target and the draft by the same word
        rate = np.minimum(want, of_draft).sum()
        assert abs(np.mean(accepted) - rate) < 5 * np.sqrt(rate * (1 - rate) / np.size(accepted)) + 1e-9


def distribution(row, params):
    """Return the probabilities of all tokens; with XTC, the mean of those with it and without it."""
    probs = np.zeros(len(row))
    for xtc in (0.0, 1.0):
        ids, each = reference.candidates(row, **params | {"xtc_probability": xtc})
        probs[ids] += each * abs(1 - xtc - params.get("xtc_probability", 0.0))
    return probs


@modules
def test_rejection_gives_texts_of_the_target(module):
    """The pairs of tokens of whole texts, through the public function, have their joint distribution."""
    rng = np.random.default_rng(8)
    first, second = rng.normal(size=4).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    draft_first, draft_second = rng.normal(size=4).astype(np.float32), rng.normal(size=(4, 4)).astype(np.float32)
    keywords = {"temperature": 0.9, "stream": 2}
    count = 10_000 if module is toksample else 1_000
    pairs = []
    for seed in range(count):
        word = {"seed": seed, **keywords}
        a = toksample.sample(draft_first, position=0, **word)
        b = toksample.sample(draft_second[a], position=1, **word)
        rows = np.stack([first, second[a], second[4]])
        drafts = np.stack([draft_first, draft_second[a]])
        text = module.verify_draft(rows, [a, b], mode="rejection", draft_logits=drafts, **word).tokens.tolist()
        if len(text) == 1:
            text += module.verify_draft(
                second[text], [], mode="rejection", draft_logits=drafts[:0], **word
            ).tokens.tolist()
        pairs.append(text[0] * 4 + text[1])
    want = softmax(first / 0.9)[:, None] * np.stack([softmax(row / 0.9) for row in second[:4]])
    assert p_value(np.array(pairs), want.ravel()) > LEAST_P


# ---- errors ------------------------------------------------------------------------------------------------------------

ROWS = np.zeros((3, V), np.float32)


@modules
@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((ROWS[0], []), {}, ValueError, r"target_logits must be of shape \(k \+ 1, V\), got shape \(30,\)"),
        ((ROWS[:0], []), {}, ValueError, r"target_logits must be of shape \(k \+ 1, V\), got shape \(0, 30\)"),
        ((ROWS[None], [1, 2]), {}, ValueError, r"target_logits must be of shape .* got shape \(1, 3, 30\)"),
        ((np.zeros((1, 3), int), []), {}, TypeError, "target_logits must be float32"),
        ((np.full((1, 3), np.nan), []), {}, ValueError, "target_logits must be finite or -inf, got nan at row 0, id 0"),
        ((ROWS, [1]), {}, ValueError, r"draft_tokens must be 2, one for each row of target_logits but the last, got 1"),
        ((ROWS, [1, 2, 3]), {}, ValueError, r"draft_tokens must be 2, .* got 3"),
        ((ROWS, [1, V]), {}, ValueError, r"draft_tokens must be in \[0, 30\), got 30"),
        ((ROWS, [1, -1]), {}, ValueError, r"draft_tokens must be in \[0, 30\), got -1"),
        ((ROWS, [1, 2.0]), {}, TypeError, r"draft_tokens must be a sequence of token ids, got \[1, 2.0\]"),
        ((ROWS, [[1], [2]]), {}, TypeError, "draft_tokens must be a sequence of token ids"),
        ((ROWS, [1, 2]), {"prompt_ids": [30]}, ValueError, r"prompt_ids must be in \[0, 30\), got 30"),
        ((ROWS, [1, 2]), {"output_ids": ["a"]}, TypeError, "output_ids must be a sequence of token ids"),
        ((ROWS, [1, 2]), {"position": 2**64 - 2}, ValueError, r"position must be in \[0, 2\*\*64 - 2\), got 18446744"),
        ((ROWS, [1, 2]), {"position": None}, TypeError, "position must be an integer, got None"),
        ((ROWS, [1, 2]), {"temperature": -1}, ValueError, "temperature must be 0 or in"),
        ((ROWS, [1, 2]), {"temperature": [1.0, 2.0, 3.0]}, TypeError, "temperature must be a number"),
        ((ROWS, [1, 2]), {"mirostat": 2}, ValueError, "mirostat must be 0 where a draft is verified, got 2"),
        ((ROWS, [1, 2]), {"params": PARAMS, "top_k": 3}, TypeError, "params and keywords must not both be given"),
        ((ROWS, [1, 2]), {"params": {"top_k": 3}}, TypeError, "params must be a SamplingParams"),
        ((ROWS, [1, 2]), {"topk": 3}, TypeError, "unexpected keyword argument 'topk'; did you mean 'top_k'"),
        ((ROWS, [1, 2]), {"bitmask": np.zeros((2, 1), np.int32)}, ValueError, "bitmask must"),
        (
            (ROWS, [1, 2]),
            {"mode": "Rejection"},
            ValueError,
            "mode must be 'same_text', 'race' or 'rejection', got 'Rejec",
        ),
        ((ROWS, [1, 2]), {"mode": None}, ValueError, "mode must be 'same_text', 'race' or 'rejection', got None"),
        ((ROWS, [1, 2]), {"draft_logits": ROWS[1:]}, ValueError, "draft_logits must be None where mode is 'same_text'"),
        ((ROWS, [1, 2]), {"draft_params": PARAMS}, ValueError, "draft_params must be None where mode is 'same_text'"),
        (
            (ROWS, [1, 2]),
            {"draft_logits": ROWS[1:], "mode": "race"},
            ValueError,
            "draft_logits must be None where mode is 'race'",
        ),
        ((ROWS, [1, 2]), {"mode": "rejection"}, ValueError, "draft_logits must be given where mode is 'rejection'"),
    ],
)
def test_errors(module, arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        module.verify_draft(*arguments, **keywords)


def with_value(value):
    rows = np.zeros((2, V), np.float32)
    rows[1, 3] = value
    return rows


@modules
@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        (
            {"draft_logits": ROWS},
            ValueError,
            r"draft_logits must be of shape \(k, V\), which is \(2, 30\), got shape \(3, 30\)",
        ),
        ({"draft_logits": ROWS[0]}, ValueError, r"draft_logits must be of shape \(k, V\), got shape \(30,\)"),
        ({"draft_logits": ROWS[1:, 1:]}, ValueError, r"draft_logits must be of shape .* got shape \(2, 29\)"),
        ({"draft_logits": "a"}, TypeError, "draft_logits must be"),
        (
            {"draft_logits": with_value(np.nan)},
            ValueError,
            "draft_logits must be finite or -inf, got nan at row 1, id 3",
        ),
        (
            {"draft_logits": with_value(np.inf).astype(np.float64)},
            ValueError,
            "draft_logits must be .*, got inf at row 1",
        ),
        ({"draft_params": {"top_k": 1}}, TypeError, "draft_params must be a SamplingParams, got {'top_k': 1}"),
        (
            {"draft_params": SamplingParams(mirostat=1)},
            ValueError,
            "mirostat must be 0 where a draft is verified, got 1",
        ),
        ({"draft_params": SamplingParams(logit_bias={30: 1.0})}, ValueError, r"logit_bias must .* got 30"),
        (
            {"draft_logits": with_value(-np.inf)},
            ValueError,
            "draft_tokens must be tokens that the draft's parameters keep, got 3 at index 1",
        ),
        (
            {"draft_params": SamplingParams(top_k=3)},
            ValueError,
            "draft_tokens must be tokens that the draft's parameters keep, got 3 at index 1",
        ),
        (
            {"draft_params": SamplingParams(temperature=0)},
            ValueError,
            "draft_tokens must be tokens that the draft's parameters keep, got 2 at index 0",
        ),
    ],
)
def test_errors_of_rejection(module, keywords, error, message):
    with pytest.raises(error, match=message):
        module.verify_draft(ROWS, [2, 3], **{"mode": "rejection", "draft_logits": ROWS[1:], "seed": 1, **keywords})


@modules
def test_the_logits_with_an_error_are_named(module):
    rows = np.concatenate([with_value(np.nan), ROWS[:1]])
    with pytest.raises(ValueError, match="target_logits must be finite or -inf, got nan at row 1, id 3"):
        module.verify_draft(rows, [2, 3], mode="rejection", draft_logits=ROWS[1:])


def test_the_last_position():
    assert toksample.verify_draft(ROWS, [1, 2], position=2**64 - 3, seed=1).tokens.size >= 1


def test_one_row(real_row):
    assert toksample.verify_draft(real_row[None], [], seed=1).tokens.tolist() == [toksample.sample(real_row, seed=1)]
