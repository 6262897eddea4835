"""The receipt of a draw: everything that it takes to check it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from toksample import _native
from toksample._parameters import integer as as_integer
from toksample._parameters import one
from toksample._text import show

VERSION = 1
"""The version of the format. Another one has other fields, or the fields mean something else."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a draw did, so that others can check it with :func:`toksample.verify`.

    The tokens that were kept lie on the mass line, one after the other in the order of their ids, and each takes as much of
    the line as its mass. The random word hits a point of the line, the target. The token in whose interval the target lies is
    drawn. ``docs/specification.md`` says how each of these numbers is computed.

    Parameters
    ----------
    version : int
        1, the version of the format.
    token : int
        The token that was drawn.
    seed, stream, position : int
        In [0, 2**64). They determine the random word.
    word : int
        In [0, 2**64). The random word.
    total : int
        In [1, 2**64). The mass of all tokens that were kept, which is the length of the line.
    target : int
        ``word * total // 2**64``.
    start, stop : int
        The interval of the token, with ``start <= target < stop``. Its probability was ``(stop - start) / total``. At
        temperature 0 a single token is kept, with a mass of 2**41, so that any word draws it.
    mirostat_mu : float, optional
        The limit of surprise that mirostat had, and None without mirostat.
    adaptive_average : float, optional
        The average that adaptive-p had, and None without adaptive-p.

    Raises
    ------
    ValueError, TypeError
        If a field is out of its range or has the wrong type.

    Examples
    --------
    >>> receipt = toksample.sample(np.float32([1.0, 3.0, 2.0, -1.0]), seed=1, receipt=True)
    >>> receipt.token, receipt.start <= receipt.target < receipt.stop
    (1, True)
    >>> toksample.Receipt.from_dict(receipt.to_dict()) == receipt
    True
    """

    version: int
    token: int
    seed: int
    stream: int
    position: int
    word: int
    total: int
    target: int
    start: int
    stop: int
    mirostat_mu: float | None = None
    adaptive_average: float | None = None

    def __post_init__(self) -> None:
        for name in _INTEGERS:
            value = getattr(self, name)
            if type(value) is not int:
                value = int(as_integer(name, value))
                object.__setattr__(self, name, value)
            if name == "version" and value != VERSION:
                raise ValueError(f"version must be {VERSION}, got {show(value)}")
            if not 0 <= value < 2**64:
                raise ValueError(f"{name} must be in [0, 2**64), got {show(value)}")
        for name in ("mirostat_mu", "adaptive_average"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, one(name, getattr(self, name)))

    def to_dict(self) -> dict[str, int | float | None]:
        """Return the fields by name, as plain Python numbers that any JSON writer takes.

        Most of them are integers of up to 64 bits. Python's ``json`` reads and writes these exactly. JavaScript rounds
        integers from 2**53 on, so read such a text there with a parser that knows big integers.
        """
        return {name: getattr(self, name) for name in Receipt.__slots__}

    @classmethod
    def from_dict(cls, receipt: Mapping[str, Any]) -> Receipt:
        """Return the receipt that :meth:`to_dict` wrote.

        Raises
        ------
        ValueError
            If it is of another version, if fields are missing or unknown, or if one is out of its range.
        TypeError
            If it is not a mapping, or if a field has the wrong type.
        """
        if not isinstance(receipt, Mapping):
            raise TypeError(f"receipt must be a mapping from the names of fields to numbers, got {show(receipt)}")
        if "version" in receipt and receipt["version"] != VERSION:  # which may have other fields
            raise ValueError(f"version must be {VERSION}, got {show(receipt['version'])}")
        names = Receipt.__slots__
        missing = [name for name in names if name not in receipt]
        if missing:
            raise ValueError(f"receipt must have the fields {', '.join(names)}, got none that is called {missing[0]}")
        unknown = [name for name in receipt if name not in names]
        if unknown:
            raise ValueError(f"receipt must have no fields but {', '.join(names)}, got {show(unknown[0])}")
        return cls(**receipt)


_INTEGERS = tuple(field.name for field in fields(Receipt) if field.type == "int")


def of_sample(logits: object, parameters: Mapping[str, Any]) -> Any:
    """Draw as :func:`toksample.sample` does, and return the receipts."""
    return _as_receipts(_native.sample_with_receipt(logits, parameters))


def of_draw(
    logits: object,
    params: _native.Params,
    seed: int,
    position: int,
    inputs: dict[str, Any] | None,
    num_threads: int | None,
) -> Any:
    """Draw as a :class:`toksample.Sampler` does, and return the receipts."""
    return _as_receipts(_native.draw_with_receipt(logits, params, seed, position, inputs, num_threads))


def _as_receipts(drawn: Any) -> Any:
    """Make a receipt of what the kernels return for a row, or a list of them for a batch. None stays."""
    if isinstance(drawn, list):
        return [_as_receipts(row) for row in drawn]
    return None if drawn is None else Receipt(VERSION, *drawn)
