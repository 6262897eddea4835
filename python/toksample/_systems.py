"""What other systems call the parameters of :class:`toksample.SamplingParams`: one table for each system.

`_configs` reads and writes their configurations by these tables. To add a parameter, give each table an :class:`Option` for
it, or name it in ``lacks``. If the parameter was in ``refused`` or ``ignored`` until then, take it out there. If it has no
meaning by itself, name the methods that it belongs to in `SETTINGS`. The order of the steps is not in the configurations of
most systems: each system has its own, which is in `_orders`.

The tables follow transformers 5.24, vLLM 0.33, the request schema of llama.cpp's server and the methods of ``Llama`` in
llama-cpp-python 0.3.36 from 2026, and the chat and completion requests of OpenAI's API.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from toksample._orders import STEPS, steps

__all__ = ["LLAMA_CPP", "OPENAI", "SETTINGS", "SYSTEMS", "TRANSFORMERS", "VLLM", "Alone", "Option", "Refused", "System"]

_PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")
_FILTERS = (
    *("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "top_a", "eta_cutoff", "top_n_sigma", "tfs", "top_h"),
    *("xtc_probability", "mirostat"),
)

SETTINGS: dict[str, tuple[str, ...]] = {
    "penalty_window": _PENALTIES,
    "xtc_threshold": ("xtc_probability",),
    "xtc_exempt_token_ids": ("xtc_probability",),
    "min_tokens_to_keep": _FILTERS,
    "dynatemp_exponent": ("dynatemp_range",),
    "smoothing_curve": ("smoothing_factor",),
    "mirostat_tau": ("mirostat",),
    "mirostat_eta": ("mirostat",),
    "adaptive_decay": ("adaptive_target",),
    "dry_base": ("dry_multiplier",),
    "dry_allowed_length": ("dry_multiplier",),
    "dry_penalty_last_n": ("dry_multiplier",),
    "dry_sequence_breakers": ("dry_multiplier",),
    "eos_token_ids": ("min_new_tokens", "exponential_decay_length_penalty"),
    "max_new_tokens": ("forced_eos_token_id",),
}
"""The parameters that have no meaning while all of these methods are off. A table has their options after the methods."""


class Option(NamedTuple):
    """A field of another system that stands for a field of SamplingParams.

    A field may have several options. What each of them reads is then put together, and so is what each of them writes.
    """

    theirs: str
    ours: str
    off: tuple[object, ...] = ()
    """The values with which the system leaves the method out.

    The first one is written where the method is off, if the field is a number or has a default.
    """
    default: object = None
    """What the system takes if the field is absent or None. None is off."""
    number: type[float] | type[int] | None = float
    """float, int, or None for a value that is not a number."""
    rule: str = ""
    """Which values the system takes, where it takes fewer than SamplingParams. Not checked for values that are off."""
    holds: Callable[[Any], bool] = lambda value: True
    read: Callable[[Any], Any] = lambda value: value
    """From their value to ours; None is off. It may raise TypeError or ValueError: the rule says what was expected."""
    write: Callable[[Any], Any] = lambda value: value
    """From our value to theirs; None to leave the field out."""
    join: Callable[[Any, Any], Any] = operator.add
    """Puts together what two options of the same field write."""
    is_filter: bool = False
    """Whether it has no effect on greedy decoding."""
    sampler: str | None = None
    """What the system calls the method in a list of samplers. A method that such a list does not name is left out."""


class Refused(NamedTuple):
    """A field that changes which tokens are drawn, and that toksample has no counterpart for."""

    theirs: str
    off: tuple[object, ...] = ()
    """The values with which the field changes nothing, besides None."""
    sampler: str | None = None
    """As in :class:`Option`."""


class Alone(NamedTuple):
    """A method that takes the place of a system's samplers where it is on."""

    theirs: str
    """The field that switches it on."""
    ours: str
    order: tuple[str, ...]
    """The steps that are then applied."""
    beside: frozenset[str]
    """The other fields of SamplingParams that then matter."""
    has_temperature: bool = True
    """Whether the temperature is applied. If it is 0, the most probable token is taken in any case."""


@dataclass(frozen=True, eq=False)
class System:
    """What toksample knows of the configuration of another system."""

    name: str
    noun: str
    """What error messages call the configuration."""
    options: tuple[Option, ...]
    refused: tuple[Refused, ...]
    text: Mapping[str, str]
    """The fields that say when a text ends, and the names of these in :class:`toksample.GenerationConfig`.

    Some have an option as well, because a method needs to know them.
    """
    ignored: frozenset[str]
    """The fields that do not change which tokens are drawn."""
    lacks: frozenset[str]
    """The fields of SamplingParams that the system does not have."""
    order: str | None = None
    """The order in which the system applies the temperature and the filters, by its name in `_orders`. None: not known."""
    only_if_listed: frozenset[str] = frozenset()
    """The samplers that the system applies only where a list of samplers has them."""
    alone: tuple[Alone, ...] = ()
    """The methods that take the place of samplers. The first one is written."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of fields, from another interface to the system, and the names that they have in ``options``."""
    switch: str | None = None
    """The field that is True if the system samples. Otherwise it takes the most probable token."""
    names: frozenset[str] = field(init=False)
    """All fields that are known."""

    @property
    def list_of_samplers(self) -> Option | None:
        """The field that lists the samplers in their order, if there is one. Only llama.cpp has it."""
        return next((option for option in self.options if option.ours == "order"), None)

    @property
    def sampler_of(self) -> dict[str, str]:
        """The steps of an order that can be in the list of samplers, and the name that each has there."""
        samplers = {option.ours: option.sampler for option in self.options if option.sampler is not None}
        return {step: samplers[STEPS[step]] for step in steps(self.order) if STEPS.get(step) in samplers}

    def __post_init__(self) -> None:
        names = {option.theirs for option in self.options} | {refused.theirs for refused in self.refused}
        names |= self.text.keys() | self.ignored | self.aliases.keys()
        object.__setattr__(self, "names", frozenset(names | ({self.switch} if self.switch else set())))


def _filter(theirs: str, ours: str, off: tuple[object, ...] = (), default: object = None, **rest: Any) -> Option:
    return Option(theirs, ours, off, default, is_filter=True, **rest)


_XTC = ("xtc_probability", "xtc_threshold", "xtc_exempt_token_ids")
_DRY = ("dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers")
_OF_TRANSFORMERS = (
    *("encoder_repetition_penalty", "no_repeat_ngram_size", "sequence_bias", "bad_words_ids"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "max_new_tokens"),
    "exponential_decay_length_penalty",
)
"""The fields of SamplingParams that only transformers has."""
_DYNATEMP = ("dynatemp_range", "dynatemp_exponent")
_SMOOTHING = ("smoothing_factor", "smoothing_curve")
_MIROSTAT = ("mirostat", "mirostat_tau", "mirostat_eta")
_ADAPTIVE = ("adaptive_target", "adaptive_decay")


def _seed(*random: int, **rest: Any) -> Option:
    """Make the option for a seed, with the values that stand for fresh entropy, which is written as no seed at all."""
    return Option("seed", "seed", number=int, read=lambda seed: None if seed in random else seed, **rest)


def _nothing(value: Any) -> None:
    """Read nothing, for an option that is only there to be written."""


# ---- logit biases, which every system writes in its own way ----------------------------------------------------------


def _token(key: Any) -> Any:
    """Give a token id; as the key of a JSON object it is a text."""
    return int(key) if isinstance(key, str) else operator.index(key)


def _from_mapping(biases: Any) -> dict[int, Any]:
    return {_token(key): bias for key, bias in dict(biases).items()}


def _to_openai(biases: Mapping[int, float]) -> dict[str, float]:
    return {str(token): float(bias) for token, bias in biases.items()}


def _to_mapping(biases: Mapping[int, float]) -> dict[int, float]:
    return {token: float(bias) for token, bias in biases.items()}


def _from_llama_cpp(biases: Any) -> dict[int, float]:
    """Read a mapping or pairs, in which False bans a token; the biases of a token that is there twice are added."""
    result: dict[int, float] = {}
    for key, bias in biases.items() if isinstance(biases, Mapping) else biases:
        if bias is True:
            raise TypeError("the server ignores True")
        token = _token(key)
        result[token] = result.get(token, 0.0) + (float("-inf") if bias is False else bias)
    return result


# transformers has one field for the biases of tokens and of sequences of them, and JSON has no -inf. So a bias of -inf is
# written as one of the tokens that are suppressed, or of the bad words.


def _pairs(biases: Any) -> list[tuple[tuple[int, ...], Any]]:
    """Read ``sequence_bias`` of transformers: pairs of a sequence of tokens and a bias, or a mapping."""
    pairs = biases.items() if isinstance(biases, Mapping) else biases
    return [(_ids(tokens), bias) for tokens, bias in pairs]


def _from_pairs_of_tokens(biases: Any) -> dict[int, Any] | None:
    return {ids[0]: bias for ids, bias in _pairs(biases) if len(ids) == 1} or None


def _from_pairs_of_sequences(biases: Any) -> dict[tuple[int, ...], Any] | None:
    return {ids: bias for ids, bias in _pairs(biases) if len(ids) != 1} or None


def _to_pairs(biases: Mapping[Any, float]) -> list[list[Any]] | None:
    pairs = [(key if isinstance(key, tuple) else (key,), bias) for key, bias in biases.items()]
    return [[list(ids), float(bias)] for ids, bias in pairs if bias != float("-inf")] or None


def _join_pairs(some: list[list[Any]], more: list[list[Any]]) -> list[list[Any]]:
    """Add the biases of a token that is in both lists, because transformers would take the last one alone."""
    biases: dict[tuple[int, ...], float] = {}
    for ids, bias in (*some, *more):
        biases[tuple(ids)] = biases.get(tuple(ids), 0.0) + bias
    return [[list(ids), bias] for ids, bias in biases.items()]


def _to_banned(biases: Mapping[Any, float]) -> list[Any] | None:
    """Give the tokens or the sequences that have a bias of -inf."""
    banned = [key for key, bias in biases.items() if bias == float("-inf")]
    return [list(key) if isinstance(key, tuple) else key for key in banned] or None


# ---- token ids -------------------------------------------------------------------------------------------------------


def _ids(tokens: Any) -> tuple[int, ...]:
    return tuple(map(operator.index, tokens))


def _one_or_more_ids(tokens: Any) -> tuple[int, ...]:
    return _ids([tokens] if isinstance(tokens, numbers.Integral) else tokens)


def _one_id(tokens: Any) -> int:
    (token,) = _one_or_more_ids(tokens)
    return token


def _words(words: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(map(_ids, words))


def _to_words(words: Sequence[Sequence[int]]) -> list[list[int]]:
    return [list(word) for word in words]


def _list_of_ids(theirs: str, ours: str, **rest: Any) -> Option:
    return Option(theirs, ours, ([],), number=None, rule="a list of token ids", read=_ids, write=list, **rest)


# ---- transformers ----------------------------------------------------------------------------------------------------

_biases: dict[str, Any] = {
    "off": ([], {}),
    "number": None,
    "rule": "pairs of a list of token ids and a number",
    "join": _join_pairs,
}

TRANSFORMERS = System(
    name="transformers",
    order="transformers",
    noun="the generation config",
    switch="do_sample",
    options=(
        _filter("temperature", "temperature", (1.0,)),
        _filter("top_k", "top_k", (0,), 50, number=int),
        _filter("top_p", "top_p", (1.0,)),
        _filter("min_p", "min_p", (0.0,)),
        _filter("typical_p", "typical_p", (1.0,), rule="above 0", holds=lambda p: p != 0),
        _filter("epsilon_cutoff", "epsilon_cutoff", (0.0, 1.0)),
        _filter("eta_cutoff", "eta_cutoff", (0.0, 1.0)),
        _filter("top_h", "top_h", rule="above 0", holds=lambda h: h != 0),
        Option("repetition_penalty", "repetition_penalty", (1.0,)),
        Option("encoder_repetition_penalty", "encoder_repetition_penalty", (1.0,)),
        Option("no_repeat_ngram_size", "no_repeat_ngram_size", (0,), number=int),
        Option("sequence_bias", "logit_bias", read=_from_pairs_of_tokens, write=_to_pairs, **_biases),
        Option("sequence_bias", "sequence_bias", read=_from_pairs_of_sequences, write=_to_pairs, **_biases),
        _list_of_ids("suppress_tokens", "suppress_tokens"),
        Option("suppress_tokens", "logit_bias", number=None, read=_nothing, write=_to_banned),
        Option(
            "bad_words_ids",
            "bad_words_ids",
            ([],),
            number=None,
            rule="a list of lists of token ids",
            read=_words,
            write=_to_words,
        ),
        Option("bad_words_ids", "sequence_bias", number=None, read=_nothing, write=_to_banned),
        _list_of_ids("begin_suppress_tokens", "begin_suppress_tokens"),
        Option("min_new_tokens", "min_new_tokens", (0,), number=int),
        Option(
            "exponential_decay_length_penalty",
            "exponential_decay_length_penalty",
            number=None,
            rule="a pair of an integer and a number",
            read=tuple,
            write=list,
        ),
        Option(
            "eos_token_id",
            "eos_token_ids",
            ([],),
            number=None,
            rule="a token id or a list of them",
            read=_one_or_more_ids,
            write=list,
        ),
        Option("forced_bos_token_id", "forced_bos_token_id", number=int),
        Option(
            "forced_eos_token_id",
            "forced_eos_token_id",
            number=None,
            rule="a token id or a list of a single one",
            read=_one_id,
        ),
        Option("max_new_tokens", "max_new_tokens", number=int, rule="at least 1", holds=lambda n: n >= 1),
    ),
    refused=(
        Refused("encoder_no_repeat_ngram_size", (0,)),
        Refused("forced_decoder_ids", ([],)),  # of Whisper, as is the next one
        Refused("return_timestamps", (False,)),
        Refused("guidance_scale", (1.0,)),
        Refused("min_length", (0,)),
        Refused("max_time"),
        Refused("remove_invalid_values", (False,)),
        Refused("token_healing", (False,)),
        Refused("assistant_ensemble_weight"),
        Refused("watermarking_config"),
        # Other ways to search than drawing one token after the other.
        Refused("num_beams", (1,)),
        Refused("num_beam_groups", (1,)),
        Refused("diversity_penalty", (0.0,)),
        Refused("penalty_alpha", (0.0,)),
        Refused("dola_layers"),
        Refused("constraints", ([],)),
        Refused("force_words_ids", ([],)),
    ),
    text={
        "max_new_tokens": "max_new_tokens",
        "max_length": "max_length",
        "min_new_tokens": "min_new_tokens",
        "eos_token_id": "eos_token_ids",
        "stop_strings": "stop_strings",
    },
    ignored=frozenset(
        {
            # Tokens and the version.
            *("bos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version"),
            # The cache, compilation and memory.
            *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "return_legacy_cache"),
            *("compile_config", "disable_compile", "continuous_batching_config", "low_memory", "prefill_chunk_size"),
            # Beams, which are refused; and a normalization that changes no probability.
            *("early_stopping", "length_penalty", "renormalize_logits"),
            # What is returned.
            *("num_return_sequences", "return_dict_in_generate", "output_attentions", "output_hidden_states"),
            *("output_scores", "output_logits"),
            # Assistants, which do not change the distribution of the text.
            *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_early_exit"),
            *("assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind"),
            *("prompt_lookup_num_tokens", "max_matching_ngram_size", "speculation_type", "use_mtp"),
            # What Whisper needs to know of its vocabulary and of its input.
            *("alignment_heads", "is_multilingual", "lang_to_id", "task_to_id", "language", "task"),
            *("no_timestamps_token_id", "prev_sot_token_id", "max_initial_timestamp_index"),
        }
    ),
    lacks=frozenset(
        {
            *("seed", "stream", "top_a", "top_n_sigma", "tfs", *_XTC, *_DYNATEMP, *_SMOOTHING, *_MIROSTAT),
            *(*_ADAPTIVE, "min_tokens_to_keep", "frequency_penalty", "presence_penalty", "penalty_window", *_DRY),
            "allowed_token_ids",
        }
    ),
)


# ---- vLLM ------------------------------------------------------------------------------------------------------------

_penalty_of_openai: dict[str, Any] = {"rule": "in [-2, 2]", "holds": lambda p: -2 <= p <= 2}

VLLM = System(
    name="vLLM",
    order="vllm",
    noun="vLLM's SamplingParams",
    options=(
        _filter(
            "temperature",
            "temperature",
            (1.0,),
            rule="in [0, 2]",
            holds=lambda t: 0 <= t <= 2,
            read=lambda t: 0.01 if 0 < t < 0.01 else t,  # as vLLM does, with a warning
        ),
        _filter("top_k", "top_k", (0, -1), number=int),
        _filter("top_p", "top_p", (1.0,), rule="in (0, 1]", holds=lambda p: 0 < p <= 1),
        _filter("min_p", "min_p", (0.0,)),
        Option("repetition_penalty", "repetition_penalty", (1.0,)),
        Option("frequency_penalty", "frequency_penalty", (0.0,), **_penalty_of_openai),
        Option("presence_penalty", "presence_penalty", (0.0,), **_penalty_of_openai),
        Option(
            "logit_bias",
            "logit_bias",
            ({},),
            number=None,
            rule="a mapping from token ids to numbers",
            read=_from_mapping,
            write=_to_mapping,
        ),
        Option(
            "allowed_token_ids",
            "allowed_token_ids",
            number=None,
            rule="a list of at least one token id",
            holds=lambda ids: len(ids) > 0,
            read=_ids,
            write=list,
        ),
        Option("min_tokens", "min_new_tokens", (0,), number=int),
        _list_of_ids("stop_token_ids", "eos_token_ids"),
        _seed(-1),
    ),
    refused=(
        Refused("bad_words", ([],)),
        Refused("structured_outputs"),
        Refused("guided_decoding"),
        Refused("logits_processors", ([],)),
        Refused("thinking_token_budget", (-1,)),
        Refused("trace_decode_token_ids", ([],)),
        Refused("extra_args", ({},)),
    ),
    text={
        "max_tokens": "max_new_tokens",
        "min_tokens": "min_new_tokens",
        "stop_token_ids": "stop_token_ids",
        "stop": "stop_strings",
    },
    ignored=frozenset(
        {
            # When the text ends, and what of it is returned.
            *("ignore_eos", "repetition_detection", "truncate_prompt_tokens", "n", "include_stop_str_in_output"),
            *("detokenize", "skip_special_tokens", "spaces_between_special_tokens", "output_kind", "stream_interval"),
            *("logprobs", "prompt_logprobs", "prompt_logprob_token_ids", "prompt_logprob_start", "logprob_token_ids"),
            *("flat_logprobs", "output_text_buffer_length", "routed_experts_prompt_start"),
            # How the request is processed.
            *("skip_clone", "skip_reading_prefix_cache"),
        }
    ),
    lacks=frozenset(
        {
            *("stream", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_a", "top_n_sigma", "tfs", "top_h", *_XTC),
            *(*_DYNATEMP, *_SMOOTHING, *_MIROSTAT, *_ADAPTIVE, "min_tokens_to_keep", "penalty_window", *_DRY),
            *_OF_TRANSFORMERS,
        }
    ),
)


# ---- llama.cpp -------------------------------------------------------------------------------------------------------

_BESIDE_MIROSTAT = frozenset({"temperature", "mirostat_tau", "mirostat_eta", "logit_bias", "seed"})

LLAMA_CPP = System(
    name="llama.cpp",
    order="llama.cpp",
    only_if_listed=frozenset({"adaptive_p"}),
    alone=(
        Alone("mirostat", "mirostat", ("temperature", "mirostat"), _BESIDE_MIROSTAT),
        # `Llama._init_sampler` of llama-cpp-python applies the penalties, too, but no temperature.
        Alone(
            *("mirostat_mode", "mirostat", ("temperature", "mirostat")),
            _BESIDE_MIROSTAT | {*_PENALTIES, "penalty_window"},
            has_temperature=False,
        ),
    ),
    aliases={"temp": "temperature", "mirostat_mode": "mirostat"},  # of llama-cpp-python
    noun="the llama.cpp request",
    options=(
        _filter("temperature", "temperature", (1.0,), 0.8, sampler="temperature"),
        _filter(
            *("top_k", "top_k", (0, -1), 40),
            number=int,
            rule="below 2**31",
            holds=lambda k: k < 2**31,
            sampler="top_k",
        ),
        _filter("top_p", "top_p", (1.0,), 0.95, sampler="top_p"),
        _filter("min_p", "min_p", (0.0,), 0.05, sampler="min_p"),
        _filter("typical_p", "typical_p", (1.0,), sampler="typ_p"),
        _filter("top_n_sigma", "top_n_sigma", (-1.0, 0.0), sampler="top_n_sigma"),
        _filter("dynatemp_range", "dynatemp_range", (0.0,), sampler="temperature"),
        _filter("dynatemp_exponent", "dynatemp_exponent", (1.0,), 1.0),
        _filter("xtc_probability", "xtc_probability", (0.0,), sampler="xtc"),
        _filter("xtc_threshold", "xtc_threshold", (0.1,), 0.1),
        _filter("mirostat", "mirostat", (0,), number=int),
        _filter("mirostat_tau", "mirostat_tau", (5.0,), 5.0),
        _filter("mirostat_eta", "mirostat_eta", (0.1,), 0.1),
        _filter(
            *("adaptive_target", "adaptive_target", (-1.0,)),
            read=lambda target: None if target < 0 else target,
            sampler="adaptive_p",
        ),
        _filter(
            *("adaptive_decay", "adaptive_decay", (0.9,), 0.9),
            rule="in [0, 0.99]",
            holds=lambda decay: 0 <= decay <= 0.99,
        ),
        _filter("min_keep", "min_tokens_to_keep", (), number=int, read=lambda n: n or None),
        Option("repeat_penalty", "repetition_penalty", (1.0,), sampler="penalties"),
        Option("frequency_penalty", "frequency_penalty", (0.0,), sampler="penalties"),
        Option("presence_penalty", "presence_penalty", (0.0,), sampler="penalties"),
        Option(
            "repeat_last_n",
            "penalty_window",
            (-1,),
            64,
            number=int,
            rule="-1 or in [1, 2**31) where a penalty is on",
            holds=lambda n: n == -1 or 1 <= n < 2**31,
        ),
        Option("dry_multiplier", "dry_multiplier", (0.0,), sampler="dry"),
        Option("dry_base", "dry_base", (1.75,), 1.75),
        Option(
            "dry_allowed_length",
            "dry_allowed_length",
            (2,),
            2,
            number=int,
            rule="below 2**31",
            holds=lambda n: n < 2**31,
        ),
        Option(
            "dry_penalty_last_n",
            "dry_penalty_last_n",
            (-1,),
            number=int,
            rule="-1 or in [1, 2**31) where dry_multiplier is on",
            holds=lambda n: n == -1 or 1 <= n < 2**31,
        ),
        Option(
            "dry_sequence_breakers",
            "dry_sequence_breakers",
            ([""],),  # the server refuses an empty list, and leaves out an empty text
            ["\n", ":", '"', "*"],
            number=None,
            rule="[''] where dry_multiplier is on, because they are texts there and token ids in toksample",
            holds=lambda breakers: False,
        ),
        Option(
            "logit_bias",
            "logit_bias",
            ({}, []),
            number=None,
            rule="a mapping or pairs of token ids and numbers",
            read=_from_llama_cpp,
            write=_to_mapping,
        ),
        _seed(-1, 2**32 - 1, rule="below 2**32", holds=lambda n: n < 2**32),
        Option("samplers", "order", number=None),  # the list of samplers
    ),
    refused=(
        Refused("tfs_z", (1.0,)),
        Refused("ignore_eos", (False,)),  # it bans the tokens that end a text
        Refused("grammar", ("",)),
        Refused("grammar_lazy", (False,)),
        Refused("json_schema", ({},)),
        Refused("response_format", ({"type": "text"},)),
        Refused("logits_processor"),
        Refused("reasoning_budget_tokens", (-1,)),
    ),
    text={
        "n_predict": "max_new_tokens",
        "max_tokens": "max_new_tokens",
        "max_completion_tokens": "max_new_tokens",
        "stop": "stop_strings",
    },
    ignored=frozenset(
        {
            # The prompt.
            *(
                "prompt",
                "suffix",
                "messages",
                "tools",
                "tool_choice",
                "functions",
                "function_call",
                "parallel_tool_calls",
            ),
            *("echo", "chat_format", "chat_template_kwargs", "generation_prompt", "continue_final_message"),
            *("add_generation_prompt", "input_prefix", "input_suffix", "input_extra"),
            # When the text ends, and what of it is returned.
            *("n", "n_cmpl", "n_indent", "t_max_predict_ms", "stopping_criteria", "model", "user"),
            *("n_probs", "logprobs", "top_logprobs", "post_sampling_probs", "return_tokens", "return_progress"),
            *("response_fields", "stream", "stream_options", "sse_ping_interval", "timings_per_token", "verbose"),
            *("reasoning_format", "parse_tool_calls", "chat_parser", "preserved_tokens", "grammar_triggers"),
            *(
                "reasoning_control",
                "reasoning_budget_start_tag",
                "reasoning_budget_end_tag",
                "reasoning_budget_end_tags",
            ),
            *("reasoning_budget_message", "reasoning_in_content"),
            # How the request is processed.
            *("cache_prompt", "id_slot", "n_keep", "n_discard", "n_cache_reuse", "lora", "backend_sampling"),
            *("speculative.n_max", "speculative.n_min", "speculative.p_min", "speculative.type"),
            # Of llama-cpp-python. Its `penalize_nl` has no effect any more.
            *("tokens", "reset", "idx", "penalize_nl"),
        }
    ),
    lacks=frozenset(
        {
            *("stream", "epsilon_cutoff", "eta_cutoff", "top_a", "tfs", "top_h", *_SMOOTHING),
            *("xtc_exempt_token_ids", "allowed_token_ids", "min_new_tokens", "eos_token_ids", *_OF_TRANSFORMERS),
        }
    ),
)


# ---- OpenAI ----------------------------------------------------------------------------------------------------------

OPENAI = System(
    name="OpenAI",
    noun="the OpenAI request",
    options=(
        _filter("temperature", "temperature", (1.0,), rule="in [0, 2]", holds=lambda t: 0 <= t <= 2),
        _filter("top_p", "top_p", (1.0,)),
        Option("frequency_penalty", "frequency_penalty", (0.0,), **_penalty_of_openai),
        Option("presence_penalty", "presence_penalty", (0.0,), **_penalty_of_openai),
        Option(
            "logit_bias",
            "logit_bias",
            ({},),
            number=None,
            rule="a mapping from token ids to numbers in [-100, 100]",
            holds=lambda biases: all(-100 <= bias <= 100 for bias in biases.values()),
            read=_from_mapping,
            write=_to_openai,
        ),
        _seed(rule="below 2**63", holds=lambda n: n < 2**63),
    ),
    refused=(
        Refused("best_of", (1,)),
        Refused("response_format", ({"type": "text"},)),
        Refused("extra_body", ({},)),
    ),
    text={
        "max_completion_tokens": "max_new_tokens",
        "max_tokens": "max_new_tokens",
        "stop": "stop_strings",
    },
    ignored=frozenset(
        {
            # The prompt and the model.
            *(
                "model",
                "messages",
                "prompt",
                "suffix",
                "echo",
                "prediction",
                "audio",
                "modalities",
                "web_search_options",
            ),
            *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"),
            *("reasoning_effort", "verbosity"),
            # What is returned.
            *("n", "logprobs", "top_logprobs", "stream", "stream_options"),
            # How the request is processed.
            *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
            *("prompt_cache_retention", "extra_headers", "extra_query", "timeout"),
        }
    ),
    lacks=frozenset(
        {
            *("stream", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_a", "top_n_sigma", "tfs"),
            *("top_h", *_XTC, *_DYNATEMP, *_SMOOTHING, *_MIROSTAT, *_ADAPTIVE, "min_tokens_to_keep"),
            *("repetition_penalty", "penalty_window", *_DRY),
            *("allowed_token_ids", "min_new_tokens", "eos_token_ids", *_OF_TRANSFORMERS),
        }
    ),
)

SYSTEMS = (TRANSFORMERS, VLLM, LLAMA_CPP, OPENAI)
