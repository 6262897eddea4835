"""A sampler that counts its position, and remembers the tokens it has drawn if a method needs them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from toksample import _native, _receipts, _rows
from toksample._arrays import as_given
from toksample._asks import Asks
from toksample._logprobs import Sampled, as_sampled
from toksample._parameters import Bias, History, Ids, SamplingParams, TextParameters, count, one, unexpected
from toksample._receipts import Receipt


class _Process:
    """Stands for this process. A forked child gets a new one, which tells its samplers that they were copied."""


_process = _Process()


def _after_fork() -> None:
    global _process
    _process = _Process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def read_params(params: SamplingParams | None, keywords: dict[str, Any]) -> SamplingParams:
    """Return the parameters that are given, or make them of keywords."""
    if params is not None and keywords:
        raise TypeError(f"params and keywords must not both be given, got params and {', '.join(keywords)}")
    if params is not None and not isinstance(params, SamplingParams):
        raise TypeError(f"params must be a SamplingParams, got {params!r}")
    for name in keywords:
        if name not in TextParameters.__annotations__:
            unexpected(name)
    return SamplingParams(**keywords) if params is None else params


class _History:
    """The tokens that a sampler has drawn."""

    def __init__(self, ids: Ids | None = None) -> None:
        self._buffer = ids
        self._length = 0 if ids is None else ids.shape[-1]

    @property
    def ids(self) -> Ids | None:
        """Return an array of shape (n,), or (B, n) for a batch; None before the first token."""
        return None if self._buffer is None else self._buffer[..., : self._length]

    def append(self, tokens: npt.ArrayLike) -> None:
        """Add the next token of each row. The buffer doubles when it is full, so that most calls copy nothing."""
        if self._buffer is None:
            self._buffer = np.empty((*np.shape(tokens), 64), np.int64)
        elif self._length == self._buffer.shape[-1]:
            self._buffer = np.concatenate([self._buffer, np.empty_like(self._buffer)], axis=-1)
        self._buffer[..., self._length] = tokens
        self._length += 1


def _as_array(ids: History) -> History:
    """Return a list of plain integers as an array, which is read much faster. Anything else stays as it is."""
    if not isinstance(ids, (list, tuple)) or not ids or any(type(token) is not int for token in ids):
        return ids
    try:
        return np.array(ids, np.int64)
    except OverflowError:
        return ids


def _tokens(drawn: Sampled | Receipt | list[Receipt]) -> Any:
    """Return the tokens of a draw of which more is said."""
    if isinstance(drawn, Sampled):
        return drawn.tokens
    return [receipt.token for receipt in drawn] if isinstance(drawn, list) else drawn.token


class Sampler:
    """Draws the tokens of a text one after another: ``sampler(logits)`` returns the next one.

    A sampler keeps the parameters and counts the position, so that each token has its own random word. Without a seed it takes
    fresh entropy once, and keeps it in ``seed``. In a forked child it takes new entropy, so that workers do not draw the same
    texts. A sampler that was pickled continues where it was, with the same seed and the same history.

    If a method is on that looks at the text so far, such as a penalty, the sampler also remembers the tokens that it draws,
    and uses them as ``output_ids`` in later calls. If mirostat is on, it corrects ``mirostat_mu`` after each token, and with
    adaptive-p ``adaptive_average``.

    Threads may share a sampler without such a method, and do not wait for each other: each call takes the next position. A
    call that fails gives its position back, unless another thread has taken a later one meanwhile. With such a method,
    mirostat or adaptive-p, a sampler holds the state of one text, so use one sampler for each text.

    Parameters
    ----------
    params : SamplingParams, optional
        The parameters. You can pass them as keywords instead.
    prompt_ids : sequence of int, or one for each row of a batch, optional
        The token ids of the prompt, for the methods that look at them; as in :func:`toksample.sample`. A list of integers
        is read once, so later changes of it have no effect.
    prefix_allowed_tokens_fn : callable, optional
        Called for each row with its index and the token ids so far, an array of int64 with the prompt and the output. It
        returns the ids of the tokens that are allowed next, as in transformers. Not with ``allowed_token_ids``.
    num_threads : int, optional
        As in :func:`toksample.sample`.
    **parameters
        The fields of :class:`SamplingParams`.

    Attributes
    ----------
    params : SamplingParams
    prompt_ids : sequence of int or None
    prefix_allowed_tokens_fn : callable or None
    num_threads : int or None
    seed : int
        The seed in use.
    position : int
        The position of the next token.
    output_ids : ndarray of int64, shape (n,) or (B, n), or None
        The tokens drawn so far. None before the first one, and always None if no method needs them.
    mirostat_mu : float or ndarray of float64, shape (B,)
        How surprising the next token may be, in bits: ``2 * mirostat_tau`` at first. With mirostat, each draw subtracts
        ``mirostat_eta * (surprise - mirostat_tau)``, where the surprise is that of the token among those that were kept. A
        batch has one for each row. Without mirostat it stays as it is.
    adaptive_average : float or ndarray of float64, shape (B,), or None
        How probable the tokens drawn so far were, on average: ``adaptive_target`` at first. Each draw makes it
        ``adaptive_decay * adaptive_average + (1 - adaptive_decay) * p``, where p is the probability of the token among those
        that the filters kept. None without adaptive-p.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range or of the wrong type, or if both ``params`` and keywords are given.

    Examples
    --------
    >>> sampler = toksample.Sampler(temperature=0.7, top_p=0.9, seed=1)
    >>> logits = np.float32([1.0, 3.0, 2.0, -1.0])
    >>> [sampler(logits) for _ in range(8)]
    [1, 1, 2, 1, 1, 1, 2, 1]

    With a penalty, each token that is drawn becomes less likely:

    >>> sampler = toksample.Sampler(temperature=0, presence_penalty=5.0)
    >>> [sampler(logits) for _ in range(4)]
    [1, 2, 0, 3]
    """

    def __init__(
        self,
        params: SamplingParams | None = None,
        *,
        prompt_ids: History = None,
        prefix_allowed_tokens_fn: Callable[[int, Ids], npt.ArrayLike] | None = None,
        num_threads: int | None = None,
        **parameters: Unpack[TextParameters],
    ) -> None:
        self.params = read_params(params, dict(parameters))
        if prefix_allowed_tokens_fn is not None and not callable(prefix_allowed_tokens_fn):
            raise TypeError(f"prefix_allowed_tokens_fn must be callable, got {prefix_allowed_tokens_fn!r}")
        if prefix_allowed_tokens_fn is not None and self.params.allowed_token_ids is not None:
            raise TypeError("prefix_allowed_tokens_fn and allowed_token_ids must not both be given, got both")
        self.prompt_ids = prompt_ids
        self.prefix_allowed_tokens_fn = prefix_allowed_tokens_fn
        self.num_threads = None if num_threads is None else count("num_threads", num_threads)
        self._read_params()
        self.reset()

    @property
    def prompt_ids(self) -> History:
        """The token ids of the prompt, as they were given."""
        return self._prompt_ids

    @prompt_ids.setter
    def prompt_ids(self, ids: History) -> None:
        self._prompt_ids = ids
        self._prompt = _as_array(ids)

    def _read_params(self) -> None:
        # The seed in use is passed to each call instead.
        self._native_params = _native.Params({**self.params.keywords(), "seed": None})
        self._needs_history = self.params.needs_history or self.prefix_allowed_tokens_fn is not None
        self._has_mirostat = self.params.mirostat not in (None, 0)
        self._is_adaptive = self.params.adaptive_target not in (None, -1)

    def reset(self) -> None:
        """Begin a new text: position 0, no tokens drawn, the state of a new one, and fresh entropy if no seed was given."""
        self.position = 0
        self.mirostat_mu: float | npt.NDArray[np.float64] = 2.0 * self._tau
        target = self.params.adaptive_target
        self.adaptive_average: float | npt.NDArray[np.float64] | None = (
            float(target) if self._is_adaptive and target is not None else None
        )
        self._history = _History()
        self._renew()

    @property
    def _tau(self) -> float:
        tau = self.params.mirostat_tau
        return 5.0 if tau is None else float(tau)

    def _renew(self) -> None:
        """Take the seed from the parameters, or fresh entropy if they have none, and note the process that this is for."""
        self.seed = secrets.randbits(64) if self.params.seed is None else self.params.seed
        self._process = _process

    @property
    def position(self) -> int:
        """Return the position of the next token."""
        return self._counter.value

    @position.setter
    def position(self, position: int) -> None:
        self._counter = _native.Counter(one("position", position))

    @property
    def output_ids(self) -> Ids | None:
        """Return the tokens drawn so far; None if no method needs them."""
        return self._history.ids

    def __call__(
        self,
        logits: object,
        *,
        bitmask: npt.ArrayLike | None = None,
        logit_bias: Bias = None,
        prompt_ids: History = None,
        output_ids: History = None,
        logprobs: int | None = None,
        logprobs_mode: str = "raw_logprobs",
        logprob_token_ids: npt.ArrayLike | None = None,
        receipt: bool = False,
        n: int | None = None,
        replacement: bool = True,
    ) -> Any:
        """Draw the next token of each row. If the call fails, the position stays the same.

        Parameters
        ----------
        logits : array_like, shape (V,) or (B, V)
            As in :func:`toksample.sample`.
        bitmask, logit_bias, prompt_ids, output_ids : optional
            As in :func:`toksample.sample`, for this call only. Each one replaces the sampler's own. If you pass
            ``output_ids``, the sampler does not remember the token of this call.
        logprobs, logprobs_mode, logprob_token_ids, receipt : optional
            As in :func:`toksample.sample`.
        n, replacement : optional
            As in :func:`toksample.sample`. All of these draws are at the sampler's one position, after which it advances by
            one. If the sampler has to remember what it draws, because of a method that looks at the text so far or has a state
            (mirostat and adaptive-p), then n must be None, unless you pass ``output_ids`` to a method that looks at the text.

        Returns
        -------
        int or ndarray of int64, shape (B,), (n,) or (B, n), or Sampled, or Receipt, or list of Receipt
            As in :func:`toksample.sample`.

        Raises
        ------
        ValueError, TypeError
            As in :func:`toksample.sample`.
        """
        if self._process is not _process:
            self._renew()
        if n is not None:
            self._check_several(n, output_ids)
        inputs: dict[str, Any] | None = None
        if self._needs_history:
            inputs = {
                "prompt_ids": self._prompt if prompt_ids is None else prompt_ids,
                "output_ids": self._history.ids if output_ids is None else output_ids,
            }
        elif prompt_ids is not None or output_ids is not None:
            inputs = {"prompt_ids": prompt_ids, "output_ids": output_ids}
        if bitmask is not None or logit_bias is not None:
            inputs = inputs or {}
            inputs["bitmask"] = bitmask
            if logit_bias is not None:
                inputs["logit_bias"] = logit_bias
        if self.prefix_allowed_tokens_fn is not None and inputs is not None:
            inputs["allowed_token_ids"] = self._allowed_ids(logits, inputs["prompt_ids"], inputs["output_ids"])
        counter = self._counter
        position = counter.take()
        try:
            if logprobs is logprob_token_ids is n is None and receipt is False and replacement is True:
                drawn = tokens = self._draw(logits, position, inputs)
            else:
                asks = Asks(logprobs, logprobs_mode, logprob_token_ids, receipt, n, replacement)
                drawn, tokens = self._draw_what_is_asked(logits, position, inputs, asks)
        except BaseException:
            counter.give_back(position)
            raise
        if self._needs_history and output_ids is None:
            self._history.append(tokens)
        return drawn

    def _check_several(self, n: int, output_ids: History) -> None:
        """Raise an error if the sampler has to remember what it draws, which must then be one token."""
        if self._has_mirostat or self._is_adaptive:
            name = "mirostat" if self._has_mirostat else "adaptive-p"
            reason = f"{name} is on, which follows one token after the other"
        elif self._needs_history and output_ids is None:
            reason = "a method looks at the tokens so far, and a text goes on with one token"
        else:
            return
        raise ValueError(f"n must be None where {reason}, got {n}")

    def _allowed_ids(self, logits: object, prompt_ids: History, output_ids: History) -> Any:
        """Ask which tokens each row allows after the tokens that it has so far."""
        shape = np.shape(as_given(logits)[0])
        function: Any = self.prefix_allowed_tokens_fn
        rows, is_batch = (shape[0], True) if len(shape) == 2 else (1, False)
        parts = [
            _rows.ids_of_rows(name, {name: ids}, rows, shape[-1], is_batch)
            for name, ids in (("prompt_ids", prompt_ids), ("output_ids", output_ids))
        ]
        allowed = [function(b, np.concatenate(both)) for b, both in enumerate(zip(*parts, strict=True))]
        return allowed if is_batch else allowed[0]

    def _draw(self, logits: object, position: int, inputs: dict[str, Any] | None) -> Any:
        """Draw the token at a position, and correct the state of mirostat and of adaptive-p."""
        if not (self._has_mirostat or self._is_adaptive):
            return _native.draw(logits, self._native_params, self.seed, position, inputs, self.num_threads)
        mu, average = self.mirostat_mu, self.adaptive_average
        tokens, surprises, probs = _native.draw_with_odds(
            logits, self._native_params, mu, average, self.seed, position, inputs, self.num_threads
        )
        is_batch = isinstance(tokens, np.ndarray)
        if self._has_mirostat:
            eta = 0.1 if self.params.mirostat_eta is None else float(self.params.mirostat_eta)
            corrected = mu - eta * (surprises - self._tau)
            self.mirostat_mu = corrected if is_batch else float(corrected[0])
        if average is not None:
            decay = 0.9 if self.params.adaptive_decay is None else float(self.params.adaptive_decay)
            moved = decay * average + (1 - decay) * probs
            self.adaptive_average = moved if is_batch else float(moved[0])
        return tokens

    def _draw_what_is_asked(
        self, logits: object, position: int, inputs: dict[str, Any] | None, asks: Asks
    ) -> tuple[Any, Any]:
        """Do the same where more is asked for. Return that, and the tokens."""
        params, has_state = self._native_params, self._has_mirostat or self._is_adaptive
        if has_state:
            state = {"mirostat_mu": self.mirostat_mu, "adaptive_average": self.adaptive_average}
            params = _native.Params({**self.params.keywords(), "seed": None, **state})
        how = logits, params, self.seed, position, inputs, self.num_threads
        match asks.kind():
            case "logprobs":
                wanted = asks.logprobs, asks.logprobs_mode, asks.logprob_token_ids
                drawn: Any = as_sampled(logits, asks.logprobs_mode, _native.draw_with_logprobs(*how, *wanted))
            case "receipt":
                drawn = _receipts.of_draw(*how)
            case "n":
                tokens = _native.draw_several(*how, *asks.several())
                return tokens, tokens
            case _:
                drawn = None
        tokens = self._draw(logits, position, inputs) if has_state or drawn is None else _tokens(drawn)
        return (tokens if drawn is None else drawn), tokens

    def __repr__(self) -> str:
        return f"Sampler({self.params!r}, position={self.position})"

    def __getstate__(self) -> dict[str, Any]:
        of_all = ("params", "prompt_ids", "prefix_allowed_tokens_fn", "num_threads", "seed", "position")
        names = (*of_all, "mirostat_mu", "adaptive_average")
        state = {name: getattr(self, name) for name in names}
        ids = self._history.ids
        return {**state, "output_ids": None if ids is None else ids.copy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._history = _History(state.pop("output_ids"))
        for name, value in state.items():
            setattr(self, name, value)
        self._read_params()
        self._process = _process
