"""The parameters of a draw: what each is, which values it takes, and the errors for all others.

To add a parameter of one number, give :class:`SamplingParams` a field that says all there is to say about it, and
:class:`TextParameters` a line with its type. The signatures, the options of the command line, the checks and the errors follow
from these two.

The numpy reference reads all of its parameters by the functions below. The compiled functions read plain numbers and arrays
themselves and come here for everything else, so both take the same values and raise the same errors.
"""

from __future__ import annotations

import difflib
import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, NoReturn, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from toksample._configs import ExchangesConfigs
from toksample._orders import STEPS, SWITCHES, steps
from toksample._text import show

Ids = npt.NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., Any])

# What the type checker allows: one value, or one for each row of a batch.
Real = float | npt.ArrayLike | None
Integer = int | npt.ArrayLike | None
Bias = Mapping[int, float] | Sequence[Mapping[int, float] | None] | None
History = npt.ArrayLike | Sequence[npt.ArrayLike | None] | None
IdList = npt.ArrayLike | Sequence[npt.ArrayLike | None] | None
OneId = int | Sequence[int | None] | None
SequenceBias = Mapping[int | tuple[int, ...], float] | Sequence[Mapping[int | tuple[int, ...], float] | None] | None
Words = Sequence[npt.ArrayLike | Sequence[npt.ArrayLike] | None] | None
Decay = tuple[int, float] | Sequence[tuple[int, float] | None] | None


# ---- the table -------------------------------------------------------------------------------------------------------


class Parameter(NamedTuple):
    """What there is to say about a parameter that is a number."""

    convert: Callable[[Any], Any]
    """From a value of any type to a number, or a TypeError."""
    what: str
    """What that number is, for error messages."""
    rule: str
    holds: Callable[[Any], bool]
    off: float | None = None
    """The number that None stands for in a list with one value for each row. Without it, None is an error there."""
    metavar: str | None = None
    """How the help of the command line calls the value. Without it there is no option."""
    meaning: str = ""
    """What the option does."""
    other_names: tuple[str, ...] = ()
    """What other systems call it."""
    needs_history: bool = False
    """Whether it acts on the tokens that came before, which a call without a text does not have."""


def _real(rule: str, holds: Callable[[float], bool], **rest: Any) -> dict[str, Parameter]:
    return {"parameter": Parameter(float, "a number", rule, holds, **rest)}


def _share(**rest: Any) -> dict[str, Parameter]:
    return _real("in [0, 1]", lambda p: 0 <= p <= 1, **rest)


def _penalty(**rest: Any) -> dict[str, Parameter]:
    return _real("in [-1e30, 1e30]", lambda p: -1e30 <= p <= 1e30, off=0.0, needs_history=True, **rest)


def _integer(rule: str, holds: Callable[[int], bool], **rest: Any) -> dict[str, Parameter]:
    return {"parameter": Parameter(operator.index, "an integer", rule, holds, **rest)}


def _word(**rest: Any) -> dict[str, Parameter]:
    return _integer("in [0, 2**64)", lambda n: 0 <= n < 2**64, **rest)


@dataclass(frozen=True, slots=True)
class SamplingParams(ExchangesConfigs):
    """The parameters of :func:`toksample.sample` for one text; the fields have the same names, ranges and defaults.

    ``from_generation_config``, ``from_vllm``, ``from_llama_cpp`` and ``from_openai`` read the configurations of other systems,
    and ``to_generation_config`` and so on write them.

    Each field takes one value, ``logit_bias`` and ``sequence_bias`` one mapping, and the lists of token ids one list, which
    is kept as a tuple. None turns a method off. The parameters that belong to a single call (``position``, ``mirostat_mu``,
    ``adaptive_average``, ``prompt_ids``, ``output_ids`` and ``bitmask``) are not among the fields.

    Raises
    ------
    ValueError, TypeError
        When one is made out of range.

    Examples
    --------
    >>> params = toksample.SamplingParams(temperature=0.7, top_k=50)
    >>> params.temperature, params.top_k, params.top_p
    (0.7, 50, 1.0)
    """

    temperature: float | None = field(
        default=1.0,
        metadata=_real(
            "0 or in [1e-30, 1e30]",
            lambda t: t == 0 or 1e-30 <= t <= 1e30,
            off=1.0,
            metavar="T",
            meaning="divide the logits by T: below 1, likely tokens become more likely",
            other_names=("temp",),
        ),
    )
    top_k: int | None = field(
        default=0,
        metadata=_integer(
            "in [0, 2**64), or -1",
            lambda k: -1 <= k < 2**64,
            off=0,
            metavar="K",
            meaning="keep the K most probable tokens; 0 and -1 are off",
        ),
    )
    top_p: float | None = field(
        default=1.0,
        metadata=_share(
            off=1.0,
            metavar="P",
            meaning="keep the most probable tokens that sum to P; 1 is off, and 0 keeps one token",
        ),
    )
    min_p: float | None = field(
        default=0.0,
        metadata=_share(
            off=0.0, metavar="P", meaning="keep tokens at least P times as probable as the most probable one; 0 is off"
        ),
    )
    seed: int | None = field(
        default=None,
        metadata=_word(
            metavar="N",
            meaning="draw the same tokens again",
            other_names=("random_seed", "rng_seed", "sampling_seed"),
        ),
    )
    stream: int | None = field(default=None, metadata=_word())
    typical_p: float | None = field(
        default=1.0,
        metadata=_share(
            off=1.0,
            metavar="P",
            meaning="keep the tokens that surprise as much as is expected and that sum to P; 1 is off",
            other_names=("typical", "typ_p", "locally_typical"),
        ),
    )
    epsilon_cutoff: float | None = field(
        default=0.0,
        metadata=_share(off=0.0, metavar="E", meaning="keep tokens with a probability of at least E; 0 is off"),
    )
    top_a: float | None = field(
        default=0.0,
        metadata=_share(
            off=0.0,
            metavar="A",
            meaning="keep tokens with a probability of at least A times the square of the largest one; 0 is off",
        ),
    )
    eta_cutoff: float | None = field(
        default=0.0,
        metadata=_share(
            off=0.0,
            metavar="E",
            meaning="keep tokens with a probability of at least E, or less where the entropy is large; 0 is off",
        ),
    )
    top_n_sigma: float | None = field(
        default=0.0,
        metadata=_real(
            "in [0, 1e30]",
            lambda n: 0 <= n <= 1e30,
            off=0.0,
            metavar="N",
            meaning="keep tokens whose logit is at most N standard deviations below the largest one; 0 is off",
            other_names=("top_nsigma", "nsigma"),
        ),
    )
    tfs: float | None = field(
        default=1.0,
        metadata=_share(
            off=1.0,
            metavar="Z",
            meaning="keep tokens before the tail, where the sorted probabilities have made the share Z of their bends; "
            "1 is off",
            other_names=("tfs_z", "tail_free"),
        ),
    )
    top_h: float | None = field(
        default=0.0,
        metadata=_share(
            off=0.0,
            metavar="H",
            meaning="keep the most probable tokens, up to 100, that have at most the share H of the entropy; 0 is off",
        ),
    )
    xtc_probability: float | None = field(
        default=0.0,
        metadata=_share(
            off=0.0,
            metavar="P",
            meaning="with this probability, drop the most probable tokens down to the threshold, but not the last of them; "
            "0 is off",
        ),
    )
    xtc_threshold: float | None = field(
        default=0.1,
        metadata=_share(off=0.1, metavar="P", meaning="the least probability of the tokens that xtc_probability drops"),
    )
    xtc_exempt_token_ids: Sequence[int] | None = None
    dynatemp_range: float | None = field(
        default=0.0,
        metadata=_real(
            "in [0, 1e30]",
            lambda r: 0 <= r <= 1e30,
            off=0.0,
            metavar="R",
            meaning="vary the temperature by up to R: the less certain the model is, the higher; 0 is off",
        ),
    )
    dynatemp_exponent: float | None = field(
        default=1.0,
        metadata=_real(
            "in [0, 1e30]",
            lambda e: 0 <= e <= 1e30,
            off=1.0,
            metavar="E",
            meaning="the power to which dynatemp_range raises the entropy, which is in [0, 1]",
        ),
    )
    mirostat: int | None = field(
        default=0,
        metadata=_integer(
            "0, 1 or 2",
            lambda n: 0 <= n <= 2,
            off=0,
            metavar="N",
            meaning="keep the surprise of the text near mirostat_tau: the version of mirostat, 1 or 2; 0 is off",
        ),
    )
    mirostat_tau: float | None = field(
        default=5.0,
        metadata=_real(
            "in [0, 1000]",
            lambda t: 0 <= t <= 1000,
            off=5.0,
            metavar="T",
            meaning="the surprise that mirostat aims at, in bits per token",
        ),
    )
    mirostat_eta: float | None = field(
        default=0.1,
        metadata=_share(off=0.1, metavar="E", meaning="how fast mirostat corrects its aim"),
    )
    adaptive_target: float | None = field(
        default=-1.0,
        metadata=_real(
            "in [0, 1], or -1",
            lambda t: 0 <= t <= 1 or t == -1,
            off=-1.0,
            metavar="P",
            meaning="make tokens more likely whose probability is near P, and keep that of the text near it on average; "
            "-1 is off",
        ),
    )
    adaptive_decay: float | None = field(
        default=0.9,
        metadata=_share(
            off=0.9, metavar="D", meaning="how much the average of adaptive_target keeps of its past with each token"
        ),
    )
    smoothing_factor: float | None = field(
        default=0.0,
        metadata=_real(
            "in [0, 1e30]",
            lambda f: 0 <= f <= 1e30,
            off=0.0,
            metavar="F",
            meaning="make logits far below the largest one lower, and others closer to it, by F times the square of the "
            "distance; 0 is off",
        ),
    )
    smoothing_curve: float | None = field(
        default=1.0,
        metadata=_real(
            "in [1, 3]",
            lambda c: 1 <= c <= 3,
            off=1.0,
            metavar="C",
            meaning="from 1, where smoothing_factor takes the square of the distance, to 3, where it takes its cube",
        ),
    )
    min_tokens_to_keep: int | None = field(
        default=1,
        metadata=_word(
            off=1,
            metavar="N",
            meaning="each filter keeps at least N tokens",
            other_names=("min_keep",),
        ),
    )
    order: str | Sequence[str] | None = None
    repetition_penalty: float | None = field(
        default=1.0,
        metadata=_real(
            "in [1e-30, 1e30]",
            lambda p: 1e-30 <= p <= 1e30,
            off=1.0,
            metavar="P",
            meaning="make tokens of the prompt and the text less likely: divide positive logits by P, and multiply "
            "negative ones; 1 is off",
            other_names=("repeat_penalty", "penalty_repeat"),
            needs_history=True,
        ),
    )
    frequency_penalty: float | None = field(
        default=0.0,
        metadata=_penalty(
            metavar="F",
            meaning="subtract F from a token's logit for each time that it is in the text; 0 is off",
            other_names=("penalty_freq",),
        ),
    )
    presence_penalty: float | None = field(
        default=0.0,
        metadata=_penalty(
            metavar="F",
            meaning="subtract F from a token's logit if it is in the text; 0 is off",
            other_names=("penalty_present",),
        ),
    )
    penalty_window: int | None = field(
        default=0,
        metadata=_word(
            off=0,
            metavar="N",
            meaning="penalties look at the last N tokens; 0 is all of them",
            other_names=("penalty_last_n", "repeat_last_n", "repetition_context_size"),
            needs_history=True,
        ),
    )
    logit_bias: Mapping[int, float] | None = field(default=None, hash=False)
    sequence_bias: Mapping[int | tuple[int, ...], float] | None = field(default=None, hash=False)
    bad_words_ids: Sequence[Sequence[int]] | None = None
    encoder_repetition_penalty: float | None = field(
        default=1.0,
        metadata=_real(
            "in [1e-30, 1e30]",
            lambda p: 1e-30 <= p <= 1e30,
            off=1.0,
            metavar="P",
            meaning="make tokens of the prompt more likely: multiply positive logits by P, and divide negative ones; 1 is off",
            needs_history=True,
        ),
    )
    dry_multiplier: float | None = field(
        default=0.0,
        metadata=_real(
            "in [0, 1e30]",
            lambda m: 0 <= m <= 1e30,
            off=0.0,
            metavar="M",
            meaning="make tokens that extend a repeated sequence less likely, by M and more for longer sequences; 0 is off",
            needs_history=True,
        ),
    )
    dry_base: float | None = field(
        default=1.75,
        metadata=_real(
            "in [1, 1e30]",
            lambda b: 1 <= b <= 1e30,
            off=1.75,
            metavar="B",
            meaning="multiply M by B for each token of the sequence beyond the allowed length",
            needs_history=True,
        ),
    )
    dry_allowed_length: int | None = field(
        default=2,
        metadata=_integer(
            "in [1, 2**64)",
            lambda n: 1 <= n < 2**64,
            off=2,
            metavar="N",
            meaning="sequences of fewer than N tokens may be extended",
            needs_history=True,
        ),
    )
    dry_penalty_last_n: int | None = field(
        default=0,
        metadata=_word(
            off=0, metavar="N", meaning="look for sequences in the last N tokens; 0 is all of them", needs_history=True
        ),
    )
    dry_sequence_breakers: Sequence[int] | None = None
    no_repeat_ngram_size: int | None = field(
        default=0,
        metadata=_word(
            off=0,
            metavar="N",
            meaning="ban tokens that would repeat a sequence of N tokens; 0 is off",
            other_names=("no_repeat_ngram",),
            needs_history=True,
        ),
    )
    exponential_decay_length_penalty: tuple[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    suppress_tokens: Sequence[int] | None = None
    begin_suppress_tokens: Sequence[int] | None = None
    eos_token_ids: Sequence[int] | None = None
    min_new_tokens: int | None = field(default=0, metadata=_word(off=0, needs_history=True))
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    max_new_tokens: int | None = field(default=0, metadata=_word(off=0, needs_history=True))

    def __post_init__(self) -> None:
        for name, value in self.keywords().items():
            if value is None:  # which is off, or for the seed and the stream the default
                continue
            if name == "logit_bias":
                object.__setattr__(self, name, dict(_mapping(value, _ONE_MAPPING)))
            elif name == "order":
                object.__setattr__(self, name, value if isinstance(value, str) else steps(value))
                check_order(steps(value), self.keywords())
            elif name in RULES:
                object.__setattr__(self, name, _frozen(name, rule(name, value, 1, False, _MOST_TOKENS)[0]))
            else:
                one(name, value)

    def keywords(self) -> dict[str, Any]:
        """Return the fields as the keyword arguments of :func:`toksample.sample`."""
        return {name: getattr(self, name) for name in SamplingParams.__slots__}

    @property
    def needs_history(self) -> bool:
        """Whether a method is on for which the tokens of the prompt and of the text matter, or their number."""
        return (
            self.repetition_penalty not in (None, 1)
            or self.frequency_penalty not in (None, 0)
            or self.presence_penalty not in (None, 0)
            or self.encoder_repetition_penalty not in (None, 1)
            or self.dry_multiplier not in (None, 0)
            or self.no_repeat_ngram_size not in (None, 0)
            or bool(self.sequence_bias or self.bad_words_ids or self.begin_suppress_tokens)
            or self.min_new_tokens not in (None, 0)
            or self.forced_bos_token_id is not None
            or self.forced_eos_token_id is not None
            or self.exponential_decay_length_penalty is not None
        )


class GenerateParameters(TypedDict, total=False):
    """The types of the fields of :class:`SamplingParams`, without those that ``generate`` names itself."""

    temperature: Real
    dynatemp_range: Real
    dynatemp_exponent: Real
    top_k: Integer
    top_p: Real
    min_p: Real
    typical_p: Real
    epsilon_cutoff: Real
    top_a: Real
    eta_cutoff: Real
    top_n_sigma: Real
    tfs: Real
    top_h: Real
    xtc_probability: Real
    xtc_threshold: Real
    xtc_exempt_token_ids: IdList
    mirostat: Integer
    mirostat_tau: Real
    mirostat_eta: Real
    adaptive_target: Real
    adaptive_decay: Real
    smoothing_factor: Real
    smoothing_curve: Real
    min_tokens_to_keep: Integer
    repetition_penalty: Real
    frequency_penalty: Real
    presence_penalty: Real
    penalty_window: Integer
    logit_bias: Bias
    sequence_bias: SequenceBias
    bad_words_ids: Words
    encoder_repetition_penalty: Real
    dry_multiplier: Real
    dry_base: Real
    dry_allowed_length: Integer
    dry_penalty_last_n: Integer
    dry_sequence_breakers: IdList
    no_repeat_ngram_size: Integer
    exponential_decay_length_penalty: Decay
    allowed_token_ids: IdList
    suppress_tokens: IdList
    begin_suppress_tokens: IdList
    eos_token_ids: IdList
    forced_bos_token_id: OneId
    forced_eos_token_id: OneId
    order: str | Sequence[str] | None
    seed: Integer
    stream: Integer


class TextParameters(GenerateParameters, total=False):
    """The types of the fields of :class:`SamplingParams`, given as keywords: one value, or where allowed one for each row."""

    min_new_tokens: Integer
    max_new_tokens: Integer


class Parameters(TextParameters, total=False):
    """The types of all parameters of a draw, in the order in which signatures and help show them."""

    position: Integer
    mirostat_mu: Real
    adaptive_average: Real
    prompt_ids: History
    output_ids: History
    bitmask: npt.ArrayLike | None


class SampleParameters(Parameters, total=False):
    """The types of all keywords of :func:`toksample.sample`: the parameters of a draw, and how to make the call."""

    errors: str
    num_threads: int | None
    out: npt.NDArray[np.int64] | None
    logprobs: int | None
    logprobs_mode: str
    logprob_token_ids: npt.ArrayLike | None
    receipt: bool
    n: int | None
    replacement: bool


LOGPROBS_MODES = ("raw_logprobs", "raw_logits", "processed_logprobs", "processed_logits")
"""The names that vLLM has for what ``logprobs`` may be."""

DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(SamplingParams)} | {
    "position": 0,
    "mirostat_mu": None,
    "adaptive_average": None,
    "prompt_ids": None,
    "output_ids": None,
    "bitmask": None,
}
"""Of each parameter of a draw, what it is where it is not given."""

NAMES = tuple(Parameters.__annotations__)

_FOUND = {one.name: one.metadata["parameter"] for one in fields(SamplingParams) if one.metadata} | {
    "position": _word()["parameter"],
    "mirostat_mu": _real("in [-1e30, 1e30]", lambda mu: -1e30 <= mu <= 1e30)["parameter"],
    "adaptive_average": _share()["parameter"],
}
PARAMETERS: dict[str, Parameter] = {name: _FOUND[name] for name in NAMES if name in _FOUND}
"""The table: the parameters that are numbers."""


def show_parameters(**others: Any) -> Callable[[Function], Function]:
    """Show in a function's signature the parameters of a draw and other keywords, which it takes by ``**``."""

    def show_in(function: Function) -> Function:
        signature = inspect.signature(function)
        kind = inspect.Parameter.KEYWORD_ONLY
        keywords = [inspect.Parameter(name, kind, default=DEFAULTS[name]) for name in NAMES]
        keywords += [inspect.Parameter(name, kind, default=default) for name, default in others.items()]
        parameters = [signature.parameters["logits"], *keywords]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return show_in


def unexpected(name: object) -> NoReturn:
    """Raise the error for a keyword that is no parameter, and name the one that may be meant."""
    other_names = {other: name for name, parameter in PARAMETERS.items() for other in parameter.other_names}
    close = difflib.get_close_matches(str(name), NAMES, n=1)
    meant = other_names.get(str(name)) or (close[0] if close else None)
    hint = f"; did you mean {meant!r}?" if meant else ""
    raise TypeError(f"got an unexpected keyword argument {show(name)}{hint}")


# ---- the order of the steps --------------------------------------------------------------------------------------------


def check_order(order: tuple[str, ...], parameters: Mapping[str, object]) -> None:
    """See that the order has a step for each filter that is on."""
    applied = {STEPS[step] for step in order if step in STEPS} | {
        name for name, step in SWITCHES.items() if step in order
    }
    for name in (*STEPS.values(), *SWITCHES):
        if name in applied:
            continue
        read = per_row(name, parameters.get(name))
        if any(number != PARAMETERS[name].off for number in (read if isinstance(read, list) else [read])):
            not_in_order(name, order)


def not_in_order(name: str, order: Sequence[str]) -> NoReturn:
    """Raise the error for a filter that is on, and for which the order has no step."""
    raise ValueError(
        f"{name} must be off where the order has no step for it, got order {', '.join(order) or 'without steps'}"
    )


# ---- numbers ---------------------------------------------------------------------------------------------------------

_OR_MANY = ", or one for each row of a batch"
_TEXT = (str, bytes, bytearray, memoryview)


def per_row(name: str, value: object) -> Any:
    """Read a parameter: a number, or a list of numbers if there is one for each row.

    A list, a tuple, another sequence or an array of one dimension has one for each row. The kernels read plain numbers and
    arrays themselves, and come here for everything else, errors included.
    """
    is_array = hasattr(value, "__array__") and not isinstance(value, np.generic)
    given = _array(name, value).tolist() if is_array else value
    if isinstance(given, Sequence) and not isinstance(given, _TEXT):
        return [_number(name, value, one, f" (row {b})") for b, one in enumerate(list(given))]
    return _number(name, value, given, "")


def _array(name: str, value: object) -> npt.NDArray[Any]:
    """Return an array of at most one dimension."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise _wrong_type(name, value, _OR_MANY) from error
    if array.ndim > 1:
        raise _wrong_type(name, value, _OR_MANY)
    return array


def one(name: str, value: object) -> Any:
    """Read a parameter that is one number."""
    return _number(name, value, value, None)


def _number(name: str, given: object, value: Any, row: str | None) -> Any:
    """Convert one number of a parameter, and see that it is in its range; ``row`` is None if there can be only one."""
    parameter = PARAMETERS[name]
    if value is None and parameter.off is not None:
        return parameter.off
    try:
        number = _refuse(value) if isinstance(value, (*_TEXT, np.complexfloating)) else parameter.convert(value)
    except TypeError as error:
        raise _wrong_type(name, given, "" if row is None else _OR_MANY) from error
    except OverflowError as error:  # an integer beyond float64
        raise ValueError(f"{name} must be {parameter.rule}, got {show(value)}{row or ''}") from error
    if not parameter.holds(number):
        raise ValueError(f"{name} must be {parameter.rule}, got {show(number)}{row or ''}")
    return parameter.off if name == "top_k" and number == -1 else number


def _refuse(value: object) -> NoReturn:
    """Refuse what ``float`` would take: text, and a complex number, of which it drops a part."""
    raise TypeError(f"a {type(value).__name__} is not a real number")


def _wrong_type(name: str, given: object, where: str) -> TypeError:
    return TypeError(f"{name} must be {PARAMETERS[name].what}{where}, got {show(given)}")


def check_count(name: str, given: object, count: int, rows: int, is_batch: bool) -> None:
    """See that a parameter with one value for each row has as many as there are rows."""
    if not is_batch:
        raise _wrong_type(name, given, " where logits are one row")
    if count != rows:
        raise ValueError(f"{name} must have one value for each of the {rows} rows, got {count}")


def integer(name: str, value: Any) -> int:
    """Give an integer."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {show(value)}") from error


def count(name: str, value: object, most: int | None = None) -> int:
    """Give an integer of at least 1 and, if it is given, at most ``most``."""
    number = integer(name, value)
    if number < 1 or (most is not None and number > most):
        rule = ">= 1" if most is None else f"in [1, {most}]"
        raise ValueError(f"{name} must be {rule}, got {show(number)}")
    return number


def at_least_0(name: str, value: object) -> int:
    """Give an integer of at least 0."""
    number = integer(name, value)
    if number < 0:
        raise ValueError(f"{name} must be >= 0, got {show(number)}")
    return number


def errors_mode(errors: object) -> None:
    """Check the parameter ``errors``."""
    if not isinstance(errors, str) or errors not in ("raise", "mark"):
        raise ValueError(f"errors must be 'raise' or 'mark', got {show(errors)}")


def wanted_logprobs(
    logprobs: object, mode: object, given: object, rows: int, is_batch: bool, tokens: int
) -> tuple[int, bool, bool, Ids | None]:
    """Read the keywords that ask for log-probabilities.

    Returns
    -------
    top : int
        The number of most probable tokens to name, in [0, tokens].
    is_processed, is_logits : bool
        What the mode says: whether they are of the distribution that the token is drawn from, and whether they are logits.
    ids : ndarray of int64, shape (rows, m), or None
        The tokens that were asked for.
    """
    top = 0 if logprobs is None else at_least_0("logprobs", logprobs)
    if top > tokens:
        raise ValueError(f"logprobs must be in [0, {tokens}], got {show(logprobs)}")
    if not isinstance(mode, str) or mode not in LOGPROBS_MODES:
        names = ", ".join(map(repr, LOGPROBS_MODES))
        raise ValueError(f"logprobs_mode must be one of {names}, got {show(mode)}")
    ids = None if given is None else _given_ids("logprob_token_ids", given, rows, is_batch, tokens)
    return top, mode.startswith("processed"), mode.endswith("logits"), ids


def _given_ids(name: str, value: object, rows: int, is_batch: bool, tokens: int) -> Ids:
    """Read token ids, of shape (m,) for all rows or (rows, m), in the shape (rows, m)."""
    items = _items(value)
    if is_batch and items and all(_items(item) is not None for item in items):
        ids, offsets = token_ids(name, value, rows, is_batch, tokens)
        counts = np.diff(offsets)
        if (counts != counts[0]).any():
            raise ValueError(f"{name} must have as many ids in each row, got {show(counts.tolist())}")
        return ids.reshape(rows, counts[0])
    return np.tile(_row_of_ids(name, value, value, tokens, ""), (rows, 1))


def ids_to_score(ids: object, rows: int, is_batch: bool, tokens: int) -> Ids:
    """Read the token of each row that is scored: one id for each, or an integer for a single row."""
    if not is_batch and isinstance(ids, (list, tuple, np.ndarray)) and np.ndim(ids) > 0:
        raise TypeError(f"ids must be one token id where logits are one row, got {show(ids)}")
    read = _row_of_ids("ids", ids, ids if is_batch else [ids], tokens, "")
    if len(read) != rows:
        raise ValueError(f"ids must have one token id for each of the {rows} rows, got {len(read)}")
    return read


# ---- token ids, biases and bitmasks ------------------------------------------------------------------------------------


def token_ids(name: str, value: object, rows: int, is_batch: bool, tokens: int) -> tuple[Ids, Ids]:
    """Read the token ids of each row.

    Returns
    -------
    ids : ndarray of int64
        Those of the first row, then those of the second, and so on.
    offsets : ndarray of int64, shape (rows + 1,)
        Those of row b are ``ids[offsets[b] : offsets[b + 1]]``.
    """
    if not is_batch:
        each = [_row_of_ids(name, value, value, tokens, "")]
    else:
        given = _items(value)
        if given is None:
            raise TypeError(f"{name} must be a list with the token ids of each row, got {show(value)}")
        if len(given) != rows:
            raise ValueError(f"{name} must have token ids for each of the {rows} rows, got {len(given)}")
        each = [_row_of_ids(name, value, row, tokens, f" (row {b})") for b, row in enumerate(given)]
    offsets = np.cumsum([0, *map(len, each)], dtype=np.int64)
    return np.concatenate([np.empty(0, np.int64), *each]), offsets


def _items(value: Any) -> list[Any] | None:
    """Give what a sequence or an array has on its first axis; None if it is neither."""
    if isinstance(value, _TEXT):
        return None
    if hasattr(value, "__array__"):
        array = _as_array(value)
        return None if array is None or array.ndim == 0 else list(array)
    return list(value) if isinstance(value, Sequence) else None


def _as_array(value: object) -> npt.NDArray[Any] | None:
    try:
        return np.asarray(value)
    except MemoryError:
        raise
    except Exception:  # a tensor of another device, an object whose `__array__` fails
        return None


def _row_of_ids(name: str, given: object, row: Any, tokens: int, where: str) -> Ids:
    """Give the token ids of one row as int64."""

    def wrong() -> TypeError:
        return TypeError(f"{name} must be a sequence of token ids{' for each row' if where else ''}, got {show(given)}")

    if row is None:
        return np.empty(0, np.int64)
    outside: Sequence[int] | npt.NDArray[Any]
    if hasattr(row, "__array__"):
        array = _as_array(row)
        if array is None or array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
            raise wrong()
        array = array.copy()  # which no other thread writes to after the check
        outside = array[(array < 0) | (array >= tokens)]
    else:
        items = _items(row)
        if items is None:
            raise wrong()
        try:
            items = [operator.index(item) for item in items]
        except TypeError:
            raise wrong() from None
        outside = [item for item in items if not 0 <= item < tokens][:1]
        array = np.array([] if len(outside) else items, np.int64)
    if len(outside):
        raise ValueError(f"{name} must be in [0, {tokens}), got {show(int(outside[0]))}{where}")
    return array.astype(np.int64, copy=False)


_ONE_MAPPING = "a mapping from token ids to numbers"


def biases(
    value: object, rows: int, is_batch: bool, tokens: int
) -> tuple[Ids, npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Read the parameter ``logit_bias``.

    Returns
    -------
    ids : ndarray of int64
        Those of the first row in ascending order, then those of the second, and so on.
    biases : ndarray of float64
        The bias of each of these tokens.
    offsets : ndarray of int64, shape (rows + 1,) or (2,)
        What row b has is in ``offsets[b] : offsets[b + 1]``; there is one part alone if one mapping serves all rows.
    """
    if isinstance(value, Mapping) or not is_batch:
        each = [_mapping(value, _ONE_MAPPING, tokens)]
    else:
        rule = f"{_ONE_MAPPING}, or one for each row of a batch"
        if not isinstance(value, Sequence) or isinstance(value, _TEXT):
            raise TypeError(f"logit_bias must be {rule}, got {show(value)}")
        given = list(value)  # whose length is what it says, and which the items cannot change
        if len(given) != rows:
            raise ValueError(f"logit_bias must have one mapping for each of the {rows} rows, got {len(given)}")
        each = [[] if one is None else _mapping(one, rule, tokens, value, f" (row {b})") for b, one in enumerate(given)]
    flat = [item for row in each for item in row]
    offsets = np.cumsum([0, *map(len, each)], dtype=np.int64)
    return np.array([token for token, _ in flat], np.int64), np.array([bias for _, bias in flat], np.float64), offsets


_MOST_TOKENS = 2**22
"""The most tokens of a row: ids are checked against it where the row is not known yet."""


def _mapping(
    value: object, rule: str, tokens: int = _MOST_TOKENS, given: object = None, where: str = ""
) -> list[tuple[int, float]]:
    """Give the tokens of a mapping in ascending order, each with its bias."""

    def wrong() -> TypeError:
        return TypeError(f"logit_bias must be {rule}, got {show(value if given is None else given)}")

    if not isinstance(value, Mapping):
        raise wrong()
    result = {}
    for key, bias in dict(value).items():
        try:
            token, number = operator.index(key), _bias(bias)
        except TypeError:
            raise wrong() from None
        if not 0 <= token < tokens:
            raise ValueError(f"logit_bias must have token ids in [0, {tokens}), got {show(token)}{where}")
        if not _is_bias(number):
            raise ValueError(f"logit_bias must be in [-3.4e38, 3.4e38] or -inf, got {show(bias)} for id {token}{where}")
        result[token] = number
    return sorted(result.items())


def _bias(value: Any) -> float:
    """Convert a bias; one beyond float64 becomes NaN, which is an error."""
    try:
        return _refuse(value) if isinstance(value, (*_TEXT, np.complexfloating)) else float(value)
    except OverflowError:
        return math.nan


def _is_bias(number: float) -> bool:
    return abs(number) <= 3.4e38 or number == -math.inf


def bitmask(value: Any, rows: int, is_batch: bool, tokens: int) -> npt.NDArray[np.int32]:
    """Read the parameter ``bitmask``: an array of shape (rows, words), C-contiguous."""
    most = -(-tokens // 32)
    shapes = f"({rows}, n)" if is_batch else "(n,) or (1, n)"
    rule = f"bitmask must be an int32 array of shape {shapes}, n in [1, {most}]"
    array = _as_array(value) if hasattr(value, "__array__") else None
    if array is None:
        raise TypeError(f"{rule}, got {show(value)}")
    if array.dtype not in (np.int32, np.uint32):
        raise TypeError(f"{rule}, got {array.dtype} of shape {array.shape}")
    words = array[None] if array.ndim == 1 and not is_batch else array
    if words.ndim != 2 or len(words) != rows or not 1 <= words.shape[1] <= most:
        raise ValueError(f"{rule}, got {array.dtype} of shape {array.shape}")
    return np.require(words, requirements=("C", "A")).view(np.int32)


# ---- rules for some of the tokens ------------------------------------------------------------------------------------


def rule(name: str, value: object, rows: int, is_batch: bool, tokens: int) -> list[Any]:
    """Read a rule: a list with what it says for all rows, or with that for each row, or None, which is nothing."""
    return RULES[name](name, value, rows, is_batch, tokens)


def _for_each(name: str, given: list[Any], rows: int) -> list[Any]:
    if len(given) != rows:
        raise ValueError(f"{name} must have one value for each of the {rows} rows, got {len(given)}")
    return given


def _is_list(value: object) -> bool:
    return _items(value) is not None


def _id_lists(name: str, value: object, rows: int, is_batch: bool, tokens: int) -> list[list[int] | None]:
    """Read a list of token ids, or one or None for each row."""
    items = _items(value)
    if is_batch and items and all(item is None or _is_list(item) for item in items):
        given = _for_each(name, items, rows)
        return [
            None if row is None else _row_of_ids(name, value, row, tokens, f" (row {b})").tolist()
            for b, row in enumerate(given)
        ]
    return [_row_of_ids(name, value, value, tokens, "").tolist()]


def _one_id(name: str, value: object, rows: int, is_batch: bool, tokens: int) -> list[int | None]:
    """Read a token id, or one or None for each row."""
    items = _items(value) if is_batch else None
    given = [value] if items is None else _for_each(name, items, rows)
    result: list[int | None] = []
    for b, item in enumerate(given):
        if item is None:
            result.append(None)
            continue
        try:
            token = operator.index(item)
        except TypeError:
            raise TypeError(f"{name} must be a token id{_OR_MANY if is_batch else ''}, got {show(value)}") from None
        if not 0 <= token < tokens:
            where = "" if items is None else f" (row {b})"
            raise ValueError(f"{name} must be in [0, {tokens}), got {show(token)}{where}")
        result.append(token)
    return result


def _sequence_biases(
    name: str, value: object, rows: int, is_batch: bool, tokens: int
) -> list[list[tuple[list[int], float]] | None]:
    """Read a mapping from sequences of token ids to biases, or one or None for each row."""
    what = "a mapping from token ids, or tuples of them, to numbers"

    def of_row(mapping: object, where: str) -> list[tuple[list[int], float]]:
        if not isinstance(mapping, Mapping):
            raise wrong()
        result = []
        for key, bias in dict(mapping).items():
            try:
                ids, number = _row_of_ids(name, value, key if _is_list(key) else (key,), tokens, where), _bias(bias)
            except TypeError:
                raise wrong() from None
            if not len(ids):
                raise ValueError(f"{name} must have no empty tuple, got {show(mapping)}{where}")
            if not _is_bias(number):
                raise ValueError(
                    f"{name} must be in [-3.4e38, 3.4e38] or -inf, got {show(bias)} for {show(key)}{where}"
                )
            result.append((ids.tolist(), number))
        return result

    def wrong() -> TypeError:
        return TypeError(f"{name} must be {what}{_OR_MANY if is_batch else ''}, got {show(value)}")

    items = _items(value) if is_batch else None
    if items is None:
        return [of_row(value, "")]
    given = _for_each(name, items, rows)
    return [None if mapping is None else of_row(mapping, f" (row {b})") for b, mapping in enumerate(given)]


def _word_lists(name: str, value: object, rows: int, is_batch: bool, tokens: int) -> list[list[list[int]] | None]:
    """Read a list of sequences of token ids, or one or None for each row."""

    def of_row(words: object, where: str) -> list[list[int]]:
        result = []
        for word in _items(words) or ():
            if word is None:
                raise wrong()
            ids = _row_of_ids(name, value, word, tokens, where)
            if not len(ids):
                raise ValueError(f"{name} must have no empty sequence, got {show(words)}{where}")
            result.append(ids.tolist())
        return result

    def wrong() -> TypeError:
        return TypeError(
            f"{name} must be a list of sequences of token ids{_OR_MANY if is_batch else ''}, got {show(value)}"
        )

    items = _items(value)
    if items is None:
        raise wrong()
    parts = [None if item is None else _items(item) for item in items]
    if any(part is None and item is not None for part, item in zip(parts, items, strict=True)):
        raise wrong()
    # A list for each row: of none of its items the first one is an id.
    if is_batch and items and all(not part or part[0] is None or _is_list(part[0]) for part in parts):
        given = _for_each(name, items, rows)
        return [None if words is None else of_row(words, f" (row {b})") for b, words in enumerate(given)]
    return [of_row(items, "")]


def _decays(name: str, value: object, rows: int, is_batch: bool, tokens: int) -> list[tuple[int, float] | None]:
    """Read a pair of a start and a factor, or one or None for each row."""
    rule = "a pair of a start in [0, 2**64) and a factor in [1e-30, 1e30]"

    def of_row(pair: object, where: str) -> tuple[int, float]:
        items = _items(pair)
        if items is None or len(items) != 2:
            raise wrong()
        try:
            start, factor = operator.index(items[0]), _bias(items[1])
        except TypeError:
            raise wrong() from None
        if not (0 <= start < 2**64 and 1e-30 <= factor <= 1e30):
            raise ValueError(f"{name} must be {rule}, got {show(pair)}{where}")
        return start, factor

    def wrong() -> TypeError:
        return TypeError(f"{name} must be {rule}{_OR_MANY if is_batch else ''}, got {show(value)}")

    items = _items(value)
    if is_batch and items is not None and all(item is None or _is_list(item) for item in items):
        given = _for_each(name, items, rows)
        return [None if pair is None else of_row(pair, f" (row {b})") for b, pair in enumerate(given)]
    return [of_row(value, "")]


RULES: dict[str, Callable[[str, object, int, bool, int], list[Any]]] = {
    "allowed_token_ids": _id_lists,
    "suppress_tokens": _id_lists,
    "begin_suppress_tokens": _id_lists,
    "eos_token_ids": _id_lists,
    "forced_bos_token_id": _one_id,
    "forced_eos_token_id": _one_id,
    "sequence_bias": _sequence_biases,
    "bad_words_ids": _word_lists,
    "dry_sequence_breakers": _id_lists,
    "exponential_decay_length_penalty": _decays,
    "xtc_exempt_token_ids": _id_lists,
}
"""How to read each rule."""


def _frozen(name: str, read: Any) -> Any:
    """Give what a rule says for one text, as a value that does not change."""
    if name == "sequence_bias":
        return {tuple(ids): bias for ids, bias in read}
    if name == "bad_words_ids":
        return tuple(map(tuple, read))
    return tuple(read) if isinstance(read, list) else read


INPUTS = ("logit_bias", "prompt_ids", "output_ids", "bitmask", *RULES)
"""What edits logits, or knows of some tokens. The parameters that are numbers edit none by themselves."""
