"""Parameters kept together, and a sampler that counts its position."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from typing import Any

from toksample import _native
from toksample._sampling import sample


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The parameters of :func:`toksample.sample` for one text; the fields have the same names, ranges and defaults.

    Parameters
    ----------
    temperature : float
        Finite and >= 0; 0 is greedy.
    top_k : int
        >= 0; 0 is off.
    top_p : float
        In (0, 1]; 1 is off.
    min_p : float
        In [0, 1]; 0 is off.
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

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stream: int | None = None

    def __post_init__(self) -> None:
        # The kernels' own checks, on the smallest row there is.
        sample([0.0], **self.keywords())

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


class Sampler:
    """Draws the tokens of a text one after the other: ``sampler(logits)`` is the next one.

    It keeps the parameters, and counts the position, so that each token has its own random word. Without a seed it takes
    fresh entropy once, and keeps it in ``seed``. It can be pickled and goes on where it was. Threads may share one; each call
    takes the next position.

    Parameters
    ----------
    params : SamplingParams, optional
        The parameters; or give them as keywords.
    **keywords
        The fields of :class:`SamplingParams`.

    Attributes
    ----------
    params : SamplingParams
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

    def __init__(self, params: SamplingParams | None = None, **keywords: Any) -> None:
        if params is not None and keywords:
            raise TypeError(f"params and keywords must not both be given, got params and {', '.join(keywords)}")
        if params is not None and not isinstance(params, SamplingParams):
            raise TypeError(f"params must be a SamplingParams, got {params!r}")
        self.params = SamplingParams(**keywords) if params is None else params
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Begin a new text: position 0, and fresh entropy if no seed was given."""
        with self._lock:
            self.position = 0
            self.seed = secrets.randbits(64) if self.params.seed is None else self.params.seed

    def __call__(self, logits: object) -> Any:
        """Draw the next token of each row; see :func:`toksample.sample`. On an error the position stays."""
        p = self.params
        with self._lock:
            # The call that `sample` makes: merging keywords would take as long as the draw from a short row.
            token = _native.sample(
                logits,
                p.temperature,
                p.top_k,
                p.top_p,
                p.min_p,
                self.seed,
                self.position,
                p.stream,
                "raise",
                None,
                None,
            )
            self.position += 1
        return token

    def __repr__(self) -> str:
        return f"Sampler({self.params!r}, position={self.position})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
