"""toksample.transformers against the real library. To run it:

    pip install '.[transformers,test]'
    pytest tests/extras

The models are made here, with random weights: a Gemma 3 that is small but for its vocabulary of 262,144, and others.
"""

import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import torch
import transformers

import toksample
import toksample.transformers

pytestmark = pytest.mark.filterwarnings("default")  # those of torch and transformers are not ours

PAD, EOS, BOS = 0, 1, 2
PARAMETERS = [
    {},
    {"top_k": 0},
    {"temperature": 0.7},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 0.7, "top_k": 0, "top_p": 0.9},
    {"temperature": 1.5, "top_k": 0, "top_p": 0.95, "min_p": 0.01},
    {"top_k": 7, "min_p": 0.3},
    {"top_k": 0, "min_p": 0.05},
    {"top_k": 300_000, "top_p": 1.0, "min_p": 0.0},
]


def make_model(vocab_size):
    """Make a small Gemma 3. Its logits have a standard deviation like those of a trained model, or less if tokens are few."""
    torch.manual_seed(20)
    config = transformers.Gemma3TextConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        initializer_range=0.7 if vocab_size > 1000 else 0.35,
        tie_word_embeddings=False,  # tied, such a model repeats itself
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
    )
    return transformers.Gemma3ForCausalLM(config).eval()


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models so small are slower on more, and much slower where a core is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    return make_model(262_144)


@pytest.fixture(scope="module")
def small():
    return make_model(64)


@pytest.fixture
def seen(model, small):
    """Collect the logits of the last position from each forward pass of the models."""
    logits = []
    hooks = [watch(one, logits) for one in (model, small)]
    yield logits
    for hook in hooks:
        hook.remove()


def watch(model, logits):
    return model.register_forward_hook(lambda _module, _inputs, output: logits.append(output.logits[:, -1]))


def generate(model, input_ids, **keywords):
    return model.generate(
        input_ids, custom_generate=toksample.transformers.generate, **{"max_new_tokens": 6, **keywords}
    )


def prompt(rows=1):
    return torch.tensor([[BOS, 17, 5, 30, 9 + row] for row in range(rows)])


def padded():
    """Return a batch of three prompts of lengths 5, 2 and 3, padded at the left as a tokenizer does it."""
    ids = torch.tensor([[BOS, 17, 5, 30, 9], [PAD, PAD, PAD, BOS, 40], [PAD, PAD, BOS, 8, 8]])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def expected(logits, parameters, seed):
    """Draw with toksample.sample what generate must have drawn, (B, steps); transformers' own default is top_k=50."""
    keywords = {"top_k": 50, **parameters, "seed": seed}
    rows = range(len(logits[0]))
    return torch.tensor(
        [[toksample.sample(x[b], **keywords, position=t, stream=b) for t, x in enumerate(logits)] for b in rows]
    )


# ---- equal to toksample.sample ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_tokens_are_those_of_sample(model, seen, parameters):
    sequences = generate(model, **padded(), do_sample=True, **parameters, seed=4)
    assert sequences.shape == (3, 5 + 6)
    assert sequences[:, :5].equal(padded()["input_ids"])
    assert sequences[:, 5:].equal(expected(seen, parameters, seed=4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype):
    seen = []
    half = make_model(262_144).to(dtype)
    watch(half, seen)
    sequences = generate(half, prompt(2), do_sample=True, temperature=0.7, top_p=0.9, seed=2)
    assert [x.dtype for x in seen] == [dtype] * 6
    assert sequences[:, 5:].equal(expected(seen, {"temperature": 0.7, "top_p": 0.9}, seed=2))


def test_rows_that_end_at_different_steps(model, seen):
    ends = list(range(0, 262_144, 4))  # a quarter of all tokens ends a text
    parameters = {"temperature": 1.2, "top_k": 0}
    sequences = generate(model, **padded(), do_sample=True, **parameters, eos_token_id=ends, seed=8, max_new_tokens=40)
    drawn = expected(seen, parameters, seed=8)
    lengths = [1 + [token % 4 for token in row].index(0) for row in drawn.tolist()]
    assert len(set(lengths)) == 3  # the seed is chosen so
    assert max(lengths) == len(seen) < 40
    assert sequences.shape == (3, 5 + max(lengths))
    for row, tokens, length in zip(sequences, drawn, lengths, strict=True):
        assert row[5 : 5 + length].equal(tokens[:length])
        assert (row[5 + length :] == PAD).all()


def test_num_return_sequences(small, seen):
    sequences = generate(small, prompt(2), do_sample=True, num_return_sequences=3, seed=1, eos_token_id=None)
    assert sequences[:, :5].equal(prompt(2).repeat_interleave(3, dim=0))
    assert sequences[:, 5:].equal(expected(seen, {}, seed=1))
    assert len({tuple(row) for row in sequences[:3, 5:].tolist()}) == 3


def test_logits_processors_come_first(model, seen):
    def halve(_input_ids, scores):
        return scores.mul_(0.5)

    own = transformers.LogitsProcessorList([halve, transformers.TopKLogitsWarper(3)])
    options = {"repetition_penalty": 1.3, "min_new_tokens": 4, "bad_words_ids": [[77]], "logits_processor": own}
    sequences = generate(model, prompt(2), do_sample=True, top_p=0.9, seed=3, **options)
    processors = transformers.LogitsProcessorList(
        [
            transformers.RepetitionPenaltyLogitsProcessor(1.3),
            transformers.NoBadWordsLogitsProcessor([[77]], eos_token_id=torch.tensor([EOS])),
            transformers.MinNewTokensLengthLogitsProcessor(5, 4, torch.tensor([EOS]), device="cpu"),
            *own,
        ]
    )
    logits = [processors(sequences[:, : 5 + t], step.clone()) for t, step in enumerate(seen)]
    assert sequences[:, 5:].equal(expected(logits, {"top_p": 0.9}, seed=3))


@pytest.mark.parametrize("where", ["the model", "the call"])
def test_the_generation_config_counts(small, seen, monkeypatch, where):
    parameters = {"temperature": 0.5, "top_k": 9, "top_p": 0.8, "min_p": 0.02}
    config = transformers.GenerationConfig(do_sample=True, max_new_tokens=5, **parameters)
    options = {"custom_generate": toksample.transformers.generate, "seed": 1}
    if where == "the model":
        monkeypatch.setattr(small, "generation_config", config)
    else:
        options["generation_config"] = config
    sequences = small.generate(prompt(), **options)
    assert sequences.shape == (1, 5 + 5)
    assert sequences[:, 5:].equal(expected(seen, parameters, seed=1))
    assert config.do_sample  # is left as it was


def test_encoder_decoder():
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=500, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0, pad_token_id=0
    )
    t5 = transformers.T5ForConditionalGeneration(config).eval()
    logits = []
    watch(t5, logits)
    ids = torch.tensor([[5, 6, 7, 1], [8, 1, 0, 0]])
    sequences = generate(t5, ids, attention_mask=(ids != 0).long(), do_sample=True, seed=1, eos_token_id=None)
    assert sequences[:, 1:].equal(expected(logits, {}, seed=1))


def test_seeds(small):
    def text(**keywords):
        return generate(small, prompt(), do_sample=True, max_new_tokens=20, eos_token_id=None, **keywords).tolist()

    assert text(seed=1) == text(seed=1) != text(seed=2)
    transformers.set_seed(7)
    first, second = text(), text()
    assert first != second
    transformers.set_seed(7)
    text(seed=1)  # which does not touch torch's generator
    assert [text(), text()] == [first, second]


# ---- equal to transformers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
        {"cache_implementation": "static"},
        {"temperature": 0.3, "top_p": 0.5},  # which it ignores, with a warning
    ],
    ids=str,
)
def test_greedy_is_that_of_transformers(model, options):
    options = {**padded(), **options, "do_sample": False, "max_new_tokens": 12}
    assert generate(model, **options).equal(model.generate(**options))


@pytest.mark.parametrize(
    "parameters", [{"top_k": 0}, {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.1}], ids=str
)
def test_distribution_is_that_of_transformers(small, parameters):
    """A two-sample chi-square test of the pairs of tokens after a prompt."""
    options = {"do_sample": True, "max_new_tokens": 2, "eos_token_id": None, **parameters}
    prompts = prompt().expand(20_000, -1)
    torch.manual_seed(5)
    ours = generate(small, prompts, seed=6, **options)
    theirs = small.generate(prompts, **options)
    counts = np.array([np.bincount(rows[:, 5] * 64 + rows[:, 6], minlength=64 * 64) for rows in (ours, theirs)])
    totals = counts.sum(axis=0)
    often = counts[:, totals >= 10]
    table = np.column_stack([often, counts[:, totals < 10].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    assert table.shape[1] > 10
    assert scipy.stats.chi2_contingency(table).pvalue > 0.01


class Streamer(transformers.generation.BaseStreamer):
    def __init__(self):
        self.got = []

    def put(self, value):
        self.got.append(value.tolist())

    def end(self):
        self.got.append("end")


def test_streamer(small):
    ours, theirs = Streamer(), Streamer()
    sequences = generate(small, prompt(), do_sample=False, streamer=ours)
    small.generate(prompt(), do_sample=False, max_new_tokens=6, streamer=theirs)
    assert ours.got == theirs.got
    assert ours.got == [prompt().tolist(), *([token] for token in sequences[0, 5:].tolist()), "end"]


def test_return_dict(small, seen):
    options = {"do_sample": True, "return_dict_in_generate": True, "output_logits": True, "output_hidden_states": True}
    ours = generate(small, prompt(), seed=1, **options)
    assert all(a.equal(b) for a, b in zip(ours.logits, seen, strict=True))
    assert ours.sequences[:, 5:].equal(expected(seen, {}, seed=1))
    theirs = small.generate(prompt(), max_new_tokens=6, **options)
    assert type(ours) is type(theirs)
    assert list(ours) == list(theirs) == ["sequences", "logits", "hidden_states", "past_key_values"]


# ---- errors ----------------------------------------------------------------------------------------------------------

MODE = "the generation mode must be sample or greedy_search where toksample draws, got "
PROCESSORS = "the logits processors must end with ['TopKLogitsWarper'], which toksample replaces, got "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 4}, f"{MODE}beam_sample"),
        ({"penalty_alpha": 0.6, "do_sample": False}, f"{MODE}contrastive_search"),
        ({"prompt_lookup_num_tokens": 3}, f"{MODE}assisted_generation"),
        ({"typical_p": 0.9}, f"{PROCESSORS}['TypicalLogitsWarper']"),
        ({"renormalize_logits": True}, f"{PROCESSORS}['LogitNormalization']"),
        (
            {"return_dict_in_generate": True, "output_scores": True},
            "output_scores must be False where toksample draws, got True",
        ),
        ({"seed": -1}, "seed must be in [0, 2**64), got -1"),
        ({"top_p": 0.0}, "top_p must be in (0, 1], got 0.0"),
    ],
    ids=str,
)
def test_errors(small, options, message):
    with pytest.raises(ValueError, match=r".") as caught:
        generate(small, prompt(), **{"do_sample": True, **options})
    assert str(caught.value) == message


def test_an_assistant_is_an_error(small):
    with pytest.raises(ValueError, match=f"{MODE}assisted_generation"):
        generate(small, prompt(), do_sample=True, assistant_model=make_model(64))


@pytest.mark.parametrize("do_sample", [True, False])
def test_logits_without_an_answer(small, do_sample):
    def spoil(_input_ids, scores):
        scores[1, 40] = float("nan")
        return scores

    with pytest.raises(ValueError, match="logits must be finite or -inf, got nan at row 1, id 40"):
        generate(small, prompt(2), do_sample=do_sample, logits_processor=transformers.LogitsProcessorList([spoil]))


def test_neither_library_is_imported_before_it_is_needed():
    code = "import sys, toksample, toksample.transformers; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
