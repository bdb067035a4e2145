"""Modules that are loaded at their first use: the service starts for a query, and most need little of it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType


def module(name: str) -> ModuleType:
    """Return a module, which is loaded when something of it is used; see importlib.util.LazyLoader."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"there is no module {name}", name=name)
    loader = spec.loader = importlib.util.LazyLoader(spec.loader)
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(made)
    package, _, own = name.rpartition(".")
    setattr(importlib.import_module(package), own, made)
    return made
