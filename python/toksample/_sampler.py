"""Parameters kept together, and a sampler that counts its position."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import Any

from toksample import _native
from toksample._parameters import count, one


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The parameters of :func:`toksample.sample` for one text; the fields have the same names, ranges and defaults.

    Parameters
    ----------
    temperature : float, optional
        0, which is greedy, or in [1e-30, 1e30]; None is 1.
    top_k : int, optional
        In [0, 2**64), or -1; 0, -1 and None are off.
    top_p : float, optional
        In [0, 1]; 1 and None are off.
    min_p : float, optional
        In [0, 1]; 0 and None are off.
    seed : int, optional
        In [0, 2**64); fresh entropy by default.
    stream : int, optional
        In [0, 2**64); by default the row's index in its batch.

    Raises
    ------
    ValueError, TypeError
        When one is made out of range.

    Examples
    --------
    >>> toksample.SamplingParams(temperature=0.7, top_k=50)
    SamplingParams(temperature=0.7, top_k=50, top_p=1.0, min_p=0.0, seed=None, stream=None)
    """

    temperature: float | None = 1.0
    top_k: int | None = 0
    top_p: float | None = 1.0
    min_p: float | None = 0.0
    seed: int | None = None
    stream: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.keywords().items():
            if value is not None:  # which is off, or for the seed and the stream the default
                one(name, value)

    def keywords(self) -> dict[str, Any]:
        """Return the fields as the keyword arguments of :func:`toksample.sample`."""
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "seed": self.seed,
            "stream": self.stream,
        }


class _Process:
    """Stands for this process: a forked child gets another one, by which its samplers know that they were copied."""


_process = _Process()


def _after_fork() -> None:
    global _process
    _process = _Process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Sampler:
    """Draws the tokens of a text one after the other: ``sampler(logits)`` is the next one.

    It keeps the parameters, and counts the position, so that each token has its own random word. Without a seed it takes
    fresh entropy once, and keeps it in ``seed``; in a forked child it takes new entropy, so that workers do not draw the same
    texts. It can be pickled and goes on where it was, with the same seed.

    Threads may share one, and do not wait for each other: each call takes the next position. A call that ends in an error
    gives its position back, unless another thread has taken a later one meanwhile.

    Parameters
    ----------
    params : SamplingParams, optional
        The parameters; or give them as keywords.
    num_threads : int, optional
        At most this many threads for the rows of a batch, as in :func:`toksample.sample`.
    **keywords
        The fields of :class:`SamplingParams`.

    Attributes
    ----------
    params : SamplingParams
    num_threads : int or None
    seed : int
        The seed in use.
    position : int
        The position of the next token.

    Examples
    --------
    >>> sampler = toksample.Sampler(temperature=0.7, top_p=0.9, seed=1)
    >>> logits = np.float32([1.0, 3.0, 2.0, -1.0])
    >>> [sampler(logits) for _ in range(8)]
    [1, 1, 2, 1, 1, 1, 2, 1]
    """

    def __init__(
        self, params: SamplingParams | None = None, *, num_threads: int | None = None, **keywords: Any
    ) -> None:
        if params is not None and keywords:
            raise TypeError(f"params and keywords must not both be given, got params and {', '.join(keywords)}")
        if params is not None and not isinstance(params, SamplingParams):
            raise TypeError(f"params must be a SamplingParams, got {params!r}")
        self.params = SamplingParams(**keywords) if params is None else params
        self._native_params = _native.Params(self.params.keywords())
        self.num_threads = None if num_threads is None else count("num_threads", num_threads)
        self.reset()

    def reset(self) -> None:
        """Begin a new text: position 0, and fresh entropy if no seed was given."""
        self.position = 0
        self._renew()

    def _renew(self) -> None:
        """Take the seed of the parameters, or fresh entropy, for this process."""
        self.seed = secrets.randbits(64) if self.params.seed is None else self.params.seed
        self._process = _process

    @property
    def position(self) -> int:
        """The position of the next token."""
        return self._counter.value

    @position.setter
    def position(self, position: int) -> None:
        self._counter = _native.Counter(one("position", position))

    def __call__(self, logits: object) -> Any:
        """Draw the next token of each row; see :func:`toksample.sample`. On an error the position stays."""
        if self._process is not _process:
            self._renew()
        counter = self._counter
        position = counter.take()
        try:
            return _native.draw(logits, self._native_params, self.seed, position, self.num_threads)
        except BaseException:
            counter.give_back(position)
            raise

    def __repr__(self) -> str:
        return f"Sampler({self.params!r}, position={self.position})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("params", "num_threads", "seed", "position")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._process = _process
