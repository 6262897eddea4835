"""Logits of any kind, as an array that the kernels read in place."""

from __future__ import annotations

import math
import numbers
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_UINT16 = np.dtype(np.uint16)


def as_native(logits: object) -> Array:
    """Give logits as the kernels take them: float32, float16, or the bits of bfloat16 as uint16; with contiguous rows.

    Takes numpy arrays, torch tensors on the CPU, and whatever has ``__dlpack__``, ``__array__`` or the buffer protocol. An
    array of one of these types whose rows are contiguous is not copied. A float64 is rounded to float32.
    """
    array = _to_numpy(logits)
    if array.ndim not in (1, 2):
        raise ValueError(f"logits must be of shape (V,) or (B, V), got shape {array.shape}")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.float64:
        with np.errstate(over="ignore", under="ignore"):  # beyond float32 is inf, which is then reported
            array = array.astype(np.float32)
    if (array.shape[-1] > 1 and array.strides[-1] != array.itemsize) or not array.flags.aligned:
        array = array.copy(order="C")
    return array


def as_float32(native: Array) -> npt.NDArray[np.float32]:
    """Widen an array from :func:`as_native`; every value of every type of logit is a float32."""
    if native.dtype == _UINT16:
        return (native.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return native.astype(np.float32, copy=False)


def like(result: Array, logits: object) -> Array:
    """Give a result of the kernels in the type of the logits: bits become bfloat16 again."""
    if result.dtype != _UINT16:
        return result
    dtype = getattr(logits, "dtype", None)
    return result.view(dtype if isinstance(dtype, np.dtype) else _bfloat16())


def _to_numpy(logits: object) -> Array:
    """Find the numpy array in ``logits``; bfloat16 comes as its bits."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(logits, torch.Tensor):
        return _from_torch(logits, torch)
    array = np.asarray(logits) if isinstance(logits, np.ndarray) else _from_other(logits)
    if array.dtype.name == "bfloat16":
        return array.view(_UINT16)
    if array.dtype.name not in ("float32", "float16", "float64"):
        raise TypeError(f"logits must be float32, float16, bfloat16 or float64, got {array.dtype}")
    return array


def _from_torch(tensor: Any, torch: Any) -> Array:
    if tensor.device.type != "cpu":
        raise ValueError(f"logits must be on the CPU, got a tensor on {tensor.device}")
    if tensor.dtype == torch.bfloat16:  # numpy has no such type of its own
        bits: Array = tensor.detach().view(torch.int16).numpy()
        return bits.view(_UINT16)
    if tensor.dtype not in (torch.float32, torch.float16, torch.float64):
        raise TypeError(f"logits must be float32, float16, bfloat16 or float64, got {tensor.dtype}")
    array: Array = tensor.detach().numpy()
    return array


def _from_other(logits: object) -> Array:
    if isinstance(logits, (list, tuple)):
        return _from_list(logits)
    if hasattr(logits, "__array__"):
        return np.asarray(logits)
    if hasattr(logits, "__dlpack__"):
        return np.from_dlpack(logits)
    try:
        return np.asarray(memoryview(logits))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"logits must be an array, got {type(logits).__name__}") from None


def _from_list(logits: list[Any] | tuple[Any, ...]) -> Array:
    try:
        array = np.asarray(logits)
        if array.dtype.kind == "O":  # integers that no array holds, or what is not a number
            array = np.vectorize(_float, otypes=[np.float64])(array)
        if array.dtype.kind in "biuf":
            return array.astype(np.float64)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"logits must be an array, got a {type(logits).__name__} not made of numbers")


def _float(number: Any) -> float:
    if isinstance(number, complex) or not isinstance(number, numbers.Number):
        raise TypeError
    value: Any = number
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        raise TypeError("a result in bfloat16 needs the package ml_dtypes: pip install ml_dtypes") from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype
