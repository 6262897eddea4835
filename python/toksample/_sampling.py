"""The functions on logits: thin, documented fronts of the compiled kernels."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from toksample import _native
from toksample._arrays import Array, as_float64, as_native, like
from toksample._parameters import Parameters, SampleParameters, show_parameters


def argmax(logits: object, *, num_threads: int | None = None) -> Any:
    """Return the id of the largest logit, the lowest id where several are the largest.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        As in :func:`sample`; at most 2**22 tokens a row. -inf is a banned token.
    num_threads : int, optional
        At most this many threads for the rows of a batch; by default as many as are worth it, up to
        :func:`toksample.get_num_threads`.

    Returns
    -------
    int or ndarray of int64, shape (B,)

    Raises
    ------
    ValueError
        If a row has NaN or +inf, or nothing but -inf.

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

    Each is within 1e-5 of itself, plus 1e-12, of the softmax in real numbers, and the same on every machine. Probabilities
    below about 1e-19 of the largest are 0.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        As in :func:`sample`. -inf is a banned token and gets 0.
    temperature : float or array_like of shape (B,)
        0 or in [1e-30, 1e30]. At 0 the argmax has probability 1.
    out : ndarray of float32, optional
        Where to write, of the shape of ``logits``, C-contiguous, sharing no memory with them. On an error it is unchanged.
    num_threads : int, optional
        At most this many threads for the rows of a batch; by default as many as are worth it, up to
        :func:`toksample.get_num_threads`.

    Returns
    -------
    ndarray or torch.Tensor, of float32
        Of the shape of ``logits``, and a tensor if they are one; ``out`` if it was given.

    See Also
    --------
    log_softmax : precise where a probability is too small.

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

    Computed in float64 and rounded once, so they are precise where the probability itself is too small for a float32. Logits
    in float64 are rounded once before, as in :func:`sample`. Shapes, parameters and errors are those of :func:`softmax`. A
    banned token gets -inf.

    Examples
    --------
    >>> toksample.log_softmax(np.float32([0.0, -1000.0]))
    array([    0., -1000.], dtype=float32)
    """
    logprobs = _native.log_softmax(logits, temperature, out, num_threads)
    return like(logprobs, logits) if out is None else logprobs


def top_k(logits: object, k: int, *, num_threads: int | None = None) -> tuple[Any, Any]:
    """Return the k largest logits and their ids, largest first; of equal logits the lower id comes first.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        As in :func:`sample`, except that float64 is compared without being rounded.
    k : int
        In [1, V].
    num_threads : int, optional
        At most this many threads for the rows of a batch; by default as many as are worth it, up to
        :func:`toksample.get_num_threads`.

    Returns
    -------
    values : ndarray or torch.Tensor, shape (k,) or (B, k)
        In the type of ``logits``; a list of numbers is float64.
    ids : ndarray or torch.Tensor, of int64, shape (k,) or (B, k)

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
    """Sort, by their values in float64, the tokens that float32 does not tell from the k largest, and take k of them."""
    native = as_native(rows)[0]
    least, ids = _native.top_k(native, k, num_threads)
    each = zip(*map(np.atleast_2d, (rows, native, least, ids)), strict=True)
    for row, rounded, values, chosen in each:
        near = np.flatnonzero(rounded >= values[-1])
        chosen[:] = near[np.argsort(-row[near], kind="stable")[: len(chosen)]]
    return np.take_along_axis(rows, ids, axis=-1), ids


@show_parameters(errors="raise", num_threads=None, out=None)
def sample(logits: object, **parameters: Unpack[SampleParameters]) -> Any:
    """Draw a token from the logits of each row.

    The steps of a draw are, in this order: bitmask, logit_bias, repetition_penalty, frequency_penalty, presence_penalty,
    temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, top_a, eta_cutoff, top_n_sigma, tfs, top_h. Each works on
    what the one before it left. The parameters are given as keywords. Each, but for the ones that describe their own shapes,
    is one value or one for each row. None stands for off, or for the default. A row of a batch gives the token that it gives
    alone with its own parameters, seed, stream and position.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        float32, float16, bfloat16 or float64, unnormalized; at most 2**22 tokens a row. A numpy array, a dense torch tensor on
        the CPU, any object with ``__dlpack__``, ``__array__`` or the buffer protocol, or a list of numbers (which are float64)
        or of such rows. Rows may be strided. Never written to. -inf is a banned token. From a float64 row its maximum is
        subtracted before it is rounded to float32, so that small differences between large logits count. Tokens whose
        differences from the maximum round to the same float32 are tied, but none is tied with the maximum by rounding, and
        a finite logit is never banned by it.
    temperature : float
        0 or in [1e-30, 1e30]. The logits are divided by it: below 1 likely tokens become more likely. 0 is greedy: the
        lowest id among the largest logits. 1 and None leave the logits as they are.
    top_k : int
        In [0, 2**64), or -1. Keep the k largest logits, exactly k; of equal ones the lower ids. 0, -1 and None are off, and so
        is a k of at least V.
    top_p : float
        In [0, 1]. Keep the smallest set of most probable tokens whose probabilities sum to at least p (nucleus sampling,
        Holtzman et al., ICLR 2020), and at least one token: 0 keeps the most probable one. 1 and None are off.
    min_p : float
        In [0, 1]. Keep the tokens whose probability is at least this share of the largest (Nguyen et al., ICLR 2025).
        0 and None are off.
    typical_p : float
        In [0, 1]. Keep the tokens whose surprise, -log(probability), is nearest to the entropy, until their probabilities
        sum to at least p; this may drop the most probable token (Meister et al., TACL 2023). 1 and None are off.
    epsilon_cutoff : float
        In [0, 1]. Keep the tokens whose probability is at least this, and the most probable one in any case (Hewitt et al.,
        Findings of EMNLP 2022). 0 and None are off.
    top_a : float
        In [0, 1]. Keep the tokens whose probability is at least this many times the square of the largest probability, as in
        KoboldAI. 0 and None are off.
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
    repetition_penalty : float
        In [1e-30, 1e30]. For each token of the prompt and the output, divide its logit by the penalty if it is positive, and
        multiply it if it is not (Keskar et al., 2019). 1 and None are off.
    frequency_penalty : float
        In [-1e30, 1e30]. Subtract it from a token's logit for each time that the token is in the output. 0 and None are off.
    presence_penalty : float
        In [-1e30, 1e30]. Subtract it from a token's logit if the token is in the output. 0 and None are off.
    penalty_window : int
        In [0, 2**64). The three penalties look only at so many last tokens of prompt and output. 0 and None are all of them.
    logit_bias : mapping from int to float, or a list with one or None for each row
        Add to the logits of these token ids: in [-3.4e38, 3.4e38], or -inf, which bans the token.
    seed : int, optional
        In [0, 2**64). The same seed, stream and position draw the same random word. Fresh entropy by default.
    position : int
        In [0, 2**64). The place of the token in its text: give each step of a text its own.
    stream : int, optional
        In [0, 2**64). Which of the texts of one seed; by default the index of the row (0 for a single row), so that equal
        rows of a batch draw independently.
    prompt_ids, output_ids : sequence of int or ndarray of an integer type, optional
        The token ids so far, of the prompt and of what was drawn: for the penalties. For a batch, a list with such a sequence
        or None for each row, or an array of shape (B, T). Ids are in [0, V).
    bitmask : ndarray or torch.Tensor of int32, optional
        Of shape (n,) or (1, n), or (B, n) for a batch, as xgrammar and llguidance make it: token v is allowed if bit v % 32 of
        word v // 32 is 1, and banned if it is 0 or beyond the words. Logits of tokens that are not allowed may be anything.
    errors : {"raise", "mark"}
        What to do if a row has NaN or +inf, or nothing but -inf: raise an error that names the rows, or return -1 for them.
    num_threads : int, optional
        At most this many threads for the rows of a batch; by default as many as are worth it, up to
        :func:`toksample.get_num_threads`.
    out : ndarray of int64, optional
        Where to write the tokens: of shape (B,), or () for a single row. On an error it is unchanged.

    Returns
    -------
    int or ndarray of int64, shape (B,)
        The token ids; ``out`` if it was given.

    Raises
    ------
    ValueError, TypeError
        With a text that names the parameter, the rule and the value.

    See Also
    --------
    Sampler : keeps the parameters and counts the position.
    candidates, mask_logits : what the filters keep, without a draw.

    Examples
    --------
    >>> logits = np.float32([1.0, 3.0, 2.0, -1.0])
    >>> toksample.sample(logits, temperature=0.7, top_p=0.9, seed=1)
    1
    >>> toksample.sample(np.stack([logits, logits]), temperature=[0.0, 1.0], top_k=2, seed=1, position=5)
    array([1, 2])
    """
    return _native.sample(logits, parameters)


@show_parameters()
def candidates(
    logits: object, **parameters: Unpack[Parameters]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return what survives the edits and filters of one row, most probable first.

    Parameters
    ----------
    logits : array_like, shape (V,)
        As in :func:`sample`.
    **parameters
        As in :func:`sample`. The seed, stream and position are not used, for nothing is drawn: they are taken so that the
        parameters of a draw can be given as they are.

    Returns
    -------
    ids : ndarray of int64, shape (n,)
        In the order logit descending, then id ascending. Banned tokens are not among them.
    probs : ndarray of float64, shape (n,)
        Their probabilities, which sum to 1. A token far below the others may have 0.

    Examples
    --------
    >>> toksample.candidates(np.float32([0.0, 0.0, 5.0, 0.0]), top_k=2)
    (array([2, 0]), array([0.99330715, 0.00669285]))
    """
    return _native.candidates(logits, parameters)


@show_parameters(num_threads=None)
def mask_logits(logits: object, *, num_threads: int | None = None, **parameters: Unpack[Parameters]) -> Any:
    """Return a copy of the logits with -inf where a ban or a filter drops the token.

    The values of the tokens that stay are the caller's own: they are not divided by the temperature, and have no bias and no
    penalty.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        As in :func:`sample`.
    num_threads : int, optional
        As in :func:`sample`.
    **parameters
        As in :func:`sample`. The seed, stream and position are not used, for nothing is drawn.

    Returns
    -------
    ndarray or torch.Tensor
        Of the shape and type of ``logits``; a list of numbers is float64.

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
