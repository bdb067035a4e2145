"""Loads libostree's introspection binding and converts its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gi

gi.require_version("OSTree", "1.0")
from gi.repository import Gio, GLib, OSTree  # noqa: E402

from apt_ostree.errors import ExternalFailure  # noqa: E402

__all__ = ["DAMAGE", "Gio", "GLib", "OSTree", "explained", "is_about_signatures"]

#: The hint of errors about an object that cannot be read.
DAMAGE = "'ostree fsck' finds damage; 'apt-ostree usroverlay --check' repairs that of overlays"


@contextmanager
def explained(what: str, *, hint: str | None = None) -> Iterator[None]:
    """Raise ExternalFailure ("cannot {what}: reason") for a GLib error inside the block."""
    try:
        yield
    except GLib.Error as error:
        raise ExternalFailure(f"cannot {what}: {error.message}", hint=hint) from error


def is_about_signatures(error: BaseException | None) -> bool:
    """Return whether an error is libostree's about a commit's signatures (OSTree.GpgError)."""
    domain = GLib.quark_to_string(OSTree.gpg_error_quark())
    return isinstance(error, GLib.Error) and error.domain == domain
