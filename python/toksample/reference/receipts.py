"""The check of a receipt, in numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from toksample._arrays import as_given
from toksample._parameters import Parameters, SamplingParams
from toksample._receipts import Receipt
from toksample._text import show
from toksample.reference.functions import sample


def verify(
    receipt: Receipt | Sequence[Receipt],
    logits: object,
    params: SamplingParams | None = None,
    **parameters: Unpack[Parameters],
) -> None:
    """Check that a receipt is the one that some logits and parameters give.

    It computes all of the receipt again: the random word from the seed, the stream and the position; the tokens that are kept
    and their masses from the logits and the parameters; and from these the rest. This is the numpy reference, and no compiled
    code takes part.

    Parameters
    ----------
    receipt : Receipt or sequence of Receipt
        The receipt of one row, or one for each row of a batch.
    logits : array_like, shape (V,) or (B, V)
        As in :func:`toksample.sample`. They must be the very same numbers that were drawn from.
    params : SamplingParams, optional
        The parameters. You can pass them as keywords instead.
    **parameters
        As in :func:`toksample.sample`. If a method looks at the text, pass ``prompt_ids`` and ``output_ids`` as they were
        before the draw, also with ``params``. A ``seed``, a ``stream`` and a ``position`` that are given must be those of the
        receipt, and so must ``mirostat_mu`` and ``adaptive_average``; those that are not given are taken from the receipt.

    Returns
    -------
    None
        If everything is right.

    Raises
    ------
    ValueError
        If the receipt says anything else than the logits and the parameters give; the message lists the differences. Also if
        there is not one receipt for each row, if the receipt has a token that the row does not have, and as in
        :func:`toksample.sample`.
    TypeError
        If an argument has the wrong type.

    Examples
    --------
    >>> logits = np.float32([1.0, 3.0, 2.0, -1.0])
    >>> receipt = toksample.sample(logits, temperature=0.7, seed=1, receipt=True)
    >>> toksample.verify(receipt, logits, temperature=0.7)
    >>> toksample.verify(receipt, logits, temperature=0.7, top_k=1)
    Traceback (most recent call last):
        ...
    ValueError: receipt must be what the logits and the parameters give, got ...
    """
    is_batch = not isinstance(receipt, Receipt)
    receipts = _receipts(receipt)
    shape = as_given(logits)[0].shape
    if len(shape) != 1 + is_batch or (is_batch and shape[0] != len(receipts)):
        rule = f"({len(receipts)}, V) for {len(receipts)} receipts" if is_batch else "(V,) for one receipt"
        raise ValueError(f"logits must be of shape {rule}, got shape {shape}")
    for b, one in enumerate(receipts):
        if one.token >= shape[-1]:
            where = f" (row {b})" if is_batch else ""
            raise ValueError(f"token must be in [0, {shape[-1]}), got {one.token}{where}")
    given = _parameters(params, parameters)
    for name in ("seed", "stream", "position", "mirostat_mu", "adaptive_average"):
        if given.get(name) is None:
            each = [getattr(one, name) for one in receipts]
            if any(value is not None for value in each):
                each = [0 if value is None else value for value in each]  # a row without mirostat needs no limit
                given[name] = each if is_batch else each[0]
    right = sample(logits, receipt=True, **given)
    for b, (one, want) in enumerate(zip(receipts, right if is_batch else [right], strict=True)):
        _compare(one, want, f" (row {b})" if is_batch else "")


def _receipts(receipt: object) -> list[Receipt]:
    each = [receipt] if isinstance(receipt, Receipt) else receipt
    if not isinstance(each, Sequence) or not all(isinstance(one, Receipt) for one in each):
        raise TypeError(f"receipt must be a Receipt, or a sequence of them, got {show(receipt)}")
    return list(each)


def _parameters(params: SamplingParams | None, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Put the parameters of a text and those of a call together."""
    if params is None:
        return dict(keywords)
    if not isinstance(params, SamplingParams):
        raise TypeError(f"params must be a SamplingParams, got {show(params)}")
    fields = params.keywords()
    # Parameters without a seed and a stream leave it to the call which ones these are.
    both = [
        name for name in keywords if name in fields and (name not in ("seed", "stream") or fields[name] is not None)
    ]
    if both:
        raise TypeError(f"params and keywords must not both be given, got params and {', '.join(both)}")
    return {**fields, **keywords}


def _compare(receipt: Receipt, right: Receipt, where: str) -> None:
    """Raise an error if a receipt differs from the right one."""
    found = [
        f"{name} {got!r} instead of {want!r}"
        for name in Receipt.__slots__
        if (got := getattr(receipt, name)) != (want := getattr(right, name))
    ]
    if found:
        raise ValueError(f"receipt must be what the logits and the parameters give, got {', '.join(found)}{where}")
