"""What the archives offer: asked of a process, as libapt's lists take memory that is not given back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from apt_ostree import program
from apt_ostree.daemon.replies import Later
from apt_ostree.daemon.rpmostree.replies import structure
from apt_ostree.errors import AptOstreeError
from apt_ostree.model.rpmostree.deployments import Typed
from apt_ostree.system.background import Background

_PROCESS = Background(program.command("query"), patience=60.0, most=16)


def is_busy() -> bool:
    """Return whether something is asked."""
    return _PROCESS.is_busy


def ask(query: str, arguments: Mapping[str, Any], shape: Callable[[Mapping[str, Any]], Typed]) -> Any:
    """Return a Later that has the rows of a query's answer, each as a{sv}; raise Refused if many wait.

    shape: returns a row as rpm-ostree has it.
    """
    later = Later()

    def answered(text: str) -> None:
        try:
            said = json.loads(text)
            if "error" in said:
                raise AptOstreeError.from_json(said)
            later.give([structure(shape(row)) for row in said["answer"]])
        except ValueError:
            later.fail(AptOstreeError(f"the process that answers {query} ended without an answer"))
        except AptOstreeError as error:
            later.fail(error)

    def failed(error: Exception) -> None:
        later.fail(error)

    _PROCESS.run(json.dumps({"query": query, "arguments": arguments}), answered, failed)
    return later
