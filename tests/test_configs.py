"""The configurations of other systems: what is read, what is written, and what is refused."""

import dataclasses
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toksample import GenerationConfig, SamplingParams
from toksample._orders import EDITS, ORDERS, STEPS, SWITCHES, edits, steps
from toksample._stop_strings import StopStrings
from toksample._systems import LLAMA_CPP, OPENAI, SETTINGS, SYSTEMS, TRANSFORMERS, VLLM
from toksample._text import show

METHODS = Path(__file__).parent.parent / "docs" / "sampling-methods.md"
FIELDS = {field.name for field in dataclasses.fields(SamplingParams)}
READ = {
    TRANSFORMERS: SamplingParams.from_generation_config,
    VLLM: SamplingParams.from_vllm,
    LLAMA_CPP: SamplingParams.from_llama_cpp,
    OPENAI: SamplingParams.from_openai,
}
WRITE = {
    TRANSFORMERS: SamplingParams.to_generation_config,
    VLLM: SamplingParams.to_vllm,
    LLAMA_CPP: SamplingParams.to_llama_cpp,
    OPENAI: SamplingParams.to_openai,
}
every_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)

# As models on the Hugging Face Hub have them.
GEMMA_3 = {
    "cache_implementation": "hybrid",
    "do_sample": True,
    "eos_token_id": [1, 106],
    "bos_token_id": 2,
    "pad_token_id": 0,
    "top_k": 64,
    "top_p": 0.95,
    "transformers_version": "4.50.0.dev0",
}
LLAMA_3 = {
    "bos_token_id": 128000,
    "do_sample": True,
    "eos_token_id": [128001, 128008, 128009],
    "temperature": 0.6,
    "top_p": 0.9,
    "transformers_version": "4.42.3",
}
LLAMA_2 = {
    "bos_token_id": 1,
    "do_sample": True,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "temperature": 0.6,
    "max_length": 4096,
    "top_p": 0.9,
    "transformers_version": "4.31.0.dev0",
}
QWEN_2_5 = {
    "bos_token_id": 151643,
    "pad_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "repetition_penalty": 1.05,
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "transformers_version": "4.37.0",
}
GPT_2 = {
    "_from_model_config": True,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "transformers_version": "4.26.0.dev0",
}
WHISPER = {
    "alignment_heads": [[5, 3], [5, 9]],
    "begin_suppress_tokens": [220, 50257],
    "bos_token_id": 50257,
    "decoder_start_token_id": 50258,
    "eos_token_id": 50257,
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": 50259},
    "max_initial_timestamp_index": 50,
    "max_length": 448,
    "no_timestamps_token_id": 50363,
    "pad_token_id": 50257,
    "prev_sot_token_id": 50361,
    "return_timestamps": False,
    "suppress_tokens": [1, 2, 7],
    "task_to_id": {"transcribe": 50359},
    "transformers_version": "4.31.0.dev0",
}


# ---- the tables --------------------------------------------------------------------------------------------------------


@every_system
def test_every_parameter_has_its_place(system):
    has = {option.ours for option in system.options}
    assert has | system.lacks | {"order"} == FIELDS  # each system has an order, but few have an option for it
    assert not has & system.lacks


@every_system
def test_every_field_of_a_system_has_one_place(system):
    """An option may be in several places of ours, and it may also say when a text ends."""
    pairs = [(option.theirs, option.ours) for option in system.options]
    assert len(pairs) == len(set(pairs))
    options = {option.theirs for option in system.options}
    names = [
        *options,
        *(refused.theirs for refused in system.refused),
        *(system.text.keys() - options),
        *system.ignored,
        *system.aliases,
    ]
    assert len(names) == len(set(names))
    assert all(len(name) > 1 or name == "n" for name in names)  # a text that was taken apart
    assert set(system.text.values()) <= {field.name for field in dataclasses.fields(GenerationConfig)}
    assert set(system.aliases.values()) <= options


@every_system
def test_the_tables_agree_with_the_parameters(system):
    """What is off in the system is off here."""
    defaults = SamplingParams()
    for option in system.options:
        for off in option.off:
            given = {option.theirs: off} | ({system.switch: True} if system.switch else {})
            assert getattr(READ[system](given), option.ours) == getattr(defaults, option.ours), (option.theirs, off)


@every_system
def test_settings_come_after_their_methods(system):
    assert {*SETTINGS, *itertools.chain(*SETTINGS.values())} <= FIELDS
    fields = [option.ours for option in system.options]
    for name, methods in SETTINGS.items():
        assert all(fields.index(method) < fields.index(name) for method in methods if {name, method} <= set(fields))


@every_system
def test_the_filters_of_a_system_are_the_steps_of_its_order(system):
    filters = {option.ours for option in system.options if option.is_filter and option.ours not in SETTINGS}
    if system.order is None:
        assert filters <= {STEPS[step] for step in steps(None)}
    else:
        steps_of_order = {STEPS[step] for step in steps(system.order)}
        assert filters == steps_of_order - system.lacks | {*SWITCHES} - system.lacks
        assert not steps_of_order & system.lacks


def test_the_samplers_of_llama_cpp():
    assert [*LLAMA_CPP.sampler_of] == [step for step in steps("llama.cpp") if step != "mirostat"]
    samplers = {one.sampler for one in (*LLAMA_CPP.options, *LLAMA_CPP.refused)} - {None}
    assert samplers == {*ALL_SAMPLERS, "adaptive_p"}


@every_system
def test_refused_fields_are_refused_unless_they_are_off(system):
    for refused in system.refused:
        for off in (None, *refused.off):
            assert READ[system]({refused.theirs: off}) == READ[system]({})
        with pytest.raises(ValueError, match=rf"^{refused.theirs} of {system.noun} must be None( or .*)?, got 7$"):
            READ[system]({refused.theirs: 7})


@every_system
def test_other_fields_change_nothing(system):
    options = {option.theirs for option in system.options}
    for name in (*(system.text.keys() - options), *system.ignored, "_private"):
        assert READ[system]({name: object()}) == READ[system]({})


@every_system
def test_a_field_that_is_none_is_absent(system):
    assert READ[system](dict.fromkeys(sorted(system.names))) == READ[system]({})


# ---- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "want"),
    [
        (GEMMA_3, {"top_k": 64, "top_p": 0.95}),
        (LLAMA_3, {"temperature": 0.6, "top_k": 50, "top_p": 0.9}),
        (LLAMA_2, {"temperature": 0.6, "top_k": 50, "top_p": 0.9}),
        (QWEN_2_5, {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05}),
        (GPT_2, {"temperature": 0}),
        ({}, {"temperature": 0}),
        ({"do_sample": True}, {"top_k": 50}),
        ({"do_sample": True, "top_k": None}, {"top_k": 50}),
        ({"do_sample": True, "top_k": 0}, {}),
        ({"do_sample": True, "top_k": 0, "epsilon_cutoff": 1.0, "min_p": 0.1}, {"min_p": 0.1}),
        (
            {"do_sample": True, "top_k": 0, "eta_cutoff": 0.1, "top_h": 0.4},
            {"eta_cutoff": 0.1, "top_h": 0.4},
        ),
        # What an object has that was made by an old transformers without any options.
        ({"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_length": 0}, {"temperature": 0}),
        ({"temperature": 0.0}, {"temperature": 0}),
        ({"repetition_penalty": 1.2}, {"temperature": 0, "repetition_penalty": 1.2}),
        (
            {"sequence_bias": [[[5], 2.0], [[6], -1]], "suppress_tokens": [6, 9]},
            {"temperature": 0, "logit_bias": {5: 2.0, 6: -1.0}, "suppress_tokens": (6, 9)},
        ),
        ({"sequence_bias": {(5,): 2.0}}, {"temperature": 0, "logit_bias": {5: 2.0}}),
        (
            {"sequence_bias": [[[5, 6], 2], [[7], 1], [[5, 7], -1]]},
            {"temperature": 0, "logit_bias": {7: 1.0}, "sequence_bias": {(5, 6): 2.0, (5, 7): -1.0}},
        ),
        ({"suppress_tokens": [], "bad_words_ids": [], "begin_suppress_tokens": []}, {"temperature": 0}),
        (WHISPER, {"temperature": 0, "suppress_tokens": [1, 2, 7], "begin_suppress_tokens": [220, 50257]}),
        (
            {"bad_words_ids": [[5], [6, 7]], "no_repeat_ngram_size": 3, "encoder_repetition_penalty": 1.5},
            {
                "temperature": 0,
                "bad_words_ids": [[5], [6, 7]],
                "no_repeat_ngram_size": 3,
                "encoder_repetition_penalty": 1.5,
            },
        ),
        # The tokens that end a text, and its length, are read where a method needs to know them.
        (
            {"min_new_tokens": 5, "eos_token_id": 2, "max_new_tokens": 9},
            {"temperature": 0, "min_new_tokens": 5, "eos_token_ids": [2]},
        ),
        (
            {"exponential_decay_length_penalty": [10, 1.5], "eos_token_id": [2, 3]},
            {"temperature": 0, "exponential_decay_length_penalty": (10, 1.5), "eos_token_ids": [2, 3]},
        ),
        (
            {"forced_bos_token_id": 0, "forced_eos_token_id": 2, "eos_token_id": 2, "max_new_tokens": 9},
            {"temperature": 0, "forced_bos_token_id": 0, "forced_eos_token_id": 2, "max_new_tokens": 9},
        ),
        ({"forced_eos_token_id": [2], "max_length": 9}, {"temperature": 0, "forced_eos_token_id": 2}),
    ],
    ids=str,
)
def test_generation_configs(source, want):
    assert SamplingParams.from_generation_config(source) == SamplingParams(**want, order="transformers")


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ({}, {}),
        ({"max_tokens": 100, "top_k": -1, "seed": -1, "stop": ["END"]}, {}),
        ({"temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.1, "seed": 3}, None),
        (
            {"temperature": 0, "top_k": 20, "top_p": 0.9, "presence_penalty": 1},
            {"temperature": 0, "presence_penalty": 1},
        ),
        ({"temperature": 1e-6}, {"temperature": 0.01}),
        ({"temperature": 0.009}, {"temperature": 0.01}),
        ({"logit_bias": {"5": -1, 6: 2}}, {"logit_bias": {5: -1.0, 6: 2.0}}),
        ({"allowed_token_ids": [5, 6]}, {"allowed_token_ids": [5, 6]}),
        ({"min_tokens": 3, "stop_token_ids": [7]}, {"min_new_tokens": 3, "eos_token_ids": [7]}),
        ({"stop_token_ids": [7]}, {}),
    ],
    ids=str,
)
def test_vllm(source, want):
    assert SamplingParams.from_vllm(source) == SamplingParams(**(source if want is None else want), order="vllm")


LLAMA_CPP_DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "order": "llama.cpp"}
ALL_SAMPLERS = ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]
NO_FILTERS = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ({}, {}),
        ({"n_predict": 5, "prompt": "Once", "stop": ["\n"], "cache_prompt": True, "seed": -1}, {}),
        ({"seed": 2**32 - 1}, {}),
        ({"seed": 2**32 - 2}, {"seed": 2**32 - 2}),
        ({"top_k": -1, "top_p": 1, "min_p": 0}, {"top_k": 0, "top_p": 1.0, "min_p": 0.0}),
        ({"temperature": 0}, {**NO_FILTERS, "temperature": 0}),
        ({"repeat_penalty": 1.1}, {"repetition_penalty": 1.1, "penalty_window": 64}),
        ({"presence_penalty": 1, "repeat_last_n": -1}, {"presence_penalty": 1, "penalty_window": 0}),
        ({"repeat_last_n": 0}, {}),
        ({"repeat_last_n": 20}, {}),
        ({"xtc_threshold": 0.1, "xtc_probability": 0, "mirostat": 0, "dry_base": 1.75}, {}),
        ({"top_n_sigma": -1}, {}),
        ({"top_n_sigma": 1.5}, {"top_n_sigma": 1.5}),
        ({"dynatemp_range": 0.5}, {"dynatemp_range": 0.5}),
        ({"dynatemp_range": 0, "dynatemp_exponent": 2}, {}),
        ({"dynatemp_range": 0.5, "dynatemp_exponent": 2}, {"dynatemp_range": 0.5, "dynatemp_exponent": 2}),
        ({"min_keep": 0}, {}),
        ({"min_keep": 3}, {"min_tokens_to_keep": 3}),
        ({"dry_multiplier": 0, "dry_base": 2, "dry_sequence_breakers": ["\n"], "dry_penalty_last_n": 0}, {}),
        ({"dry_multiplier": 0.8, "dry_sequence_breakers": [""], "dry_penalty_last_n": -1}, {"dry_multiplier": 0.8}),
        (
            {
                "dry_multiplier": 0.8,
                "dry_base": 2,
                "dry_allowed_length": 3,
                "dry_penalty_last_n": 99,
                "dry_sequence_breakers": [""],
            },
            {"dry_multiplier": 0.8, "dry_base": 2, "dry_allowed_length": 3, "dry_penalty_last_n": 99},
        ),
        (
            {"logit_bias": [[5, -1], ["6", False], [5, 3]]},
            {"logit_bias": {5: 2.0, 6: -np.inf}},
        ),
        ({"logit_bias": {"5": 1.5}}, {"logit_bias": {5: 1.5}}),
        ({"xtc_probability": 0.5}, {"xtc_probability": 0.5, "xtc_threshold": 0.1}),
        ({"xtc_probability": 0.5, "xtc_threshold": 0.2}, {"xtc_probability": 0.5, "xtc_threshold": 0.2}),
        ({"xtc_probability": 0, "xtc_threshold": 0.2}, {}),
        # The list of samplers: what it does not have is left out.
        ({"samplers": ALL_SAMPLERS}, {}),
        ({"samplers": [*reversed(ALL_SAMPLERS[:3]), *ALL_SAMPLERS[3:]], "repeat_last_n": 0}, {}),
        (
            {"samplers": ["temperature", "xtc", "min_p"], "xtc_probability": 0.5, "top_k": 5},
            {
                **NO_FILTERS,
                "temperature": 0.8,
                "xtc_probability": 0.5,
                "min_p": 0.05,
                "order": ("temperature", "xtc", "min_p"),
            },
        ),
        (
            {"samplers": ["top_k", "typ_p"], "typical_p": 0.5, "xtc_probability": 0.5, "xtc_threshold": 0.3},
            {**NO_FILTERS, "top_k": 40, "typical_p": 0.5, "order": ("top_k", "typical_p")},
        ),
        ({"samplers": [], "temperature": 0}, {**NO_FILTERS, "order": ()}),  # without the sampler, it is not greedy
        ({"samplers": ["penalties"], "presence_penalty": 1}, None),
        ({"samplers": ["top_k", "penalties"]}, {**NO_FILTERS, "top_k": 40, "order": ("top_k",)}),
        (
            {
                "samplers": ["top_k"],
                "repeat_penalty": 1.1,
                "top_n_sigma": 1.0,
                "dry_multiplier": 0.8,
                "dynatemp_range": 0.5,
            },
            {**NO_FILTERS, "top_k": 40, "order": ("top_k",)},
        ),
        # Adaptive-p acts only where the list has it.
        ({"adaptive_target": 0.3}, {}),
        ({"samplers": ALL_SAMPLERS, "adaptive_target": 0.3}, {}),
        ({"samplers": [*ALL_SAMPLERS, "adaptive_p"], "adaptive_target": -0.5}, {}),
        (
            {"samplers": [*ALL_SAMPLERS, "adaptive_p"], "adaptive_target": 0.3},
            {"adaptive_target": 0.3, "adaptive_decay": 0.9},
        ),
        (
            {"samplers": ["adaptive_p", "min_p"], "adaptive_target": 0.3, "adaptive_decay": 0.5},
            {
                **NO_FILTERS,
                "min_p": 0.05,
                "adaptive_target": 0.3,
                "adaptive_decay": 0.5,
                "order": ("adaptive_p", "min_p"),
            },
        ),
        # Mirostat takes the place of all samplers.
        (
            {"mirostat": 2},
            {**NO_FILTERS, "temperature": 0.8, "mirostat": 2, "order": ("temperature", "mirostat")},
        ),
        (
            {
                "mirostat": 1,
                "mirostat_tau": 3,
                "mirostat_eta": 0.2,
                "temperature": 1.5,
                "dynatemp_range": 0.5,
                "samplers": ["min_p", "adaptive_p"],
                "adaptive_target": 0.3,
                "repeat_penalty": 1.1,
                "dry_multiplier": 0.8,
                "min_keep": 3,
                "logit_bias": {"5": 1.5},
                "seed": 7,
            },
            {
                **NO_FILTERS,
                "mirostat": 1,
                "mirostat_tau": 3,
                "mirostat_eta": 0.2,
                "temperature": 1.5,
                "logit_bias": {5: 1.5},
                "seed": 7,
                "order": ("temperature", "mirostat"),
            },
        ),
        ({"mirostat": 2, "temperature": 0}, {**NO_FILTERS, "temperature": 0, "order": ("temperature", "mirostat")}),
        # The names of llama-cpp-python. Its mirostat leaves out the temperature, but not the penalties.
        ({"temp": 0.5, "mirostat_mode": 0, "penalize_nl": False, "idx": None, "reset": True}, {"temperature": 0.5}),
        ({"temp": 0.5, "temperature": 0.5, "mirostat": 0, "mirostat_mode": None}, {"temperature": 0.5}),
        ({"temp": None}, {}),
        (
            {"mirostat_mode": 1},
            {**NO_FILTERS, "temperature": 1.0, "mirostat": 1, "order": ("temperature", "mirostat")},
        ),
        (
            {
                "mirostat_mode": 2,
                "mirostat": 2,
                "mirostat_tau": 3,
                "mirostat_eta": 0.2,
                "temp": 1.5,
                "top_k": 10,
                "repeat_penalty": 1.1,
                "frequency_penalty": 0.5,
                "presence_penalty": 0.3,
                "logit_bias": {5: 1.5},
            },
            {
                **NO_FILTERS,
                "mirostat": 2,
                "mirostat_tau": 3,
                "mirostat_eta": 0.2,
                "temperature": 1.0,
                "repetition_penalty": 1.1,
                "frequency_penalty": 0.5,
                "presence_penalty": 0.3,
                "penalty_window": 64,
                "logit_bias": {5: 1.5},
                "order": ("temperature", "mirostat"),
            },
        ),
        ({"mirostat_mode": 2, "temp": 0}, {**NO_FILTERS, "temperature": 0, "order": ("temperature", "mirostat")}),
    ],
    ids=str,
)
def test_llama_cpp(source, want):
    if want is None:
        want = {**NO_FILTERS, "presence_penalty": 1, "penalty_window": 64, "order": ()}
    assert SamplingParams.from_llama_cpp(source) == SamplingParams(**{**LLAMA_CPP_DEFAULTS, **want})


def test_the_keywords_of_llama_cpp_python():
    """Those of version 0.3.36, with their defaults: `create_completion`, and what three other methods have in addition."""
    completion = {
        "prompt": "Once",
        "max_tokens": 16,
        "temperature": 0.8,
        "top_p": 0.95,
        "min_p": 0.05,
        "typical_p": 1.0,
        "echo": False,
        "stop": [],
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repeat_penalty": 1.0,
        "top_k": 40,
        "stream": False,
        "tfs_z": 1.0,
        "mirostat_mode": 0,
        "mirostat_tau": 5.0,
        "mirostat_eta": 0.1,
    }
    completion |= dict.fromkeys(
        ("suffix", "logprobs", "seed", "model", "stopping_criteria", "logits_processor", "grammar", "logit_bias")
    )
    chat = {"messages": []} | dict.fromkeys(
        ("functions", "function_call", "tools", "tool_choice", "response_format", "top_logprobs")
    )
    generate_and_sample = {"tokens": [1, 2], "temp": 0.8, "reset": True, "penalize_nl": True, "idx": None}
    read = SamplingParams.from_llama_cpp({**completion, **chat, **generate_and_sample})
    assert read == SamplingParams(**LLAMA_CPP_DEFAULTS)


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "n": 2}, {}),
        ({"temperature": 0.2, "top_p": 0.9, "seed": 7, "frequency_penalty": -2, "presence_penalty": 2}, None),
        ({"temperature": 0, "top_p": 0.9}, {"temperature": 0}),
        ({"logit_bias": {"50256": -100}, "response_format": {"type": "text"}}, {"logit_bias": {50256: -100.0}}),
    ],
    ids=str,
)
def test_openai(source, want):
    assert SamplingParams.from_openai(source) == SamplingParams(**(source if want is None else want))


@pytest.mark.parametrize(
    ("system", "source", "message"),
    [
        (
            TRANSFORMERS,
            {"topk": 5},
            "the generation config must have fields that are known, got 'topk' with 5; did you",
        ),
        (
            TRANSFORMERS,
            {"logit_bias": {}},
            "the generation config must .*'logit_bias' with {}; did you mean 'suppress_to",
        ),
        (LLAMA_CPP, {"repetition_penalty": 2}, "the llama.cpp request must .* with 2; did you mean 'repeat_penalty'"),
        (TRANSFORMERS, {3: 5}, "the generation config must have fields that are known, got 3 with 5$"),
        (
            TRANSFORMERS,
            {"encoder_no_repeat_ngram_size": 3},
            "encoder_no_repeat_ngram_size of the generation config must be None or 0, got 3",
        ),
        (TRANSFORMERS, {"num_beams": 4}, "num_beams of the generation config must be None or 1, got 4"),
        # Fields that contradict one another.
        (
            TRANSFORMERS,
            {"temperature": 0.6},
            "temperature of the .* must be None or 1.0 where do_sample is not True, got 0.6",
        ),
        (
            TRANSFORMERS,
            {"do_sample": False, "top_k": 20},
            "top_k of the .* None or 0 where do_sample is not True, got 20",
        ),
        (
            TRANSFORMERS,
            {"top_h": 0.4},
            "top_h of the generation config must be None where do_sample is not True, got 0.4",
        ),
        (TRANSFORMERS, {"do_sample": True, "top_h": 0}, "top_h of the generation config must be above 0, got 0"),
        (TRANSFORMERS, {"do_sample": True, "temperature": 0}, "temperature .* above 0 where do_sample is True, got 0"),
        (
            TRANSFORMERS,
            {"do_sample": "yes"},
            "do_sample of the generation config must be None, True or False, got 'yes'",
        ),
        (
            LLAMA_CPP,
            {"repeat_penalty": 1.1, "repeat_last_n": 0},
            "repeat_last_n of .* where a penalty is on, got 0",
        ),
        # Values out of range, of the system or of toksample.
        (VLLM, {"temperature": 2.5}, r"temperature of vLLM's SamplingParams must be in \[0, 2\], got 2.5"),
        (VLLM, {"top_p": 0}, r"top_p of vLLM's SamplingParams must be in \(0, 1\], got 0"),
        (VLLM, {"top_k": -2}, r"top_k must be in \[0, 2\*\*64\), or -1, got -2"),
        (OPENAI, {"presence_penalty": 3}, r"presence_penalty of the OpenAI request must be in \[-2, 2\], got 3"),
        (
            OPENAI,
            {"logit_bias": {"5": -101}},
            r"logit_bias of the OpenAI request must be .* in \[-100, 100\], got {'5': -101}",
        ),
        (OPENAI, {"seed": -1}, r"seed must be in \[0, 2\*\*64\), got -1"),
        (
            LLAMA_CPP,
            {"repeat_penalty": -1},
            r"repeat_penalty of the llama.cpp request: repetition_penalty must be in .*, got -1",
        ),
        (
            LLAMA_CPP,
            {"logit_bias": [["Hello", -1]]},
            r"logit_bias of .* must be a mapping or pairs .*, got \[\['Hello', -1\]\]",
        ),
        (
            LLAMA_CPP,
            {"logit_bias": [[5, True]]},
            r"logit_bias of the llama.cpp request must be .*, got \[\[5, True\]\]",
        ),
        (
            LLAMA_CPP,
            {"samplers": ["top_k", "infill"]},
            r"samplers of the llama.cpp request must be a list of samplers among .*, got \['top_k', 'infill'\]$",
        ),
        (LLAMA_CPP, {"samplers": ["top_k", "top_k"]}, "samplers of .* each at most once, got"),
        (LLAMA_CPP, {"samplers": [["top_k"]]}, "samplers of .* must be a list of samplers among"),
        (LLAMA_CPP, {"samplers": "kpt"}, "samplers of .* must be a list of samplers among .* got 'kpt'$"),
        (
            LLAMA_CPP,
            {"samplers": ["top_k", "penalties"], "frequency_penalty": 0.5},
            "samplers of the llama.cpp request must have 'penalties' before the filters where frequency_penalty is on, got",
        ),
        (
            LLAMA_CPP,
            {"dry_multiplier": 0.8},
            r"dry_sequence_breakers of the llama.cpp request must be \[''\] where dry_multiplier is on, .*, got \['\\n', ",
        ),
        (
            LLAMA_CPP,
            {"dry_multiplier": 0.8, "dry_sequence_breakers": [""], "dry_penalty_last_n": 0},
            "dry_penalty_last_n of .* where dry_multiplier is on, got 0",
        ),
        (
            LLAMA_CPP,
            {"samplers": ["top_k", "dry"], "dry_multiplier": 0.8, "dry_sequence_breakers": [""]},
            "samplers of the llama.cpp request must have 'dry' before the filters where dry_multiplier is on, got",
        ),
        (VLLM, {"allowed_token_ids": []}, r"allowed_token_ids of vLLM's .* a list of at least one token id, got \[\]"),
        (
            LLAMA_CPP,
            {"xtc_probability": 2},
            r"xtc_probability must be in \[0, 1\], got 2",
        ),
        (
            TRANSFORMERS,
            {"suppress_tokens": [-1]},
            r"suppress_tokens must be in \[0, 4194304\), got -1",
        ),
        (
            TRANSFORMERS,
            {"suppress_tokens": 5},
            "suppress_tokens of the generation config must be a list of token ids, got 5",
        ),
        (
            TRANSFORMERS,
            {"sequence_bias": [[5, 2.0]]},
            r"sequence_bias of .* pairs of a list of token ids and a number, got \[\[5, 2.0\]\]",
        ),
        (
            TRANSFORMERS,
            {"forced_eos_token_id": [2, 3]},
            r"forced_eos_token_id of .* a token id or a list of a single one, got \[2, 3\]",
        ),
        (
            TRANSFORMERS,
            {"min_new_tokens": 2, "eos_token_id": "a"},
            "eos_token_id of the generation config must be a token id or a list of them, got 'a'",
        ),
        (
            TRANSFORMERS,
            {"exponential_decay_length_penalty": 5},
            "exponential_decay_length_penalty of .* a pair of an integer and a number, got 5",
        ),
    ],
    ids=str,
)
def test_value_errors(system, source, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        READ[system](source)


@pytest.mark.parametrize(
    ("system", "source", "message"),
    [
        (
            TRANSFORMERS,
            {"do_sample": True, "top_k": "20"},
            "top_k of the generation config must be an integer, got '20'",
        ),
        (
            TRANSFORMERS,
            {"do_sample": True, "top_k": 20.0},
            "top_k of the generation config must be an integer, got 20.0",
        ),
        (VLLM, {"temperature": np.ones(2)}, r"temperature of vLLM's SamplingParams must be a number, got array"),
        (OPENAI, 5, "the OpenAI request must be a mapping or an object of OpenAI, got 5"),
        (VLLM, "file", "vLLM's SamplingParams must be a mapping or an object of vLLM, got 'file'"),
    ],
    ids=str,
)
def test_type_errors(system, source, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        READ[system](source)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=3), items, max_size=3),
)


@every_system
@given(data=st.data())
def test_any_json_is_read_or_refused(system, data):
    names = st.sampled_from(sorted(system.names))
    source = data.draw(st.dictionaries(names, ANYTHING | st.sampled_from([True, 0, 1, 1.0, 0.5]), max_size=4))
    try:
        params = READ[system](source)
    except (ValueError, TypeError) as error:
        message = str(error)
    else:
        assert isinstance(params, SamplingParams)
        return
    assert re.search(r" must .*got ", message, re.DOTALL)
    assert any(name in message for name in source)


def test_objects_of_other_systems():
    class Config:
        def to_dict(self):
            return {**QWEN_2_5, "_commit_hash": "abc"}

    class Struct:  # as msgspec makes them
        __struct_fields__ = ("temperature", "top_k", "_all_stop_token_ids")
        temperature, top_k, _all_stop_token_ids = 0.5, -1, {1}

    assert SamplingParams.from_generation_config(Config()) == SamplingParams.from_generation_config(QWEN_2_5)
    assert SamplingParams.from_vllm(Struct()) == SamplingParams(temperature=0.5, order="vllm")


def test_files(tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps(GEMMA_3), encoding="utf-8")
    want = SamplingParams(top_k=64, top_p=0.95, order="transformers")
    for path in (tmp_path, str(tmp_path), tmp_path / "generation_config.json"):
        assert SamplingParams.from_generation_config(path) == want
        assert GenerationConfig.from_file(path) == GenerationConfig(want, eos_token_ids=(1, 106))
    with pytest.raises(FileNotFoundError):
        SamplingParams.from_generation_config(tmp_path / "missing.json")
    for content, got in (
        (b"{", "an error: "),
        (b"\xff\xfe\xff", "an error: "),
        (b"[" * 10**5, "an error: "),
        (b"[1]", r"\[1\]"),
    ):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(ValueError, match=rf"bad.json must (be a JSON file|have a JSON object), got {got}"):
            GenerationConfig.from_file(tmp_path / "bad.json")


# ---- writing -----------------------------------------------------------------------------------------------------------


def meaning(params):
    """The fields of parameters, without those that change nothing: filters of a greedy draw, steps of filters that are off."""
    normal = SamplingParams()
    fields = {name: getattr(normal, name) if value is None else value for name, value in params.keywords().items()}
    if fields["top_k"] == -1:
        fields["top_k"] = 0
    # A token is a sequence of one, and a ban is a bias of -inf.
    banned = {*((token,) for token in fields["suppress_tokens"] or ()), *(fields["bad_words_ids"] or ())}
    biases = {}
    for key, bias in (*(fields["logit_bias"] or {}).items(), *(fields["sequence_bias"] or {}).items()):
        ids = key if isinstance(key, tuple) else (key,)
        if bias == -np.inf:
            banned.add(ids)
        else:
            biases[ids] = biases.get(ids, 0.0) + bias
    fields |= {"logit_bias": biases or None, "suppress_tokens": banned, "sequence_bias": None, "bad_words_ids": None}
    for name in ("begin_suppress_tokens", "eos_token_ids", "dry_sequence_breakers"):
        fields[name] = fields[name] or None
    fields["min_tokens_to_keep"] = fields["min_tokens_to_keep"] or 1
    if fields["temperature"] == 0:
        for name in STEPS.values():
            fields[name] = getattr(normal, name)
        fields["temperature"] = 0
        fields["dynatemp_range"] = 0
        fields["order"] = tuple(step for step in steps(fields["order"]) if step in EDITS)
    for name, methods in SETTINGS.items():
        if all(fields[method] == getattr(normal, method) for method in methods):
            fields[name] = getattr(normal, name)
    applied = [*EDITS.items(), *STEPS.items(), *((step, name) for name, step in SWITCHES.items())]
    on = {step for step, name in applied if fields[name] != getattr(normal, name)} - {"logit_bias"}
    in_order = steps(fields["order"])
    in_effect = [step for step in edits(in_order) if step in on or has_finite_biases(params, step)]
    order = ["logit_bias" if step == "sequence_bias" else step for step in in_effect]
    order = [step for step, _ in itertools.groupby(order)]
    order += [step for step in in_order if step in on & STEPS.keys()]
    fields["order"] = order
    # A temperature that is the same for all rows makes no difference to the filters that look at the logits alone.
    place = order.index("temperature") if "temperature" in order and fields["dynatemp_range"] == 0 else len(order)
    while place + 1 < len(order) and order[place + 1] in ("top_k", "top_k_with_ties", "top_n_sigma"):
        order[place : place + 2] = order[place + 1], "temperature"
        place += 1
    return fields


def has_finite_biases(params, name):
    """Whether this is the name of biases, of which one is finite. The others are bans."""
    biases = getattr(params, name, None) if name in ("logit_bias", "sequence_bias") else None
    return any(bias > -np.inf for bias in (biases or {}).values())


def some_params(system):
    """Parameters that a system has, often at their boundaries."""
    shares = st.sampled_from([0.0, 0.25, 1.0, None]) | st.floats(0, 1)
    penalties = st.sampled_from([0.0, -2.0, 2.0, 3.0, None])
    biases = st.sampled_from([-100.0, 0.5, 100.0, 101.0, -np.inf])
    ids = st.sampled_from([None, (), (0,), (3, 1)])
    words = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)
    values = {
        "temperature": st.sampled_from([0, 1e-30, 0.005, 0.01, 0.7, 1, 2, 5.0, None]),
        "top_k": st.sampled_from([-1, 0, 1, 40, 50, 2**40, None]),
        "top_p": shares,
        "min_p": shares,
        "typical_p": shares,
        "epsilon_cutoff": shares,
        "eta_cutoff": shares,
        "top_a": shares,
        "top_n_sigma": st.sampled_from([0, 0.5, 1, None]),
        "tfs": shares,
        "top_h": shares,
        "xtc_probability": shares,
        "xtc_threshold": shares,
        "xtc_exempt_token_ids": ids,
        "min_tokens_to_keep": st.sampled_from([0, 1, 3, None]),
        "order": st.none()
        | st.sampled_from([system.order, *ORDERS])
        | st.builds(
            lambda edits, filters: (*edits, *filters),
            st.lists(st.sampled_from(list(EDITS)), unique=True),
            st.permutations(steps(system.order)),
        ),
        "dynatemp_range": st.sampled_from([0, 0.5, 1, None]),
        "dynatemp_exponent": st.sampled_from([0.5, 1, 2, None]),
        "smoothing_factor": shares,
        "smoothing_curve": st.sampled_from([1, 2.5, None]),
        "mirostat": st.sampled_from([0, 1, 2, None]),
        "mirostat_tau": st.sampled_from([0.5, 5, None]),
        "mirostat_eta": shares,
        "adaptive_target": st.sampled_from([-1.0, 0.0, 0.3, 1.0, None]),
        "adaptive_decay": st.sampled_from([0.0, 0.9, 0.99, None]),
        "repetition_penalty": st.sampled_from([0.5, 1, 1.1, None]),
        "frequency_penalty": penalties,
        "presence_penalty": penalties,
        "penalty_window": st.sampled_from([0, 1, 64, 2**31, None]),
        "seed": st.sampled_from([None, 0, 1, 2**32 - 1, 2**63]),
        "stream": st.sampled_from([None, 3]),
        "logit_bias": st.none() | st.dictionaries(st.integers(0, 9), biases, max_size=3),
        "sequence_bias": st.none() | st.dictionaries(words, biases, max_size=3),
        "bad_words_ids": st.none() | st.lists(words, max_size=3),
        "encoder_repetition_penalty": st.sampled_from([0.5, 1, 1.1, None]),
        "dry_multiplier": st.sampled_from([0.0, 0.8, None]),
        "dry_base": st.sampled_from([1.0, 1.75, 2.0, None]),
        "dry_allowed_length": st.sampled_from([1, 2, 2**31, None]),
        "dry_penalty_last_n": st.sampled_from([0, 1, 2**31, None]),
        "dry_sequence_breakers": st.sampled_from([None, (), (3, 5)]),
        "no_repeat_ngram_size": st.sampled_from([0, 1, 3, None]),
        "exponential_decay_length_penalty": st.sampled_from([None, (0, 1.0), (5, 1.5)]),
        "allowed_token_ids": ids,
        "suppress_tokens": ids,
        "begin_suppress_tokens": ids,
        "eos_token_ids": ids,
        "min_new_tokens": st.sampled_from([0, 3, None]),
        "forced_bos_token_id": st.sampled_from([None, 0, 7]),
        "forced_eos_token_id": st.sampled_from([None, 0, 7]),
        "max_new_tokens": st.sampled_from([0, 1, 9, None]),
    }
    assert values.keys() == FIELDS
    fields = st.fixed_dictionaries({}, optional={name: values[name] for name in sorted(FIELDS - system.lacks)})
    return fields.filter(has_steps)


def has_steps(fields):
    """Whether the order has a step for each filter that is on."""
    normal = SamplingParams().keywords()
    on = {name for name in STEPS.values() if fields.get(name) not in (None, normal[name], -1)}
    return on <= {STEPS.get(step) for step in steps(fields.get("order"))}


CANNOT_EXPRESS = {  # of the values above
    TRANSFORMERS: {"typical_p": {0.0}, "epsilon_cutoff": {1.0}, "eta_cutoff": {1.0}},
    VLLM: {
        "allowed_token_ids": {()},
        "temperature": {1e-30, 0.005, 5.0},
        "top_p": {0.0},
        "frequency_penalty": {3.0},
        "presence_penalty": {3.0},
    },
    LLAMA_CPP: {
        "top_k": {2**40},
        "penalty_window": {2**31},
        "dry_allowed_length": {2**31},
        "dry_penalty_last_n": {2**31},
        "dry_sequence_breakers": {(3, 5)},
        "seed": {2**32 - 1, 2**63},
    },
    OPENAI: {"temperature": {5.0}, "frequency_penalty": {3.0}, "presence_penalty": {3.0}, "seed": {2**63}},
}


@every_system
@given(data=st.data())
def test_what_is_written_is_read_with_the_same_meaning(system, data):
    params = SamplingParams(**data.draw(some_params(system)))
    try:
        written = WRITE[system](params)
    except ValueError as error:
        refusal = str(error)
    else:
        if params.order is None and system is not LLAMA_CPP:  # the order is then that of the system
            params = dataclasses.replace(params, order=system.order)
        assert meaning(READ[system](written)) == meaning(params)
        assert meaning(READ[system](json.loads(json.dumps(written)))) == meaning(params)
        return
    name = refusal.split(" must be ")[0]
    value = getattr(params, name)
    if name == "logit_bias":
        assert system is OPENAI
        assert any(abs(bias) > 100 for bias in value.values())
    elif " where mirostat is on in " in refusal:
        assert system is LLAMA_CPP
        assert params.mirostat in (1, 2)
        assert meaning(params)[name] != meaning(SamplingParams())[name]
    elif name == "order":
        is_other = meaning(params)["order"] != meaning(dataclasses.replace(params, order=system.order))["order"]
        assert is_other or (has_finite_biases(params, "logit_bias") and has_finite_biases(params, "sequence_bias"))
        in_order = meaning(params)["order"]
        named = [step for step in in_order if step in EDITS]
        is_other = named != [step for step in EDITS if step in named]
        assert system is not LLAMA_CPP or {"top_k_with_ties", "top_p_beyond"} & {*in_order} or is_other
        assert refusal.endswith(f" in {system.noun}, got {show(value)}")
    else:
        assert value in CANNOT_EXPRESS[system][name]
        assert refusal.endswith(f", got {value!r}")


@every_system
def test_what_a_system_lacks_must_be_off(system):
    ids = dict.fromkeys(("allowed_token_ids", "suppress_tokens", "begin_suppress_tokens"), (3, 5))
    integers = ("top_k", "seed", "stream", "no_repeat_ngram_size", "min_new_tokens")
    some = ids | dict.fromkeys((*integers, "forced_bos_token_id", "forced_eos_token_id"), 5) | {"mirostat": 2}
    some |= {"repetition_penalty": 1.1, "encoder_repetition_penalty": 1.1, "bad_words_ids": ((3, 5),)}
    some |= {"sequence_bias": {(3, 5): 1.0}, "exponential_decay_length_penalty": (3, 1.5)}
    for name in system.lacks - SETTINGS.keys():
        value = some.get(name, 0.25)
        message = f"because {system.noun} does not have it, got {value}"
        with pytest.raises(ValueError, match=rf"^{name} must be .*, {re.escape(message)}$"):
            WRITE[system](SamplingParams(**{name: value}))
        assert WRITE[system](SamplingParams(**{name: None})) == WRITE[system](SamplingParams())


@every_system
def test_a_threshold_of_xtc_has_no_effect_without_it(system):
    assert WRITE[system](SamplingParams(xtc_threshold=0.25)) == WRITE[system](SamplingParams())
    if "xtc_threshold" in system.lacks:
        with pytest.raises(ValueError, match=r"^xtc_probability must be 0.0, because .* does not have it, got 0.5$"):
            WRITE[system](SamplingParams(xtc_probability=0.5, xtc_threshold=0.25))


@pytest.mark.parametrize(
    ("system", "fields", "message"),
    [
        (TRANSFORMERS, {"top_k": 5}, "None or 'transformers' in the generation config, got 'sglang'"),
        (VLLM, {"top_k": 5}, "None or 'vllm' in vLLM's SamplingParams, got 'sglang'"),
        (OPENAI, {"top_p": 0.5}, "None in the OpenAI request, got 'sglang'"),
        (
            LLAMA_CPP,
            {"top_p": 0.5},
            "None or 'llama.cpp', or have steps among top_n_sigma, top_k, typical_p, top_p, min_p, xtc, temperature, "
            "adaptive_p in the llama.cpp request, got 'sglang'",
        ),
    ],
    ids=lambda one: one.name if one in SYSTEMS else None,
)
def test_an_order_that_a_system_lacks(system, fields, message):
    with pytest.raises(ValueError, match=f"^order must be {re.escape(message)}$"):
        WRITE[system](SamplingParams(order="sglang", **fields))
    # These have nothing of which the order matters.
    for same in ({"temperature": 0, **fields}, {"temperature": 0.5}):
        assert WRITE[system](SamplingParams(order="sglang", **same)) == WRITE[system](SamplingParams(**same))


def test_an_order_that_llama_cpp_has():
    assert "samplers" not in SamplingParams(top_k=5, temperature=0.5, order="llama.cpp").to_llama_cpp()
    written = SamplingParams(top_p=0.5, temperature=0.5, order=("temperature", "top_p")).to_llama_cpp()
    assert written["samplers"] == ["penalties", "dry", "temperature", "top_p"]
    written = SamplingParams(top_p=0.5, temperature=0.5, order="toksample").to_llama_cpp()
    filters = ["temperature", "top_k", "top_p", "min_p", "typ_p", "top_n_sigma", "xtc"]
    assert written["samplers"] == ["penalties", "dry", *filters]
    # The range of the temperature is a part of its step.
    written = SamplingParams(top_p=0.5, dynatemp_range=0.5, order=("temperature", "top_p")).to_llama_cpp()
    assert written["samplers"] == ["penalties", "dry", "temperature", "top_p"]


def test_the_default_order_is_written_for_llama_cpp_where_it_matters():
    for same in (
        {"top_p": 0.5},
        {"temperature": 0.5, "top_n_sigma": 1.0},
        {"temperature": 0.5, "top_k": 5},
        {"temperature": 0, "top_p": 0.5},
    ):
        assert "samplers" not in SamplingParams(**same).to_llama_cpp()
    filters = ["temperature", "top_k", "top_p", "min_p", "typ_p", "top_n_sigma", "xtc"]
    for params in (
        {"temperature": 0.5, "min_p": 0.5},
        {"dynatemp_range": 0.5, "top_k": 5},
        {"top_p": 0.5, "typical_p": 0.5},
    ):
        written = SamplingParams(**params).to_llama_cpp()
        assert written["samplers"] == ["penalties", "dry", *filters]
        assert meaning(SamplingParams.from_llama_cpp(written)) == meaning(SamplingParams(**params))


def test_llama_cpp_may_apply_dry_before_the_penalties():
    source = {"dry_multiplier": 0.8, "dry_sequence_breakers": [""], "frequency_penalty": 1, "repeat_penalty": 1.1}
    source |= {"samplers": ["dry", "penalties", "top_k", "temperature"], "logit_bias": [[3, 1.0]]}
    params = SamplingParams.from_llama_cpp(source)
    assert params.order == ("dry", "repetition_penalty", "frequency_penalty", "top_k", "temperature")
    assert params.to_llama_cpp()["samplers"] == ["dry", "penalties", "top_k", "temperature"]
    greedy = dataclasses.replace(params, temperature=0, top_k=None)
    assert greedy.to_llama_cpp()["samplers"][:2] == ["dry", "penalties"]
    for off in ({"dry_multiplier": 0.0}, {"frequency_penalty": 0.0, "repeat_penalty": 1.0}):
        assert SamplingParams.from_llama_cpp(source | off).order == ("top_k", "temperature")


FIRST_AND_SECOND = {
    TRANSFORMERS: ("encoder_repetition_penalty", "repetition_penalty"),
    VLLM: ("repetition_penalty", "frequency_penalty"),
    LLAMA_CPP: ("repetition_penalty", "frequency_penalty"),
    OPENAI: ("frequency_penalty", "presence_penalty"),
}
"""For each system, two edits in its order."""


@every_system
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_an_order_of_edits_must_be_that_of_the_system(system, temperature):
    first, second = FIRST_AND_SECOND[system]
    params = SamplingParams(**{first: 1.5, second: 1.25}, temperature=temperature, order=(second, first, "temperature"))
    with pytest.raises(ValueError, match=r"^order must "):
        WRITE[system](params)
    for same in ({second: None}, {"order": (first, second, "temperature")}):
        assert WRITE[system](dataclasses.replace(params, **same))


def test_adaptive_p_is_written_with_its_sampler():
    for order in (None, "llama.cpp", ("adaptive_p", "min_p"), ("min_p", "adaptive_p")):
        params = SamplingParams(min_p=0.05, adaptive_target=0.3, order=order)
        written = params.to_llama_cpp()
        assert "adaptive_p" in written["samplers"]
        assert meaning(SamplingParams.from_llama_cpp(written)) == meaning(params)
    with pytest.raises(ValueError, match=r"^adaptive_decay must be in \[0, 0.99\] in the llama.cpp request, got 1$"):
        SamplingParams(adaptive_target=0.3, adaptive_decay=1).to_llama_cpp()


def test_mirostat_is_written_alone():
    params = SamplingParams(mirostat=2, mirostat_tau=3.0, temperature=0.7, logit_bias={3: 1.0}, seed=5)
    written = params.to_llama_cpp()
    assert "samplers" not in written
    assert (written["mirostat"], written["mirostat_tau"], written["mirostat_eta"]) == (2, 3.0, 0.1)
    read = SamplingParams.from_llama_cpp(written)
    assert read == dataclasses.replace(params, order=("temperature", "mirostat"))
    assert read.to_llama_cpp() == dataclasses.replace(params, order="llama.cpp").to_llama_cpp() == written
    for name, value in {"top_k": 5, "min_tokens_to_keep": 3, "presence_penalty": 1.0, "dynatemp_range": 0.5}.items():
        message = f"^{name} must be .* where mirostat is on in the llama.cpp request, got {value}$"
        with pytest.raises(ValueError, match=message):
            SamplingParams(mirostat=2, **{name: value}).to_llama_cpp()
    with pytest.raises(
        ValueError, match=r"^order must be None or \('temperature', 'mirostat'\) where mirostat is on in "
    ):
        SamplingParams(mirostat=2, temperature=0.5, order=("mirostat", "temperature")).to_llama_cpp()
    assert SamplingParams(mirostat=2, temperature=0, top_k=5).to_llama_cpp()["temperature"] == 0


def test_a_penalty_window_that_a_system_lacks():
    window = SamplingParams(penalty_window=5)  # which has no effect without a penalty
    assert window.to_generation_config() == SamplingParams().to_generation_config()
    with pytest.raises(ValueError, match=r"^penalty_window must be 0, because .* does not have it, got 5$"):
        SamplingParams(repetition_penalty=1.1, penalty_window=5).to_generation_config()
    with pytest.raises(ValueError, match=r"^penalty_window must be 0, because .* does not have it, got 5$"):
        SamplingParams(presence_penalty=1, penalty_window=5).to_vllm()


def test_what_is_written_says_all():
    """Every number is there, so that nothing is taken from the configuration of a model or of a server."""
    for system in SYSTEMS:
        options = [option for option in system.options if option.ours not in SETTINGS]
        numbers = {option.theirs for option in options if option.number and option.off}
        assert numbers <= WRITE[system](SamplingParams()).keys()
        assert numbers <= WRITE[system](SamplingParams(temperature=0.5, top_k=-1, min_p=None)).keys()


def test_a_window_is_written_where_a_penalty_is_on():
    assert "repeat_last_n" not in SamplingParams(penalty_window=9).to_llama_cpp()
    for window, want in ((0, -1), (64, 64), (9, 9)):
        written = SamplingParams(repetition_penalty=1.1, penalty_window=window).to_llama_cpp()
        assert written["repeat_last_n"] == want


def test_dry_is_written_without_the_breakers_of_the_server():
    assert "dry_base" not in SamplingParams(dry_base=2.0).to_llama_cpp()
    written = SamplingParams(dry_multiplier=0.8).to_llama_cpp()
    assert {name: value for name, value in written.items() if name.startswith("dry_")} == {
        "dry_multiplier": 0.8,
        "dry_base": 1.75,
        "dry_allowed_length": 2,
        "dry_penalty_last_n": -1,
        "dry_sequence_breakers": [""],
    }


def test_bans_are_written_without_infinity():
    params = SamplingParams(
        logit_bias={3: -np.inf, 5: 1.5},
        suppress_tokens=[4],
        sequence_bias={(1, 2): -np.inf, (1, 3): 2.0},
        bad_words_ids=[[6]],
    )
    written = params.to_generation_config()
    assert written["suppress_tokens"] == [4, 3]
    assert written["bad_words_ids"] == [[6], [1, 2]]
    assert written["sequence_bias"] == [[[5], 1.5], [[1, 3], 2.0]]


def test_the_biases_of_a_token_are_added_where_they_are_written():
    params = SamplingParams(logit_bias={5: 1.5, 6: 1.0}, sequence_bias={5: 2.0, (7, 5): 3.0})
    assert params.to_generation_config()["sequence_bias"] == [[[5], 3.5], [[6], 1.0], [[7, 5], 3.0]]


# ---- GenerationConfig --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "want"),
    [
        (GEMMA_3, {"eos_token_ids": (1, 106)}),
        (LLAMA_2, {"eos_token_ids": (2,), "max_length": 4096}),
        (WHISPER, {"eos_token_ids": (50257,), "max_length": 448}),
        ({"min_new_tokens": 3, "eos_token_id": 2}, {"min_new_tokens": 3, "eos_token_ids": (2,)}),
        ({"forced_eos_token_id": 2, "max_new_tokens": 9}, {"max_new_tokens": 9}),
        (GPT_2, {"eos_token_ids": (50256,)}),
        ({"stop_strings": "END", "max_new_tokens": 9, "min_new_tokens": 3}, None),
        ({"stop_strings": ["a", "b"], "eos_token_id": []}, {"stop_strings": ("a", "b")}),
    ],
    ids=str,
)
def test_generation_config_from_dict(source, want):
    if want is None:
        want = {"stop_strings": ("END",), "max_new_tokens": 9, "min_new_tokens": 3}
    config = GenerationConfig.from_dict(source)
    assert config == GenerationConfig(SamplingParams.from_generation_config(source), **want)
    assert GenerationConfig.from_dict(config.to_dict()) == config
    assert hash(config) == hash(GenerationConfig.from_dict(source))


def test_generation_config_is_saved(tmp_path):
    params = SamplingParams(temperature=0.6, top_p=0.9, logit_bias={5: 1.5}, suppress_tokens=[3], order="transformers")
    config = GenerationConfig(params, 9, 50, 2, [1, 2], [], ["END"])
    config.save(tmp_path)
    config.save(str(tmp_path / "other.json"))
    assert GenerationConfig.from_file(tmp_path) == GenerationConfig.from_file(tmp_path / "other.json") == config
    content = (tmp_path / "other.json").read_text(encoding="utf-8")
    assert json.loads(content, parse_constant=pytest.fail) == config.to_dict()
    both = dataclasses.replace(config, stop_token_ids=[2, 7])
    assert both.to_dict()["eos_token_id"] == [1, 2, 7]
    assert both.stops == {1, 2, 7}


def test_the_end_of_a_text_is_in_one_place():
    params = SamplingParams(max_new_tokens=9, min_new_tokens=3, eos_token_ids=[1], top_k=5)
    config = GenerationConfig(params)
    assert config == GenerationConfig(SamplingParams(top_k=5), 9, None, 3, [1])
    other = GenerationConfig(params, 20, 30, 4, [2])
    assert other == GenerationConfig(SamplingParams(top_k=5), 20, 30, 4, [2])
    assert GenerationConfig(params, max_new_tokens=5).max_new_tokens == 5
    assert dataclasses.replace(config, min_new_tokens=0, eos_token_ids=()) == GenerationConfig(
        SamplingParams(top_k=5), 9
    )


def test_the_limit_of_a_generation_config():
    assert GenerationConfig().limit(5) == 256
    assert GenerationConfig(max_length=20).limit(5) == 15
    assert GenerationConfig(max_length=20).limit(25) == 0
    assert GenerationConfig(max_length=20, max_new_tokens=300).limit(25) == 300


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"params": {}}, TypeError, "params must be a SamplingParams, got {}"),
        ({"max_new_tokens": -1}, ValueError, "max_new_tokens must be >= 0, got -1"),
        ({"max_length": 1.5}, TypeError, "max_length must be an integer, got 1.5"),
        ({"min_new_tokens": -1}, ValueError, "min_new_tokens must be >= 0, got -1"),
        (
            {"min_new_tokens": 5, "max_new_tokens": 4},
            ValueError,
            "min_new_tokens must be at most max_new_tokens, which is 4, got 5",
        ),
        ({"eos_token_ids": 5}, TypeError, "eos_token_ids must be a list of token ids, got 5"),
        ({"eos_token_ids": [-5]}, ValueError, "eos_token_ids must be >= 0, got -5"),
        ({"stop_token_ids": ["a"]}, TypeError, "stop_token_ids must be an integer, got 'a'"),
        ({"stop_strings": "END"}, TypeError, "stop_strings must be a list of texts, got 'END'"),
        ({"stop_strings": [5]}, TypeError, "stop_strings must be a list of texts, got [5]"),
        ({"stop_strings": [""]}, ValueError, "stop_strings must be texts that are not empty, got ['']"),
    ],
    ids=str,
)
def test_wrong_generation_configs(wrong, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        GenerationConfig(**wrong)


def test_wrong_sources():
    with pytest.raises(TypeError, match=r"^path must be a str or a path, got 5$"):
        GenerationConfig.from_file(5)
    with pytest.raises(ValueError, match=r"^num_beams of the generation config must be None or 1, got 2$"):
        GenerationConfig.from_dict({"num_beams": 2})


# ---- the documentation -------------------------------------------------------------------------------------------------


def documented_row(name):
    """The row of the table in docs/sampling-methods.md for a field of SamplingParams or of GenerationConfig."""

    def cell(system):
        options = [option for option in system.options if option.ours == name]
        names = [option.theirs for option in options] + [theirs for theirs, ours in system.text.items() if ours == name]
        names += [alias for alias, theirs in system.aliases.items() if theirs in names]
        defaults = [f" ({option.default})" for option in options if option.default is not None]
        return ", ".join(f"`{theirs}`" for theirs in dict.fromkeys(names)) + "".join(defaults) or "–"  # noqa: RUF001

    return f"| `{name}` | {' | '.join(map(cell, SYSTEMS))} |"


def test_the_documentation_has_what_the_tables_say():
    text = METHODS.read_text(encoding="utf-8").split("## Your system's option is called ...")[1]
    rows = re.findall(r"^\| `.*\|$", text, re.MULTILINE)
    fields = {field.name for config in (SamplingParams, GenerationConfig) for field in dataclasses.fields(config)}
    assert sorted(rows) == sorted(documented_row(name) for name in fields if name != "params")


# ---- stop strings ------------------------------------------------------------------------------------------------------


@given(
    text=st.text("ab", max_size=12),
    strings=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 12), max_size=4),
)
def test_stop_strings_however_the_text_is_cut(text, strings, cuts):
    want, found = text, False
    for end in range(1, len(text) + 1):
        complete = [string for string in strings if text[:end].endswith(string)]
        if complete:
            want, found = text[: end - max(map(len, complete))], True
            break
    stops, shown = StopStrings(strings), ""
    edges = [0, *sorted(cuts), len(text)]
    for start, end in itertools.pairwise(edges):
        shown += stops.push(text[start:end])
        assert want.startswith(shown)
        if stops.found:
            break
    assert (shown + stops.finish(), stops.found) == (want, found)


def test_stop_strings_hold_back_no_more_than_needed():
    stops = StopStrings(["END", "\n\n"])
    assert [stops.push(piece) for piece in ("one\n", "two E", "N", "E", "x")] == ["one", "\ntwo ", "", "EN", "Ex"]
