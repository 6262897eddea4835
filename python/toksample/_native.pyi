"""The compiled kernels. Logits are of any kind that `as_native` takes; results in uint16 are the bits of bfloat16."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "argmax",
    "available_isas",
    "bfloat16_as_bits",
    "candidates",
    "isa",
    "log_softmax",
    "mask_logits",
    "sample",
    "softmax",
    "top_k",
]

def isa() -> str: ...
def available_isas() -> list[str]: ...
def bfloat16_as_bits(capsule: object) -> bool: ...
def argmax(logits: object, num_threads: object) -> Any: ...
def sample(
    logits: object,
    temperature: object,
    top_k: object,
    top_p: object,
    min_p: object,
    seed: object,
    position: object,
    stream: object,
    errors: str,
    num_threads: object,
    out: object,
) -> Any: ...
def candidates(
    logits: object, temperature: object, top_k: object, top_p: object, min_p: object
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]: ...
def mask_logits(
    logits: object, temperature: object, top_k: object, top_p: object, min_p: object, num_threads: object
) -> npt.NDArray[Any]: ...
def softmax(logits: object, temperature: object, out: object, num_threads: object) -> npt.NDArray[np.float32]: ...
def log_softmax(logits: object, temperature: object, out: object, num_threads: object) -> npt.NDArray[np.float32]: ...
def top_k(logits: object, k: object, num_threads: object) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]: ...
