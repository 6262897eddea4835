"""Logits of any kind, as an array that the kernels read in place, and results in the kind of array that the logits are."""

from __future__ import annotations

import math
import numbers
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from toksample import _native

Array = npt.NDArray[Any]

_UINT16 = np.dtype(np.uint16)
_FLOAT32 = np.finfo(np.float32)
_BLOCK = 1 << 18  # numbers of float64 that are worked on at once: few enough to stay in a cache
_NUMBERS = (int, float, np.generic)
_DEEPEST = 3  # lists in lists: of shape (B, T, V), for which there is an error that says what to write

# The types of DLPack devices whose memory the CPU reads: its own, that of CUDA and ROCm which is pinned or managed, and
# Metal's, which is the CPU's own too. numpy has the last word: it looks at the device of the memory that it is given.
_READABLE_DEVICES = frozenset((1, 3, 8, 11, 13))


def as_native(logits: object) -> tuple[Array, Array | None]:
    """Give logits as the kernels take them, and the memory that they came in.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        A numpy array, a torch tensor on the CPU, whatever has ``__dlpack__``, ``__array__`` or the buffer protocol, or a list
        of numbers or of rows.

    Returns
    -------
    native : ndarray
        float32, float16, or the bits of bfloat16 as uint16; aligned, in the machine's byte order, with contiguous rows. float64
        rows are given by their distances from their maximum; see :func:`_below_maximum`.
    source : ndarray or None
        The caller's own memory, before any conversion: ``native`` itself where there was none. None for a list.
    """
    array, source = as_given(logits)
    if array.dtype == np.float64:
        array = _below_maximum(array)
    elif (array.shape[-1] > 1 and array.strides[-1] != array.itemsize) or not array.flags.aligned:
        array = array.copy(order="C")
    return array, source


def as_given(logits: object) -> tuple[Array, Array | None]:
    """Give logits in the type that they have, with bfloat16 as its bits in uint16, and the memory that they came in."""
    array, source = _to_numpy(logits)
    if array.ndim not in (1, 2):
        hint = ": for the last step of each row, write logits[:, -1]" if array.ndim == 3 else ""
        raise ValueError(f"logits must be of shape (V,) or (B, V), got shape {array.shape}{hint}")
    return array.astype(array.dtype.newbyteorder("="), copy=False), source


def as_float32(native: Array) -> npt.NDArray[np.float32]:
    """Widen an array from :func:`as_native`; every value of every type of logit is a float32."""
    if native.dtype == _UINT16:
        return (native.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return native.astype(np.float32, copy=False)


def float64_and_native(logits: object) -> tuple[Array, Array] | None:
    """Give logits of float64 as they are, and as the kernels take them; None if they are not float64."""
    if type(logits) is np.ndarray and logits.dtype.char != "d":
        return None
    array, _ = as_given(logits)
    return (array, _below_maximum(array)) if array.dtype == np.float64 else None


def like(result: Array, logits: object) -> Any:
    """Give a result of the kernels in the kind of array that the logits are: a torch tensor, or numpy's, with its bfloat16."""
    if type(logits) is np.ndarray:
        return result if result.dtype != _UINT16 else result.view(logits.dtype)
    if isinstance(logits, (list, tuple)):
        return like(result, logits[0]) if logits and _is_row(logits[0]) else result
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(logits, torch.Tensor):
        if result.dtype == _UINT16:
            return torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(result)
    if result.dtype != _UINT16:
        return result
    dtype = getattr(logits, "dtype", None)
    return result.view(dtype if _is_bfloat16(dtype) else _bfloat16())


# ---- float64 -----------------------------------------------------------------------------------------------------------


def _below_maximum(array: Array) -> npt.NDArray[np.float32]:
    """Subtract from each row of float64 its maximum, and then round to float32.

    A softmax does not depend on what is subtracted, and the differences are what float32 has the precision for. A value that
    is less than the maximum stays less: where the difference would round to 0 it becomes the least that is not 0. A finite
    value stays finite: what is below the range of float32 becomes its lowest value. NaN and infinities stay what they are.
    """
    result = np.empty(array.shape, np.float32)
    if array.size == 0:
        return result
    rows, written = np.atleast_2d(array), np.atleast_2d(result)
    step = max(1, _BLOCK // rows.shape[1])
    with np.errstate(all="ignore"):
        for start in range(0, len(rows), step):
            _subtract_maximum(rows[start : start + step], written[start : start + step])
    return result


def _subtract_maximum(rows: Array, written: npt.NDArray[np.float32]) -> None:
    maximum = rows.max(axis=1, keepdims=True)
    maximum[~np.isfinite(maximum)] = 0  # a row with an error, which is looked for later
    below = rows - maximum
    if not below.min() >= _FLOAT32.min:  # also where a value is NaN
        np.clip(below, _FLOAT32.min, _FLOAT32.max, out=below)
        np.copyto(below, rows, where=np.isinf(rows))
    written[...] = below
    # Below float32's normal range the bits are computed, for the CPU may have been told to make such results 0.
    tiny = (below < 0) & (below > -_FLOAT32.tiny)
    if tiny.any():
        steps = np.maximum(np.rint(below[tiny] * -(2.0**149)), 1)
        written.view(np.uint32)[tiny] = steps.astype(np.uint32) | np.uint32(0x80000000)


# ---- arrays ------------------------------------------------------------------------------------------------------------


def _to_numpy(logits: object) -> tuple[Array, Array | None]:
    """Find the numpy array in logits, and the memory that it came in; bfloat16 comes as its bits."""
    if isinstance(logits, (list, tuple)):
        return _from_list(logits, 1), None
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(logits, torch.Tensor):
        array = _from_torch(logits, torch)
    elif isinstance(logits, np.ndarray):
        array = _plain(logits)
    else:
        array = _from_object(logits)
    if _is_bfloat16(array.dtype):
        array = array.view(_UINT16)
    return array, array


def _plain(array: Array) -> Array:
    """Give an array of any subclass as an array of no subclass, which for a masked array would change what it means."""
    if isinstance(array, np.ma.MaskedArray):
        raise _masked_error()
    array = np.asarray(array)
    if array.dtype.name not in ("float32", "float16", "float64") and not _is_bfloat16(array.dtype):
        raise TypeError(f"logits must be float32, float16, bfloat16 or float64, got {array.dtype}")
    return array


def _masked_error() -> TypeError:
    return TypeError(
        "logits must be an array without a mask, got a MaskedArray: write logits.filled(-np.inf) to ban the masked tokens"
    )


def _from_torch(tensor: Any, torch: Any) -> Array:
    rule = "logits must be a dense tensor on the CPU"
    if tensor.is_nested or tensor.layout is not torch.strided:
        raise TypeError(f"{rule}, got a {'nested tensor' if tensor.is_nested else f'tensor of layout {tensor.layout}'}")
    if tensor.device.type == "meta":
        raise TypeError(f"{rule}, got a tensor on meta, which has no values")
    if tensor.device.type != "cpu":
        raise ValueError(f"logits must be on the CPU, got a tensor on {tensor.device}")
    if tensor.dtype not in (torch.bfloat16, torch.float32, torch.float16, torch.float64):
        raise TypeError(f"logits must be float32, float16, bfloat16 or float64, got {tensor.dtype}")
    if tensor.is_neg():
        raise TypeError(f"{rule}, got one with the negative bit set: write logits.resolve_neg()")
    try:
        if tensor.dtype == torch.bfloat16:  # numpy has no such type of its own
            return np.asarray(tensor.detach().view(torch.int16).numpy()).view(_UINT16)
        return np.asarray(tensor.detach().numpy())
    except MemoryError:
        raise
    except Exception as error:  # fake tensors, those of torch.func, other subclasses
        raise TypeError(f"{rule}, got a {type(tensor).__name__} without an array: {_text(error)}") from error


def _from_object(logits: object) -> Array:
    """Read what is not an array by the first protocol that it has and that works."""
    errors: list[Exception] = []
    for read in (_from_dlpack, _from_array, _from_buffer):
        try:
            found = read(logits)
        except (MemoryError, _NotOnTheCpu):
            raise
        except Exception as error:
            errors.append(error)
            continue
        if found is not None:
            array, is_bits = found
            return array if is_bits else _plain(array)
    name = type(logits).__name__
    if not errors:
        raise TypeError(f"logits must be an array, got {name}")
    raise TypeError(f"logits must be an array, got {name}: {_text(errors[0])}") from errors[0]


class _NotOnTheCpu(ValueError):
    pass


class _Exporter:
    """What numpy reads in place of an object with DLPack: the same memory, with bfloat16 as uint16.

    Which keywords `__dlpack__` gets, and so which version of the protocol is spoken, is between numpy and the object.
    """

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self.is_bfloat16 = False

    def __dlpack__(self, **keywords: Any) -> object:
        capsule = self._exporter.__dlpack__(**keywords)
        self.is_bfloat16 = _native.bfloat16_as_bits(capsule)
        return capsule

    def __dlpack_device__(self) -> Any:
        return self._exporter.__dlpack_device__()


def _from_dlpack(logits: Any) -> tuple[Array, bool] | None:
    if not hasattr(logits, "__dlpack__"):
        return None
    device = int(logits.__dlpack_device__()[0])
    if device not in _READABLE_DEVICES:
        raise _NotOnTheCpu(f"logits must be on the CPU, got a {type(logits).__name__} on DLPack's device type {device}")
    exporter = _Exporter(logits)
    array: Array = np.from_dlpack(exporter)
    return array, exporter.is_bfloat16 and array.dtype == _UINT16


def _from_array(logits: Any) -> tuple[Array, bool] | None:
    return (np.asanyarray(logits), False) if hasattr(logits, "__array__") else None


def _from_buffer(logits: Any) -> tuple[Array, bool] | None:
    try:
        buffer = memoryview(logits)
    except TypeError:  # it has none
        return None
    return np.asarray(buffer), False


# ---- lists -------------------------------------------------------------------------------------------------------------


def _from_list(logits: list[Any] | tuple[Any, ...], depth: int) -> Array:
    """Give a list of numbers as float64, and a list of rows in the type of the rows."""
    types = set(map(type, logits))
    if any(issubclass(kind, np.ma.MaskedArray) for kind in types):
        raise _masked_error()
    if all(issubclass(kind, _NUMBERS) for kind in types) or not any(map(_is_row, logits)):
        return _from_numbers(logits)
    if depth == _DEEPEST:
        raise ValueError(f"logits must be of shape (V,) or (B, V), got lists with more than {_DEEPEST} axes")
    if not all(map(_is_row, logits)):
        raise TypeError(f"logits must be numbers or rows of them, got a {type(logits).__name__} of both")
    rows = [_from_list(row, depth + 1) if isinstance(row, (list, tuple)) else as_given(row)[0] for row in logits]
    dtypes = {row.dtype for row in rows}
    if len(dtypes) > 1:
        names = sorted("bfloat16" if dtype == _UINT16 else str(dtype) for dtype in dtypes)
        raise TypeError(f"logits must have rows of one dtype, got {' and '.join(names)}")
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        raise ValueError(f"logits must have rows of one length, got {' and '.join(map(str, sorted(shapes)))}")
    return np.stack(rows)


def _is_row(item: Any) -> bool:
    """Whether an item of a list is a row: a list, or an array that has an axis."""
    if isinstance(item, (list, tuple)):
        return True
    if isinstance(item, (_NUMBERS, str)) or getattr(item, "ndim", 1) == 0:
        return False
    if hasattr(item, "__dlpack__") or hasattr(item, "__array__"):
        return True
    try:
        return memoryview(item).ndim > 0
    except TypeError:
        return False


def _from_numbers(logits: list[Any] | tuple[Any, ...]) -> Array:
    try:
        try:
            array = np.asarray(logits)
        except (TypeError, ValueError):  # a tensor of bfloat16 without an axis, say
            array = np.asarray(logits, object)
        if array.dtype.kind == "O":  # integers that no array holds, say, or what is not a number
            array = np.array([_float(number) for number in logits], np.float64)
        elif np.can_cast(array.dtype, np.float64):
            array = array.astype(np.float64)
        else:
            raise TypeError(f"got {array.dtype}")
    except MemoryError:
        raise
    except Exception as error:
        kind = type(logits).__name__
        raise TypeError(f"logits must be an array, got a {kind} not made of numbers: {_text(error)}") from error
    return array


def _float(number: Any) -> float:
    is_number = isinstance(number, numbers.Number) or getattr(number, "ndim", None) == 0
    if isinstance(number, (complex, np.complexfloating)) or not is_number:
        raise TypeError(f"got a {type(number).__name__}")
    value: Any = number
    try:
        return float(value)
    except OverflowError:  # too much is inf, which is an error, and too little is still not banned
        return math.inf if value > 0 else -sys.float_info.max


# ---- bfloat16, and errors ----------------------------------------------------------------------------------------------


def _is_bfloat16(dtype: object) -> bool:
    return isinstance(dtype, np.dtype) and dtype.name == "bfloat16" and dtype.itemsize == 2


def _bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        raise TypeError("a result in bfloat16 needs the package ml_dtypes: pip install ml_dtypes") from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
