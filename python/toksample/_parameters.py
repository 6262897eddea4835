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
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, NoReturn, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

from toksample._configs import ExchangesConfigs
from toksample._text import show

Ids = npt.NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., Any])

# What the type checker allows: one value, or one for each row of a batch.
Real = float | npt.ArrayLike | None
Integer = int | npt.ArrayLike | None
Bias = Mapping[int, float] | Sequence[Mapping[int, float] | None] | None
History = npt.ArrayLike | Sequence[npt.ArrayLike | None] | None


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

    Each field takes one value, and ``logit_bias`` one mapping. None turns a filter or a penalty off. The parameters that
    belong to a single call (``position``, ``mirostat_mu``, ``prompt_ids``, ``output_ids`` and ``bitmask``) are not among the
    fields.

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

    def __post_init__(self) -> None:
        for name, value in self.keywords().items():
            if value is None:  # which is off, or for the seed and the stream the default
                continue
            if name == "logit_bias":
                object.__setattr__(self, name, dict(_mapping(value, _ONE_MAPPING)))
            elif name == "order":
                object.__setattr__(self, name, value if isinstance(value, str) else steps(value))
                check_order(steps(value), self.keywords())
            else:
                one(name, value)

    def keywords(self) -> dict[str, Any]:
        """Return the fields as the keyword arguments of :func:`toksample.sample`."""
        return {name: getattr(self, name) for name in SamplingParams.__slots__}

    @property
    def has_penalty(self) -> bool:
        """Whether a penalty is on, so that the tokens of the prompt and of the text matter."""
        return (
            self.repetition_penalty not in (None, 1)
            or self.frequency_penalty not in (None, 0)
            or self.presence_penalty not in (None, 0)
        )


class TextParameters(TypedDict, total=False):
    """The types of the fields of :class:`SamplingParams`, given as keywords: one value, or where allowed one for each row."""

    temperature: Real
    dynatemp_range: Real
    dynatemp_exponent: Real
    top_k: Integer
    top_p: Real
    min_p: Real
    typical_p: Real
    epsilon_cutoff: Real
    top_a: Real
    xtc_probability: Real
    xtc_threshold: Real
    mirostat: Integer
    mirostat_tau: Real
    mirostat_eta: Real
    smoothing_factor: Real
    smoothing_curve: Real
    repetition_penalty: Real
    frequency_penalty: Real
    presence_penalty: Real
    penalty_window: Integer
    logit_bias: Bias
    order: str | Sequence[str] | None
    seed: Integer
    stream: Integer


class Parameters(TextParameters, total=False):
    """The types of all parameters of a draw, in the order in which signatures and help show them."""

    position: Integer
    mirostat_mu: Real
    prompt_ids: History
    output_ids: History
    bitmask: npt.ArrayLike | None


class SampleParameters(Parameters, total=False):
    """The types of all keywords of :func:`toksample.sample`: the parameters of a draw, and how to make the call."""

    errors: str
    num_threads: int | None
    out: npt.NDArray[np.int64] | None


DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(SamplingParams)} | {
    "position": 0,
    "mirostat_mu": None,
    "prompt_ids": None,
    "output_ids": None,
    "bitmask": None,
}
"""Of each parameter of a draw, what it is where it is not given."""

NAMES = tuple(Parameters.__annotations__)

_FOUND = {one.name: one.metadata["parameter"] for one in fields(SamplingParams) if one.metadata} | {
    "position": _word()["parameter"],
    "mirostat_mu": _real("in [-1e30, 1e30]", lambda mu: -1e30 <= mu <= 1e30)["parameter"],
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

STEPS = {name: name for name in ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "top_a")} | {
    "xtc": "xtc_probability",
    "top_k_with_ties": "top_k",
    "top_p_beyond": "top_p",
    "mirostat": "mirostat",
}
"""The steps that an order may have, and the parameter that each applies."""

SWITCHES = {"dynatemp_range": "temperature"}
"""Other parameters that switch something on, and the steps that apply them."""

ORDERS = {
    "toksample": ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "top_a", "xtc", "mirostat"),
    "transformers": ("temperature", "top_k_with_ties", "top_p", "min_p", "typical_p", "epsilon_cutoff"),
    "vllm": ("temperature", "min_p", "top_k_with_ties", "top_p"),
    "sglang": ("temperature", "top_p_beyond", "top_k", "min_p"),
    "llama.cpp": ("top_k", "typical_p", "top_p", "min_p", "xtc", "temperature", "mirostat"),
    "mlx-lm": ("top_p", "min_p", "xtc", "top_k", "temperature"),
}
"""The orders that have a name: those of other systems, and that of toksample, which is the default."""


def steps(order: object) -> tuple[str, ...]:
    """Read the parameter ``order``: the name of an order, or its steps."""
    if order is None:
        return ORDERS["toksample"]
    if isinstance(order, str) and order in ORDERS:
        return ORDERS[order]
    rule = f"order must be one of {', '.join(map(repr, ORDERS))}, or a sequence of steps"
    if isinstance(order, str):
        raise ValueError(f"{rule}, got {show(order)}")
    if not isinstance(order, Sequence) or isinstance(order, _TEXT):
        raise TypeError(f"{rule}, got {show(order)}")
    result = tuple(order)
    for step in result:
        if not isinstance(step, str) or step not in STEPS:
            raise ValueError(f"order must have steps among {', '.join(STEPS)}, got {show(step)}")
    applied = [STEPS[step] for step in result]
    for name in applied:
        if applied.count(name) > 1:
            raise ValueError(f"order must apply each parameter once, got {name} twice in {show(result)}")
    return result


def check_order(order: tuple[str, ...], parameters: Mapping[str, object]) -> None:
    """See that the order has a step for each filter that is on."""
    applied = {STEPS[step] for step in order} | {name for name, step in SWITCHES.items() if step in order}
    for name in (*STEPS.values(), *SWITCHES):
        value = parameters.get(name)
        off = PARAMETERS[name].off
        if name not in applied and value is not None and np.any(np.asarray(value) != off):
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


def _mapping(
    value: object, rule: str, tokens: int = 2**22, given: object = None, where: str = ""
) -> list[tuple[int, float]]:
    """Give the tokens of a mapping in ascending order, each with its bias."""

    def wrong() -> TypeError:
        return TypeError(f"logit_bias must be {rule}, got {show(value if given is None else given)}")

    if not isinstance(value, Mapping):
        raise wrong()
    result = {}
    for key, bias in dict(value).items():
        try:
            token = operator.index(key)
            number = _refuse(bias) if isinstance(bias, (*_TEXT, np.complexfloating)) else float(bias)
        except TypeError:
            raise wrong() from None
        except OverflowError:  # an integer beyond float64
            number = np.nan
        if not 0 <= token < tokens:
            raise ValueError(f"logit_bias must have token ids in [0, {tokens}), got {show(token)}{where}")
        if not (abs(number) <= 3.4e38 or number == -np.inf):
            raise ValueError(f"logit_bias must be in [-3.4e38, 3.4e38] or -inf, got {show(bias)} for id {token}{where}")
        result[token] = number
    return sorted(result.items())


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
