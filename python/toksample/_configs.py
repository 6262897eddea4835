"""Reads the configurations of other systems, and writes them, by the tables of `_systems`."""

from __future__ import annotations

import difflib
import json
import math
import numbers
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

from toksample._orders import EDITS, STEPS, SWITCHES, edits, steps
from toksample._systems import LLAMA_CPP, OPENAI, SETTINGS, TRANSFORMERS, VLLM, Alone, Option, Refused, System
from toksample._text import show

Made = TypeVar("Made")
Order = str | tuple[str, ...] | None

FILE_NAME = "generation_config.json"
"""What transformers calls the file in a model's folder."""


class ExchangesConfigs:
    """The methods of :class:`toksample.SamplingParams` that read and write the configurations of other systems."""

    __slots__ = ()

    @classmethod
    def from_generation_config(cls, source: object) -> Self:
        """Read a generation config of transformers, which most models bring as ``generation_config.json``.

        Without ``do_sample=True`` transformers takes the most probable token, which is temperature 0 here. With it, a
        ``top_k`` that is absent or None is 50, as in transformers; 0 turns it off. The ``order`` is that of transformers, in
        which top_k keeps all tokens that tie with the k-th.

        Parameters
        ----------
        source : str, path, mapping or transformers.GenerationConfig
            The file or the folder that it is in, its content, or any object with ``to_dict()``.

        Returns
        -------
        SamplingParams
            Fields that say when a text ends are left to :class:`toksample.GenerationConfig`, unless a method that is on needs
            them: ``eos_token_id`` is read with ``min_new_tokens`` and ``exponential_decay_length_penalty``, and
            ``max_new_tokens`` with ``forced_eos_token_id``.

        Raises
        ------
        ValueError, TypeError
            For a field that is unknown, that is out of range, that contradicts another one, or that is on and has no
            counterpart in toksample. For a file that is not JSON.
        OSError
            When the file cannot be read.

        Examples
        --------
        >>> gemma = {"do_sample": True, "eos_token_id": [1, 106], "top_k": 64, "top_p": 0.95}
        >>> params = toksample.SamplingParams.from_generation_config(gemma)
        >>> params.temperature, params.top_k, params.top_p, params.order
        (1.0, 64, 0.95, 'transformers')
        >>> toksample.SamplingParams.from_generation_config({"num_beams": 4})
        Traceback (most recent call last):
        ValueError: num_beams of the generation config must be None or 1, got 4
        """
        return _make(cls, TRANSFORMERS, load(source))

    def to_generation_config(self) -> dict[str, Any]:
        """Return the keywords of ``transformers.GenerationConfig`` that have the same meaning.

        What is off is there as well, because ``generate`` takes what is absent from the config of the model.

        Raises
        ------
        ValueError
            For a parameter that transformers does not have, such as the seed, or that it cannot express. For an ``order``
            that is not None and does not mean the same as that of transformers.

        Examples
        --------
        >>> toksample.SamplingParams(temperature=0.7, top_p=0.9).to_generation_config()
        {'do_sample': True, 'temperature': 0.7, 'top_k': 0, 'top_p': 0.9, 'min_p': 0.0, 'typical_p': 1.0,
         'epsilon_cutoff': 0.0, 'eta_cutoff': 0.0, 'repetition_penalty': 1.0, 'encoder_repetition_penalty': 1.0,
         'no_repeat_ngram_size': 0, 'min_new_tokens': 0}
        >>> toksample.SamplingParams(temperature=0, suppress_tokens=[5]).to_generation_config()
        {'do_sample': False, 'repetition_penalty': 1.0, 'encoder_repetition_penalty': 1.0, 'no_repeat_ngram_size': 0,
         'suppress_tokens': [5], 'min_new_tokens': 0}
        """
        return write(TRANSFORMERS, self)

    @classmethod
    def from_vllm(cls, source: object) -> Self:
        """Read the sampling parameters of vLLM.

        vLLM raises temperatures above 0 and below 0.01 to 0.01, and so does this method. The ``order`` is that of vLLM, which
        applies min_p before top_k and top_p, and keeps all tokens that tie with the k-th. With ``min_tokens``, the
        ``stop_token_ids`` become ``eos_token_ids``. vLLM also bans the tokens by which its model ends a text, which are not
        here.

        Parameters
        ----------
        source : mapping or vllm.SamplingParams
            The keywords, or the object.

        Returns
        -------
        SamplingParams

        Raises
        ------
        ValueError, TypeError
            As in :meth:`from_generation_config`.

        Examples
        --------
        >>> toksample.SamplingParams.from_vllm({"temperature": 0.6, "top_k": -1, "max_tokens": 100}).top_k
        0
        """
        return _make(cls, VLLM, source)

    def to_vllm(self) -> dict[str, Any]:
        """Return the keywords of ``vllm.SamplingParams`` that have the same meaning.

        The same seed does not give the same tokens there.

        Raises
        ------
        ValueError
            For a parameter that vLLM does not have, or that it cannot express. For an ``order`` that is not None and does
            not mean the same as that of vLLM.

        Examples
        --------
        >>> toksample.SamplingParams(temperature=0.7, min_p=0.05, seed=1).to_vllm()
        {'temperature': 0.7, 'top_k': 0, 'top_p': 1.0, 'min_p': 0.05, 'repetition_penalty': 1.0,
         'frequency_penalty': 0.0, 'presence_penalty': 0.0, 'min_tokens': 0, 'seed': 1}
        """
        return write(VLLM, self)

    @classmethod
    def from_llama_cpp(cls, source: object) -> Self:
        """Read a request to the server of llama.cpp, or the keywords of ``Llama.create_completion`` of llama-cpp-python.

        What is absent has the defaults of llama.cpp: temperature 0.8, top_k 40, top_p 0.95 and min_p 0.05. If a penalty is
        on, it looks at the last 64 tokens.

        The ``order`` is that of llama.cpp, which filters first and divides by the temperature last. A list of ``samplers``
        becomes an order of its own, and what is not in the list is left out, as in llama.cpp; ``adaptive_target`` is left out
        where there is no list, too. With ``mirostat`` llama.cpp applies the temperature, mirostat and the biases alone, and
        the rest is left out, so that the ``order`` is ``("temperature", "mirostat")``. llama-cpp-python calls it
        ``mirostat_mode``, and applies the penalties as well, but no temperature unless that is 0. So it is read in this way
        under that name. If a field is there under two names, they must have the same value.

        A list must have the penalties before the filters if a penalty is on. llama.cpp counts the tokens of the prompt for
        the frequency and the presence penalty, toksample does not. The ``dry_sequence_breakers`` of llama.cpp are texts, for
        which toksample would need the tokenizer. So DRY is an error, unless they are ``[""]``, which stands for none.

        Parameters
        ----------
        source : mapping
            The fields of the request, or the keywords.

        Returns
        -------
        SamplingParams

        Raises
        ------
        ValueError, TypeError
            As in :meth:`from_generation_config`.

        Examples
        --------
        >>> params = toksample.SamplingParams.from_llama_cpp({"repeat_penalty": 1.1, "n_predict": 100})
        >>> params.temperature, params.top_k, params.repetition_penalty, params.penalty_window
        (0.8, 40, 1.1, 64)
        >>> params = toksample.SamplingParams.from_llama_cpp({"samplers": ["temperature", "min_p"]})
        >>> params.order, params.temperature, params.top_k, params.min_p
        (('temperature', 'min_p'), 0.8, 0, 0.05)
        >>> params = toksample.SamplingParams.from_llama_cpp({"temp": 0.7, "mirostat_mode": 2, "mirostat_tau": 3.0})
        >>> params.order, params.temperature, params.mirostat, params.mirostat_tau
        (('temperature', 'mirostat'), 1.0, 2, 3.0)
        """
        return _make(cls, LLAMA_CPP, source)

    def to_llama_cpp(self) -> dict[str, Any]:
        """Return the fields of a request to the server of llama.cpp.

        They are also keywords of ``create_completion`` of llama-cpp-python, as far as it has the methods. It has no
        ``samplers``, which is there only if the ``order`` does not give the same as that of llama.cpp or if adaptive-p is on;
        no ``repeat_last_n``, which is there only if a penalty is on; and no ``adaptive_target``. It calls
        ``mirostat`` ``mirostat_mode``, and applies no temperature with it. If DRY is on, ``dry_sequence_breakers`` is
        ``[""]``, because the server has some by default. A bias of -inf stays one; for the server, which reads JSON, write
        False in its place.

        Raises
        ------
        ValueError
            For a parameter or a step of the order that llama.cpp does not have, or that it cannot express, and for a filter
            or a penalty that is on together with mirostat.

        Examples
        --------
        >>> toksample.SamplingParams(temperature=0.7, top_k=50).to_llama_cpp()
        {'temperature': 0.7, 'top_k': 50, 'top_p': 1.0, 'min_p': 0.0, 'typical_p': 1.0, 'top_n_sigma': -1.0,
         'dynatemp_range': 0.0, 'xtc_probability': 0.0, 'mirostat': 0, 'adaptive_target': -1.0, 'repeat_penalty': 1.0,
         'frequency_penalty': 0.0, 'presence_penalty': 0.0, 'dry_multiplier': 0.0}
        >>> toksample.SamplingParams(temperature=0.7, top_p=0.9).to_llama_cpp()["samplers"]
        ['penalties', 'dry', 'temperature', 'top_k', 'top_p', 'min_p', 'typ_p', 'top_n_sigma', 'xtc']
        """
        return write(LLAMA_CPP, self)

    @classmethod
    def from_openai(cls, source: object) -> Self:
        """Read a request to OpenAI's API, for chat or for completion.

        OpenAI does not say in which order it applies the temperature and top_p, so ``order`` is None, the default.

        Servers that imitate the API may take more fields, such as ``top_k``. They are unknown here.

        Parameters
        ----------
        source : mapping
            The fields of the request.

        Returns
        -------
        SamplingParams

        Raises
        ------
        ValueError, TypeError
            As in :meth:`from_generation_config`.

        Examples
        --------
        >>> request = {"model": "gpt-4o", "messages": [], "top_p": 0.9, "logit_bias": {"50256": -100}}
        >>> toksample.SamplingParams.from_openai(request).logit_bias
        {50256: -100.0}
        """
        return _make(cls, OPENAI, source)

    def to_openai(self) -> dict[str, Any]:
        """Return the fields of a request to OpenAI's API that have the same meaning.

        The same seed does not give the same tokens there.

        Raises
        ------
        ValueError
            For a parameter that the API does not have, or that it cannot express. For an ``order`` that does not mean the same
            as None.

        Examples
        --------
        >>> toksample.SamplingParams(temperature=0.7, presence_penalty=0.5, logit_bias={7: -100}).to_openai()
        {'temperature': 0.7, 'top_p': 1.0, 'frequency_penalty': 0.0, 'presence_penalty': 0.5, 'logit_bias': {'7': -100.0}}
        """
        return write(OPENAI, self)


def _make(make: Callable[..., Made], system: System, source: object) -> Made:
    """Make parameters of a configuration. An error about a field names it as its system does."""
    found, order = read(system, source)
    keywords: dict[str, Any] = {"order": order}
    for option, value in found:
        try:
            make(**{option.ours: value})
        except (ValueError, TypeError) as error:
            if option.theirs == option.ours:
                raise
            raise type(error)(f"{option.theirs} of {system.noun}: {error}") from None
        known = keywords.get(option.ours)
        keywords[option.ours] = {**known, **value} if isinstance(known, Mapping) else value
    return make(**keywords)


# ---- sources ---------------------------------------------------------------------------------------------------------


def load(source: object) -> object:
    """Read the file, if the source is the path of one or of its folder."""
    if not isinstance(source, (str, os.PathLike)):
        return source
    path = Path(source)
    if path.is_dir():
        path /= FILE_NAME
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be a JSON file, got an error: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must have a JSON object, got {show(content)}")
    return content


def as_dict(system: System, source: Any) -> dict[Any, Any]:
    """Give the fields of a mapping or of another system's object, without those that begin with an underscore."""
    if isinstance(source, Mapping):
        fields = dict(source)
    elif hasattr(source, "to_dict"):
        fields = dict(source.to_dict())
    elif hasattr(source, "__struct_fields__"):  # of msgspec, on which vLLM's class is built
        fields = {name: getattr(source, name) for name in source.__struct_fields__}
    else:
        raise TypeError(f"{system.noun} must be a mapping or an object of {system.name}, got {show(source)}")
    return {name: value for name, value in fields.items() if not (isinstance(name, str) and name.startswith("_"))}


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(system: System, source: object) -> tuple[list[tuple[Option, Any]], Order]:
    """Give the options of a configuration that are on, each with the value that it has in toksample, and the order.

    Raises
    ------
    ValueError, TypeError
        As in :meth:`ExchangesConfigs.from_generation_config`, except for values that only SamplingParams refuses.
    """
    fields = as_dict(system, source)
    for name, value in fields.items():
        if name not in system.names:
            _unknown(system, name, value)
    options = _options_by_given_names(system, fields)
    alone = _alone(system, fields)
    listed = None if alone is not None else _listed_samplers(system, fields)
    for refused in system.refused:
        if _is_listed(system, refused, listed):
            _check_off(system, refused.theirs, fields.get(refused.theirs), refused.off)
    samples = system.switch is None or _is_on(system, system.switch, fields.get(system.switch))
    found: list[tuple[Option, Any]] = []
    names: set[str] = set()
    for option in options:
        if option.ours == "order" or not _is_listed(system, option, listed):
            continue
        if alone is not None and option.ours not in {alone.ours, *alone.beside}:
            continue
        value = fields.get(option.theirs)
        if option.is_filter and system.switch is not None:
            _check_switch(system, option, value, samples)
        if option.is_filter and not samples:
            if option.ours == "temperature":
                found.append((option, 0.0))
            continue
        value = option.default if value is None else value
        if option.ours in SETTINGS and names.isdisjoint(SETTINGS[option.ours]):
            continue
        ours = _value_of(system, option, value)
        has_no_temperature = alone is not None and not alone.has_temperature
        if ours is None or (option.ours == "temperature" and has_no_temperature and ours > 0):
            continue
        found.append((option, ours))
        names.add(option.ours)
    if any(option.ours == "temperature" and value == 0 for option, value in found):
        found = [(option, value) for option, value in found if option.ours == "temperature" or not option.is_filter]
    if alone is not None:
        return found, alone.order
    return found, system.order if listed is None else _order_of_samplers(system, listed, found)


def read_filters(system: System, source: object, others: tuple[str, ...] = ()) -> dict[str, Any]:
    """Give the temperature, the filters and their order in a configuration, with None as off, and look at nothing else.

    The refused fields that are named in ``others`` must be off.
    """
    fields = as_dict(system, source)
    for refused in system.refused:
        if refused.theirs in others:
            _check_off(system, refused.theirs, fields.get(refused.theirs), refused.off)
    filters = [option for option in system.options if option.is_filter]
    values = {option.ours: _value_of(system, option, fields.get(option.theirs)) for option in filters}
    return {name: value for name, value in values.items() if value is not None} | {"order": system.order}


def _listed_samplers(system: System, fields: Mapping[Any, Any]) -> list[str] | None:
    """Give the samplers that a configuration lists; None if it has no list, so that the system uses its own one."""
    option = system.list_of_samplers
    listed = None if option is None else fields.get(option.theirs)
    if option is None or listed is None:
        return None
    options: list[Option | Refused] = [*system.options, *system.refused]
    known = [one.sampler for one in options if one.sampler is not None]
    names = listed if isinstance(listed, (list, tuple)) else [None]
    if any(not isinstance(name, str) or name not in known or names.count(name) > 1 for name in names):
        rule = f"a list of samplers among {', '.join(dict.fromkeys(known))}, each at most once"
        raise ValueError(f"{option.theirs} of {system.noun} must be {rule}, got {show(listed)}")
    return list(names)


def _is_listed(system: System, one: Option | Refused, listed: list[str] | None) -> bool:
    """Whether the system applies the sampler that a field belongs to: that of its own list, if there is no other."""
    if one.sampler is None:
        return True
    return one.sampler not in system.only_if_listed if listed is None else one.sampler in listed


def _options_by_given_names(system: System, fields: Mapping[Any, Any]) -> list[Option]:
    """Give the options of a system, each with that of its names which the configuration has."""
    given = {name: alias for alias, name in system.aliases.items() if fields.get(alias) is not None}
    for name, alias in given.items():
        if fields.get(name) is not None and not _is_one_of(fields[alias], (fields[name],)):
            rule = f"the same as {name}, which is {show(fields[name])}"
            raise ValueError(f"{alias} of {system.noun} must be {rule}, got {show(fields[alias])}")
    return [option._replace(theirs=given.get(option.theirs, option.theirs)) for option in system.options]


def _alone(system: System, fields: Mapping[Any, Any]) -> Alone | None:
    """Give the method that takes the place of samplers, if one is on. If it has two names, the last one says how."""
    on = [alone for alone in system.alone if not _is_one_of(fields.get(alone.theirs), (None, 0))]
    return on[-1] if on else None


def _order_of_samplers(system: System, listed: list[str], found: list[tuple[Option, Any]]) -> Order:
    """Give the order that a list of samplers stands for. Penalties that are on must come first."""
    step_of = {sampler: step for step, sampler in system.sampler_of.items()}
    places = [place for place, name in enumerate(listed) if name in step_of]
    on: dict[str, str] = {}
    for option, _ in found:
        name = option.sampler
        if name is None or name in step_of:
            continue
        if places and listed.index(name) > places[0]:
            rule = f"have {name!r} before the filters where {option.theirs} is on"
            raise ValueError(f"samplers of {system.noun} must {rule}, got {show(listed)}")
        on[option.ours] = name
    filters = tuple(step_of[listed[place]] for place in places)
    own = [step for step, name in system.sampler_of.items() if name in listed or name not in system.only_if_listed]
    penalties = [step for step, name in EDITS.items() if name in on]
    in_order = sorted(penalties, key=lambda step: listed.index(on[EDITS[step]]))
    if in_order != penalties:
        return (*in_order, *filters)
    return system.order if filters == tuple(own) else filters


def _value_of(system: System, option: Option, value: Any) -> Any:
    """Give what their value is in toksample; None if it is off."""
    if value is None or _is_one_of(value, option.off):
        return None
    kind = numbers.Integral if option.number is int else numbers.Real
    if option.number is not None and not isinstance(value, kind):
        what = "an integer" if option.number is int else "a number"
        raise TypeError(f"{option.theirs} of {system.noun} must be {what}, got {show(value)}")
    try:
        if option.holds(value):
            return option.read(value)
    except (TypeError, ValueError, AttributeError):
        pass  # a value that is not a number may be anything
    raise ValueError(f"{option.theirs} of {system.noun} must be {option.rule}, got {show(value)}")


def _is_on(system: System, name: str, value: object) -> bool:
    if not _is_one_of(value, (None, True, False)):
        raise ValueError(f"{name} of {system.noun} must be None, True or False, got {show(value)}")
    return bool(value)


def _check_switch(system: System, option: Option, value: object, samples: bool) -> None:
    """See that a filter is off where the system does not sample, and that a temperature of 0 does not ask it to."""
    name = f"{option.theirs} of {system.noun}"
    is_zero = option.ours == "temperature" and _is_one_of(value, (0,))
    if samples and is_zero:
        raise ValueError(f"{name} must be above 0 where {system.switch} is True, got {show(value)}")
    if not samples and not is_zero and not _is_one_of(value, (None, option.default, *option.off)):
        rule = f"{_off_rule(option.off)} where {system.switch} is not True"
        raise ValueError(f"{name} must be {rule}, got {show(value)}")


def _check_off(system: System, name: str, value: object, off: tuple[object, ...]) -> None:
    """See that a field without a counterpart is off."""
    if value is not None and not _is_one_of(value, off):
        raise ValueError(f"{name} of {system.noun} must be {_off_rule(off)}, got {show(value)}")


def _off_rule(off: tuple[object, ...]) -> str:
    return f"None or {show(off[0])}" if off else "None"


def _is_one_of(value: Any, others: tuple[object, ...]) -> bool:
    """Whether a value equals one of others. An array, which is compared element by element, equals none of them."""
    try:
        return any(bool(value == other) for other in others)
    except Exception:
        return False


def _unknown(system: System, name: object, value: object) -> NoReturn:
    """Raise the error for a field that is not known, and name the one that may be meant."""
    other_names = {option.ours: option.theirs for option in system.options}
    close = difflib.get_close_matches(str(name), sorted(system.names), n=1)
    meant = other_names.get(str(name)) or (close[0] if close else None)
    hint = f"; did you mean {meant!r}?" if meant else ""
    raise ValueError(f"{system.noun} must have fields that are known, got {show(name)} with {show(value)}{hint}")


# ---- writing ---------------------------------------------------------------------------------------------------------

_ALSO_OFF: dict[str, tuple[object, ...]] = {
    "top_k": (-1,),
    "min_tokens_to_keep": (0,),
    "logit_bias": ({},),
    "sequence_bias": ({},),
    "bad_words_ids": ((),),
    "suppress_tokens": ((),),
    "begin_suppress_tokens": ((),),
    "eos_token_ids": ((),),
    "dry_sequence_breakers": ((),),
    "xtc_exempt_token_ids": ((),),
}
"""Values of SamplingParams that mean off, besides None and the default."""


def write(system: System, params: Any) -> dict[str, Any]:
    """Give the fields of another system that have the meaning of a :class:`toksample.SamplingParams`.

    What is off is written as well, because a field that is absent may be taken from the configuration of the model or of
    the server. A setting of methods that are off is left out.

    Raises
    ------
    ValueError
        For a parameter that is on and that the system does not have, or cannot express. For an order that is neither None nor
        one that the system has.
    """
    keywords, defaults = params.keywords(), type(params)().keywords()
    off = {
        name for name, value in keywords.items() if _is_one_of(value, (None, defaults[name], *_ALSO_OFF.get(name, ())))
    }
    unused = {name for name, methods in SETTINGS.items() if off.issuperset(methods)}
    off |= unused
    is_greedy = keywords["temperature"] == 0
    ignored = {option.ours for option in system.options if option.is_filter} if is_greedy else set()
    lacking = sorted(system.lacks - off)
    if lacking:
        name = lacking[0]
        why = f"because {system.noun} does not have it"
        raise ValueError(f"{name} must be {show(defaults[name])}, {why}, got {show(keywords[name])}")
    result: dict[str, Any] = {} if system.switch is None else {system.switch: not is_greedy}
    alone = next((alone for alone in system.alone if alone.ours not in off), None)
    if not is_greedy and alone is not None:
        _check_alone(system, alone, keywords, defaults, off)
    else:
        # The order of the edits matters in any case.
        unapplied = off | {*STEPS.values(), *SWITCHES} if is_greedy else off
        unapplied = unapplied | {name for name in ("logit_bias", "sequence_bias") if not _has_finite(keywords[name])}
        if not _is_same_order(system, keywords["order"], unapplied):
            result |= _write_order(system, keywords["order"], unapplied)
    for option in system.options:
        ours = keywords[option.ours]
        if option.ours == "order":
            continue
        if option.ours in ignored and (option.ours != "temperature" or system.switch):
            continue
        if option.ours in unused:
            continue
        if option.ours in off:
            if option.off and (option.number is not None or option.default is not None):
                result[option.theirs] = option.off[0]
            continue
        theirs = option.write(ours) if option.number is None else option.number(ours)
        if theirs is None:
            continue
        if not option.holds(theirs):
            raise ValueError(f"{option.ours} must be {option.rule} in {system.noun}, got {show(ours)}")
        if option.number is not None and _value_of(system, option, theirs) != ours:
            raise ValueError(f"{option.ours} must be a value that {system.noun} can express, got {show(ours)}")
        result[option.theirs] = option.join(result[option.theirs], theirs) if option.theirs in result else theirs
    return result


def _has_finite(biases: Mapping[Any, float] | None) -> bool:
    """Whether there is a bias that does not ban its token. Bans come before all other edits, whatever the order."""
    return any(bias > -math.inf for bias in (biases or {}).values())


def _is_same_order(system: System, order: Order, off: set[str]) -> bool:
    """Whether an order does the same as that of the system. None leaves it to a system that cannot be told another one."""
    if system.list_of_samplers is None:
        return order is None or _steps_in_effect(order, off) == _steps_in_effect(system.order, off)
    on = _steps_in_effect(order, off)
    is_listed = all(system.sampler_of.get(step) not in system.only_if_listed for step in on)
    return is_listed and on == _steps_in_effect(system.order, off)


def _steps_in_effect(order: Order, off: set[str]) -> list[str]:
    """Give the steps that apply something that is on, the edits first.

    A temperature comes after steps that give the same before and after it.
    """
    on = {step for name, step in SWITCHES.items() if name not in off}
    filters = [step for step in steps(order) if step in STEPS]
    result = [step for step in (*edits(steps(order)), *filters) if (EDITS | STEPS)[step] not in off or step in on]
    for place, step in enumerate(result[1:]):
        is_either = result[place] == "temperature" and "dynatemp_range" in off
        if is_either and step in ("top_k", "top_k_with_ties", "top_n_sigma"):
            result[place : place + 2] = step, "temperature"
    return result


def _check_alone(
    system: System, alone: Alone, keywords: Mapping[str, Any], defaults: Mapping[str, Any], off: set[str]
) -> None:
    """See that nothing else is on beside a method that takes the place of all samplers."""
    why = f"where {alone.ours} is on in {system.noun}"
    for option in system.options:
        if option.ours not in {"order", alone.ours, *alone.beside, *off}:
            raise ValueError(
                f"{option.ours} must be {show(defaults[option.ours])} {why}, got {show(keywords[option.ours])}"
            )
    if _steps_in_effect(keywords["order"], off) != _steps_in_effect(alone.order, off):
        raise ValueError(f"order must be None or {show(alone.order)} {why}, got {show(keywords['order'])}")


def _write_order(system: System, order: Order, off: set[str]) -> dict[str, list[str]]:
    """Give the list of samplers for an order that is not the system's own."""
    option = system.list_of_samplers
    on = _steps_in_effect(order, off)
    own = "None" if system.order is None else f"None or {system.order!r}"
    if option is None or any(step in STEPS and step not in system.sampler_of for step in on):
        rule = own if option is None else f"{own}, or have steps among {', '.join(system.sampler_of)}"
        raise ValueError(f"order must be {rule} in {system.noun}, got {show(order)}")
    penalties = {one.ours: one.sampler for one in system.options if one.sampler is not None and not one.is_filter}
    sampler_of = {step: penalties[name] for step, name in EDITS.items() if name in penalties}
    named = dict.fromkeys(sampler_of[step] for step in on if step in sampler_of)
    # The system applies what has no sampler first, and the penalties of a sampler in its own order.
    written = [step for step in EDITS if step in on and step not in sampler_of]
    written += [step for name in named for step in EDITS if step in on and sampler_of.get(step) == name]
    if written != [step for step in on if step in EDITS]:
        rule = f"be one whose edits can be listed in {system.noun}"
        raise ValueError(f"order must {rule}, got {show(order)}")
    filters = [
        system.sampler_of[step]
        for step in steps(order)
        if step in system.sampler_of
        and (STEPS[step] not in off or system.sampler_of[step] not in system.only_if_listed)
    ]
    return {option.theirs: [*dict.fromkeys([*named, *penalties.values()]), *filters]}
