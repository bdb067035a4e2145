"""The read-only queries. They take no lock, so they can run at any time.

The command line runs a query in its own process. A service can answer from the same registry.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model.queries import read_query
from apt_ostree.model.request import Request

#: Query -> "module:function" in core; the function takes the query and returns a value.
QUERIES: Mapping[str, str] = {
    "archives": "archives:archives",
    "available-update": "updates:available_update",
    "bootloader-status": "bootloader:status",
    "container-lint": "container.lint:lint",
    "container-rules": "container.lint:rules",
    "db-diff": "db:commit_diff",
    "db-list": "db:commit_packages",
    "deployment-diff": "updates:deployment_diff",
    "history": "history:history",
    "history-diff": "history:compare_operations",
    "history-show": "history:show_operation",
    "history-verify": "history:verify",
    "kernel-arguments": "kargs:kernel_arguments",
    "metrics": "metrics:metrics",
    "offered-packages": "archives:offered_packages",
    "overlay-contents": "overlays.listing:overlay_contents",
    "overlay-history": "overlays.listing:overlay_history",
    "overlay-names": "overlays.listing:overlay_names",
    "overlay-paths": "overlays.listing:overlay_paths",
    "overlays": "overlays.listing:overlays",
    "packages": "archives:packages",
    "policy-settings": "policy:policy_settings",
    "requested-packages": "status:requested_packages",
    "search": "archives:search",
    "status": "status:status",
}


def answer(query: Request) -> Any:
    """Return the answer to a query: a JSON value, or values with `to_json`; raise what the query raises."""
    return function_of(query.verb)(query)


def answer_json(name: Any, value: Any) -> Any:
    """Return the answer to a query, both as JSON.

    Raises UsageError for a malformed query, and for one about files that the caller may not be able to read.
    """
    query = read_query(name, value)
    if not query.is_for_users:
        raise UsageError(f"{name}: only the command line can name another system or a directory")
    return _to_json(answer(query))


def function_of(name: str) -> Callable[[Request], Any]:
    """Import and return the function of a query."""
    module, _, attribute = QUERIES[name].partition(":")
    function: Callable[[Request], Any] = getattr(
        importlib.import_module(f"apt_ostree.core.{module}"), attribute
    )
    return function


def _to_json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value.to_json() if hasattr(value, "to_json") else value
