"""The public functions on logits. Each one documents a compiled function and calls it."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from toksample import _logprobs, _native, _receipts
from toksample._arrays import Array, as_float64, as_native, like
from toksample._asks import ASKS, Asks
from toksample._parameters import Parameters, SampleParameters, show_parameters
from toksample._sets import KeptSets


def argmax(logits: object, *, num_threads: int | None = None) -> Any:
    """Return the id of the largest logit of each row. If several are the largest, the lowest id wins.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        As in :func:`sample`.
    num_threads : int, optional
        As in :func:`sample`.

    Returns
    -------
    int or ndarray of int64, shape (B,)

    Raises
    ------
    ValueError
        If a row has NaN or +inf, or has only -inf.
    TypeError
        If an argument has the wrong type.

    Examples
    --------
    >>> toksample.argmax(np.float32([0.0, 2.0, 2.0]))
    1
    """
    return _native.argmax(logits, num_threads)


def softmax(
    logits: object,
    temperature: float | npt.ArrayLike | None = 1.0,
    *,
    out: npt.NDArray[np.float32] | None = None,
    num_threads: int | None = None,
) -> Any:
    """Return the probabilities ``exp(logits / temperature)``, normalized over the last axis.

    The result is the same on every machine. The relative error of a probability is at most 1e-5, plus an absolute error of
    1e-12. Probabilities below about 1e-19 of the largest one become 0.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        As in :func:`sample`. A logit of -inf has probability 0.
    temperature : float or array_like of shape (B,)
        0 or in [1e-30, 1e30]. At 0 the argmax has probability 1. None means 1.
    out : ndarray of float32, optional
        The array to write to. It must have the shape of ``logits``, be C-contiguous and share no memory with them. After an
        error it is unchanged.
    num_threads : int, optional
        As in :func:`sample`.

    Returns
    -------
    ndarray or torch.Tensor, of float32
        It has the shape of ``logits``, and is a tensor if they are one. If ``out`` was given, it is returned.

    Raises
    ------
    ValueError
        If a row has NaN or +inf, or has only -inf, or if an argument is out of range.
    TypeError
        If an argument has the wrong type.

    See Also
    --------
    log_softmax : is precise even where a probability is too small for a float32.

    Examples
    --------
    >>> toksample.softmax(np.float32([0.0, 0.0, -np.inf]))
    array([0.5, 0.5, 0. ], dtype=float32)
    """
    probs = _native.softmax(logits, temperature, out, num_threads)
    return like(probs, logits) if out is None else probs


def log_softmax(
    logits: object,
    temperature: float | npt.ArrayLike | None = 1.0,
    *,
    out: npt.NDArray[np.float32] | None = None,
    num_threads: int | None = None,
) -> Any:
    """Return the natural logarithms of the probabilities ``softmax(logits, temperature)``.

    They are computed in float64 and rounded once, so they are precise even where the probability itself is too small for a
    float32. float64 logits are also rounded before, as in :func:`sample`.

    Parameters
    ----------
    logits, temperature, out, num_threads
        As in :func:`softmax`.

    Returns
    -------
    ndarray or torch.Tensor, of float32
        As in :func:`softmax`. A banned token gets -inf.

    Raises
    ------
    ValueError, TypeError
        As in :func:`softmax`.

    Examples
    --------
    >>> toksample.log_softmax(np.float32([0.0, -1000.0]))
    array([    0., -1000.], dtype=float32)
    """
    logprobs = _native.log_softmax(logits, temperature, out, num_threads)
    return like(logprobs, logits) if out is None else logprobs


def top_k(logits: object, k: int, *, num_threads: int | None = None) -> tuple[Any, Any]:
    """Return the k largest logits of each row and their ids. The largest comes first; among equal logits the lower id does.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        As in :func:`sample`, but float64 logits are compared without being rounded.
    k : int
        In [1, V].
    num_threads : int, optional
        As in :func:`sample`.

    Returns
    -------
    values : ndarray or torch.Tensor, shape (k,) or (B, k)
        The dtype is that of ``logits``, or float64 for a list of numbers.
    ids : ndarray or torch.Tensor, of int64, shape (k,) or (B, k)

    Raises
    ------
    ValueError
        If k is out of range, or if a row has NaN or +inf, or has only -inf.
    TypeError
        If an argument has the wrong type.

    Examples
    --------
    >>> toksample.top_k(np.float32([0.0, 3.0, 1.0, 3.0]), 2)
    (array([3., 3.], dtype=float32), array([1, 3]))
    """
    float64 = as_float64(logits)
    if float64 is None:
        values, ids = _native.top_k(logits, k, num_threads)
    else:
        values, ids = _top_k_of_float64(float64, k, num_threads)
    return like(values, logits), like(ids, logits)


def _top_k_of_float64(rows: Array, k: int, num_threads: int | None) -> tuple[Array, npt.NDArray[np.int64]]:
    """Find the k largest of float64 logits: rounded to float32, some may be tied with the k-th, so all of these are sorted."""
    native = as_native(rows)[0]
    least, ids = _native.top_k(native, k, num_threads)
    each = zip(*map(np.atleast_2d, (rows, native, least, ids)), strict=True)
    for row, rounded, values, chosen in each:
        near = np.flatnonzero(rounded >= values[-1])
        chosen[:] = near[np.argsort(-row[near], kind="stable")[: len(chosen)]]
    return np.take_along_axis(rows, ids, axis=-1), ids


@show_parameters(errors="raise", num_threads=None, out=None, **ASKS)
def sample(logits: object, **parameters: Unpack[SampleParameters]) -> Any:
    """Draw a token from the logits of each row.

    The parameters are keywords. Most of them take either one value, or one value for each row; those that differ say so. None
    means off, or the default. The steps of a draw are, in this order: all bans, logit_bias, sequence_bias,
    encoder_repetition_penalty, repetition_penalty, frequency_penalty, presence_penalty, dry_multiplier,
    exponential_decay_length_penalty, smoothing_factor, temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, top_a,
    eta_cutoff, top_n_sigma, tfs, top_h, xtc_probability, mirostat, adaptive_target. Each works on what the one before it has
    left. The parameter ``order`` changes the order of all but the bans and smoothing_factor. A row of a batch gives the same
    token as it would alone, with its own parameters, seed, stream and position.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        float32, float16, bfloat16 or float64, unnormalized, with at most 2**22 tokens in a row. Pass a numpy array, a dense
        torch tensor on the CPU, any object with ``__dlpack__``, ``__array__`` or the buffer protocol, a list of numbers (which
        are taken as float64), or a list of such rows. Rows may be strided, and are never written to. A logit of -inf bans its
        token. The maximum of a float64 row is subtracted before the row is rounded to float32, so that small differences
        between large logits count. The rounding may tie two tokens, but never ties one with the maximum, and never bans one.
    temperature : float
        0 or in [1e-30, 1e30]. The logits are divided by it, so below 1 likely tokens become more likely. 0 is greedy: it takes
        the largest logit, and the lowest id among equal ones. 1 and None leave the logits as they are.
    top_k : int
        In [0, 2**64), or -1. Keep the k largest logits. Exactly k are kept: among equal logits, those with the lower ids. 0,
        -1 and None are off, and so is any k of at least V.
    top_p : float
        In [0, 1]. Keep the smallest set of most probable tokens whose probabilities sum to at least p, and at least one token
        (nucleus sampling, Holtzman et al., ICLR 2020). 0 keeps only the most probable token. 1 and None are off.
    min_p : float
        In [0, 1]. Keep the tokens whose probability is at least this share of the largest one (Nguyen et al., ICLR 2025).
        0 and None are off.
    typical_p : float
        In [0, 1]. Keep the tokens whose surprise, -log(probability), is nearest to the entropy, until their probabilities
        sum to at least p. This may drop the most probable token (Meister et al., TACL 2023). 1 and None are off.
    epsilon_cutoff : float
        In [0, 1]. Keep the tokens with at least this probability, and always the most probable one (Hewitt et al., Findings of
        EMNLP 2022). 0 and None are off.
    top_a : float
        In [0, 1]. Keep the tokens whose probability is at least this many times the square of the largest probability, as in
        KoboldAI. 0 and None are off.
    dynatemp_range : float
        In [0, 1e30]. Divide by a temperature that is up to this much below or above ``temperature``. It increases with the
        entropy, as a share of the largest that is possible, to the power of ``dynatemp_exponent``. 0 and None are off.
    dynatemp_exponent : float
        In [0, 1e30]. None means 1.
    mirostat : int
        0, 1 or 2. Keep tokens up to a limit of surprise, which is ``mirostat_mu``, by version 1 or 2 of mirostat (Basu et al.,
        ICLR 2021). A :class:`Sampler` corrects the limit after each token, so that the surprise of the text is
        ``mirostat_tau`` on average. 0 and None are off.
    mirostat_tau : float
        In [0, 1000]. The surprise to aim at, in bits per token. None means 5.
    mirostat_eta : float
        In [0, 1]. How fast a :class:`Sampler` corrects ``mirostat_mu``. It has no effect on a single draw. None means 0.1.
    adaptive_target : float
        In [0, 1], or -1. Make the tokens more likely whose probability is near a target (adaptive-p, from llama.cpp). The
        target is moved as far to the other side of it as ``adaptive_average`` is away, which a :class:`Sampler` corrects
        after each token, so that the probability of the tokens of a text is ``adaptive_target`` on average. -1 and None are
        off.
    adaptive_decay : float
        In [0, 1]. How much of ``adaptive_average`` a :class:`Sampler` keeps with each token. It has no effect on a single
        draw. None means 0.9.
    smoothing_factor : float
        In [0, 1e30]. Before the temperature and all filters, change each logit to ``max - smoothing_factor * d**2``, where d
        is how far it was below the largest one (quadratic sampling, from text-generation-webui). 0 and None are off.
    smoothing_curve : float
        In [1, 3]. The logits become ``max - smoothing_factor * ((3 - curve) / 2 * d**2 + (curve - 1) / 2 * d**3)``. None means
        1.
    eta_cutoff : float
        In [0, 1]. Keep the tokens whose probability is at least this, or at least ``sqrt(eta_cutoff) * exp(-entropy)`` where
        that is less, and the most probable one in any case (Hewitt et al., Findings of EMNLP 2022). 0 and None are off.
    top_n_sigma : float
        In [0, 1e30]. Keep the tokens whose logit is at most this many standard deviations of the logits below the largest one
        (Tang et al., 2024). The temperature makes no difference to it. 0 and None are off.
    tfs : float
        In [0, 1]. Keep the tokens before the tail (tail-free sampling, Bricken, 2019): the tail begins where this share of
        the absolute second differences of the sorted probabilities is behind. 1 and None are off.
    top_h : float
        In [0, 1]. Keep the most probable tokens as long as their terms -p log(p) sum to at most this share of the entropy, and
        the most probable one in any case; look at 100 tokens only (Potraghloo et al., NeurIPS 2025). 0 and None are off.
    xtc_probability : float
        In [0, 1]. With this probability, drop all tokens whose probability is at least ``xtc_threshold``, except the least
        probable one of them, as in text-generation-webui (XTC, "exclude top choices"). 0 and None are off.
    xtc_threshold : float
        In [0, 1]. Above 1/2, ``xtc_probability`` has no effect. None means 0.1.
    xtc_exempt_token_ids : sequence of int, or a list with one or None for each row
        Where ``xtc_probability`` would drop one of these tokens, it drops none at all, as text-generation-webui does for a
        line break and the end of the text.
    min_tokens_to_keep : int
        In [0, 2**64). Each filter keeps at least this many tokens, or all if there are no more. 0, 1 and None are off.
    order : str or sequence of str
        The order of the edits, the temperature and the filters, for all rows: "toksample", which is the default,
        "transformers", "vllm", "sglang", "llama.cpp" or "mlx-lm", or a sequence of steps. A step is the name of its parameter,
        except "dry", which is ``dry_multiplier``, "xtc", which is ``xtc_probability``, and "adaptive_p", which is
        ``adaptive_target`` and comes last wherever it is named.
        "top_k_with_ties" is a top_k that keeps all tokens that tie with the k-th, and "top_p_beyond" a top_p that keeps a set
        whose probabilities sum to more than p. Every filter that is on must have a step, and so must a temperature other than
        1. Edits, which are the steps from ``logit_bias`` to ``exponential_decay_length_penalty``, come before all of these.
        Those that an order does not name come first, in the default order. docs/sampling-methods.md lists the steps of each
        system.
    repetition_penalty : float
        In [1e-30, 1e30]. For each token that is in the prompt or the output, divide the logit by the penalty if the logit is
        positive, and multiply it otherwise (Keskar et al., 2019). 1 and None are off.
    frequency_penalty : float
        In [-1e30, 1e30]. Subtract this from a token's logit once for each time the token is in the output. 0 and None are off.
    presence_penalty : float
        In [-1e30, 1e30]. Subtract this from the logit of each token that is in the output. 0 and None are off.
    penalty_window : int
        In [0, 2**64). The three penalties look only at this many of the last tokens of the prompt and the output together.
        With 0 or None they look at all of them.
    logit_bias : mapping from int to float, or a list with a mapping or None for each row
        Numbers to add to the logits of these token ids. Each is in [-3.4e38, 3.4e38], or is -inf, which bans the token.
    sequence_bias : mapping from int or tuple of int to float, or a list with one or None for each row
        Add to the logit of the last id of each tuple, where the history (prompt and output) ends with the ids before it: in
        [-3.4e38, 3.4e38], or -inf, which bans the token.
    bad_words_ids : sequence of sequences of int, or a list with one or None for each row
        Ban the last id of each sequence, where the history ends with the ids before it.
    encoder_repetition_penalty : float
        In [1e-30, 1e30]. For each token of the prompt, multiply its logit by it if it is positive, and divide it if it is not.
        1 and None are off.
    dry_multiplier : float
        In [0, 1e30]. Make tokens less likely that would extend a repeated sequence (Weidmann, 2024). If the last m tokens of
        the history also stand before an earlier occurrence of a token, and the largest such m is at least
        ``dry_allowed_length``, subtract ``dry_multiplier * dry_base ** (m - dry_allowed_length)`` from the logit of that
        token. 0 and None are off.
    dry_base : float
        In [1, 1e30].
    dry_allowed_length : int
        In [1, 2**64).
    dry_penalty_last_n : int
        In [0, 2**64). DRY looks only at so many last tokens of the history. 0 and None are all of them.
    dry_sequence_breakers : sequence of int, or a list with one or None for each row
        Tokens that are in no repeated sequence, and that DRY does not penalize.
    no_repeat_ngram_size : int
        In [0, 2**64). Ban each token that would complete a sequence of so many tokens that is in the history (Paulus et al.,
        ICLR 2018). 0 and None are off.
    exponential_decay_length_penalty : tuple of int and float, or a list with one or None for each row
        A start and a factor. If the output has n > start tokens, add to the logits of ``eos_token_ids`` their absolute value
        times ``factor ** (n - start) - 1``.
    allowed_token_ids, suppress_tokens : sequence of int, or a list with one or None for each row
        The only tokens that are allowed, and tokens that are banned.
    begin_suppress_tokens : sequence of int, or a list with one or None for each row
        Tokens that are banned while the output is empty.
    eos_token_ids : sequence of int, or a list with one or None for each row
        The tokens that end a text, for ``min_new_tokens`` and ``exponential_decay_length_penalty``.
    min_new_tokens : int
        In [0, 2**64). Ban ``eos_token_ids`` while the output has fewer tokens. 0 and None are off.
    forced_bos_token_id : int, or a list with one or None for each row
        The only token that is allowed while the output is empty.
    forced_eos_token_id : int, or a list with one or None for each row
        The only token that is allowed where the output has ``max_new_tokens`` - 1 tokens.
    max_new_tokens : int
        In [0, 2**64). The number of tokens after which the caller ends the text, for ``forced_eos_token_id``. 0 and None if
        it is not known.
    seed : int, optional
        In [0, 2**64). The same seed, stream and position give the same random word. By default the seed is fresh entropy.
    position : int
        In [0, 2**64). The position of the token in its text. Use a different one for each step of a text.
    stream : int, optional
        In [0, 2**64). Tells apart the texts that share a seed. By default it is the index of the row (0 for a single row), so
        that equal rows of a batch draw independently.
    mirostat_mu : float, optional
        In [-1e30, 1e30]. The limit of surprise for mirostat, in bits. By default it is ``2 * mirostat_tau``.
    adaptive_average : float, optional
        In [0, 1]. How probable the tokens before this one were, on average, for adaptive-p. By default it is
        ``adaptive_target``.
    prompt_ids, output_ids : sequence of int or ndarray of an integer type, optional
        The token ids of the prompt, and those drawn so far: the history of the methods that look at it. For a batch, pass a
        list with such a sequence or None for each row, or an array of shape (B, T). Ids are in [0, V).
    bitmask : ndarray or torch.Tensor of int32, optional
        Of shape (n,) or (1, n), or (B, n) for a batch, in the layout of xgrammar and llguidance. Token v is allowed if bit
        v % 32 of word v // 32 is 1. It is banned if that bit is 0, or if there is no such word. The logit of a banned token
        may be anything, even NaN, whatever bans it.
    errors : {"raise", "mark"}
        What to do if a row has NaN or +inf, or has only -inf: raise an error that names the rows, or return -1 for them.
    num_threads : int, optional
        Use at most this many threads for the rows of a batch. By default a call uses as many as are worthwhile, up to
        :func:`toksample.get_num_threads`.
    out : ndarray of int64, optional
        The array to write the tokens to. It has the shape of the result, which is () for one token. After an error it is
        unchanged.
    n : int, optional
        In [1, 2**16]. Draw this many tokens from each row, and filter its tokens only once. Draw j is the token of a call with
        the stream ``stream + j`` (modulo 2**64). By default, row b has the streams from ``b * n`` on. All draws of a row are
        from the same tokens, so where a filter is random, as XTC is, the word of the first draw decides.
    replacement : bool
        With False, no token is drawn twice from a row: each is drawn from what the draws before it have left, by the masses of
        these tokens. Where no token with a mass is left, the rest is -1.
    logprobs : int, optional
        In [0, V]. Return the log-probability and the rank of each token that is drawn, and the same of this many most
        probable tokens. The tokens are those that are drawn without it. docs/logprobs.md has more. Only one of n, logprobs and
        receipt goes with a call, and the last two not with ``out``.
    logprobs_mode : str
        What is returned: "raw_logprobs", "raw_logits", "processed_logprobs" or "processed_logits", as in vLLM. Raw ones are of
        the logits as they are given, at temperature 1. Processed ones are of the distribution that the token is drawn from,
        which has only the tokens that are kept. A processed logit is divided by the temperature.
    logprob_token_ids : sequence of int, or one with as many ids for each row, optional
        Return the log-probabilities of these tokens as well.
    receipt : bool
        Whether to return a :class:`Receipt` instead of the token, with which others can check the draw (:func:`verify`). For a
        batch, return a list with one for each row. With ``errors="mark"``, a row without an answer has None.

    Returns
    -------
    int or ndarray of int64, shape (B,), (n,) or (B, n), or Sampled, or Receipt, or list of Receipt
        The token ids. If ``out`` was given, it is returned. With ``logprobs`` or ``logprob_token_ids``, a :class:`Sampled`.
        With ``receipt``, the receipts.

    Raises
    ------
    ValueError, TypeError
        The message names the parameter, the rule and the value.

    See Also
    --------
    Sampler : keeps the parameters and counts the position.
    candidates, mask_logits : show what the filters keep, without drawing.

    Examples
    --------
    >>> logits = np.float32([1.0, 3.0, 2.0, -1.0])
    >>> toksample.sample(logits, temperature=0.7, top_p=0.9, seed=1)
    1
    >>> toksample.sample(np.stack([logits, logits]), temperature=[0.0, 1.0], top_k=2, seed=1, position=5)
    array([1, 2])
    >>> toksample.sample(logits, temperature=0.7, top_p=0.9, order="llama.cpp", seed=1)
    1
    >>> toksample.sample(logits, n=3, replacement=False, seed=1)
    array([2, 1, 0])
    """
    # Named keywords would cost each call 0.1 us and more, because Python compares every keyword with each of them.
    if _ASKS.isdisjoint(parameters):
        return _native.sample(logits, parameters)
    return _sample_what_is_asked(logits, dict(parameters))


_ASKS = frozenset(ASKS)


# A function of its own, because the comprehension would make Python keep the variables of `sample` on the heap.
def _sample_what_is_asked(logits: object, keywords: dict[str, Any]) -> Any:
    asks = Asks(*[keywords.pop(name, default) for name, default in ASKS.items()])
    match asks.kind(keywords.get("out")):
        case "logprobs":
            return _logprobs.of_sample(logits, keywords, asks)
        case "receipt":
            return _receipts.of_sample(logits, keywords)
        case "n":
            return _native.sample_several(logits, keywords, *asks.several())
        case _:
            return _native.sample(logits, keywords)


@show_parameters(num_threads=None)
def candidates(logits: object, *, num_threads: int | None = None, **parameters: Unpack[Parameters]) -> Any:
    """Return the tokens that survive the edits and the filters, most probable first.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        As in :func:`sample`.
    num_threads : int, optional
        As in :func:`sample`.
    **parameters
        As in :func:`sample`. The seed, stream and position decide only whether XTC acts, as they do for the draw.

    Returns
    -------
    ids : ndarray of int64, shape (n,)
        Sorted by descending logit, and by ascending id among equal logits. Banned tokens are never included. The first one is
        the most probable one, unless ``adaptive_target`` is on.
    probs : ndarray of float64, shape (n,)
        The probabilities of these tokens, which sum to 1. A token far below the others may have probability 0.

    For a batch, it returns :class:`KeptSets` instead, which has the ids, exact masses and probabilities of all rows.

    Raises
    ------
    ValueError, TypeError
        As in :func:`sample`.

    See Also
    --------
    replay : the log-probabilities of tokens under the kept sets at new logits.

    Examples
    --------
    >>> toksample.candidates(np.float32([0.0, 0.0, 5.0, 0.0]), top_k=2)
    (array([2, 0]), array([0.99330715, 0.00669285]))
    >>> kept = toksample.candidates(np.float32([[0.0, 0.0, 5.0, 0.0], [1.0, 1.0, 1.0, 1.0]]), top_p=0.6)
    >>> kept.ids, kept.offsets
    (array([2, 0, 1, 2]), array([0, 1, 4]))
    """
    found = _native.candidates(logits, parameters, num_threads)
    return found if len(found) == 2 else KeptSets(*found)


@show_parameters(num_threads=None)
def mask_logits(logits: object, *, num_threads: int | None = None, **parameters: Unpack[Parameters]) -> Any:
    """Return a copy of the logits with -inf in place of each token that is banned or that a filter drops.

    The other logits are unchanged: they are not divided by the temperature, and neither biases nor penalties are applied.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        As in :func:`sample`.
    num_threads : int, optional
        As in :func:`sample`.
    **parameters
        As in :func:`candidates`.

    Returns
    -------
    ndarray or torch.Tensor
        It has the shape and dtype of ``logits``. For a list of numbers the dtype is float64.

    Raises
    ------
    ValueError, TypeError
        As in :func:`sample`.

    Examples
    --------
    >>> toksample.mask_logits(np.float32([1.0, 3.0, 2.0]), top_k=2)
    array([-inf,   3.,   2.], dtype=float32)
    """
    float64 = as_float64(logits)
    if float64 is None:
        masked = _native.mask_logits(logits, parameters, num_threads)
    else:
        masked = _native.mask_logits(float64, parameters, num_threads)
        masked = np.where(masked == -np.inf, -np.inf, float64)
    return like(masked, logits)
