"""SamplingParams, Sampler, generate, and the examples of the documentation."""

import copy
import dataclasses
import doctest
import inspect
import itertools
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import toksample
from toksample import GenerationConfig, Sampler, SamplingParams, generate, reference

LOGITS = np.random.default_rng(7).standard_normal(40).astype(np.float32)
PARAMS = {"temperature": 1.3, "top_k": 30, "top_p": 0.95, "min_p": 0.001, "seed": 5, "stream": 3}


# ---- SamplingParams ----------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_sample():
    params = SamplingParams()
    parameters = inspect.signature(toksample.sample).parameters
    assert {name: parameters[name].default for name in params.keywords()} == params.keywords()
    assert [field.name for field in dataclasses.fields(params)] == list(params.keywords())


def test_the_first_fields_keep_their_places():
    assert SamplingParams(0.5, 9, 0.9, 0.1, 7, 2) == SamplingParams(
        temperature=0.5, top_k=9, top_p=0.9, min_p=0.1, seed=7, stream=2
    )


def test_params_are_values():
    params = SamplingParams(**PARAMS)
    assert params.keywords() == SamplingParams().keywords() | PARAMS
    assert params == SamplingParams(**PARAMS)
    assert hash(params) == hash(SamplingParams(**PARAMS))
    assert params != SamplingParams(**{**PARAMS, "seed": 6})
    assert dataclasses.replace(params, top_k=1).top_k == 1
    assert eval(repr(params)) == params
    assert pickle.loads(pickle.dumps(params)) == params
    assert copy.deepcopy(params) == params


def test_a_bias_of_params_is_their_own():
    bias = {3: 1.5, 1: -np.inf}
    params = SamplingParams(logit_bias=bias)
    assert params.logit_bias == bias
    bias[3] = np.nan
    assert params.logit_bias == {1: -np.inf, 3: 1.5}
    assert hash(params) == hash(SamplingParams(logit_bias={1: -np.inf, 3: 1.5}))
    assert params != SamplingParams()
    assert pickle.loads(pickle.dumps(params)) == params


@pytest.mark.parametrize(
    ("parameters", "want"),
    [
        ({}, False),
        ({"repetition_penalty": 1.0, "frequency_penalty": 0, "presence_penalty": None, "penalty_window": 5}, False),
        ({"repetition_penalty": None, "logit_bias": {1: 2}, "typical_p": 0.5}, False),
        ({"repetition_penalty": 1.1}, True),
        ({"frequency_penalty": -0.1}, True),
        ({"presence_penalty": 1}, True),
    ],
)
def test_whether_the_history_matters(parameters, want):
    assert SamplingParams(**parameters).needs_history is want


def test_params_are_frozen():
    params = SamplingParams()
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.top_k = 1
    with pytest.raises((AttributeError, TypeError)):
        params.other = 1


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"temperature": -1.0}, ValueError, "temperature must be 0 or in [1e-30, 1e30], got -1.0"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number, got 'hot'"),
        ({"temperature": [1.0]}, TypeError, "temperature must be a number, got [1.0]"),
        ({"top_k": -2}, ValueError, "top_k must be in [0, 2**64), or -1, got -2"),
        ({"top_k": 1.0}, TypeError, "top_k must be an integer, got 1.0"),
        ({"top_p": -1}, ValueError, "top_p must be in [0, 1], got -1.0"),
        ({"top_p": 1.5}, ValueError, "top_p must be in [0, 1], got 1.5"),
        ({"min_p": float("nan")}, ValueError, "min_p must be in [0, 1], got nan"),
        ({"seed": -1}, ValueError, "seed must be in [0, 2**64), got -1"),
        ({"seed": 2**64}, ValueError, f"seed must be in [0, 2**64), got {2**64}"),
        ({"stream": 0.5}, TypeError, "stream must be an integer, got 0.5"),
    ],
)
def test_wrong_params(wrong, error, text):
    for make in (SamplingParams, Sampler, lambda **keywords: generate(None, [1], **keywords)):
        with pytest.raises(error) as info:
            make(**wrong)
        assert str(info.value) == text
    with pytest.raises(error) as info:
        dataclasses.replace(SamplingParams(), **wrong)
    assert str(info.value) == text


def test_unknown_params():
    for make in (SamplingParams, Sampler, lambda **keywords: generate(None, [1], **keywords)):
        with pytest.raises(TypeError, match="unexpected keyword argument 'typical'"):
            make(typical=1)
    with pytest.raises(TypeError, match=r"^got an unexpected keyword argument 'repeat_penalty'; did you mean 'repet"):
        Sampler(repeat_penalty=1.1)


# ---- Sampler -----------------------------------------------------------------------------------------------------------


def text(sampler, length=50):
    return [sampler(LOGITS) for _ in range(length)]


WANT = [reference.sample(LOGITS, **PARAMS, position=p) for p in range(50)]


def test_positions_are_counted():
    assert len(set(WANT)) > 5
    sampler = Sampler(**PARAMS)
    assert (sampler.position, sampler.seed, sampler.params) == (0, 5, SamplingParams(**PARAMS))
    assert text(sampler) == WANT
    assert sampler.position == 50
    assert text(Sampler(SamplingParams(**PARAMS))) == WANT


def test_reset_begins_again():
    sampler = Sampler(**PARAMS)
    text(sampler, 7)
    sampler.reset()
    assert sampler.position == 0
    assert text(sampler) == WANT


def test_without_a_seed_it_is_fresh_and_kept():
    first, second = Sampler(temperature=1.5), Sampler(temperature=1.5)
    assert first.seed != second.seed
    assert 0 <= first.seed < 2**64
    assert text(first) != text(second)
    assert [toksample.sample(LOGITS, temperature=1.5, seed=first.seed, position=p) for p in range(50)] != text(second)
    seed = second.seed
    second.reset()
    assert second.seed != seed
    tokens = text(second)
    assert text(Sampler(temperature=1.5, seed=second.seed)) == tokens
    assert second.params.seed is None


def test_without_a_seed_each_call_draws_anew_unless_it_is_greedy():
    rows = np.stack([LOGITS] * 2)
    tokens = [toksample.sample(rows, temperature=[0, 5]) for _ in range(50)]
    assert {int(greedy) for greedy, _ in tokens} == {toksample.sample(LOGITS, temperature=0)} == {LOGITS.argmax()}
    assert len({int(drawn) for _, drawn in tokens}) > 5
    assert len({toksample.sample(LOGITS, temperature=5) for _ in range(50)}) > 5


def test_numbers_of_any_type_are_the_same_parameter():
    want = toksample.sample(LOGITS, temperature=2.0, top_k=9, top_p=1.0, min_p=0.0, seed=8, position=1)
    for whole in (np.int64, np.uint8, np.array):
        for number in (int, np.float32, np.float64, np.int64, np.array):
            params = {"temperature": number(2), "top_p": number(1), "min_p": number(0)}
            assert toksample.sample(LOGITS, **params, top_k=whole(9), seed=whole(8), position=whole(1)) == want


def test_the_seed_in_use_draws_the_tokens():
    sampler = Sampler()
    seed = sampler.seed
    assert text(sampler) == [toksample.sample(LOGITS, seed=seed, position=p) for p in range(50)]


@pytest.mark.parametrize("duplicate", [lambda s: pickle.loads(pickle.dumps(s)), copy.copy, copy.deepcopy])
def test_a_duplicate_goes_on_where_it_was(duplicate):
    sampler = Sampler(**PARAMS)
    head = text(sampler, 20)
    other = duplicate(sampler)
    assert (other.position, other.params) == (20, sampler.params)
    assert head + text(other, 30) == head + text(sampler, 30) == WANT
    unseeded = Sampler(temperature=1.5)
    text(unseeded, 3)
    other = duplicate(unseeded)
    assert other.seed == unseeded.seed
    assert text(other) == text(unseeded)


@pytest.mark.parametrize("duplicate", [lambda s: pickle.loads(pickle.dumps(s)), copy.copy, copy.deepcopy])
def test_a_duplicate_is_independent(duplicate):
    sampler = Sampler(temperature=1.5)
    other = duplicate(sampler)
    seed = other.seed
    sampler.reset()
    text(sampler, 3)
    assert other.position == 0
    assert other.seed == seed
    assert text(other) == [toksample.sample(LOGITS, temperature=1.5, seed=seed, position=p) for p in range(50)]


def test_a_batch_is_a_text_for_each_row():
    batch = np.tile(LOGITS, (3, 1))
    sampler = Sampler(temperature=1.3, seed=5)
    for position in range(10):
        assert sampler(batch).tolist() == toksample.sample(batch, temperature=1.3, seed=5, position=position).tolist()
    assert sampler.position == 10


def test_an_error_leaves_the_position():
    sampler = Sampler(**PARAMS)
    head = text(sampler, 10)
    for wrong in (np.full(3, np.nan), np.arange(3), None, np.zeros((0,))):
        with pytest.raises((ValueError, TypeError)):
            sampler(wrong)
    assert sampler.position == 10
    assert head + text(sampler, 40) == WANT


def test_params_and_keywords_are_not_mixed():
    with pytest.raises(TypeError) as info:
        Sampler(SamplingParams(), top_k=1, seed=2)
    assert str(info.value) == "params and keywords must not both be given, got params and top_k, seed"


@pytest.mark.parametrize("wrong", [5, "greedy", {"top_k": 1}, object()])
def test_params_of_another_type(wrong):
    with pytest.raises(TypeError, match=r"^params must be "):
        Sampler(wrong)


def test_threads_share_a_sampler():
    """Each call takes its own position, so the tokens are the same as with one thread, in some order."""
    count, threads = 4_000, 8
    want = sorted(toksample.sample(LOGITS, **PARAMS, position=p) for p in range(count))
    sampler = Sampler(**PARAMS)
    barrier = threading.Barrier(threads)

    def draw(_):
        barrier.wait()
        return [sampler(LOGITS) for _ in range(count // threads)]

    with ThreadPoolExecutor(threads) as pool:
        tokens = [token for part in pool.map(draw, range(threads)) for token in part]
    assert sampler.position == count
    assert sorted(tokens) == want


# ---- the inputs of a sampler's call, and what it remembers ----------------------------------------------------------------

PENALTIES = {"repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.1, "penalty_window": 30}


def test_a_prompt_that_is_a_list_is_read_once():
    prompt = [1, 2, 3]
    sampler = Sampler(**PARAMS, **PENALTIES, prompt_ids=prompt)
    want = penalised_text(5, prompt_ids=[1, 2, 3], **PARAMS, **PENALTIES)
    prompt[:] = [4, 5, 6]
    assert text(sampler, 5) == want
    for wrong in ([1.0], [2**64], [-1], ["1"]):  # which the call refuses
        with pytest.raises((TypeError, ValueError), match="prompt_ids must be"):
            Sampler(**PARAMS, **PENALTIES, prompt_ids=wrong)(LOGITS)


def penalised_text(length, logits=LOGITS, prompt_ids=None, **parameters):
    """Return the text that the reference draws when it gets the whole history each time."""
    tokens = []
    for position in range(length):
        tokens.append(
            reference.sample(logits, **parameters, position=position, prompt_ids=prompt_ids, output_ids=tokens)
        )
    return tokens


def test_penalties_count_what_was_drawn():
    want = penalised_text(150, prompt_ids=[1, 2, 3], **PARAMS, **PENALTIES)
    assert want[:50] != WANT
    sampler = Sampler(**PARAMS, **PENALTIES, prompt_ids=[1, 2, 3])
    assert sampler.output_ids is None
    assert text(sampler, 150) == want  # more tokens than the buffer can hold at first
    assert sampler.output_ids.tolist() == want
    sampler.reset()
    assert sampler.output_ids is None
    assert text(sampler, 50) == want[:50]
    assert text(Sampler(SamplingParams(**PARAMS, **PENALTIES), prompt_ids=np.array([1, 2, 3])), 50) == want[:50]
    assert text(Sampler(**PARAMS, **PENALTIES), 50) == penalised_text(50, **PARAMS, **PENALTIES) != want[:50]


def test_without_a_penalty_nothing_is_kept():
    sampler = Sampler(**PARAMS, penalty_window=3, prompt_ids=[10**9])
    assert text(sampler) == WANT
    assert sampler.output_ids is None


def test_penalties_in_a_batch():
    batch = np.stack([LOGITS, LOGITS[::-1], np.roll(LOGITS, 7)])
    prompts = [[1, 2], None, np.array([5])]
    sampler = Sampler(**PARAMS, **PENALTIES, prompt_ids=prompts)
    drawn = np.array([sampler(batch) for _ in range(70)])
    assert sampler.output_ids.tolist() == drawn.T.tolist()
    for row, prompt, tokens in zip(batch, prompts, drawn.T.tolist(), strict=True):
        assert tokens == penalised_text(70, row, prompt_ids=prompt, **PARAMS, **PENALTIES)
    with pytest.raises(ValueError, match="must have token ids for each of the 2 rows, got 3"):
        sampler(batch[:2])


@pytest.mark.parametrize("duplicate", [lambda s: pickle.loads(pickle.dumps(s)), copy.copy, copy.deepcopy])
def test_a_duplicate_has_a_history_of_its_own(duplicate):
    want = penalised_text(40, prompt_ids=[7], **PARAMS, **PENALTIES)
    sampler = Sampler(**PARAMS, **PENALTIES, prompt_ids=[7])
    assert text(sampler, 10) == want[:10]
    other = duplicate(sampler)
    for expected in want[10:]:  # they take turns, so neither may write to memory that the other one reads
        assert sampler(LOGITS) == expected
        assert other(LOGITS) == expected


def test_an_error_leaves_the_history():
    sampler = Sampler(**PARAMS, **PENALTIES)
    head = text(sampler, 5)
    with pytest.raises(ValueError, match="logits must"):
        sampler(np.full(40, np.nan))
    with pytest.raises(ValueError, match="output_ids must"):
        sampler(LOGITS[:1])
    assert sampler.output_ids.tolist() == head
    assert head + text(sampler, 5) == penalised_text(10, **PARAMS, **PENALTIES)


def test_what_belongs_to_one_call():
    mask = np.int32([0b1111000, 0])
    given = {"bitmask": mask, "logit_bias": {4: 2.0}, "prompt_ids": [3, 3], "output_ids": [5, 4, 4]}
    for parameters in (PARAMS, {**PARAMS, **PENALTIES}, {**PARAMS, **PENALTIES, "logit_bias": {6: 9.0}}):
        sampler = Sampler(**parameters, prompt_ids=[1])
        for position in range(10):
            want = reference.sample(LOGITS, **parameters | given, position=position)
            assert sampler(LOGITS, **given) == want
        assert sampler.output_ids is None  # a call that brings its own history adds nothing to the sampler's
        bias, masked = parameters.get("logit_bias"), sampler(LOGITS, bitmask=mask)
        assert masked == reference.sample(LOGITS, **parameters, bitmask=mask, prompt_ids=[1], position=10)
        history = sampler.output_ids
        want = reference.sample(LOGITS, **parameters, prompt_ids=[2], output_ids=history, position=11)
        assert sampler(LOGITS, prompt_ids=[2]) == want
        assert sampler.params.logit_bias == bias
    with pytest.raises(TypeError, match="unexpected keyword argument 'top_k'"):
        sampler(LOGITS, top_k=1)


def test_errors_of_what_belongs_to_one_call():
    sampler = Sampler(**PARAMS)
    for given, message in [
        (
            {"bitmask": np.int32([1, 2, 3])},
            r"bitmask must be an int32 array of shape \(n,\) or \(1, n\), n in \[1, 2\]",
        ),
        ({"logit_bias": {40: 1.0}}, r"logit_bias must have token ids in \[0, 40\), got 40"),
        ({"prompt_ids": [40]}, r"prompt_ids must be in \[0, 40\), got 40"),
        ({"output_ids": [-1]}, r"output_ids must be in \[0, 40\), got -1"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            sampler(LOGITS, **given)
    assert text(sampler) == WANT


# ---- generate ----------------------------------------------------------------------------------------------------------


class Counting:
    """A model whose logits depend on the last token and on the number of tokens. It records its calls."""

    def __init__(self):
        self.asked = []

    def __call__(self, ids):
        self.asked.append(list(ids))
        return np.roll(LOGITS, ids[-1] + 3 * len(ids))


def test_generate_is_the_loop():
    ids, want = [4, 2], []
    for position in range(20):
        want.append(toksample.sample(Counting()(ids + want), **PARAMS, position=position))
    model = Counting()
    assert list(generate(model, ids, **PARAMS, max_new_tokens=20)) == want
    assert model.asked == [ids + want[:n] for n in range(20)]
    assert list(generate(Counting(), ids, SamplingParams(**PARAMS), max_new_tokens=20)) == want
    assert list(generate(Counting(), ids, Sampler(**PARAMS), max_new_tokens=20)) == want
    assert list(generate(Counting(), np.array(ids), **PARAMS, max_new_tokens=20)) == want
    assert ids == [4, 2]


def test_generate_penalises_prompt_and_text():
    prompt, want = [4, 2, 4], []
    for position in range(40):
        logits = Counting()(prompt + want)
        given = {"prompt_ids": prompt, "output_ids": want}
        want.append(reference.sample(logits, **PARAMS, **PENALTIES, position=position, **given))
    assert list(generate(Counting(), prompt, **PARAMS, **PENALTIES, max_new_tokens=40)) == want
    sampler = Sampler(**PARAMS, **PENALTIES, prompt_ids=prompt)
    assert list(generate(Counting(), prompt, sampler, max_new_tokens=40)) == want


def test_generate_stops_before_a_stop_token():
    want = list(generate(Counting(), [1], **PARAMS, max_new_tokens=20))
    stop = want[9]
    first = want.index(stop)
    for stops in ([stop], {stop, -1}, np.array([stop])):
        assert list(generate(Counting(), [1], **PARAMS, max_new_tokens=20, stop_token_ids=stops)) == want[:first]


@pytest.mark.parametrize("own", [None, {7: 2.5, 8: -np.inf}])
def test_generate_bans_stop_tokens_until_min_new_tokens(own):
    stops, params = [0, 5, *range(20, 400)], {**PARAMS, "logit_bias": own}  # most of which are no tokens of the model
    want = []
    for position in range(12):
        bans = dict.fromkeys((0, 5, *range(20, 40)), -np.inf) if position < 8 else {}
        bias = {**(own or {}), **bans}
        want.append(reference.sample(Counting()([1, *want]), **{**params, "logit_bias": bias}, position=position))
    keywords = {"max_new_tokens": 12, "min_new_tokens": 8, "stop_token_ids": stops}
    end = next((n for n, token in enumerate(want) if token in stops), 12)
    assert 8 <= end < 12
    assert list(generate(Counting(), [1], **params, **keywords)) == want[:end]
    assert list(generate(Counting(), [1], Sampler(**params), **keywords)) == want[:end]
    config = GenerationConfig(SamplingParams(**params), 12, None, 8, stops[:2], stops[2:])
    assert list(generate(Counting(), [1], config)) == want[:end]
    without = list(generate(Counting(), [1], **params, max_new_tokens=12, stop_token_ids=stops))
    assert without != want[:end]


def test_generate_with_a_config():
    want = list(generate(Counting(), [1, 2], **PARAMS, max_new_tokens=300))
    params = SamplingParams(**PARAMS)
    for conditions, keywords, length in (
        ({}, {}, 256),
        ({"max_new_tokens": 9}, {}, 9),
        ({"max_new_tokens": 9}, {"max_new_tokens": 4}, 4),
        ({"max_length": 9}, {}, 7),
        ({"max_length": 1}, {}, 0),
        ({"max_length": 9, "max_new_tokens": 300}, {}, 300),
        ({"eos_token_ids": want[3:4]}, {}, want.index(want[3])),
        ({"stop_token_ids": want[3:4]}, {}, want.index(want[3])),
        ({"eos_token_ids": want[3:4], "stop_token_ids": want[3:4]}, {"stop_token_ids": []}, 256),
    ):
        config = GenerationConfig(params, **conditions)
        assert list(generate(Counting(), [1, 2], config, **keywords)) == want[:length], conditions


def test_generate_stops_at_max_new_tokens():
    model = Counting()
    assert list(generate(model, [1], max_new_tokens=0)) == []
    assert model.asked == []
    assert len(list(generate(model, [1], max_new_tokens=3))) == 3
    assert len(model.asked) == 3
    assert len(list(generate(lambda ids: LOGITS, [1]))) == 256
    assert len(list(itertools.islice(generate(lambda ids: LOGITS, [1], max_new_tokens=10**5000), 300))) == 300


def test_generate_is_lazy():
    model = Counting()
    tokens = generate(model, [1], **PARAMS)
    assert model.asked == []
    first = next(tokens)
    assert model.asked == [[1]]
    next(tokens)
    assert model.asked == [[1], [1, first]]
    tokens.close()
    assert len(model.asked) == 2


def test_generate_with_any_sampler():
    assert list(generate(lambda ids: LOGITS, [1], lambda logits: len(logits), max_new_tokens=2)) == [40, 40]
    drawn = list(generate(lambda ids: LOGITS, [1], np.argmax, max_new_tokens=2))
    assert drawn == [LOGITS.argmax()] * 2
    assert [type(token) for token in drawn] == [int, int]


@pytest.mark.parametrize("drawn", [1.0, "1", None, np.array([1]), np.float32(1)])
def test_a_sampler_that_returns_no_integer(drawn):
    tokens = generate(lambda ids: LOGITS, [1], lambda logits: drawn)
    with pytest.raises(TypeError) as info:
        next(tokens)
    assert str(info.value).startswith(f"the sampler must return an integer, got {drawn!r} from <function ")


class Table:
    """Behaves like a data frame: it has a shape, but [0] is not its first row."""

    shape = (1, 40)

    def __array__(self, dtype=None, copy=None):
        return LOGITS[None]

    def __getitem__(self, column):
        return LOGITS[column : column + 1]


class Shapeless:
    """Has no usable shape, like arrays of libraries that refuse to tell it, or for which it is a method."""

    def __init__(self, shape):
        self._shape = shape

    @property
    def shape(self):
        return self._shape()

    def __array__(self, dtype=None, copy=None):
        return LOGITS


def refuse():
    raise RuntimeError("no shape")


@pytest.mark.parametrize(
    "give",
    [
        lambda row: row[None],
        lambda row: row[None, None],
        lambda row: row.tolist(),
        lambda row: [row.tolist()],
        lambda row: [[row.tolist()]],
        lambda row: ((tuple(row.tolist()),),),
        lambda row: [row],
        lambda row: [[row]],
        lambda row: [list(row)],
        lambda row: np.asfortranarray(row[None, None]),
        lambda row: memoryview(row),
        lambda row: memoryview(row[None]),
    ],
    ids=[
        "1V",
        "11V",
        "list",
        "1V list",
        "11V list",
        "tuples",
        "row in list",
        "row in lists",
        "scalars",
        "F",
        "view",
        "1V view",
    ],
)
def test_generate_takes_one_step_of_any_shape(give):
    want = list(generate(Counting(), [1], **PARAMS, max_new_tokens=5))
    model = Counting()
    assert list(generate(lambda ids: give(model(ids)), [1], **PARAMS, max_new_tokens=5)) == want
    for token in generate(lambda ids: give(LOGITS), [1], lambda row: np.asarray(row).shape[0], max_new_tokens=1):
        assert token == 40


@pytest.mark.parametrize(
    "logits", [Table(), Shapeless(refuse), Shapeless(lambda: len)], ids=["table", "refused", "method"]
)
def test_generate_takes_what_is_not_quite_an_array(logits):
    assert list(generate(lambda ids: logits, [1], temperature=0, max_new_tokens=1)) == [LOGITS.argmax()]


@pytest.mark.parametrize(
    ("logits", "shape", "hint"),
    [
        (np.zeros((5, 32)), "(5, 32)", ": for the last step, write logits[-1]"),
        (np.zeros((1, 5, 32)), "(1, 5, 32)", ": for the last step, write logits[:, -1]"),
        (np.zeros((2, 5, 32)), "(2, 5, 32)", ": for the last step of the first text, write logits[0, -1]"),
        (np.zeros((2, 1, 32)), "(2, 1, 32)", ": for the last step of the first text, write logits[0, -1]"),
        ([[0.0] * 32] * 5, "(5, 32)", ": for the last step, write logits[-1]"),
        ([[[0.0] * 32] * 5], "(1, 5, 32)", ": for the last step, write logits[0][-1]"),
        ([np.zeros((5, 32))], "(1, 5, 32)", ": for the last step, write logits[0][-1]"),
        (np.zeros((1, 1, 1, 32)), "(1, 1, 1, 32)", ""),
        (np.zeros((0, 32)), "(0, 32)", ""),
        (np.float32(1), "()", ""),
    ],
)
def test_logits_of_several_steps(logits, shape, hint):
    tokens = generate(lambda ids: logits, [1])
    with pytest.raises(ValueError, match=r"^logits must be of shape") as info:
        next(tokens)
    assert str(info.value) == f"logits must be of shape (V,), (1, V) or (1, 1, V), got shape {shape}{hint}"
    if hint:
        row = eval(hint.split("write ")[1], {"logits": logits})
        assert len(list(generate(lambda ids: row, [1], max_new_tokens=1))) == 1


def test_a_list_that_contains_itself():
    logits = []
    logits.append(logits)
    with pytest.raises(ValueError, match=r"^logits must be of shape"):
        next(generate(lambda ids: logits, [1]))


def test_generate_gives_num_threads_to_its_sampler(monkeypatch):
    given = []
    generate_module = sys.modules["toksample._generate"]

    def record(params, prompt_ids, **keywords):
        given.append((params, prompt_ids.tolist(), keywords))

    monkeypatch.setattr(generate_module, "Sampler", record)
    generate(None, [1], SamplingParams(), num_threads=2)
    generate(None, [1], num_threads=3, top_k=1)
    generate(None, [1], top_k=1)
    assert given == [
        (SamplingParams(), [1], {"num_threads": 2}),
        (SamplingParams(top_k=1), [1], {"num_threads": 3}),
        (SamplingParams(top_k=1), [1], {"num_threads": None}),
    ]


def test_the_prompt_may_change_after_the_call():
    prompt = [1]
    tokens = generate(Counting(), prompt, **PARAMS, max_new_tokens=3)
    prompt[0] = 9
    assert list(tokens) == list(generate(Counting(), [1], **PARAMS, max_new_tokens=3))


def test_an_error_of_the_model_comes_through():
    def model(ids):
        if len(ids) == 3:
            raise ZeroDivisionError
        return LOGITS

    tokens = generate(model, [1], seed=1)
    next(tokens)
    next(tokens)
    with pytest.raises(ZeroDivisionError):
        next(tokens)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"prompt_ids": []}, ValueError, "prompt_ids must have at least one token id, got none"),
        ({"prompt_ids": np.array([], int)}, ValueError, "prompt_ids must have at least one token id, got none"),
        ({"prompt_ids": "ab"}, TypeError, "^prompt_ids must be .*, got 'ab'$"),
        ({"prompt_ids": [1.0]}, TypeError, r"^prompt_ids must be .*, got \[1.0\]$"),
        ({"prompt_ids": 5}, TypeError, "^prompt_ids must be .*, got 5$"),
        ({"max_new_tokens": -1}, ValueError, "max_new_tokens must be >= 0, got -1"),
        ({"max_new_tokens": 1.5}, TypeError, "^max_new_tokens must be an integer, got 1.5$"),
        ({"max_new_tokens": "9"}, TypeError, "^max_new_tokens must be an integer, got '9'$"),
        ({"min_new_tokens": -1}, ValueError, "^min_new_tokens must be >= 0, got -1$"),
        (
            {"params": GenerationConfig(stop_strings=["."])},
            ValueError,
            r"^stop_strings must be empty where there is no tokenizer, got \('\.',\)$",
        ),
        ({"params": GenerationConfig(), "seed": 1}, TypeError, "params and keywords must not both be given"),
        ({"stop_token_ids": 5}, TypeError, "^stop_token_ids must be .*, got 5$"),
        ({"params": 5}, TypeError, "^params must be .*, got 5$"),
        (
            {"max_new_tokens": -(10**5000)},
            ValueError,
            "^max_new_tokens must be >= 0, got a negative integer of about 5001",
        ),
        (
            {"max_new_tokens": [10**5000]},
            TypeError,
            "^max_new_tokens must be an integer, got a list that cannot be shown",
        ),
        (
            {"prompt_ids": [10**5000]},
            ValueError,
            r"^prompt_ids must be in \[0, 2\*\*63\), got an integer of about 5001",
        ),
        ({"prompt_ids": [1, -1]}, ValueError, r"^prompt_ids must be in \[0, 2\*\*63\), got -1$"),
        ({"prompt_ids": [10**5000, "a"]}, TypeError, "^prompt_ids must be integers, got a list that cannot be shown"),
        (
            {"stop_token_ids": 10**5000},
            TypeError,
            "^stop_token_ids must be integers, got an integer of about 5001 digits$",
        ),
        ({"params": 10**5000}, TypeError, "^params must be .*, got an integer of about 5001 digits$"),
        (
            {"params": len, "num_threads": 1},
            TypeError,
            "a sampler and keywords must not both be given, got num_threads",
        ),
        ({"params": len, "seed": 1}, TypeError, "a sampler and keywords must not both be given, got seed"),
        ({"params": SamplingParams(), "seed": 1}, TypeError, "params and keywords must not both be given"),
        ({"top_p": 2}, ValueError, r"top_p must be in \[0, 1\], got 2.0"),
        ({"num_threads": 0}, ValueError, "num_threads must be >= 1, got 0"),
    ],
)
def test_generate_errors(keywords, error, message):
    """The errors are raised by the call itself, before the first token is requested."""
    model = Counting()
    with pytest.raises(error, match=message):
        generate(model, **{"prompt_ids": [1], **keywords})
    assert model.asked == []


# ---- documentation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "least"),
    [
        ("toksample", 3),
        ("toksample._sampling", 10),
        ("toksample._sampler", 5),
        ("toksample._generate", 6),
        ("toksample._logprobs", 3),
        ("toksample._scores", 4),
        ("toksample._sets", 5),
        ("toksample._parameters", 2),
        ("toksample._configs", 14),
        ("toksample._generation_config", 7),
        ("toksample._stop_strings", 3),
        ("toksample._speculation", 3),
        ("toksample._prompt_lookup", 4),
    ],
)
def test_examples(module, least):
    names = {"np": np, "toksample": toksample}
    module = __import__(module, fromlist=["x"])
    tests = [test for test in doctest.DocTestFinder().find(module, extraglobs=names) if test.examples]
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report = []
    for test in tests:
        runner.run(test, out=report.append)
    assert not runner.summarize(verbose=False).failed, "".join(report)
    assert runner.summarize(verbose=False).attempted >= least


def test_every_public_name_is_documented():
    for name in toksample.__all__:
        assert name.startswith("__") or getattr(toksample, name).__doc__, name


@pytest.mark.parametrize("module", [toksample, reference])
def test_the_parameters_of_a_draw_serve_every_function(module):
    """With one dict of parameters, including the seed, the drawn token is a candidate, and the mask keeps it."""
    same = {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "seed": 5, "position": 3, "stream": 2}
    token = module.sample(LOGITS, **same)
    assert token in module.candidates(LOGITS, **same)[0]
    assert np.isfinite(module.mask_logits(LOGITS, **same)[token])
