"""Speculative decoding: a draft never changes the text, and kernels and reference decide the same."""

import numpy as np
import pytest
from hypothesis import given
from rows import DTYPES, assert_same, batches, cast, generators, ordered_params, words

import toksample
from toksample import SamplingParams, reference

V = 30
PARAMS = SamplingParams(temperature=1.2, top_p=0.95, seed=3, stream=8)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
modules = pytest.mark.parametrize("module", [toksample, reference], ids=["kernels", "reference"])


def target(ids):
    """Return the logits of a model that looks at the last three ids."""
    return np.random.default_rng([7, *ids[-3:]]).normal(scale=2, size=V).astype(np.float32)


def target_rows(ids, drafted):
    """Return the logits after the ids and after each drafted token."""
    return np.stack([target([*ids, *drafted[:i]]) for i in range(len(drafted) + 1)])


def text_without_draft(params, length, prompt=(1, 2)):
    sampler = toksample.Sampler(params, prompt_ids=list(prompt))
    ids = list(prompt)
    for _ in range(length):
        ids.append(sampler(target(ids)))
    return ids[len(prompt) :]


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
def test_the_text_is_the_same_with_any_draft(module, draft, k, keywords):
    params = SamplingParams(**keywords, seed=3, stream=8)
    length, prompt = 24, [1, 2]
    truth = text_without_draft(params, length + k + 1, prompt)
    text, accepted = [], 0
    while len(text) < length:
        ids, n = [*prompt, *text], len(text)
        drafted = draft(ids, k, truth[n:])
        result = module.verify_draft(
            target_rows(ids, drafted), drafted, params, position=n, prompt_ids=prompt, output_ids=text
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
    params = {name: value for name, value in params.items() if name not in ("mirostat", "mirostat_mu")}
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


def test_threads_change_nothing():
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(40, 5_000)).astype(np.float32)
    drafted = toksample.sample(rows, seed=1, stream=0, position=np.arange(40))[:-1]
    want = toksample.verify_draft(rows, drafted, seed=1, num_threads=1)
    assert want.accepted == 39
    for threads in (2, 3, None):
        assert_verified(toksample.verify_draft(rows, drafted, seed=1, num_threads=threads), want)


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
    ],
)
def test_errors(module, arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        module.verify_draft(*arguments, **keywords)


def test_the_last_position():
    assert toksample.verify_draft(ROWS, [1, 2], position=2**64 - 3, seed=1).tokens.size >= 1


def test_one_row(real_row):
    assert toksample.verify_draft(real_row[None], [], seed=1).tokens.tolist() == [toksample.sample(real_row, seed=1)]
