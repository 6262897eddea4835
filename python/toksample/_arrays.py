"""Logits of any kind, as an array that the kernels read in place, and results in the kind of array that the logits are."""

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
_BLOCK = 1 << 18  # numbers of float64 that are worked on at once: few enough to stay in a cache
_NUMBERS = (int, float, np.generic)
_NOT_REAL = (str, bytes, complex, np.complexfloating, np.datetime64, np.timedelta64)
_DEEPEST = 3  # lists in lists: of shape (B, T, V), for which there is an error that says what to write

# The types of DLPack devices whose memory the CPU reads: its own, that of CUDA and ROCm which is pinned or managed, and
# Metal's, which is the CPU's own too. numpy has the last word: it looks at the device of the memory that it is given.
_READABLE_DEVICES = frozenset((1, 3, 8, 11, 13))


def as_native(logits: object, parameters: Mapping[str, object] | None = None) -> tuple[Array, list[Array], bool]:
    """Give logits as the kernels take them, and the memory that they came in.

    Parameters
    ----------
    logits : array_like, shape (V,) or (B, V)
        A numpy array, a torch tensor on the CPU, whatever has ``__dlpack__``, ``__array__`` or the buffer protocol, or a list
        of numbers or of rows.
    parameters : mapping, optional
        The parameters of the draw, of which those that edit the logits matter: float64 rows must be edited before they are
        rounded.

    Returns
    -------
    native : ndarray
        float32, float16, or the bits of bfloat16 as uint16; aligned, in the machine's byte order, with contiguous rows.
        float64 rows are given by their differences from their maximum: see :func:`_below_maximum`.
    sources : list of ndarray
        The caller's own memory, before any conversion: ``native`` itself where there was none. For a list, that of its rows.
    is_edited : bool
        Whether ``native`` has the edits of the parameters.
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
    """Give logits in the type that they have, with bfloat16 as its bits in uint16, and the memory that they came in."""
    array, sources = _to_numpy(logits)
    if array.ndim not in (1, 2):
        hint = ": for the last step of each row, write logits[:, -1]" if array.ndim == 3 else ""
        raise ValueError(f"logits must be of shape (V,) or (B, V), got shape {array.shape}{hint}")
    return _in_byte_order(array), sources


def as_float32(native: Array) -> npt.NDArray[np.float32]:
    """Widen an array from :func:`as_native`; every value of every type of logit is a float32."""
    if native.dtype == _UINT16:
        return (native.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return native.astype(np.float32, copy=False)


def as_float64(logits: object) -> Array | None:
    """Give logits of float64 as an array of it; None if they are not float64."""
    if type(logits) is np.ndarray and logits.dtype.type not in (np.float64, np.longdouble):
        return None
    array, _ = as_given(logits)
    return array if array.dtype == _FLOAT64 else None


def like(result: Array, logits: object) -> Any:
    """Give a result of the kernels in the kind of array that the logits are: a torch tensor, or numpy's, with its bfloat16."""
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
    # Two numbers of float64 differ by so little only if the larger one is close to 0.
    if (np.abs(maximum) < 2.0**-70).any():
        # The bits are computed, for the CPU may have been told to make such results 0.
        tiny = (below < 0) & (below > -_FLOAT32.tiny)
        steps = np.maximum(np.rint(below[tiny] * -(2.0**149)), 1)
        written.view(np.uint32)[tiny] = steps.astype(np.uint32) | np.uint32(0x80000000)


def _in_byte_order(array: Array) -> Array:
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


# ---- arrays ------------------------------------------------------------------------------------------------------------


def _to_numpy(logits: object) -> tuple[Array, list[Array]]:
    """Find the numpy array in logits, and the memory that it came in; bfloat16 comes as its bits."""
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
    """Give an array of any subclass, but for a masked one, as an array of no subclass; bfloat16 becomes its bits."""
    if isinstance(array, np.ma.MaskedArray):
        raise _masked_error()
    array = np.asarray(array)
    if array.dtype.type in (np.float32, np.float16, np.float64):
        return array
    if _is_bfloat16(array.dtype):
        return array.view(_UINT16)
    if array.dtype == _FLOAT64:  # by another name: a long double is one on some systems
        return array.view(_FLOAT64)
    raise TypeError(f"logits must be float32, float16, bfloat16 or float64, got {array.dtype}")


def _masked_error() -> TypeError:
    return TypeError(
        "logits must be an array without a mask, got a MaskedArray: write logits.filled(-np.inf) to ban the masked tokens"
    )


def _torch_of(logits: object) -> Any:
    """Give the module torch if logits are a tensor of it, else None. It may be half imported, by another thread."""
    torch = sys.modules.get("torch")
    tensor = getattr(torch, "Tensor", None)
    return torch if tensor is not None and isinstance(logits, tensor) else None


def _from_torch(tensor: Any, torch: Any) -> Array:
    try:
        problem = _torch_problem(tensor, torch)
        if problem is None:
            # numpy has no bfloat16 of its own, and gets the bits.
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
    """Say why a tensor cannot be logits, as far as it says so itself."""
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
    """Read what is not an array by the first protocol that it has and that works."""
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
    except Exception:  # it does not say; the protocol that reads it will fail if need be
        return
    if device not in _READABLE_DEVICES:
        raise ValueError(f"logits must be on the CPU, got {type(logits).__name__} on DLPack's device type {device}")


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
    except TypeError:  # it has none
        return None
    return np.asarray(buffer), False


# ---- lists -------------------------------------------------------------------------------------------------------------


def _from_list(logits: list[Any] | tuple[Any, ...], depth: int) -> tuple[Array, list[Array]]:
    """Give a list of numbers as float64, and a list of rows in the type of the rows; and the memory of the rows."""
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
    """Whether an item of a list is a row: a list, or an array that has an axis."""
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
    except Exception:  # an object that is no array; whether it is a number is still to be seen
        return False


def _from_numbers(logits: list[Any] | tuple[Any, ...]) -> Array:
    try:
        with contextlib.suppress(TypeError, ValueError):
            array = np.asarray(logits)
            if np.can_cast(array.dtype, np.float64):
                return array.astype(np.float64)
        # One by one: integers that no array holds, tensors of bfloat16 that hold one number, and what is not a number.
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
    # What is too large for a float64 is inf, which is an error; but what is too small has not been banned.
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
