"""toksample.transformers against the real library. Skipped where torch or transformers is not installed; to run it:

    pip install '.[transformers,test]'
    pytest tests/extras

The models are made here, with random weights: a Gemma 3 that is small but for its vocabulary of 262,144, and others.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.stats

import toksample
import toksample.transformers
from toksample import _sampler

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

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


def make_model(vocab_size: int, **config: Any) -> Any:
    """Make a small Gemma 3. Its logits have a standard deviation like those of a trained model, or less if tokens are few."""
    torch.manual_seed(20)
    model = transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(
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
            **config,
        )
    )
    return model.eval()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models so small are slower on more, and much slower where a core is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model(262_144)


@pytest.fixture(scope="module")
def small() -> Any:
    return make_model(64)


@pytest.fixture
def seen(model: Any, small: Any) -> Iterator[list[Any]]:
    """Collect the logits of the last position from each forward pass of the models."""
    logits: list[Any] = []
    hooks = [
        one.register_forward_hook(lambda _module, _inputs, output: logits.append(output.logits[:, -1]))
        for one in (model, small)
    ]
    yield logits
    for hook in hooks:
        hook.remove()


def generate(model: Any, input_ids: Any, **keywords: Any) -> Any:
    keywords.setdefault("max_new_tokens", 6)
    return model.generate(input_ids, custom_generate=toksample.transformers.generate, **keywords)


def prompt(rows: int = 1) -> Any:
    return torch.tensor([[BOS, 17, 5, 30, 9 + row] for row in range(rows)])


def padded() -> dict[str, Any]:
    """Return a batch of three prompts of lengths 5, 2 and 3, padded at the left as a tokenizer does it."""
    ids = torch.tensor([[BOS, 17, 5, 30, 9], [PAD, PAD, PAD, BOS, 40], [PAD, PAD, BOS, 8, 8]])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def expected(logits: list[Any], parameters: dict[str, Any], seed: int) -> Any:
    """Draw with toksample.sample what generate must have drawn, (B, steps); transformers' own default is top_k=50."""
    keywords = {"top_k": 50, **parameters}
    return torch.tensor(
        np.stack([toksample.sample(row, **keywords, seed=seed, position=t) for t, row in enumerate(logits)], axis=1)
    )


# ---- equal to toksample.sample ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_tokens_are_those_of_sample(model: Any, seen: list[Any], parameters: dict[str, Any]) -> None:
    sequences = generate(model, prompt(), do_sample=True, **parameters, seed=4)
    assert sequences[:, :5].equal(prompt())
    assert sequences[:, 5:].equal(expected(seen, parameters, seed=4))


def test_each_row_is_a_stream(model: Any, seen: list[Any]) -> None:
    parameters = {"temperature": 0.9, "top_k": 0, "top_p": 0.9}
    sequences = generate(model, prompt().repeat(3, 1), do_sample=True, **parameters, seed=4)
    assert sequences[:, 5:].equal(expected(seen, parameters, seed=4))
    one_by_one = [
        [toksample.sample(step[b], **parameters, seed=4, position=t, stream=b) for t, step in enumerate(seen)]
        for b in range(3)
    ]
    assert sequences[:, 5:].tolist() == one_by_one
    assert len({tuple(row) for row in one_by_one}) == 3


def test_padded_batch_with_rows_that_end_at_different_steps(model: Any, seen: list[Any]) -> None:
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


def test_num_return_sequences_expands_the_batch(model: Any, seen: list[Any]) -> None:
    sequences = generate(model, prompt(2), do_sample=True, num_return_sequences=3, seed=1)
    assert sequences[:, :5].equal(prompt(2).repeat_interleave(3, dim=0))
    assert sequences[:, 5:].equal(expected(seen, {}, seed=1))
    assert len({tuple(row) for row in sequences[:3, 5:].tolist()}) == 3


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_logits_are_read_in_place(seen: list[Any], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    half = make_model(262_144).to(getattr(torch, name))
    half.register_forward_hook(lambda _module, _inputs, output: seen.append(output.logits[:, -1]))
    given: list[Any] = []

    def spy(logits: Any, **keywords: Any) -> Any:
        given.append(logits)
        return toksample.sample(logits, **keywords)

    monkeypatch.setattr(_sampler, "sample", spy)
    parameters = {"temperature": 0.7, "top_k": 0, "top_p": 0.9}
    sequences = generate(half, prompt(2), do_sample=True, **parameters, seed=2)
    assert sequences[:, 5:].equal(expected(seen, parameters, seed=2))
    read = [x for x in given if isinstance(x, torch.Tensor)]  # and not the row on which parameters are checked
    assert [x.dtype for x in read] == [getattr(torch, name)] * 6
    assert [x.data_ptr() for x in read] == [x.data_ptr() for x in seen]


def test_logits_processors_come_first(model: Any, seen: list[Any]) -> None:
    def halve(_input_ids: Any, scores: Any) -> Any:
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


# ---- equal to transformers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 2},
        {"suppress_tokens": [5, 6], "min_length": 9},
        {"temperature": 0.3, "top_p": 0.5},  # which it ignores, with a warning
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "batch", [{"input_ids": prompt()}, {"input_ids": prompt(2)}, padded()], ids=["one", "two", "padded"]
)
def test_greedy_is_that_of_transformers(model: Any, batch: dict[str, Any], options: dict[str, Any]) -> None:
    options = {**batch, **options, "do_sample": False, "max_new_tokens": 12}
    assert generate(model, **options).equal(model.generate(**options))


@pytest.mark.parametrize(
    "parameters",
    [
        {"top_k": 0},
        {},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.9},
        {"temperature": 1.5, "top_k": 0, "top_p": 0.8},
        {"temperature": 1.5, "top_k": 0, "min_p": 0.05},
    ],
    ids=str,
)
def test_distribution_is_that_of_transformers(small: Any, parameters: dict[str, Any]) -> None:
    """A two-sample chi-square test of the pairs of tokens after a prompt."""
    options = {
        "do_sample": True,
        "max_new_tokens": 2,
        "num_return_sequences": 20_000,
        "eos_token_id": None,
        **parameters,
    }
    torch.manual_seed(5)
    ours = generate(small, prompt(), seed=6, **options)
    theirs = small.generate(prompt(), **options)
    counts = np.array([np.bincount(rows[:, 5] * 64 + rows[:, 6], minlength=64 * 64) for rows in (ours, theirs)])
    totals = counts.sum(axis=0)
    often = counts[:, totals >= 10]
    table = np.column_stack([often, counts[:, totals < 10].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    assert table.shape[1] > 10
    assert scipy.stats.chi2_contingency(table).pvalue > 0.01


def test_lengths(small: Any) -> None:
    for options in (
        {"max_new_tokens": 1},
        {"max_new_tokens": 9},
        {"max_new_tokens": None, "max_length": 8},
        {"max_new_tokens": None},
    ):
        ours = generate(small, prompt(2), do_sample=True, eos_token_id=None, seed=1, **options)
        theirs = small.generate(prompt(2), do_sample=True, eos_token_id=None, **options)
        assert ours.shape == theirs.shape


def test_the_config_of_the_model_counts(small: Any, seen: list[Any]) -> None:
    config = transformers.GenerationConfig(do_sample=True, temperature=0.5, top_k=9, top_p=0.8, min_p=0.02)
    before, small.generation_config = small.generation_config, config
    try:
        sequences = generate(small, prompt(), seed=1)
    finally:
        small.generation_config = before
    parameters = {"temperature": 0.5, "top_k": 9, "top_p": 0.8, "min_p": 0.02}
    assert sequences[:, 5:].equal(expected(seen, parameters, seed=1))


def test_a_config_in_the_call(small: Any, seen: list[Any]) -> None:
    config = transformers.GenerationConfig(do_sample=True, top_k=None, top_p=0.8, max_new_tokens=5)
    sequences = generate(small, prompt(), generation_config=config, max_new_tokens=5, seed=1)
    assert sequences[:, 5:].equal(expected(seen, {"top_p": 0.8}, seed=1))


def test_own_stopping_criteria(small: Any) -> None:
    class Even(transformers.StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            return input_ids[:, -1] % 2 == 0

    options = {"do_sample": True, "max_new_tokens": 30, "stopping_criteria": [Even()]}
    sequences = generate(small, prompt(4), seed=1, **options)
    for row in sequences[:, 5:].tolist():
        first = next(i for i, token in enumerate(row) if token % 2 == 0)
        assert row[first + 1 :] == [PAD] * (len(row) - first - 1)
    # Without an end token there is no padding, and the rows go on until all have ended.
    sequences = generate(small, prompt(4), seed=1, eos_token_id=None, pad_token_id=PAD, **options)
    evens = (sequences[:, 5:] % 2 == 0).cumsum(dim=1) > 0
    assert evens.all(dim=0).tolist() == [False] * (len(evens[0]) - 1) + [True]


# ---- inputs and outputs ----------------------------------------------------------------------------------------------


class Streamer(transformers.generation.BaseStreamer):
    def __init__(self) -> None:
        self.got: list[Any] = []

    def put(self, value: Any) -> None:
        self.got.append(value.tolist())

    def end(self) -> None:
        self.got.append("end")


def test_streamer(model: Any) -> None:
    ours, theirs = Streamer(), Streamer()
    sequences = generate(model, prompt(), do_sample=False, streamer=ours)
    model.generate(prompt(), do_sample=False, max_new_tokens=6, streamer=theirs)
    assert ours.got == theirs.got
    assert ours.got == [prompt().tolist(), *([token] for token in sequences[0, 5:].tolist()), "end"]


def test_return_dict(small: Any, seen: list[Any]) -> None:
    options = {"do_sample": True, "max_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True}
    ours, theirs = generate(small, prompt(2), seed=1, **options), small.generate(prompt(2), **options)
    assert type(ours) is type(theirs)
    assert list(ours) == list(theirs) == ["sequences", "logits", "past_key_values"]
    assert ours.sequences.equal(generate(small, prompt(2), do_sample=True, max_new_tokens=4, seed=1))
    assert all(a.equal(b) for a, b in zip(ours.logits, seen[:4], strict=True))
    assert ours.past_key_values.get_seq_length() == theirs.past_key_values.get_seq_length() == 8


def test_a_text_goes_on_from_its_cache(small: Any) -> None:
    options = {"do_sample": False, "return_dict_in_generate": True}
    whole = generate(small, prompt(), max_new_tokens=8, **options)
    first = generate(small, prompt(), max_new_tokens=3, **options)
    second = generate(small, first.sequences, max_new_tokens=5, past_key_values=first.past_key_values, **options)
    assert second.sequences.equal(whole.sequences)


def test_inputs_embeds(small: Any) -> None:
    embeds = small.get_input_embeddings()(prompt(2))
    options = {"inputs_embeds": embeds, "max_new_tokens": 6}
    ours = small.generate(custom_generate=toksample.transformers.generate, do_sample=False, **options)
    assert ours.equal(small.generate(do_sample=False, **options))
    sampled = small.generate(custom_generate=toksample.transformers.generate, do_sample=True, seed=1, **options)
    assert sampled.equal(generate(small, prompt(2), do_sample=True, seed=1)[:, 5:])


def test_encoder_decoder() -> None:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=500, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0, pad_token_id=0
    )
    t5 = transformers.T5ForConditionalGeneration(config).eval()
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 1], [8, 1, 0, 0]])}
    inputs["attention_mask"] = (inputs["input_ids"] != 0).long()
    options = {"do_sample": False, "max_new_tokens": 8, "return_dict_in_generate": True}
    ours, theirs = generate(t5, **inputs, **options), t5.generate(**inputs, **options)
    assert type(ours) is type(theirs)
    assert ours.sequences.equal(theirs.sequences)
    logits: list[Any] = []
    t5.register_forward_hook(lambda _module, _inputs, output: logits.append(output.logits[:, -1]))
    sequences = generate(t5, **inputs, do_sample=True, seed=1, eos_token_id=None)
    assert sequences[:, 1:].equal(expected(logits, {}, seed=1))


def test_pipeline(small: Any) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    words = Tokenizer(WordLevel({f"w{i:02}": i for i in range(64)}, unk_token="w03"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w00", eos_token="w01")
    pipe = transformers.pipeline("text-generation", model=small, tokenizer=tokenizer)
    options = {"do_sample": True, "temperature": 0.9, "max_new_tokens": 6, "seed": 1}
    (answer,) = pipe("w02 w17 w05", return_full_text=False, custom_generate=toksample.transformers.generate, **options)
    ids = generate(small, torch.tensor([[2, 17, 5]]), **options)
    assert answer["generated_text"].strip() == tokenizer.decode(ids[0, 3:], skip_special_tokens=True)


# ---- seeds -----------------------------------------------------------------------------------------------------------


def test_seeds(small: Any) -> None:
    def text(**keywords: Any) -> list[list[int]]:
        return generate(small, prompt(), do_sample=True, max_new_tokens=20, eos_token_id=None, **keywords).tolist()

    assert text(seed=1) == text(seed=1) != text(seed=2)
    transformers.set_seed(7)
    first, second = text(), text()
    assert first != second
    transformers.set_seed(7)
    assert [text(), text()] == [first, second]
    torch.manual_seed(7)
    text(seed=1)  # which does not touch torch's generator
    assert text() == first
    assert text(seed=2**64 - 1) != text(seed=0)


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 4}, "num_beams must be 1 where toksample generates, got 4"),
        ({"num_beams": 4, "do_sample": False}, "num_beams must be 1 where toksample generates, got 4"),
        ({"top_h": 0.4}, "top_h must be None where toksample generates, got 0.4"),
        ({"typical_p": 0.9}, "typical_p must be 1 where toksample generates, got 0.9"),
        ({"epsilon_cutoff": 0.1}, "epsilon_cutoff must be 0 where toksample generates, got 0.1"),
        ({"eta_cutoff": 0.1}, "eta_cutoff must be 0 where toksample generates, got 0.1"),
        ({"renormalize_logits": True}, "renormalize_logits must be False where toksample generates, got True"),
        ({"penalty_alpha": 0.6, "do_sample": False}, "penalty_alpha must be 0 where toksample generates, got 0.6"),
        ({"dola_layers": "high", "do_sample": False}, "dola_layers must be None where toksample generates, got 'high'"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens must be None where toksample generates, got 3"),
        ({"assistant_early_exit": 1}, "assistant_early_exit must be None where toksample generates, got 1"),
        ({"synced_gpus": True}, "synced_gpus must be False where toksample generates, got True"),
        (
            {"watermarking_config": transformers.WatermarkingConfig()},
            "watermarking_config must be None where toksample",
        ),
        (
            {"return_dict_in_generate": True, "output_scores": True},
            "output_scores must be False where toksample generates, got True",
        ),
        (
            {"return_dict_in_generate": True, "output_attentions": True},
            "output_attentions must be False where toksample generates, got True",
        ),
        (
            {"return_dict_in_generate": True, "output_hidden_states": True},
            "output_hidden_states must be False where toksample generates, got True",
        ),
        ({"seed": -1}, "seed must be in [0, 2**64), got -1"),
        ({"min_p": 1.5}, "min_p"),  # transformers finds this one, and the next
        ({"top_p": -0.5}, "top_p"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 0.0}, "top_p must be in (0, 1], got 0.0"),
        ({"stop_strings": ["x"]}, "tokenizer"),
    ],
    ids=str,
)
def test_errors_name_the_option(small: Any, options: dict[str, Any], message: str) -> None:
    streamer = Streamer()
    with pytest.raises(ValueError, match=r".") as caught:
        generate(small, prompt(), streamer=streamer, **{"do_sample": True, **options})
    assert message in str(caught.value)
    assert len(streamer.got) <= 1  # at most the prompt


def test_an_assistant_is_an_error(small: Any) -> None:
    with pytest.raises(
        ValueError, match="assistant_model must be None where toksample generates, got Gemma3ForCausalLM"
    ):
        generate(small, prompt(), do_sample=True, assistant_model=make_model(64))


def test_a_seed_that_is_not_an_integer(small: Any) -> None:
    with pytest.raises(TypeError, match="seed must be an integer"):
        generate(small, prompt(), do_sample=True, seed="x")


def test_logits_without_an_answer(small: Any) -> None:
    def spoil(_input_ids: Any, scores: Any) -> Any:
        scores[1, 40] = float("nan")
        return scores

    spoiled = transformers.LogitsProcessorList([spoil])
    for do_sample in (True, False):
        with pytest.raises(ValueError, match="logits must be finite or -inf, got nan at row 1, id 40"):
            generate(small, prompt(2), do_sample=do_sample, logits_processor=spoiled)


def test_processors_that_are_not_the_expected_ones(small: Any) -> None:
    class Late(type(small)):
        def _get_logits_processor(self, *args: Any, **keywords: Any) -> Any:
            return super()._get_logits_processor(*args, **keywords)[::-1]

    late = Late(small.config).eval()
    with pytest.raises(ValueError, match=r"logits_processor must end with .'TemperatureLogitsWarper', 'TopKLogits"):
        generate(late, prompt(), do_sample=True, temperature=0.5)


def test_neither_library_is_imported_before_it_is_needed() -> None:
    code = "import sys, toksample, toksample.transformers; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
