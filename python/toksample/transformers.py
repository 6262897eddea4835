"""Sampling for Hugging Face transformers: a logits processor that draws the tokens of ``model.generate``.

>>> import toksample.transformers
>>> processor = toksample.transformers.SamplingLogitsProcessor(temperature=0.7, top_p=0.9, seed=1)  # doctest: +SKIP
>>> model.generate(**inputs, do_sample=False, logits_processor=[processor])  # doctest: +SKIP

``generate`` gives the scores of the next token to each logits processor in turn. This one draws a token from them, and returns
scores that leave only this token, so that the greedy search of transformers takes it. Nothing of transformers is used but this
interface, and everything that ``generate`` offers besides sampling works as it does without toksample.

There is no callable for ``custom_generate``: it would get neither the streamer nor the assistant model that ``generate`` was
given, nor learn that there are any; and the decoding loop that it must bring needs private parts of transformers.

It needs torch and transformers 5 (``pip install 'toksample[transformers]'``). They are imported when the class is first looked
up, not when this module is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, Unpack

from toksample._parameters import SamplingParams, TextParameters
from toksample._sampler import Sampler
from toksample._sampling import sample

__all__ = ["SamplingLogitsProcessor"]


class _SamplingLogitsProcessor:
    """A logits processor that draws a token for each row.

    Give it to ``model.generate`` in ``logits_processor``, with ``do_sample=False``. The token of row b at step t is
    ``toksample.sample(scores[b], **params.keywords(), position=t, stream=b)``, where the scores are the model's logits after
    the processors that come before this one: those that ``generate`` makes from its options (repetition penalty, bad words,
    minimum length, ...), and those before it in the list.

    Parameters
    ----------
    params : SamplingParams, optional
        The parameters; or give them as keywords.
    num_threads : int, optional
        At most so many threads for a batch; see :func:`toksample.sample`.
    **parameters
        The fields of :class:`toksample.SamplingParams`. Without a seed, each new text takes one from torch's global generator,
        so that ``torch.manual_seed`` and ``transformers.set_seed`` make it reproducible. Penalties look at the prompt and at
        what was generated, as in ``input_ids``: padding is a token like any other.

    Attributes
    ----------
    params : SamplingParams
    num_threads : int or None

    Raises
    ------
    ValueError, TypeError
        When a parameter is out of range or of the wrong type; and in ``generate``, when the scores of a row have NaN, or +inf,
        or nothing but -inf, and in the cases that the notes name.

    See Also
    --------
    from_generation_config : takes the parameters from a generation config of transformers.

    Notes
    -----
    **One processor for several calls.** A new text begins at position 0, so the same prompt with the same seed gives the same
    text, whether the processor is new or not. The positions go on where a call continues the last one: its prompt is then the
    input of the last step and one more token for each row. So a text that is generated in several calls, each with what the
    last one has returned, is the text of a single call. :meth:`reset` makes the next call begin a new text in any case.

    **One text at a time.** Calls of ``generate`` that run at the same time, in threads for example, need a processor each.
    Going back to a text after another one has begun is a ValueError.

    **num_return_sequences.** transformers refuses more than one with ``do_sample=False``. ``do_sample=True`` gives the same
    tokens: only the drawn one has a probability, and it is 1. What transformers then does after the draw takes time, and
    changes nothing.

    **Processors after this one** (in the list, or a watermark, which transformers applies last) see one token, and so have no
    choice. Put this one at the end of the list.

    **Assistants** (``assistant_model``, ``prompt_lookup_num_tokens``) are honoured with ``do_sample=False``: the text is the
    same as without one. An assistant model with another tokenizer is a ValueError, as it has a text of its own.

    **Beams** have no meaning where tokens are drawn: keep ``num_beams`` at 1. A processor is not told their number. Where they
    change places this is a ValueError; where they do not, the text is that of the first beam, and the others cost time.

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
        **parameters: Unpack[TextParameters],
    ) -> None:
        sampler = Sampler(params, num_threads=num_threads, **parameters)  # which checks them
        self.params, self.num_threads = sampler.params, sampler.num_threads
        self.reset()

    @classmethod
    def from_generation_config(
        cls, config: Any, *, seed: int | None = None, stream: int | None = None, num_threads: int | None = None
    ) -> Self:
        """Make a processor with the temperature and the filters of a generation config.

        The filters are top_k, top_p, min_p, typical_p, epsilon_cutoff and eta_cutoff. top_h is refused, because transformers
        applies it before the other filters, and toksample after them.

        The repetition penalty is left to ``generate``, which applies that of its config before the processor sees the scores,
        whether it samples or not. Here it would be applied a second time.

        Parameters
        ----------
        config : transformers.GenerationConfig
            For example ``model.generation_config``. None means off, also for top_k, where ``do_sample=True`` of transformers
            would take 50.
        seed, stream, num_threads : int, optional
            As for the class.

        Returns
        -------
        SamplingLogitsProcessor

        Raises
        ------
        ValueError
            When the config asks for beams or for top_h.

        Examples
        --------
        >>> import transformers
        >>> config = transformers.GenerationConfig(temperature=0.6, top_p=0.95)
        >>> toksample.transformers.SamplingLogitsProcessor.from_generation_config(config, seed=1).params.top_p
        0.95
        """
        off = {"num_beams": 1, "top_h": None}
        for name, value in off.items():
            got = getattr(config, name, None)  # top_h is not in all versions
            if got not in (None, value):
                allowed = "None" if value is None else f"None or {value}"
                raise ValueError(f"{name} of the generation config must be {allowed}, got {got}")
        names = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
        values = {name: getattr(config, name) for name in names}
        given = {name: value for name, value in values.items() if value is not None}
        return cls(**given, seed=seed, stream=stream, num_threads=num_threads)

    def reset(self) -> None:
        """Forget the texts so far: what comes next begins at position 0."""
        self._last: _Text | None = None
        self._before_last: _Text | None = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Draw a token for each row of scores.

        Parameters
        ----------
        input_ids : Tensor of int64, shape (B, T)
            The prompts and what has been generated so far.
        scores : Tensor of a floating-point type, shape (B, V)
            Is not changed.

        Returns
        -------
        Tensor of the shape, type and device of scores
            0 for the token that was drawn, -inf for all others.
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
        if self.params.has_penalty:
            keywords["prompt_ids"], keywords["output_ids"] = ids[:, : text.prompt_length], ids[:, text.prompt_length :]
        tokens = sample(scores.detach().cpu(), **keywords, num_threads=self.num_threads)
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
        """Whether these are the same texts at the next step, or at an earlier one, to which an assistant model may go back."""
        import torch

        before = ids.shape[1] - 1
        if not self.prompt_length <= before <= self.length:
            return False
        return bool(torch.equal(ids[:, :before], self.ids[:, :before]))

    def is_shuffled_in(self, ids: Any) -> bool:
        """Whether these are the same texts at the next step, but in other rows."""
        before = ids.shape[1] - 1
        if not self.prompt_length < before == self.length or len(ids) != len(self.ids):
            return False
        texts = set(map(tuple, self.ids.tolist()))
        return len(texts) > 1 and all(tuple(row) in texts for row in ids[:, :before].tolist())


if TYPE_CHECKING:
    SamplingLogitsProcessor = _SamplingLogitsProcessor


def __getattr__(name: str) -> Any:
    """Make the class when it is first looked up, as its base class is that of transformers."""
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
