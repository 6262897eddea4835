"""Sampling for Hugging Face transformers: a logits processor that draws the tokens of ``model.generate``.

>>> import toksample.transformers
>>> processor = toksample.transformers.SamplingLogitsProcessor(temperature=0.7, top_p=0.9, seed=1)  # doctest: +SKIP
>>> model.generate(**inputs, do_sample=False, logits_processor=[processor])  # doctest: +SKIP

``generate`` passes the scores of the next token through each logits processor in turn. This one draws a token, and returns
scores that ban all other tokens, so that the greedy search of transformers takes it. It uses only this interface of
transformers, and everything that ``generate`` offers besides sampling works as it does without toksample.

There is no callable for ``custom_generate``. ``generate`` would not pass its streamer or its assistant model to it, nor tell
it that they exist, and the decoding loop that it has to bring would need private parts of transformers.

This module needs torch and transformers 5 (``pip install 'toksample[transformers]'``). They are imported when the class is
first used, not when this module is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, Unpack

from toksample._configs import read_filters
from toksample._logprobs import Sampled
from toksample._parameters import SamplingParams, TextParameters, wanted_logprobs
from toksample._rows import MAX_TOKENS
from toksample._sampler import Sampler
from toksample._sampling import sample
from toksample._systems import TRANSFORMERS

__all__ = ["SamplingLogitsProcessor"]


class _SamplingLogitsProcessor:
    """A logits processor that draws a token for each row.

    Pass it to ``model.generate`` in ``logits_processor``, with ``do_sample=False``. The token of row b at step t is
    ``toksample.sample(scores[b], **params.keywords(), position=t, stream=b)``. The scores are the model's logits after all
    processors before this one: those that ``generate`` makes from its options (repetition penalty, bad words, minimum length,
    ...), and those that come earlier in the list.

    Parameters
    ----------
    params : SamplingParams, optional
        The parameters. You can pass them as keywords instead.
    num_threads : int, optional
        As in :func:`toksample.sample`.
    logprobs, logprobs_mode : optional
        As in :func:`toksample.sample`. What is said of the tokens is then in ``sampled``. The scores that this processor gets
        are the raw ones.
    **parameters
        The fields of :class:`toksample.SamplingParams`. Without a seed, each new text takes one from torch's global generator,
        so that ``torch.manual_seed`` and ``transformers.set_seed`` make it reproducible. Penalties look at all of
        ``input_ids``, which is the prompt and the tokens generated so far. Padding counts like any other token.

    Attributes
    ----------
    params : SamplingParams
    num_threads : int or None
    logprobs : int or None
    logprobs_mode : str
    sampled : list of toksample.Sampled
        With ``logprobs``, one for each step of the last texts, each with all rows. A step of a row that had ended before has
        the token that was drawn there, and not the padding. (``output_scores=True`` of ``generate`` gives what this processor
        returns, which only says which token was drawn, and ``output_logits=True`` the logits of the model.)

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range or of the wrong type, or if mirostat or adaptive-p is on. In ``generate``, also if the
        scores of a row have NaN or +inf, or have only -inf, and in the cases that the notes name.

    See Also
    --------
    from_generation_config : takes the parameters from a generation config of transformers.

    Notes
    -----
    **One processor for several calls.** A new text begins at position 0, so the same prompt with the same seed gives the same
    text, whether the processor is new or not. A call continues the last text if its prompt is the input of the last step plus
    one token for each row. The positions then go on. So if you generate a text in several calls, and each call takes what the
    last one has returned, you get the same text as from a single call. After :meth:`reset`, the next call always begins a new
    text.

    **One text at a time.** Calls of ``generate`` that run at the same time, for example in threads, need a processor each.
    Going back to a text after another one has begun raises a ValueError.

    **num_return_sequences.** transformers does not allow more than one with ``do_sample=False``. With ``do_sample=True`` the
    tokens are the same, because the drawn token has probability 1. The draw that transformers then makes only costs time.

    **Processors after this one** (in the list, or a watermark, which transformers applies last) see a single token, and can
    change nothing. Put this processor at the end of the list.

    **Assistants** (``assistant_model``, ``prompt_lookup_num_tokens``) work with ``do_sample=False``: the text is the same as
    without one. An assistant model with another tokenizer has a text of its own, and raises a ValueError.

    **Beams** make no sense if tokens are drawn, so keep ``num_beams`` at 1. A processor is not told the number of beams. If
    beams change places, it raises a ValueError. If they do not, the text is that of the first beam, and the others only cost
    time.

    Examples
    --------
    >>> import torch
    >>> processor = toksample.transformers.SamplingLogitsProcessor(temperature=0.7, seed=1)
    >>> prompt, scores = torch.tensor([[17, 5]]), torch.tensor([[1.0, 3.0, 2.0, -1.0]])
    >>> processor(prompt, scores)
    tensor([[-inf, 0., -inf, -inf]])
    """

    def __init__(
        self,
        params: SamplingParams | None = None,
        *,
        num_threads: int | None = None,
        logprobs: int | None = None,
        logprobs_mode: str = "raw_logprobs",
        **parameters: Unpack[TextParameters],
    ) -> None:
        sampler = Sampler(params, num_threads=num_threads, **parameters)  # checks the parameters
        self.params, self.num_threads = sampler.params, sampler.num_threads
        if logprobs is not None:
            wanted_logprobs(logprobs, logprobs_mode, None, 1, False, MAX_TOKENS)  # checks them
        self.logprobs, self.logprobs_mode = logprobs, logprobs_mode
        for name, off in (("mirostat", 0), ("adaptive_target", -1)):
            if getattr(self.params, name) not in (None, off):
                why = "in a SamplingLogitsProcessor, which keeps no state"
                raise ValueError(f"{name} must be {off} {why}, got {getattr(self.params, name)}")
        self.reset()

    @classmethod
    def from_generation_config(
        cls, config: Any, *, seed: int | None = None, stream: int | None = None, num_threads: int | None = None
    ) -> Self:
        """Make a processor with the temperature and the filters of a generation config, in the order of transformers.

        All else is left to ``generate``: it applies the repetition penalty of its config, for example, before the processor
        sees the scores, whether it samples or not. Here it would be applied a second time. To read all of a config, use
        :meth:`toksample.SamplingParams.from_generation_config`.

        Parameters
        ----------
        config : transformers.GenerationConfig
            For example ``model.generation_config``. ``do_sample`` does not matter. None means off, also for top_k, where
            ``do_sample=True`` of transformers would take 50.
        seed, stream, num_threads : int, optional
            As for the class.

        Returns
        -------
        SamplingLogitsProcessor

        Raises
        ------
        ValueError
            When the config asks for beams, or for a value that is out of range.

        Examples
        --------
        >>> import transformers
        >>> config = transformers.GenerationConfig(temperature=0.6, top_p=0.95)
        >>> toksample.transformers.SamplingLogitsProcessor.from_generation_config(config, seed=1).params.top_p
        0.95
        """
        filters = read_filters(TRANSFORMERS, config, others=("num_beams",))
        return cls(**filters, seed=seed, stream=stream, num_threads=num_threads)

    def reset(self) -> None:
        """Forget the texts so far. The next call begins a new text, at position 0."""
        self._last: _Text | None = None
        self._before_last: _Text | None = None
        self.sampled: list[Sampled] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Draw a token for each row of scores.

        Parameters
        ----------
        input_ids : Tensor of int64, shape (B, T)
            The prompts and what has been generated so far.
        scores : Tensor of a floating-point type, shape (B, V)
            The scores of the next token. They are not changed.

        Returns
        -------
        Tensor with the shape, dtype and device of scores
            0 for the token that was drawn, and -inf for all others.
        """
        import torch

        ids = input_ids.to("cpu", copy=True)
        if ids.ndim != 2 or scores.ndim != 2 or len(ids) != len(scores):
            raise ValueError(
                "input_ids and scores must have shapes (B, T) and (B, V), "
                f"got {tuple(ids.shape)} and {tuple(scores.shape)}"
            )
        text = self._find_text(ids)
        keywords = self.params.keywords() | {"seed": text.seed, "position": text.length - text.prompt_length}
        if self.params.needs_history:
            keywords["prompt_ids"], keywords["output_ids"] = ids[:, : text.prompt_length], ids[:, text.prompt_length :]
        if self.logprobs is not None:
            keywords |= {"logprobs": self.logprobs, "logprobs_mode": self.logprobs_mode}
        drawn = sample(scores.detach().cpu(), **keywords, num_threads=self.num_threads)
        tokens = drawn
        if isinstance(drawn, Sampled):
            tokens = drawn.tokens
            self.sampled[keywords["position"] :] = [drawn]  # an assistant model may have made a text go back
        if text.is_new:
            self._before_last = self._last
        self._last = text
        result = torch.full_like(scores, -torch.inf)
        return result.scatter_(1, torch.as_tensor(tokens).to(scores.device)[:, None], 0.0)

    def _find_text(self, ids: Any) -> _Text:
        """Return the text whose next step has these ids: the last one, or a new one."""
        import torch

        if self._last and self._last.goes_on_in(ids):
            return _Text(ids, self._last.prompt_length, self._last.seed)
        if self._last and self._last.is_shuffled_in(ids):
            raise ValueError(
                "num_beams must be 1 where a SamplingLogitsProcessor draws, got beams: "
                "the rows of input_ids have changed places since the last step"
            )
        if self._before_last and self._before_last.goes_on_in(ids):
            raise ValueError(
                "a SamplingLogitsProcessor must have one text at a time, got the text before the last one: give each call of "
                "generate its own, and an assistant model with the same tokenizer"
            )
        seed = int(torch.randint(2**63 - 1, ())) if self.params.seed is None else self.params.seed
        return _Text(ids, ids.shape[1], seed)


@dataclass(frozen=True)
class _Text:
    """A batch of texts at one step."""

    ids: Any  # int64[B, T], on the CPU
    prompt_length: int
    seed: int

    @property
    def length(self) -> int:
        return int(self.ids.shape[1])

    @property
    def is_new(self) -> bool:
        return self.length == self.prompt_length

    def goes_on_in(self, ids: Any) -> bool:
        """Return whether these are the same texts at the next step, or at an earlier step, as with an assistant model."""
        import torch

        before = ids.shape[1] - 1
        if not self.prompt_length <= before <= self.length:
            return False
        return bool(torch.equal(ids[:, :before], self.ids[:, :before]))

    def is_shuffled_in(self, ids: Any) -> bool:
        """Return whether these are the same texts at the next step, but in other rows."""
        before = ids.shape[1] - 1
        if not self.prompt_length < before == self.length or len(ids) != len(self.ids):
            return False
        texts = set(map(tuple, self.ids.tolist()))
        return len(texts) > 1 and all(tuple(row) in texts for row in ids[:, :before].tolist())


if TYPE_CHECKING:
    SamplingLogitsProcessor = _SamplingLogitsProcessor


def __getattr__(name: str) -> Any:
    """Create the class when it is first used, because its base class is one of transformers."""
    if name != "SamplingLogitsProcessor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import torch  # noqa: F401
        from transformers import LogitsProcessor
    except ImportError as error:
        raise ImportError(f"{name} needs torch and transformers: pip install 'toksample[transformers]'") from error

    members = {"__module__": __name__, "__doc__": _SamplingLogitsProcessor.__doc__}
    globals()[name] = type(name, (_SamplingLogitsProcessor, LogitsProcessor), members)
    return globals()[name]
