"""Sampling for Hugging Face transformers: ``model.generate(..., custom_generate=toksample.transformers.generate)``.

One argument more, and ``generate`` of transformers draws its tokens with toksample. All the rest stays: the generation
config, prompts of different lengths in a batch, the cache, streamers, stopping criteria, and the logits processors, which
transformers itself runs (repetition penalty, bad words, min length, your own, ...). toksample takes the place of what comes
after them: temperature, top_k, top_p, min_p and the draw.

>>> import toksample.transformers
>>> model.generate(**inputs, do_sample=True, custom_generate=toksample.transformers.generate)  # doctest: +SKIP
>>> model.generate(**inputs, do_sample=True, custom_generate=toksample.transformers.generate, seed=1)  # doctest: +SKIP

What differs:

- ``top_k`` keeps exactly k tokens; of equal logits the lower ids. transformers keeps every token that ties with the k-th one,
  and in bfloat16 ties are frequent. As always in transformers, top_k is 50 if neither the call nor the model sets it.
- Tokens are the same for the same seed, on every machine, where the logits are. They are not those that torch would draw;
  their distribution is the same.
- Logits with NaN or +inf, or with nothing but -inf, are a ValueError that names the row, also where the search is greedy.

Needs transformers 5 (``pip install 'toksample[transformers]'``), which this module does not import until it is called.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from toksample._sampler import Sampler

__all__ = ["generate"]


def generate(
    model: Any,
    input_ids: Any,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    seed: int | None = None,
    **model_kwargs: Any,
) -> Any:
    """Generate as ``model.generate`` does, which calls this when it is given as ``custom_generate``.

    The token of row b at step t is ``toksample.sample(logits[b], temperature=..., top_k=..., top_p=..., min_p=...,
    seed=seed, position=t, stream=b)``, where the logits are the model's after the logits processors. With
    ``do_sample=False`` it is ``toksample.argmax(logits[b])``.

    Parameters
    ----------
    model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs
        What ``model.generate`` has prepared.
    seed : int, optional
        In [0, 2**64). Give it to ``model.generate``. By default one is drawn from torch's global generator, so
        ``torch.manual_seed`` and ``transformers.set_seed`` make a text reproducible as they do without toksample.

    Returns
    -------
    Tensor of int64, or GenerateDecoderOnlyOutput or GenerateEncoderDecoderOutput
        What ``model.generate`` returns.

    Raises
    ------
    ValueError
        If an option asks for what toksample does not do: beams, an assistant model or another kind of search; scores in the
        output; top_h, typical_p, epsilon_cutoff, eta_cutoff, a watermark or renormalized logits, where transformers applies
        them after one of temperature, top_k, top_p and min_p. ``stop_strings`` raises an error of transformers, which does
        not hand on the tokenizer: give ``stopping_criteria=[StopStringCriteria(tokenizer, strings)]`` instead.
    """
    import torch

    dropped = _dropped_arguments()
    mode = generation_config.get_generation_mode(dropped.get("assistant_model")).value
    if mode not in ("sample", "greedy_search"):
        raise ValueError(f"the generation mode must be sample or greedy_search where toksample draws, got {mode}")
    if generation_config.return_dict_in_generate and generation_config.output_scores:
        raise ValueError("output_scores must be False where toksample draws, got True")
    processors = _without_warpers(logits_processor, generation_config)
    if seed is None:
        seed = int(torch.randint(2**63 - 1, ()))
    sampler = Sampler(**_parameters(generation_config), seed=seed)

    # This config is a copy that transformers has made for the call. Now its loop takes the argmax of what comes last.
    generation_config.do_sample = False
    processors = type(logits_processor)([*processors, _Draw(sampler)])
    streamer = dropped.get("streamer")
    return model._sample(input_ids, processors, stopping_criteria, generation_config, streamer=streamer, **model_kwargs)


class _Draw:
    """The last logits processor: draws a token for each row, and returns itself in place of scores.

    Its argmax is those tokens, by torch's protocol for arguments that are no tensors. A row of scores with one maximum would
    cost more than the draw. So would a function here: transformers asks for its signature at each token.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def __call__(self, _input_ids: Any, logits: Any) -> _Draw:
        import torch

        self.tokens = torch.from_numpy(self.sampler(logits.cpu())).to(logits.device)
        return self

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return args[0].tokens if func.__name__ == "argmax" else NotImplemented


def _parameters(config: Any) -> dict[str, Any]:
    """Return the parameters of the sampler; what is None in the config has its default, which is off."""
    if not config.do_sample:
        return {"temperature": 0.0}
    values = {name: getattr(config, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    return {name: value for name, value in values.items() if value is not None}


def _without_warpers(processors: Any, config: Any) -> Any:
    """Return the processors without those at the end that transformers has made for what toksample does instead.

    They are recognized by their place, as one of their kind may also be among the user's own, which come before them.
    """
    if not config.do_sample:
        return processors
    made = {
        "TemperatureLogitsWarper": config.temperature not in (None, 1.0),
        "TopKLogitsWarper": config.top_k not in (None, 0),
        "TopPLogitsWarper": config.top_p is not None and config.top_p < 1,
        "MinPLogitsWarper": config.min_p is not None,
    }
    expected = [name for name, is_made in made.items() if is_made]
    count = max(len(processors) - len(expected), 0)
    found = [type(processor).__name__ for processor in processors[count:]]
    if found != expected:
        raise ValueError(f"the logits processors must end with {expected}, which toksample replaces, got {found}")
    return processors[:count]


def _dropped_arguments() -> dict[str, Any]:
    """Return the arguments of ``model.generate`` that it does not hand on to a callable, from its frame.

    Up to transformers 5.23 at least, a streamer is dropped without a word: it would see the prompt, and then nothing.
    """
    from transformers import GenerationMixin

    code = GenerationMixin.generate.__wrapped__.__code__
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return {} if frame is None else {name: frame.f_locals[name] for name in ("assistant_model", "streamer")}
