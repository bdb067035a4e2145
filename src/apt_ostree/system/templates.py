"""Owns Jinja2: renders the templates of overlays and evaluates their conditions, in its sandbox."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from functools import cache
from typing import Any

from apt_ostree.errors import UsageError


@cache
def facts() -> Mapping[str, Any]:
    """Return the variables about this machine for templates and conditions."""
    return {
        "os": platform.freedesktop_os_release(),
        "machine": {
            "hostname": socket.gethostname(),
            "architecture": platform.machine(),
            "kernel": platform.release(),
            "cpus": os.cpu_count() or 1,
        },
    }


def render(text: str, values: Mapping[str, str], what: str) -> str:
    """Return a rendered template; UsageError names the mistake and its line. what: for messages."""
    from jinja2 import TemplateError

    try:
        template = _environment().from_string(text)
        return str(template.render(**facts(), values=values))
    except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        raise UsageError(f"the template of {what} cannot be rendered{where}: {error}") from error


def holds(condition: str, values: Mapping[str, str], what: str) -> bool:
    """Return whether a condition is true, such as `os.VERSION_ID == "13"`; UsageError for an invalid one."""
    if not condition:
        return True
    from jinja2 import TemplateError

    try:
        return bool(
            _environment().compile_expression(condition, undefined_to_none=False)(**facts(), values=values)
        )
    except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
        raise UsageError(f"the condition of {what} cannot be evaluated: {condition}: {error}") from error


@cache
def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
