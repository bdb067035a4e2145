"""What only transactions need. It is loaded when one begins: most starts of the service are for a query."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING


def _module(name: str) -> ModuleType:
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


if TYPE_CHECKING:
    from apt_ostree.core import operation
    from apt_ostree.model import authorization, calls
else:
    operation = _module("apt_ostree.core.operation")
    authorization, calls = map(_module, ("apt_ostree.model.authorization", "apt_ostree.model.calls"))

__all__ = ["authorization", "calls", "operation"]
