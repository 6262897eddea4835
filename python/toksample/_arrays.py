"""Turns logits of any kind into an array that the kernels read in place, and results into the caller's kind of array."""

from __future__ import annotations

import contextlib
import math
import numbers
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from toksample import _native

Array = npt.NDArray[Any]

_UINT16 = np.dtype(np.uint16)
_FLOAT64 = np.dtype(np.float64)
_FLOAT32 = np.finfo(np.float32)
_BLOCK = 1 << 18  # float64 numbers to work on at once: few enough to stay in the cache
_NUMBERS = (int, float, np.generic)
_NOT_REAL = (str, bytes, complex, np.complexfloating, np.datetime64, np.timedelta64)
_DEEPEST = 3  # lists may be nested up to the shape (B, T, V), for which the error says what to write instead

# The DLPack device types whose memory the CPU can read: the CPU's own, pinned or managed memory of CUDA and ROCm, and Metal's,
# which is also the CPU's own. numpy has the last word, because it checks the device of the memory that it is given.
_READABLE_DEVICES = frozenset((1, 3, 8, 11, 13))


def as_native(logits: object, parameters: Mapping[str, object] | None = None) -> tuple[Array, list[Array], bool]:
    """Convert logits to an array that the kernels can read.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        A numpy array, a torch tensor on the CPU, any object with ``__dlpack__``, ``__array__`` or the buffer protocol, or a
        list of numbers or of rows.
    parameters : mapping, optional
        The parameters of the draw. Those that edit logits are applied here to float64 rows, which must be edited before they
        are rounded.

    Returns
    -------
    native : ndarray
        float32, float16, or the bits of bfloat16 as uint16. It is aligned, in the machine's byte order, with contiguous rows.
        A float64 row becomes its differences from its maximum: see :func:`_below_maximum`.
    sources : list of ndarray
        The arrays that the caller passed: ``native`` itself if nothing was converted, and the rows of a list.
    is_edited : bool
        Whether the edits were applied to ``native``.

    Raises
    ------
    ValueError, TypeError
        If these cannot be logits.
    """
    array, sources = as_given(logits)
    is_edited = False
    if array.dtype == _FLOAT64:
        if parameters:
            from toksample import _parameters, reference  # which imports this module

            if any(parameters.get(name) is not None for name in _parameters.INPUTS):
                array, is_edited = reference.edited(array, parameters), True
        array = _below_maximum(array)
    elif (array.shape[-1] > 1 and array.strides[-1] != array.itemsize) or not array.flags.aligned:
        array = array.copy(order="C")
    return array, sources, is_edited


def as_given(logits: object) -> tuple[Array, list[Array]]:
    """Return logits as an array of their own dtype (uint16 bits for bfloat16), and the arrays that the caller passed."""
    array, sources = _to_numpy(logits)
    if array.ndim not in (1, 2):
        hint = ": for the last step of each row, write logits[:, -1]" if array.ndim == 3 else ""
        raise ValueError(f"logits must be of shape (V,) or (B, V), got shape {array.shape}{hint}")
    return _in_byte_order(array), sources


def as_float32(native: Array) -> npt.NDArray[np.float32]:
    """Widen an array from :func:`as_native` to float32, which holds every value that such an array can have."""
    if native.dtype == _UINT16:
        return (native.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return native.astype(np.float32, copy=False)


def as_float64(logits: object) -> Array | None:
    """Return float64 logits as an array; None if they have another dtype."""
    if type(logits) is np.ndarray and logits.dtype.type not in (np.float64, np.longdouble):
        return None
    array, _ = as_given(logits)
    return array if array.dtype == _FLOAT64 else None


def like(result: Array, logits: object) -> Any:
    """Return a result of the kernels as the same kind of array as the logits: a torch tensor or a numpy array."""
    if type(logits) is np.ndarray:
        return result if result.dtype != _UINT16 else result.view(logits.dtype)
    if isinstance(logits, (list, tuple)):
        return like(result, logits[0]) if logits and _is_row(logits[0]) else result
    torch = _torch_of(logits)
    if torch is not None:
        if result.dtype == _UINT16:
            return torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(result)
    if result.dtype != _UINT16:
        return result
    dtype = getattr(logits, "dtype", None)
    return result.view(dtype if _is_bfloat16(dtype) else _bfloat16())


# ---- float64 -----------------------------------------------------------------------------------------------------------


def _below_maximum(array: Array) -> npt.NDArray[np.float32]:
    """Subtract its maximum from each float64 row, and round the differences to float32.

    This does not change the softmax, and float32 is precise enough for the differences. A value below the maximum stays below
    it: a difference that would round to 0 becomes -2**-149. A finite value stays finite: a difference below the range of
    float32 becomes the lowest float32. NaN and infinities stay as they are.
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
    maximum[~np.isfinite(maximum)] = 0  # such a row is an error, and is reported later
    below = rows - maximum
    if not below.min() >= _FLOAT32.min:  # this is also true if a value is NaN
        np.clip(below, _FLOAT32.min, _FLOAT32.max, out=below)
        np.copyto(below, rows, where=np.isinf(rows))
    written[...] = below
    # Two float64 numbers can only differ by less than the smallest normal float32 if the larger one is this close to 0.
    if (np.abs(maximum) < 2.0**-70).any():
        # The bits are computed as integers, because the CPU may have been told to flush subnormal results to 0.
        tiny = (below < 0) & (below > -_FLOAT32.tiny)
        steps = np.maximum(np.rint(below[tiny] * -(2.0**149)), 1)
        written.view(np.uint32)[tiny] = steps.astype(np.uint32) | np.uint32(0x80000000)


def _in_byte_order(array: Array) -> Array:
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


# ---- arrays ------------------------------------------------------------------------------------------------------------


def _to_numpy(logits: object) -> tuple[Array, list[Array]]:
    """Return logits as a numpy array (the bits for bfloat16), and the arrays that the caller passed."""
    if isinstance(logits, (list, tuple)):
        return _from_list(logits, 1)
    torch = _torch_of(logits)
    if torch is not None:
        array = _from_torch(logits, torch)
    elif isinstance(logits, np.ndarray):
        array = _plain(logits)
    else:
        array = _from_object(logits)
    return array, [array]


def _plain(array: Array) -> Array:
    """Return an array as a plain ndarray, with bfloat16 as its bits. Any subclass is accepted except a masked array."""
    if isinstance(array, np.ma.MaskedArray):
        raise _masked_error()
    array = np.asarray(array)
    if array.dtype.type in (np.float32, np.float16, np.float64):
        return array
    if _is_bfloat16(array.dtype):
        return array.view(_UINT16)
    if array.dtype == _FLOAT64:  # on some systems, long double is float64 under another name
        return array.view(_FLOAT64)
    raise TypeError(f"logits must be float32, float16, bfloat16 or float64, got {array.dtype}")


def _masked_error() -> TypeError:
    return TypeError(
        "logits must be an array without a mask, got a MaskedArray: write logits.filled(-np.inf) to ban the masked tokens"
    )


def _torch_of(logits: object) -> Any:
    """Return the module torch if logits are a torch tensor, else None. Another thread may be in the middle of importing it."""
    torch = sys.modules.get("torch")
    tensor = getattr(torch, "Tensor", None)
    return torch if tensor is not None and isinstance(logits, tensor) else None


def _from_torch(tensor: Any, torch: Any) -> Array:
    try:
        problem = _torch_problem(tensor, torch)
        if problem is None:
            # numpy has no bfloat16, so it gets the bits.
            is_bits = tensor.dtype == torch.bfloat16
            array = np.asarray((tensor.detach().view(torch.int16) if is_bits else tensor.detach()).numpy())
            return array.view(_UINT16) if is_bits else array
    except MemoryError:
        raise
    except Exception as error:  # fake tensors, those of torch.func, and other subclasses
        text = f"got a {type(tensor).__name__} that numpy cannot read: {_text(error)}"
        raise TypeError(f"logits must be a dense tensor on the CPU, {text}") from error
    raise problem


def _torch_problem(tensor: Any, torch: Any) -> Exception | None:
    """Return the error for a tensor that cannot be logits, as far as its attributes show that; else None."""
    rule = "logits must be a dense tensor on the CPU"
    if tensor.is_nested:
        return TypeError(f"{rule}, got a nested tensor")
    if tensor.layout is not torch.strided:
        return TypeError(f"{rule}, got a tensor of layout {tensor.layout}")
    if tensor.device.type == "meta":
        return TypeError(f"{rule}, got a tensor on meta, which has no values")
    if tensor.device.type != "cpu":
        return ValueError(f"logits must be on the CPU, got a tensor on {tensor.device}")
    if tensor.dtype not in (torch.bfloat16, torch.float32, torch.float16, torch.float64):
        return TypeError(f"logits must be float32, float16, bfloat16 or float64, got {tensor.dtype}")
    if tensor.is_neg():
        return TypeError(f"{rule}, got a tensor with the negative bit set: write logits.resolve_neg()")
    return None


def _from_object(logits: object) -> Array:
    """Read an object by the first protocol that it supports and that works."""
    _check_device(logits)
    errors: list[Exception] = []
    for read in (_from_dlpack, _from_array, _from_buffer):
        try:
            found = read(logits)
        except MemoryError:
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


def _check_device(logits: Any) -> None:
    try:
        device = int(logits.__dlpack_device__()[0])
    except MemoryError:
        raise
    except Exception:  # the object does not say; if it is on another device, reading it will fail
        return
    if device not in _READABLE_DEVICES:
        raise ValueError(f"logits must be on the CPU, got {type(logits).__name__} on DLPack's device type {device}")


class _Exporter:
    """Stands between numpy and an object with DLPack, and declares its bfloat16 values as uint16. The memory stays the same.

    Keywords are passed on unchanged, so numpy and the object agree on the version of the protocol between themselves.
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
    if not (hasattr(logits, "__dlpack__") and hasattr(logits, "__dlpack_device__")):
        return None
    exporter: Any = _Exporter(logits)  # numpy's stubs describe an older form of the protocol
    array: Array = np.from_dlpack(exporter)
    return array, exporter.is_bfloat16 and array.dtype == _UINT16


def _from_array(logits: Any) -> tuple[Array, bool] | None:
    return (np.asanyarray(logits), False) if hasattr(logits, "__array__") else None


def _from_buffer(logits: Any) -> tuple[Array, bool] | None:
    try:
        buffer = memoryview(logits)
    except TypeError:  # it has no buffer
        return None
    return np.asarray(buffer), False


# ---- lists -------------------------------------------------------------------------------------------------------------


def _from_list(logits: list[Any] | tuple[Any, ...], depth: int) -> tuple[Array, list[Array]]:
    """Return a list of numbers as float64, or a list of rows in the dtype of the rows; and the arrays that were its rows."""
    types = set(map(type, logits))
    if any(issubclass(kind, np.ma.MaskedArray) for kind in types):
        raise _masked_error()
    if all(issubclass(kind, _NUMBERS) for kind in types) or not any(map(_is_row, logits)):
        return _from_numbers(logits), []
    if depth == _DEEPEST:
        raise ValueError(f"logits must be of shape (V,) or (B, V), got lists nested more than {_DEEPEST} deep")
    if not all(map(_is_row, logits)):
        raise TypeError(f"logits must be numbers or rows of them, got a {type(logits).__name__} of both")
    read = [_from_list(row, depth + 1) if isinstance(row, (list, tuple)) else _to_numpy(row) for row in logits]
    rows = [_in_byte_order(row) for row, _ in read]
    for b, row in enumerate(rows):
        if row.dtype != rows[0].dtype:
            names = f"{_dtype_name(rows[0])} in row 0 and {_dtype_name(row)} in row {b}"
            raise TypeError(f"logits must have rows of one dtype, got {names}")
        if row.shape != rows[0].shape:
            raise ValueError(
                f"logits must have rows of one length, got shape {rows[0].shape} in row 0 and {row.shape} in row {b}"
            )
    return np.stack(rows), [source for _, sources in read for source in sources]


def _dtype_name(row: Array) -> str:
    return "bfloat16" if row.dtype == _UINT16 else row.dtype.name


def _is_row(item: Any) -> bool:
    """Return whether an item of a list is a row: a list, or an array with at least one axis."""
    if isinstance(item, (list, tuple)):
        return True
    if isinstance(item, (_NUMBERS, str)):
        return False
    try:
        if getattr(item, "ndim", 1) == 0:
            return False
        return hasattr(item, "__dlpack__") or hasattr(item, "__array__") or memoryview(item).ndim > 0
    except MemoryError:
        raise
    except Exception:  # this is no array; whether it is a number is checked later
        return False


def _from_numbers(logits: list[Any] | tuple[Any, ...]) -> Array:
    try:
        with contextlib.suppress(TypeError, ValueError):
            array = np.asarray(logits)
            if np.can_cast(array.dtype, np.float64):
                return array.astype(np.float64)
        # Convert one by one, for integers too large for an array, single numbers in bfloat16 tensors, and wrong types.
        return np.array([_float(item) for item in logits], np.float64)
    except MemoryError:
        raise
    except Exception as error:
        kind = type(logits).__name__
        raise TypeError(f"logits must be an array, got a {kind} not made of numbers: {_text(error)}") from error


def _float(item: Any) -> float:
    if isinstance(item, np.ndarray):
        item = item[()]
    is_number = isinstance(item, numbers.Number) or getattr(item, "ndim", None) == 0
    if not is_number or isinstance(item, _NOT_REAL):
        raise TypeError(f"it holds a {type(item).__name__}")
    try:
        number = float(item)
    except OverflowError:
        number = math.inf if item > 0 else -math.inf
    # A number too large for float64 becomes inf, which is an error. One too small must not become -inf, which is a ban.
    return -sys.float_info.max if number == -math.inf and item != number else number


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
