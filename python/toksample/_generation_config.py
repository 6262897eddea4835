"""How to draw the tokens of a text, and when the text ends."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from toksample._configs import FILE_NAME, as_dict, load
from toksample._parameters import SamplingParams, at_least_0
from toksample._systems import TRANSFORMERS
from toksample._text import show

_DEFAULT_LIMIT = 256


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """The parameters of a draw and the conditions that end a text, as in ``generation_config.json`` of transformers.

    :func:`toksample.generate` takes one in place of parameters. It tells the sampler what ends the text, where a method such
    as ``forced_eos_token_id`` needs to know.

    Parameters
    ----------
    params : SamplingParams
        How to draw. What they say about the end of a text (``max_new_tokens``, ``min_new_tokens`` and ``eos_token_ids``) moves
        to the fields below, unless these are given.
    max_new_tokens : int, optional
        >= 0. Stop after so many tokens.
    max_length : int, optional
        >= 0. Stop when the prompt and the text have so many tokens together; not looked at if ``max_new_tokens`` is given.
    min_new_tokens : int
        >= 0. Ban the tokens that end the text until there are so many others.
    eos_token_ids : collection of int
        The tokens by which the model ends a text.
    stop_token_ids : collection of int
        More tokens that end it.
    stop_strings : collection of str
        Texts that end it where they appear, for programs with a tokenizer such as ``toksample generate``.

    Raises
    ------
    ValueError, TypeError
        When one is made out of range.

    Examples
    --------
    >>> config = toksample.GenerationConfig.from_dict({"do_sample": True, "top_k": 64, "eos_token_id": [1, 106]})
    >>> config.params.top_k, config.eos_token_ids
    (64, (1, 106))
    >>> model = lambda ids: np.eye(128, dtype=np.float32)[ids[-1] + 1] * 200  # counts up
    >>> list(toksample.generate(model, [103], config))
    [104, 105]
    """

    params: SamplingParams = field(default_factory=SamplingParams)
    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int = 0
    eos_token_ids: Collection[int] = ()
    stop_token_ids: Collection[int] = ()
    stop_strings: Collection[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.params, SamplingParams):
            raise TypeError(f"params must be a SamplingParams, got {show(self.params)}")
        if self.params.max_new_tokens or self.params.min_new_tokens or self.params.eos_token_ids:
            self._take_from_params()
        for name in ("max_new_tokens", "max_length"):
            if getattr(self, name) is not None:
                self._set(name, at_least_0(name, getattr(self, name)))
        self._set("min_new_tokens", at_least_0("min_new_tokens", self.min_new_tokens))
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            limits = f"max_new_tokens, which is {show(self.max_new_tokens)}"
            raise ValueError(f"min_new_tokens must be at most {limits}, got {show(self.min_new_tokens)}")
        for name in ("eos_token_ids", "stop_token_ids"):
            self._set(name, _token_ids(name, getattr(self, name)))
        self._set("stop_strings", _texts("stop_strings", self.stop_strings))

    def _take_from_params(self) -> None:
        """Move what the parameters say about the end of a text to this config, so that it is in one place."""
        params = self.params
        if self.max_new_tokens is None:
            self._set("max_new_tokens", params.max_new_tokens or None)
        self._set("min_new_tokens", self.min_new_tokens or params.min_new_tokens or 0)
        self._set("eos_token_ids", self.eos_token_ids or params.eos_token_ids or ())
        self._set("params", dataclasses.replace(params, max_new_tokens=0, min_new_tokens=0, eos_token_ids=None))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def stops(self) -> frozenset[int]:
        """All tokens that end a text."""
        return frozenset((*self.eos_token_ids, *self.stop_token_ids))

    def params_of_text(self, max_new_tokens: int, stops: Collection[int]) -> SamplingParams:
        """Return the parameters for a sampler whose text ends after so many tokens, or at one of these."""
        known: dict[str, Any] = {}
        if self.params.forced_eos_token_id is not None:
            known["max_new_tokens"] = min(max_new_tokens, 2**64 - 1)
        if self.params.exponential_decay_length_penalty is not None:
            known["eos_token_ids"] = sorted(stops)
        return dataclasses.replace(self.params, **known)

    def limit(self, prompt_length: int) -> int:
        """Return the most tokens that may follow a prompt of this length; 256 if the config does not say."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return _DEFAULT_LIMIT if self.max_length is None else max(self.max_length - prompt_length, 0)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read ``generation_config.json`` of transformers.

        Parameters
        ----------
        path : str or path
            The file, or the folder that it is in.

        Returns
        -------
        GenerationConfig

        Raises
        ------
        OSError
            When the file cannot be read.
        ValueError, TypeError
            When it is not JSON, and as in :meth:`from_dict`.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"path must be a str or a path, got {show(path)}")
        return cls.from_dict(load(path))

    @classmethod
    def from_dict(cls, source: object) -> Self:
        """Read a generation config of transformers.

        Parameters
        ----------
        source : mapping or transformers.GenerationConfig
            The content of the file, or any object with ``to_dict()``.

        Returns
        -------
        GenerationConfig
            Without the fields that do not concern drawing or the end of a text, such as ``pad_token_id``.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`toksample.SamplingParams.from_generation_config`.

        Examples
        --------
        >>> toksample.GenerationConfig.from_dict({"max_new_tokens": 100, "stop_strings": "END"}).stop_strings
        ('END',)
        """
        fields = as_dict(TRANSFORMERS, source)
        given = {ours: fields[theirs] for theirs, ours in TRANSFORMERS.text.items() if fields.get(theirs) is not None}
        for name in ("eos_token_ids", "stop_strings"):
            if name in given and (isinstance(given[name], str) or not isinstance(given[name], Collection)):
                given[name] = [given[name]]  # transformers takes a single one, too
        return cls(params=SamplingParams.from_generation_config(source), **given)

    def to_dict(self) -> dict[str, Any]:
        """Return the keywords of ``transformers.GenerationConfig`` that have the same meaning.

        transformers has one field for both kinds of tokens that end a text: ``eos_token_id`` gets them all.

        Raises
        ------
        ValueError
            For a parameter that transformers does not have, or that it cannot express.

        Examples
        --------
        >>> config = toksample.GenerationConfig(toksample.SamplingParams(temperature=0), max_new_tokens=9, eos_token_ids=[1])
        >>> config.to_dict()
        {'do_sample': False, 'repetition_penalty': 1.0, 'encoder_repetition_penalty': 1.0, 'no_repeat_ngram_size': 0,
         'min_new_tokens': 0, 'max_new_tokens': 9, 'eos_token_id': [1]}
        """
        values = {
            "max_new_tokens": self.max_new_tokens,
            "max_length": self.max_length,
            "min_new_tokens": self.min_new_tokens or None,
            "eos_token_id": list(dict.fromkeys((*self.eos_token_ids, *self.stop_token_ids))) or None,
            "stop_strings": list(self.stop_strings) or None,
        }
        return self.params.to_generation_config() | {name: value for name, value in values.items() if value is not None}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that transformers reads.

        Parameters
        ----------
        path : str or path
            The file; or a folder, which gets the file ``generation_config.json``.

        Raises
        ------
        OSError
            When the file cannot be written.
        ValueError
            As in :meth:`to_dict`.
        """
        content = json.dumps(self.to_dict(), indent=2) + "\n"
        file = Path(path)
        (file / FILE_NAME if file.is_dir() else file).write_text(content, encoding="utf-8")


def _token_ids(name: str, ids: object) -> tuple[int, ...]:
    if isinstance(ids, str) or not isinstance(ids, Collection):
        raise TypeError(f"{name} must be a list of token ids, got {show(ids)}")
    return tuple(at_least_0(name, token) for token in ids)


def _texts(name: str, texts: object) -> tuple[str, ...]:
    if isinstance(texts, str) or not isinstance(texts, Collection) or not all(isinstance(one, str) for one in texts):
        raise TypeError(f"{name} must be a list of texts, got {show(texts)}")
    if "" in texts:
        raise ValueError(f"{name} must be texts that are not empty, got {show(texts)}")
    return tuple(texts)
