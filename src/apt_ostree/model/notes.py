"""The notes in the state database: single values that have to last until a later call or boot."""

from __future__ import annotations

from enum import StrEnum


class Note(StrEnum):
    """The key of a note."""

    #: The number of the generation that was made during boot, and the boot's id.
    BOOT = "boot-generation"
    #: Exists until a boot has succeeded: the boot's id, and how many failed before it.
    TRYING = "boot-trying"
    #: The overlays with which the last successful boot was made.
    PROVEN = "boot-proven"
    #: How the next boot can show what this one does (model.boot.Prepared), until anything is changed.
    PREPARED = "boot-prepared"
    #: The id of the boot that restored /etc at its shutdown.
    ETC_RESTORED = "etc-given-back"
    #: The generations whose edited files of /etc were left to the administrator.
    ETC_LEFT = "etc-left"
    #: The live changes that are watched (core.live.watching).
    WATCHED = "watched"
    #: The overlay that was edited last.
    LAST_OVERLAY = "overlay"
