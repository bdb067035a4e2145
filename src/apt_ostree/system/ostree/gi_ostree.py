"""Loads the binding once and turns its errors into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gi

gi.require_version("OSTree", "1.0")
from gi.repository import Gio, GLib, OSTree  # noqa: E402

from apt_ostree.errors import ExternalFailure  # noqa: E402

__all__ = ["DAMAGE", "Gio", "GLib", "OSTree", "explained"]

#: The hint where an object of the repository cannot be read.
DAMAGE = "'ostree fsck' finds damage; 'apt-ostree usroverlay --check' mends that of overlays"


@contextmanager
def explained(what: str, *, hint: str | None = None) -> Iterator[None]:
    """Turn a GLib error inside into ExternalFailure: "cannot {what}: reason"."""
    try:
        yield
    except GLib.Error as error:
        raise ExternalFailure(f"cannot {what}: {error.message}", hint=hint) from error
