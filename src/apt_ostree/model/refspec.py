"""Names of branches and commits: REMOTE:REF, and the revisions of a branch."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from apt_ostree.errors import UsageError

_CHECKSUM = re.compile(r"[0-9a-f]{64}")
#: An abbreviated checksum; a shorter one may be the name of a package, such as bc.
_ABBREVIATED = re.compile(r"[0-9a-f]{7,64}")
#: What libostree accepts (ostree_parse_refspec), without names that look like options or parent directories.
_REF = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)*", re.ASCII)
_REMOTE = re.compile(r"\w[\w.-]*", re.ASCII)


def is_checksum(text: str) -> bool:
    """Return whether a text is the checksum of a commit."""
    return bool(_CHECKSUM.fullmatch(text))


def is_revision(text: str, refs: Collection[str]) -> bool:
    """Return whether a text names a commit, and not a package. refs: those that there are."""
    return text in refs or bool(_ABBREVIATED.fullmatch(text)) or "/" in text or ":" in text


@dataclass(frozen=True, slots=True)
class Refspec:
    """A branch: of a remote, or a local one. Without a ref it is no branch."""

    remote: str = ""
    ref: str = ""

    def __str__(self) -> str:
        """Return [REMOTE:]REF."""
        return f"{self.remote}:{self.ref}" if self.remote else self.ref

    def __bool__(self) -> bool:
        """Return whether it is a branch: neither nothing nor a commit."""
        return bool(self.ref) and not is_checksum(self.ref)

    @classmethod
    def parse(cls, text: str) -> Refspec:
        """Return the branch of an origin: [REMOTE:]REF, a commit, or empty."""
        remote, _colon, ref = text.rpartition(":")
        return cls(remote, ref)

    @classmethod
    def parse_partial(cls, text: str, present: Refspec) -> Refspec:
        """Return the branch that a user names, who may leave out what the present one has.

        REMOTE:REF is complete, REF is one of the present remote, REMOTE: takes the present ref, and :REF is a
        local branch. As in rpm-ostree, "ostree://" may stand before it.

        Raises UsageError for a name that libostree does not accept.
        """
        name = text.removeprefix("ostree://")
        remote, colon, ref = name.partition(":")
        if not colon:
            remote, ref = present.remote, name
        ref = ref or present.ref
        if not _REF.fullmatch(ref) or (remote and not _REMOTE.fullmatch(remote)):
            raise UsageError(f"{text!r} is no name of a branch", hint="it is [REMOTE:]REF")
        return cls(remote, ref)


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit of a branch, by its checksum or its version; one of the two is set."""

    commit: str = ""
    version: str = ""

    def __str__(self) -> str:
        """Return what it is called in messages."""
        return f"commit {self.commit[:12]}" if self.commit else f"version {self.version!r}"

    @classmethod
    def parse(cls, text: str) -> Revision:
        """Read what rpm-ostree reads: CHECKSUM, revision=CHECKSUM, VERSION or version=VERSION.

        The key may have capitals.

        Raises UsageError for a checksum that is none, and for an empty text.
        """
        key, equals, value = text.partition("=")
        key = key.lower()
        if equals and key == "revision":
            if not is_checksum(value):
                raise UsageError(f"{value!r} is not the checksum of a commit", hint="it has 64 digits")
            return cls(commit=value)
        version = value if equals and key == "version" else text
        if not version:
            raise UsageError("the revision is empty", hint="name a commit, or version=VERSION")
        return cls(commit=version) if is_checksum(version) and version is text else cls(version=version)
