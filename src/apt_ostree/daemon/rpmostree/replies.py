"""Replies to rpm-ostree's clients: errors by the names that they know, and dictionaries with types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dasbus.typing import get_variant

from apt_ostree.daemon import replies, variants
from apt_ostree.errors import AptOstreeError, Cancelled, NotAuthorized, from_os_error
from apt_ostree.model.rpmostree.deployments import Typed

_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
#: How GDBus names an error of Gio on the bus; the number is the error's.
_GIO = "org.gtk.GDBus.UnmappedGError.Quark._g_2dio_2derror_2dquark.Code{}"
_FAILED, _NOT_FOUND, _CANCELLED, _BUSY = 0, 1, 19, 26


class Busy(Exception):
    """Another transaction is at work: clients wait for it to end, and call again."""


class NotFound(Exception):
    """What was named is not there."""


class Handler(replies.Handler):
    """The handler of an object for rpm-ostree's clients."""

    def _handle_method_error(self, invocation: Any, interface: str, method: str, error: Exception) -> None:
        if isinstance(error, OSError):
            error = from_os_error(error)
        if isinstance(error, AptOstreeError):
            self._server.set_call_error(invocation, _name_of(error), error.to_text())
        elif isinstance(error, Busy | NotFound):
            code = _BUSY if isinstance(error, Busy) else _NOT_FOUND
            self._server.set_call_error(invocation, _GIO.format(code), str(error))
        else:
            super()._handle_method_error(invocation, interface, method, error)


def structure(typed: Typed) -> dict[str, Any]:
    """Return values with their types as a{sv}."""
    return {key: _variant(kind, value) for key, (kind, value) in typed.items()}


def _variant(kind: str, value: Any) -> Any:
    if kind == "a{sv}" and isinstance(value, Mapping):
        return get_variant(kind, variants.dictionary(value))
    if kind == "av":
        return get_variant(kind, [get_variant(*item) for item in value])
    if kind == "a(vv)":
        return get_variant(kind, [(get_variant(*one), get_variant(*two)) for one, two in value])
    return get_variant(kind, value)


def _name_of(error: AptOstreeError) -> str:
    if isinstance(error, NotAuthorized):
        return _DENIED
    return _GIO.format(_CANCELLED if isinstance(error, Cancelled) else _FAILED)
