"""The compiled functions. They take any logits that `as_native` takes. Results of dtype uint16 are the bits of bfloat16."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "Counter",
    "Params",
    "after_fork",
    "argmax",
    "available_isas",
    "before_fork",
    "bfloat16_as_bits",
    "candidates",
    "draw",
    "draw_by_race",
    "draw_several",
    "draw_with_logprobs",
    "draw_with_odds",
    "draw_with_receipt",
    "get_num_threads",
    "isa",
    "log_softmax",
    "look_up_once",
    "mask_logits",
    "replay",
    "sample",
    "sample_several",
    "sample_with_logprobs",
    "sample_with_receipt",
    "score",
    "set_num_threads",
    "softmax",
    "top_k",
    "verify",
]

@final
class Params:
    def __new__(cls, parameters: dict[str, Any]) -> Params: ...

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
def before_fork() -> None: ...
def after_fork(is_child: bool) -> None: ...
def get_num_threads() -> int | None: ...
def set_num_threads(num_threads: object) -> None: ...
def bfloat16_as_bits(capsule: object) -> bool: ...
def argmax(logits: object, num_threads: object) -> Any: ...
def sample(logits: object, parameters: Mapping[str, object]) -> Any: ...
def draw(
    logits: object, params: Params, seed: int, position: int, inputs: dict[str, Any] | None, num_threads: object
) -> Any: ...
def draw_with_odds(
    logits: object,
    params: Params,
    mu: object,
    average: object,
    seed: int,
    position: int,
    inputs: dict[str, Any] | None,
    num_threads: object,
) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
def sample_several(logits: object, parameters: Mapping[str, object], n: int, replacement: bool) -> Any: ...
def sample_with_logprobs(
    logits: object, parameters: Mapping[str, object], logprobs: object, mode: object, token_ids: object
) -> tuple[Any, ...]: ...
def sample_with_receipt(logits: object, parameters: Mapping[str, object]) -> Any: ...
def draw_several(
    logits: object,
    params: Params,
    seed: int,
    position: int,
    inputs: dict[str, Any] | None,
    num_threads: object,
    n: int,
    replacement: bool,
) -> Any: ...
def draw_with_receipt(
    logits: object,
    params: Params,
    seed: int,
    position: int,
    inputs: dict[str, Any] | None,
    num_threads: object,
) -> Any: ...
def draw_with_logprobs(
    logits: object,
    params: Params,
    seed: int,
    position: int,
    inputs: dict[str, Any] | None,
    num_threads: object,
    logprobs: object,
    mode: object,
    token_ids: object,
) -> tuple[Any, ...]: ...
def score(logits: object, ids: object, temperature: object, num_threads: object) -> tuple[Any, Any]: ...
def candidates(
    logits: object, parameters: Mapping[str, object], num_threads: object
) -> tuple[npt.NDArray[Any], ...]: ...
def replay(
    logits: object,
    ids: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.int64],
    temperature: object,
    num_threads: object,
) -> npt.NDArray[np.float64]: ...
def mask_logits(logits: object, parameters: Mapping[str, object], num_threads: object) -> npt.NDArray[Any]: ...
def softmax(logits: object, temperature: object, out: object, num_threads: object) -> npt.NDArray[np.float32]: ...
def log_softmax(logits: object, temperature: object, out: object, num_threads: object) -> npt.NDArray[np.float32]: ...
def top_k(logits: object, k: object, num_threads: object) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]: ...
def draw_by_race(logits: object, parameters: Mapping[str, object], num_threads: object) -> npt.NDArray[np.int64]: ...
def verify(
    target_logits: object,
    target_parameters: Mapping[str, object],
    draft_tokens: npt.NDArray[np.int64],
    draft_logits: object,
    draft_parameters: Mapping[str, object],
    num_threads: object,
) -> npt.NDArray[np.int64]: ...
