"""Imports modules that only an optional extra installs."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module that an extra installs. If it is missing, the error says what needs it and how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        message = f"{purpose} needs {error.name}: pip install 'toksample[{extra}]'"
        raise ModuleNotFoundError(message, name=error.name) from error
