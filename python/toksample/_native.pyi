"""The compiled kernels. Logits are of any kind that `as_native` takes; results in uint16 are the bits of bfloat16."""

from typing import Any, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "Counter",
    "argmax",
    "available_isas",
    "bfloat16_as_bits",
    "candidates",
    "get_num_threads",
    "isa",
    "log_softmax",
    "look_up_once",
    "mask_logits",
    "sample",
    "set_num_threads",
    "softmax",
    "top_k",
]

@final
class Counter:
    def __new__(cls, value: int) -> Counter: ...
    @property
    def value(self) -> int: ...
    def take(self) -> int: ...
    def give_back(self, position: int) -> None: ...

def isa() -> str: ...
def available_isas() -> list[str]: ...
def look_up_once() -> None: ...
def get_num_threads() -> int | None: ...
def set_num_threads(num_threads: object) -> None: ...
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
