"""Sampling for Hugging Face transformers: ``model.generate(..., custom_generate=toksample.transformers.generate)``.

One argument more, and ``generate`` of transformers draws its tokens with toksample. All the rest stays: the generation
config, prompts of different lengths in a batch, the cache, stopping criteria, and the logits processors, which transformers
itself runs (repetition penalty, bad words, min length, your own, ...). toksample takes the place of what comes after them:
temperature, top_k, top_p, min_p and the draw.

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
from types import CodeType, FrameType
from typing import Any

from toksample._sampler import Sampler

__all__ = ["generate"]


def generate(
    model: Any,
    input_ids: Any,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    streamer: Any = None,
    seed: int | None = None,
    **model_kwargs: Any,
) -> Any:
    """Run the decoding loop of ``model.generate``, which calls this when it is given as ``custom_generate``.

    The token of row b at step t is ``toksample.sample(logits[b], temperature=..., top_k=..., top_p=..., min_p=...,
    seed=seed, position=t, stream=b)``, where the logits are the model's after the logits processors. Without processors they
    are read where the model has put them, in its own type. With ``do_sample=False`` it is ``toksample.argmax(logits[b])``.

    Parameters
    ----------
    model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs
        What ``model.generate`` has prepared.
    streamer : transformers.generation.BaseStreamer, optional
        Gets each token as soon as it is drawn. Give it to ``model.generate`` as usual.
    seed : int, optional
        In [0, 2**64). Give it to ``model.generate``. By default one is drawn from torch's global generator, so
        ``torch.manual_seed`` and ``transformers.set_seed`` make a text reproducible as they do without toksample.

    Returns
    -------
    Tensor of int64, or GenerateDecoderOnlyOutput or GenerateEncoderDecoderOutput
        What ``model.generate`` returns. With ``return_dict_in_generate``: the sequences, the cache, and with
        ``output_logits`` the model's logits.

    Raises
    ------
    ValueError
        If an option asks for what is not done here: beams, an assistant model or another kind of search; top_h, typical_p,
        epsilon_cutoff, eta_cutoff, a watermark or renormalized logits; scores, attentions or hidden states in the output.
        Its text names the option and the value. ``stop_strings`` raises an error of transformers, which does not hand on the
        tokenizer: give ``stopping_criteria=[StopStringCriteria(tokenizer, strings)]`` instead.

    Examples
    --------
    >>> model.generate(  # doctest: +SKIP
    ...     **inputs, do_sample=True, top_p=0.9, custom_generate=toksample.transformers.generate, seed=1
    ... )
    """
    import torch

    arguments = _arguments_of_generate()
    streamer = arguments.get("streamer") if streamer is None else streamer
    _check(generation_config, {**arguments, **model_kwargs})
    processors = _without_warpers(logits_processor, generation_config)
    if seed is None:
        seed = int(torch.randint(2**63 - 1, ()))
    sampler = Sampler(**_parameters(generation_config), seed=seed)

    keeps_logits = generation_config.return_dict_in_generate and generation_config.output_logits
    kept_logits: list[Any] = []
    is_encoder_decoder = model.config.is_encoder_decoder
    forward = model
    if model._valid_auto_compile_criteria(model_kwargs, generation_config):
        forward = model.get_compiled_call(generation_config.compile_config)
    # Without an end token there is no padding: what is finished by another criterion goes on, as in transformers.
    pads = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    unfinished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)

    outputs = model._prefill(input_ids, generation_config, model_kwargs)
    while True:
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, is_encoder_decoder)
        logits = outputs.logits[:, -1]
        del outputs  # those of a long prompt may be large
        if keeps_logits:
            kept_logits.append(logits.to(device=input_ids.device, dtype=torch.float32, copy=True))
        if processors:  # which may write to them, and get float32 from transformers, too
            logits = processors(input_ids, logits.to(device=input_ids.device, dtype=torch.float32, copy=True))
        tokens = torch.from_numpy(sampler(logits.cpu())).to(input_ids.device)
        if pads:
            tokens = torch.where(unfinished, tokens, generation_config._pad_token_tensor.to(input_ids.device))
        input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
        if streamer is not None:
            streamer.put(tokens.cpu())
        unfinished = unfinished & ~stopping_criteria(input_ids, None)
        if not unfinished.any():
            break
        length = 1 if model_kwargs["use_cache"] else None
        inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=length, **model_kwargs)
        outputs = forward(**inputs, return_dict=True)

    if streamer is not None:
        streamer.end()
    if not generation_config.return_dict_in_generate:
        return input_ids
    return _output(is_encoder_decoder, input_ids, tuple(kept_logits) if keeps_logits else None, model_kwargs)


# ---- the generation config -------------------------------------------------------------------------------------------

# Options that toksample does not have, and the values that turn each of them off.
_SEARCH: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "num_beam_groups": (None, 1),
    "constraints": (None,),
    "force_words_ids": (None,),
    "penalty_alpha": (None, 0),
    "dola_layers": (None,),
    "assistant_model": (None,),
    "prompt_lookup_num_tokens": (None,),
    "assistant_early_exit": (None,),
    "use_mtp": (None, False),
    "is_assistant": (None, False),
    "synced_gpus": (None, False),
    "watermarking_config": (None,),
    "renormalize_logits": (None, False),
}
_WARPERS: dict[str, tuple[Any, ...]] = {
    "top_h": (None,),
    "typical_p": (None, 1),
    "epsilon_cutoff": (None, 0),
    "eta_cutoff": (None, 0),
}
_OUTPUTS: dict[str, tuple[Any, ...]] = {
    "output_scores": (None, False),
    "output_attentions": (None, False),
    "output_hidden_states": (None, False),
}


def _check(config: Any, arguments: dict[str, Any]) -> None:
    """Raise the error that names an option that toksample does not have; transformers ignores some where they are off."""
    options = dict(_SEARCH)
    if config.do_sample:
        options.update(_WARPERS)
    if config.return_dict_in_generate:
        options.update(_OUTPUTS)
    for name, off in options.items():
        value = arguments[name] if arguments.get(name) is not None else getattr(config, name, None)
        if value not in off:
            shown = type(value).__name__ if name == "assistant_model" else repr(value)
            raise ValueError(f"{name} must be {off[-1]!r} where toksample generates, got {shown}")


def _parameters(config: Any) -> dict[str, Any]:
    """Return the parameters of the sampler. transformers has several values that turn a filter off."""
    if not config.do_sample:
        return {"temperature": 0.0}
    return {
        "temperature": 1.0 if config.temperature is None else config.temperature,
        "top_k": config.top_k or 0,
        "top_p": 1.0 if config.top_p is None else min(config.top_p, 1.0),
        "min_p": config.min_p or 0.0,
    }


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
    count = len(processors) - len(expected)
    found = [type(processor).__name__ for processor in processors[max(count, 0) :]]
    if found != expected:
        raise ValueError(f"logits_processor must end with {expected} for this generation config, got {found}")
    return type(processors)(processors[:count])


# ---- transformers ----------------------------------------------------------------------------------------------------


def _arguments_of_generate() -> dict[str, Any]:
    """Return the arguments of ``model.generate`` that it does not pass on to a callable, from its frame.

    Up to transformers 5.23 at least, a streamer, an assistant model and synced_gpus are dropped without a word where
    ``custom_generate`` is a callable: a streamer would see the prompt and then nothing.
    """
    from transformers import GenerationMixin

    code: CodeType = getattr(GenerationMixin.generate, "__wrapped__", GenerationMixin.generate).__code__
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    if frame is None:  # called by something else
        return {}
    return {name: frame.f_locals.get(name) for name in ("streamer", "assistant_model", "synced_gpus")}


def _output(is_encoder_decoder: bool, sequences: Any, logits: Any, model_kwargs: dict[str, Any]) -> Any:
    from transformers.generation import GenerateDecoderOnlyOutput, GenerateEncoderDecoderOutput

    kind = GenerateEncoderDecoderOutput if is_encoder_decoder else GenerateDecoderOnlyOutput
    return kind(sequences=sequences, logits=logits, past_key_values=model_kwargs.get("past_key_values"))
