"""toksample.transformers with the real library. To run it:

    pip install '.[transformers,test]'
    pytest tests/extras

`.ci/transformers_versions` runs it with several versions of transformers. The models have random weights and are created here:
a Gemma 3 that is small except for its vocabulary of 262,144, and others.
"""

import copy
import doctest
import pickle
import string
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import tokenizers
import torch
import transformers

import toksample
import toksample.transformers
from toksample._systems import TRANSFORMERS
from toksample.transformers import SamplingLogitsProcessor

pytestmark = pytest.mark.filterwarnings("default")  # warnings of torch and transformers are not our concern

PAD, EOS, BOS = 0, 1, 2
PARAMETERS = [
    {},
    {"temperature": 0.7},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
    {"temperature": 1.5, "top_p": 0.95, "min_p": 0.01},
    {"top_k": 7, "min_p": 0.3},
    {"min_p": 0.05},
    {"top_k": 300_000, "top_p": 1.0, "min_p": 0.0},
    {"temperature": 0.0},
]


def make_model(vocab_size, seed=20):
    """Make a small Gemma 3. Its logits vary as much as those of a trained model, or less if it has few tokens."""
    torch.manual_seed(seed)
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
        tie_word_embeddings=False,  # with tied embeddings, such a model repeats itself
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
    )
    return transformers.Gemma3ForCausalLM(config).eval()


def make_llama(vocab_size, layers):
    """Make a small Llama. Its cache can go back, as assistant models need it. More layers only make the same model larger."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.2,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
    )
    return transformers.LlamaForCausalLM(config).eval()


LETTERS = string.ascii_letters + string.digits + string.punctuation


def make_tokenizer(size, letters=LETTERS):
    """Make a tokenizer with this many tokens: three special ones, and letters."""
    vocab = {token: number for number, token in enumerate(["<pad>", "<eos>", "<bos>", *letters][:size])}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, [], unk_token="<pad>"))
    inner.decoder = tokenizers.decoders.Fuse()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<pad>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Use one thread, because models as small as these are slower on several, and much slower if a core is busy."""
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


def generate(model, inputs, processor, **options):
    inputs = inputs if isinstance(inputs, dict) else {"input_ids": inputs}
    options = {"do_sample": False, "max_new_tokens": 6, "logits_processor": [processor], **options}
    return model.generate(**inputs, **options)


def prompt(rows=1):
    return torch.tensor([[BOS, 17, 5, 30, 9 + row] for row in range(rows)])


def padded():
    """Return a batch of three prompts of lengths 5, 2 and 3, padded on the left as a tokenizer does."""
    ids = torch.tensor([[BOS, 17, 5, 30, 9], [PAD, PAD, PAD, BOS, 40], [PAD, PAD, BOS, 8, 8]])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def expected(logits, seed, position=0, **parameters):
    """Return the tokens that generate must have drawn, from toksample.sample, with shape (B, steps)."""
    return torch.tensor(
        [
            [
                toksample.sample(step[row], **parameters, seed=seed, position=position + t, stream=row)
                for t, step in enumerate(logits)
            ]
            for row in range(len(logits[0]))
        ]
    )


# ---- equal to toksample.sample ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_tokens_are_those_of_sample(model, seen, parameters):
    sequences = generate(model, padded(), SamplingLogitsProcessor(**parameters, seed=4))
    assert sequences.shape == (3, 5 + 6)
    assert sequences[:, :5].equal(padded()["input_ids"])
    assert sequences[:, 5:].equal(expected(seen, 4, **parameters))


def test_params_and_keywords_are_the_same(small):
    keywords = {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "seed": 6, "stream": 9}
    one = SamplingLogitsProcessor(toksample.SamplingParams(**keywords), num_threads=2)
    other = SamplingLogitsProcessor(**keywords)
    assert one.params == other.params
    assert generate(small, prompt(), one).equal(generate(small, prompt(), other))


@pytest.mark.parametrize("order", [None, "sglang"])
def test_penalties_look_at_the_input_ids(small, seen, order):
    parameters = {"temperature": 1.3, "repetition_penalty": 1.4, "frequency_penalty": 0.5, "penalty_window": 8}
    parameters |= {"order": order, "logit_bias": {3: 1.5}}
    processor = SamplingLogitsProcessor(**parameters, seed=6)
    sequences = generate(small, prompt(2), processor, eos_token_id=None)
    for row, ids in enumerate(sequences.tolist()):
        for t, step in enumerate(seen):
            given = {"prompt_ids": ids[:5], "output_ids": ids[5 : 5 + t]}
            assert ids[5 + t] == toksample.sample(step[row], **parameters, **given, seed=6, position=t, stream=row)


@pytest.mark.parametrize("mode", ["raw_logprobs", "processed_logits"])
def test_log_probabilities_of_each_step(model, seen, mode):
    wanted = {"logprobs": 3, "logprobs_mode": mode}
    processor = SamplingLogitsProcessor(temperature=0.7, top_k=20, seed=4, **wanted)
    sequences = generate(model, padded(), processor, eos_token_id=None)
    assert sequences.equal(
        generate(model, padded(), SamplingLogitsProcessor(temperature=0.7, top_k=20, seed=4), eos_token_id=None)
    )
    assert len(processor.sampled) == 6
    for t, drawn in enumerate(processor.sampled):
        want = toksample.sample(seen[t].clone(), temperature=0.7, top_k=20, seed=4, position=t, **wanted)
        assert drawn.tokens.tolist() == sequences[:, 5 + t].tolist() == want.tokens.tolist()
        np.testing.assert_array_equal(drawn.logprobs, want.logprobs)
        np.testing.assert_array_equal(drawn.top_ids, want.top_ids)
    generate(model, prompt(), processor, max_new_tokens=2)
    assert [drawn.tokens.shape for drawn in processor.sampled] == [(1,)] * 2


def test_an_assistant_model_makes_the_list_of_steps_go_back():
    processor = SamplingLogitsProcessor(temperature=0.9, seed=2, logprobs=0)
    ids = prompt()
    scores = torch.randn(1, 64, generator=torch.manual_seed(1))
    for _ in range(3):
        token = processor(ids, scores).argmax(dim=1)
        ids = torch.cat([ids, token[:, None]], dim=1)
    tokens = [drawn.tokens[0] for drawn in processor.sampled]
    processor(ids[:, :6], scores)  # the step of position 1 again
    assert [drawn.tokens[0] for drawn in processor.sampled] == tokens[:2]


def test_wrong_logprobs():
    with pytest.raises(ValueError, match=r"^logprobs must be >= 0, got -1"):
        SamplingLogitsProcessor(logprobs=-1)
    with pytest.raises(ValueError, match=r"^logprobs_mode must be one of"):
        SamplingLogitsProcessor(logprobs=1, logprobs_mode="raw")


def test_methods_with_a_state_are_refused():
    with pytest.raises(ValueError, match=r"^mirostat must be 0 in a SamplingLogitsProcessor"):
        SamplingLogitsProcessor(mirostat=2)
    with pytest.raises(ValueError, match=r"^adaptive_target must be -1 in a SamplingLogitsProcessor"):
        SamplingLogitsProcessor(adaptive_target=0.5)


def test_typical_p_is_that_of_transformers():
    rng, compared = np.random.default_rng(5), 0
    for _ in range(300):
        row = rng.normal(scale=rng.uniform(0.3, 4), size=60).astype(np.float32)
        probs = np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum()
        distances = np.abs(-np.log(probs) + (probs * np.log(probs)).sum())
        by_distance = np.argsort(distances)
        sums, last = np.cumsum(probs[by_distance]), int(rng.integers(1, 59))
        near = distances[by_distance[last - 1 : last + 2]]
        if sums[last] - sums[last - 1] < 1e-4 or np.diff(near).min() < 1e-4:
            continue  # a rounding in float32 may decide this
        p = (sums[last - 1] + sums[last]) / 2
        theirs = transformers.TypicalLogitsWarper(p)(None, torch.from_numpy(row)[None])[0]
        assert toksample.mask_logits(row, typical_p=p).tolist() == theirs.tolist()
        compared += 1
    assert compared > 100


def test_an_eta_cutoff_is_that_of_transformers():
    rng, compared = np.random.default_rng(7), 0
    for _ in range(300):
        row = rng.normal(scale=rng.uniform(0.3, 4), size=60).astype(np.float32)
        probs = np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum()
        epsilon = 10 ** rng.uniform(-4, -0.1)
        eta = min(epsilon, np.sqrt(epsilon) * np.exp((probs * np.log(probs)).sum()))
        if np.abs(probs / eta - 1).min() < 1e-5:
            continue  # the rounding of float32 may decide
        theirs = transformers.EtaLogitsWarper(epsilon)(None, torch.from_numpy(row)[None])[0]
        assert toksample.mask_logits(row, eta_cutoff=epsilon).tolist() == theirs.tolist()
        compared += 1
    assert compared > 200


@pytest.mark.skipif(not hasattr(transformers, "TopHLogitsWarper"), reason="this version has no top_h")
def test_top_h_is_that_of_transformers():
    rng, compared = np.random.default_rng(8), 0
    for _ in range(300):
        row = rng.normal(scale=rng.uniform(0.3, 4), size=200).astype(np.float32)
        first = np.sort(row.astype(np.float64))[:-101:-1]
        probs = np.exp(first) / np.exp(first).sum()
        running = np.cumsum(-probs * np.log(probs))
        h = rng.uniform(0.01, 0.99)
        if np.abs(running / running[-1] - h).min() < 1e-4:
            continue  # the rounding of float32 may decide
        theirs = transformers.TopHLogitsWarper(h)(None, torch.from_numpy(row)[None])[0]
        assert toksample.mask_logits(row, top_h=h).tolist() == theirs.tolist()
        compared += 1
    assert compared > 200


def test_an_epsilon_cutoff_is_that_of_transformers():
    rng, compared = np.random.default_rng(6), 0
    for _ in range(300):
        row = rng.normal(scale=rng.uniform(0.3, 4), size=60).astype(np.float32)
        probs = np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum()
        epsilon = 10 ** rng.uniform(-4, -0.1)
        if np.abs(probs / epsilon - 1).min() < 1e-5:
            continue  # a rounding in float32 may decide this
        theirs = transformers.EpsilonLogitsWarper(epsilon)(None, torch.from_numpy(row)[None])[0]
        assert toksample.mask_logits(row, epsilon_cutoff=epsilon).tolist() == theirs.tolist()
        compared += 1
    assert compared > 200


def test_a_repetition_penalty_is_that_of_transformers(small):
    mine = SamplingLogitsProcessor(temperature=0, repetition_penalty=1.3)
    theirs = SamplingLogitsProcessor(temperature=0)
    assert generate(small, prompt(), mine).equal(generate(small, prompt(), theirs, repetition_penalty=1.3))


def test_the_stream_is_that_of_the_parameters(small, seen):
    sequences = generate(small, prompt(), SamplingLogitsProcessor(seed=6, stream=9))
    assert sequences[0, 5:].tolist() == [
        toksample.sample(step[0], seed=6, position=t, stream=9) for t, step in enumerate(seen)
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype):
    seen = []
    half = make_model(262_144).to(dtype)
    watch(half, seen)
    sequences = generate(half, prompt(2), SamplingLogitsProcessor(temperature=0.7, top_p=0.9, seed=2))
    assert [x.dtype for x in seen] == [dtype] * 6
    assert sequences[:, 5:].equal(expected(seen, 2, temperature=0.7, top_p=0.9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_the_scores_that_are_returned(dtype):
    scores = torch.randn(3, 1000, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = scores.clone()
    returned = SamplingLogitsProcessor(seed=5)(torch.zeros(3, 4, dtype=torch.int64), scores)
    assert (returned.shape, returned.dtype, returned.device) == (scores.shape, dtype, scores.device)
    assert returned.isneginf().sum(-1).tolist() == [999] * 3
    assert returned.argmax(-1).tolist() == toksample.sample(scores, seed=5).tolist()
    assert returned.amax(-1).tolist() == [0.0] * 3
    assert scores.equal(before)


def test_scores_that_want_a_gradient():
    scores = torch.randn(1, 10, requires_grad=True)
    returned = SamplingLogitsProcessor(seed=5)(torch.zeros(1, 1, dtype=torch.int64), scores)
    assert returned.argmax() == toksample.sample(scores[0].detach(), seed=5)


def test_rows_that_end_at_different_steps(model, seen):
    ends = list(range(0, 262_144, 4))  # a quarter of all tokens end a text
    processor = SamplingLogitsProcessor(temperature=1.2, seed=8)
    sequences = generate(model, padded(), processor, eos_token_id=ends, max_new_tokens=40)
    drawn = expected(seen, 8, temperature=1.2)
    lengths = [1 + [token % 4 for token in row].index(0) for row in drawn.tolist()]
    assert len(set(lengths)) == 3  # the seed was chosen for this
    assert max(lengths) == len(seen) < 40
    assert sequences.shape == (3, 5 + max(lengths))
    for row, tokens, length in zip(sequences, drawn, lengths, strict=True):
        assert row[5 : 5 + length].equal(tokens[:length])
        assert (row[5 + length :] == PAD).all()


@pytest.mark.parametrize("options", [{"use_cache": False}, {"cache_implementation": "static"}], ids=str)
def test_caches(model, seen, options):
    sequences = generate(model, padded(), SamplingLogitsProcessor(seed=1), **options)
    assert sequences[:, 5:].equal(expected(seen, 1))


def test_other_processors(model, seen):
    def halve(_input_ids, scores):
        return scores.mul_(0.5)

    before = [halve, transformers.TopKLogitsWarper(3)]
    after = [transformers.TemperatureLogitsWarper(2.0), halve]
    options = {"repetition_penalty": 1.3, "min_new_tokens": 4, "bad_words_ids": [[77]]}
    mine = SamplingLogitsProcessor(top_p=0.9, seed=3)
    sequences = generate(model, prompt(2), mine, **options, logits_processor=[*before, mine, *after])
    processors = transformers.LogitsProcessorList(
        [
            transformers.RepetitionPenaltyLogitsProcessor(1.3),
            transformers.NoBadWordsLogitsProcessor([[77]], eos_token_id=torch.tensor([EOS])),
            transformers.MinNewTokensLengthLogitsProcessor(5, 4, torch.tensor([EOS]), device="cpu"),
            *before,
        ]
    )
    logits = [processors(sequences[:, : 5 + t], step.clone()) for t, step in enumerate(seen)]
    assert sequences[:, 5:].equal(expected(logits, 3, top_p=0.9))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.3, "top_k": 5, "top_p": 0.5, "min_p": 0.2},
        {"top_k": 0, "typical_p": 0.5, "epsilon_cutoff": 0.01, "eta_cutoff": 0.01},
        {"renormalize_logits": True},
        {"watermarking_config": transformers.WatermarkingConfig(bias=9.0)},
        {"watermarking_config": transformers.SynthIDTextWatermarkingConfig(keys=[3, 5, 7], ngram_len=3)},
    ],
    ids=["nothing", "warpers", "others", "renormalize", "watermark", "SynthID"],
)
@pytest.mark.parametrize("do_sample", [False, True])
def test_what_transformers_does_after_the_draw_changes_nothing(small, seen, do_sample, options):
    sequences = generate(small, prompt(3), SamplingLogitsProcessor(seed=2), do_sample=do_sample, **options)
    assert sequences[:, 5:].equal(expected(seen, 2))


def test_num_return_sequences(small, seen):
    options = {"num_return_sequences": 3, "eos_token_id": None}
    processor = SamplingLogitsProcessor(seed=1)
    sequences = generate(small, prompt(2), processor, do_sample=True, **options)
    assert sequences[:, :5].equal(prompt(2).repeat_interleave(3, dim=0))
    assert sequences[:, 5:].equal(expected(seen, 1))
    assert len({tuple(row) for row in sequences[:3, 5:].tolist()}) == 3
    with pytest.raises(ValueError, match="num_return_sequences"):  # an error of transformers, as the documentation says
        generate(small, prompt(2), processor, **options)


def make_t5():
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=500, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0, pad_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config).eval()


def test_encoder_decoder():
    t5, logits = make_t5(), []
    watch(t5, logits)
    ids = torch.tensor([[5, 6, 7, 1], [8, 1, 0, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    processor = SamplingLogitsProcessor(seed=1)
    for _ in range(2):
        logits.clear()
        sequences = generate(t5, inputs, processor, eos_token_id=None)
        assert sequences[:, 1:].equal(expected(logits, 1))


def test_inputs_embeds(small, seen):
    embeds = small.get_input_embeddings()(prompt(2))
    sequences = generate(small, {"inputs_embeds": embeds}, SamplingLogitsProcessor(seed=1), eos_token_id=None)
    assert sequences.equal(expected(seen, 1))


# ---- the seed and the position ---------------------------------------------------------------------------------------


def test_seeds(small):
    def text(**keywords):
        processor = SamplingLogitsProcessor(**keywords)
        return generate(small, prompt(), processor, max_new_tokens=20, eos_token_id=None).tolist()

    assert text(seed=1) == text(seed=1) != text(seed=2)
    transformers.set_seed(7)
    first, second = text(), text()
    assert first != second
    transformers.set_seed(7)
    text(seed=1)  # a seed leaves torch's generator alone
    assert [text(), text()] == [first, second]


def test_without_a_seed_a_processor_takes_one_for_each_text(small, seen):
    processor = SamplingLogitsProcessor()
    for _ in range(2):
        seen.clear()
        torch.manual_seed(11)
        sequences = generate(small, prompt(2), processor, eos_token_id=None)
        torch.manual_seed(11)
        assert sequences[:, 5:].equal(expected(seen, int(torch.randint(2**63 - 1, ()))))
    assert not generate(small, prompt(2), processor, eos_token_id=None).equal(sequences)


@pytest.mark.parametrize("again", [prompt(2), padded(), prompt(2)[:, :4], prompt(1)], ids=["same", "3", "short", "1"])
def test_a_new_text_begins_at_position_0(small, seen, again):
    processor = SamplingLogitsProcessor(seed=1)
    generate(small, prompt(2), processor)
    seen.clear()
    sequences = generate(small, again, processor, eos_token_id=None)
    assert sequences[:, -6:].equal(expected(seen, 1))


def test_a_text_in_several_calls_is_that_of_one(small):
    whole = generate(small, padded(), SamplingLogitsProcessor(seed=1), max_new_tokens=9, eos_token_id=None)
    processor, parts = SamplingLogitsProcessor(seed=1), padded()
    for count in (4, 1, 4):
        ids = generate(small, parts, processor, max_new_tokens=count, eos_token_id=None)
        mask = torch.nn.functional.pad(parts["attention_mask"], (0, count), value=1)
        parts = {"input_ids": ids, "attention_mask": mask}
    assert ids.equal(whole)


def test_reset(small, seen):
    processor = SamplingLogitsProcessor(seed=1)
    ids = generate(small, prompt(), processor, eos_token_id=None)
    for position in (6, 0):
        seen.clear()
        more = generate(small, ids, processor, eos_token_id=None)
        assert more[:, 11:].equal(expected(seen, 1, position))
        processor.reset()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_goes_on(small, copied):
    processor = SamplingLogitsProcessor(seed=1, temperature=1.5)
    ids = generate(small, prompt(), processor, eos_token_id=None)
    other = copied(processor)
    assert isinstance(other, SamplingLogitsProcessor)
    assert generate(small, ids, other).equal(generate(small, ids, processor))


# ---- equal to transformers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}, {"cache_implementation": "static"}], ids=str
)
def test_temperature_0_is_greedy(model, options):
    options = {**options, "max_new_tokens": 12}
    ours = generate(model, padded(), SamplingLogitsProcessor(temperature=0), **options)
    assert ours.equal(model.generate(**padded(), do_sample=False, **options))


@pytest.mark.parametrize("parameters", [{}, {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.1}], ids=str)
def test_distribution_is_that_of_transformers(small, parameters):
    """A two-sample chi-square test of the pairs of tokens after a prompt."""
    options = {"max_new_tokens": 2, "eos_token_id": None}
    prompts = prompt().expand(20_000, -1)
    torch.manual_seed(5)
    ours = generate(small, prompts, SamplingLogitsProcessor(**parameters, seed=6), **options)
    theirs = small.generate(prompts, do_sample=True, **{"top_k": 0, **parameters}, **options)
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
    streamer = Streamer()
    sequences = generate(small, prompt(), SamplingLogitsProcessor(seed=1), streamer=streamer)
    assert streamer.got == [prompt().tolist(), *([token] for token in sequences[0, 5:].tolist()), "end"]


def test_stop_strings(small):
    tokenizer = make_tokenizer(64)
    whole = generate(small, prompt(), SamplingLogitsProcessor(seed=1), max_new_tokens=12, eos_token_id=None)
    stop = tokenizer.decode(whole[0, 9])
    assert whole[0, 5:10].tolist().count(whole[0, 9]) == 1  # the seed was chosen for this
    sequences = generate(
        small,
        prompt(),
        SamplingLogitsProcessor(seed=1),
        max_new_tokens=12,
        eos_token_id=None,
        pad_token_id=PAD,
        stop_strings=[stop],
        tokenizer=tokenizer,
    )
    assert sequences.equal(whole[:, :10])


def test_return_dict(small, seen):
    options = {"output_logits": True, "output_scores": True, "output_hidden_states": True, "eos_token_id": None}
    ours = generate(small, prompt(2), SamplingLogitsProcessor(seed=1), return_dict_in_generate=True, **options)
    theirs = generate(small, prompt(2), lambda _ids, scores: scores, return_dict_in_generate=True, **options)
    assert type(ours) is type(theirs)
    assert list(ours) == list(theirs)
    assert all(a.equal(b) for a, b in zip(ours.logits, seen[:6], strict=True))
    assert ours.sequences[:, 5:].equal(expected(seen[:6], 1))
    for t, scores in enumerate(ours.scores):
        assert scores.shape == (2, 64)
        assert scores.argmax(-1).equal(ours.sequences[:, 5 + t])
        assert scores.isfinite().sum(-1).tolist() == [1, 1]


# ---- assistants ------------------------------------------------------------------------------------------------------


REPEATING = {"input_ids": torch.tensor([[BOS, 9, 9, 17, 9, 9, 17, 9, 9]])}


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("kind", ["a model", "prompt lookup"])
def test_an_assistant_changes_nothing(kind, do_sample):
    big, drafts, steps = make_llama(64, 2), [], []
    parameters = {"temperature": 0.5, "seed": 0}
    options = {"max_new_tokens": 40, "eos_token_id": 63, "do_sample": do_sample}
    alone = generate(big, REPEATING, SamplingLogitsProcessor(**parameters), **options)
    if kind == "a model":
        options["assistant_model"] = make_llama(64, 1)
        watch(options["assistant_model"], drafts)
    else:
        options["prompt_lookup_num_tokens"] = 3
    watch(big, steps)
    processor = SamplingLogitsProcessor(**parameters)
    for _ in range(2):
        steps.clear()
        assert generate(big, REPEATING, processor, **options).equal(alone)
        assert len(steps) < alone.shape[1] - 9  # some candidates were accepted, for which the seed was chosen
    assert bool(drafts) == (kind == "a model")


@pytest.mark.parametrize("letters", [LETTERS, LETTERS[::-1]], ids=["more tokens", "in another order"])
def test_an_assistant_with_another_tokenizer_is_an_error(letters):
    with pytest.raises(ValueError, match="an assistant model with the same tokenizer"):
        generate(
            make_llama(64, 2),
            REPEATING,
            SamplingLogitsProcessor(temperature=0.5, seed=0),
            assistant_model=make_llama(70, 1),
            tokenizer=make_tokenizer(64),
            assistant_tokenizer=make_tokenizer(70, letters),
            max_new_tokens=40,
            eos_token_id=63,
        )


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_beams_that_change_places_are_an_error(small):
    with pytest.raises(ValueError, match="num_beams must be 1 where a SamplingLogitsProcessor draws"):
        generate(small, prompt(), SamplingLogitsProcessor(seed=3), num_beams=3, max_new_tokens=20, eos_token_id=None)


def test_rows_that_change_places_are_an_error():
    processor, scores = SamplingLogitsProcessor(seed=3), torch.zeros(2, 9)
    processor(torch.tensor([[1, 2], [1, 2]]), scores)
    processor(torch.tensor([[1, 2, 3], [1, 2, 4]]), scores)
    for rows in ([[1, 2, 4, 5], [1, 2, 3, 5]], [[1, 2, 3, 5], [1, 2, 3, 6]]):
        with pytest.raises(ValueError, match="the rows of input_ids have changed places"):
            processor(torch.tensor(rows), scores)
    processor(torch.tensor([[1, 2, 3, 5], [1, 2, 4, 5]]), scores)  # the error has changed nothing


def test_two_texts_in_turns_are_an_error():
    processor, scores = SamplingLogitsProcessor(seed=3), torch.arange(9.0)[None]
    for row in ([1, 2], [1, 2, 3], [5, 6], [5, 6, 7]):
        processor(torch.tensor([row]), scores)
    with pytest.raises(ValueError, match="must have one text at a time, got the text before the last one"):
        processor(torch.tensor([[1, 2, 3, 4]]), scores)
    assert processor(torch.tensor([[5, 6, 7, 8]]), scores).argmax() == toksample.sample(scores[0], seed=3, position=2)
    processor.reset()
    assert processor(torch.tensor([[1, 2, 3, 4]]), scores).argmax() == toksample.sample(scores[0], seed=3)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed must be in [0, 2**64), got -1"),
        ({"top_p": 1.5}, ValueError, "top_p must be in "),
        ({"num_threads": 0}, ValueError, "num_threads must be "),
        ({"top": 1}, TypeError, "unexpected keyword argument 'top'"),
        ({"params": 1}, TypeError, "params must be a SamplingParams, got 1"),
        ({"params": toksample.SamplingParams(), "seed": 1}, TypeError, "params and keywords must not both be given"),
    ],
    ids=str,
)
def test_errors(keywords, error, message):
    with pytest.raises(error, match=r".") as caught:
        SamplingLogitsProcessor(**keywords)
    assert message in str(caught.value)


def test_shapes_that_do_not_belong_together():
    with pytest.raises(ValueError, match=r"shapes \(B, T\) and \(B, V\), got \(1, 4\) and \(2, 9\)"):
        SamplingLogitsProcessor()(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(2, 9))


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_logits_without_an_answer(small, temperature):
    def spoil(_input_ids, scores):
        scores[1, 40] = float("nan")
        return scores

    mine = SamplingLogitsProcessor(temperature=temperature)
    with pytest.raises(ValueError, match="logits must be finite or -inf, got nan at row 1, id 40"):
        generate(small, prompt(2), mine, logits_processor=[spoil, mine])


# ---- the generation config -------------------------------------------------------------------------------------------


def test_from_generation_config():
    parameters = {"temperature": 0.5, "top_k": 9, "top_p": 0.8, "min_p": 0.02, "typical_p": 0.7}
    parameters |= {"epsilon_cutoff": 0.01, "eta_cutoff": 0.02}
    # Its repetition penalty is applied by generate.
    config = transformers.GenerationConfig(do_sample=True, **parameters, repetition_penalty=1.3)
    processor = SamplingLogitsProcessor.from_generation_config(config, seed=1, stream=2, num_threads=3)
    assert isinstance(processor, SamplingLogitsProcessor)
    assert processor.params == toksample.SamplingParams(**parameters, seed=1, stream=2, order="transformers")
    assert processor.num_threads == 3
    nothing = dict.fromkeys(parameters)
    config = transformers.GenerationConfig(**nothing)
    assert SamplingLogitsProcessor.from_generation_config(config).params == toksample.SamplingParams(
        order="transformers"
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_beams": 4}, "num_beams of the generation config must be None or 1, got 4"),
        ({"typical_p": 1.5}, "typical_p must be in [0, 1], got 1.5"),
        ({"epsilon_cutoff": 1.5}, "epsilon_cutoff must be in [0, 1], got 1.5"),
        ({"eta_cutoff": 1.5}, "eta_cutoff must be in [0, 1], got 1.5"),
        ({"top_h": 0.0}, "top_h of the generation config must be above 0, got 0.0"),
        ({"temperature": -1.0}, "temperature must be "),
    ],
    ids=str,
)
def test_generation_configs_that_are_refused(option, message):
    config = transformers.GenerationConfig(do_sample=True)
    for name, value in option.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=r".") as caught:
        SamplingLogitsProcessor.from_generation_config(config)
    assert str(caught.value).startswith(message)


# ---- generation configs as a whole -----------------------------------------------------------------------------------


def test_every_field_of_a_generation_config_is_known():
    fields = {name for name in transformers.GenerationConfig().to_dict() if not name.startswith("_")}
    assert fields <= TRANSFORMERS.names
    assert toksample.SamplingParams.from_generation_config(transformers.GenerationConfig()).temperature == 0


def draw(model, **config):
    """Return the logits of each step, the scores from which transformers draws, and all ids."""
    ends = {"max_new_tokens": 12, "eos_token_id": None, "pad_token_id": PAD}
    config = transformers.GenerationConfig(**ends | config, output_logits=True, output_scores=True)
    result = model.generate(prompt(), generation_config=config, return_dict_in_generate=True)
    return torch.cat(result.logits), torch.cat(result.scores), result.sequences[0]


@pytest.mark.parametrize(
    "config",
    [
        {"do_sample": True},
        {"do_sample": True, "top_k": 0},
        {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8},
        {"do_sample": True, "top_k": 0, "min_p": 0.1, "typical_p": 0.9},
        # After such a bias nothing is left of the logits: three tokens are tied for the two places.
        {"do_sample": True, "top_k": 2, "sequence_bias": [[[9], 1e8], [[20], 1e8], [[33], 1e8]]},
        {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.001, "repetition_penalty": 1.3},
        {"do_sample": True, "top_k": 0, "epsilon_cutoff": 1.0},
        {"do_sample": True, "suppress_tokens": [9, 20, 33], "sequence_bias": [[[7], 2.0], [[20], 9.0]]},
        {"repetition_penalty": 1.3, "suppress_tokens": [*range(40)]},
        {"do_sample": True, "top_k": 0, "eta_cutoff": 0.02},
        {"do_sample": True, "top_k": 0, "no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2, "repetition_penalty": 0.5},
        {"do_sample": True, "top_k": 0, "encoder_repetition_penalty": 1.5, "repetition_penalty": 0.8},
        {"repetition_penalty": 0.5, "sequence_bias": [[[a, b], 9.0] for a in range(60) for b in (a, 5)]},
        {"repetition_penalty": 0.5, "bad_words_ids": [[7], *([a, a] for a in range(60))]},
        {"do_sample": True, "top_k": 0, "begin_suppress_tokens": [*range(40)]},
        {"do_sample": True, "top_k": 0, "min_new_tokens": 3, "eos_token_id": [*range(30)]},
        {
            "do_sample": True,
            "top_k": 0,
            "exponential_decay_length_penalty": (2, 1.1),
            "eos_token_id": [7, 9],
        },
        {"forced_eos_token_id": 7, "max_new_tokens": 4},
        {"do_sample": True, "forced_eos_token_id": [7], "max_new_tokens": 4, "eos_token_id": 7},
    ],
    ids=str,
)
def test_a_generation_config_means_what_it_means_in_transformers(small, config):
    torch.manual_seed(0)
    params = toksample.SamplingParams.from_generation_config(config)
    for given in (config, params.to_generation_config()):
        logits, scores, ids = draw(small, **given)
        for step, (row, score) in enumerate(zip(logits, scores, strict=True)):
            history = {"prompt_ids": ids[:5], "output_ids": ids[5 : 5 + step]}
            if not config.get("do_sample"):
                assert toksample.sample(row, **params.keywords(), **history) == score.argmax() == ids[5 + step]
                continue
            tokens, ours = toksample.candidates(row, **params.keywords(), **history)
            theirs = score.softmax(-1)
            assert sorted(tokens.tolist()) == np.flatnonzero(theirs).tolist()
            assert np.allclose(ours, theirs[tokens], atol=1e-6, rtol=1e-4)


# ---- the module ------------------------------------------------------------------------------------------------------


def test_it_is_a_logits_processor_of_transformers():
    assert issubclass(SamplingLogitsProcessor, transformers.LogitsProcessor)
    assert SamplingLogitsProcessor is toksample.transformers.SamplingLogitsProcessor
    assert SamplingLogitsProcessor.__name__ == SamplingLogitsProcessor.__qualname__ == "SamplingLogitsProcessor"
    with pytest.raises(AttributeError, match=r"module 'toksample.transformers' has no attribute 'generate'"):
        _ = toksample.transformers.generate


def test_neither_library_is_imported_before_it_is_needed():
    code = "import sys, toksample, toksample.transformers; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_an_import_error_says_what_to_install(monkeypatch, missing):
    monkeypatch.delitem(vars(toksample.transformers), "SamplingLogitsProcessor")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'toksample\[transformers\]'"):
        _ = toksample.transformers.SamplingLogitsProcessor


def test_the_examples_of_the_docstrings():
    module = toksample.transformers
    tests = [
        test for test in doctest.DocTestFinder().find(module, extraglobs={"toksample": toksample}) if test.examples
    ]
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        runner.run(test)
    assert len(tests) >= 3
    assert runner.failures == 0
