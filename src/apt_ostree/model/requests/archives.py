"""The requests on archives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from apt_ostree.model.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshMd(Request):
    """Download the package lists. force: also if they are current."""

    verb: ClassVar[str] = "refresh-md"
    force: bool = False
