"""Names of images that machines follow, as rpm-ostree writes them: what is verified, and where it is.

The text is KIND:IMAGE, such as ostree-image-signed:docker://registry.example.org/server:13.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePosixPath

from apt_ostree.errors import UsageError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::\d{1,5})?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_TAG = r"\w[\w.-]{0,127}"
#: HOST[:PORT]/REPOSITORY[:TAG] or HOST[:PORT]/REPOSITORY@DIGEST; skopeo takes no tag together with a digest.
_IN_REGISTRY = re.compile(
    rf"(?P<repository>(?P<host>{_HOST})(?:/{_COMPONENT})+)(?::{_TAG}|@sha256:[0-9a-f]{{64}})?", re.ASCII
)
#: PATH[:NAME]; what a key file or the text of a reference would have to escape is not accepted.
_ON_DISK = re.compile(rf"(?P<path>(?:/[\w.+@%=~-]+)+)(?::{_TAG})?", re.ASCII)
_REMOTE = re.compile(r"\w[\w.-]*", re.ASCII)
_LONGEST = 2048
_HINT = "such as ostree-image-signed:docker://HOST/REPOSITORY:TAG or ostree-unverified-image:oci:/DIRECTORY"


class Check(StrEnum):
    """What has to be verified of an image before it is used."""

    SIGNED = "ostree-image-signed"  # as the policy of containers says, which must not accept anything
    REMOTE = "ostree-remote-image"  # as a remote says: the commit that the image has is signed
    UNVERIFIED = "ostree-unverified-image"  # what the policy of containers says, if that is nothing, too


class Transport(StrEnum):
    """Where an image is; skopeo's names."""

    REGISTRY = "docker"
    DIRECTORY = "oci"
    ARCHIVE = "oci-archive"


#: What a text begins with -> the check, and whether a registry's name follows without a transport.
_KINDS = {
    "ostree-image-signed": (Check.SIGNED, False),
    "ostree-unverified-image": (Check.UNVERIFIED, False),
    "ostree-unverified-registry": (Check.UNVERIFIED, True),
    "ostree-remote-image": (Check.REMOTE, False),
    "ostree-remote-registry": (Check.REMOTE, True),
}
_TRANSPORTS = {
    "docker://": Transport.REGISTRY,
    "registry:": Transport.REGISTRY,
    "oci:": Transport.DIRECTORY,
    "oci-archive:": Transport.ARCHIVE,
}


def is_digest(text: str) -> bool:
    """Return whether a text is the digest of a manifest."""
    return bool(_DIGEST.fullmatch(text))


def is_image(text: str) -> bool:
    """Return whether a text is meant as the name of an image, and not of a branch."""
    return text.partition(":")[0] in _KINDS or text.startswith(("docker://", "oci:", "oci-archive:"))


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image that is followed.

    check: what is verified.
    transport, name: where it is: HOST[:PORT]/REPOSITORY[:TAG | @DIGEST], or PATH[:NAME], which is absolute.
    remote: whose keys have to have signed the commit; empty for the other checks.
    """

    check: Check
    transport: Transport
    name: str
    remote: str = ""

    def __str__(self) -> str:
        """Return the text, as the origin has it."""
        if self.check is Check.UNVERIFIED and self.transport is Transport.REGISTRY:
            return f"ostree-unverified-registry:{self.name}"
        words = (self.check, self.remote, self.image) if self.remote else (self.check, self.image)
        return ":".join(words)

    @property
    def image(self) -> str:
        """The image alone, as skopeo names it."""
        return f"{self.transport}{'://' if self.transport is Transport.REGISTRY else ':'}{self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether it names one image for ever."""
        return "@sha256:" in self.name

    def at(self, digest: str) -> ImageReference:
        """Return the image of a repository with this digest; UsageError for what is not in a registry."""
        if self.transport is not Transport.REGISTRY:
            raise UsageError(
                f"{self.image} is not in a registry, which is where an image is found by its digest",
                hint="'apt-ostree rebase' takes another image",
            )
        found = _IN_REGISTRY.fullmatch(self.name)
        assert found, "it was parsed"
        return replace(self, name=f"{found['repository']}@{digest}")

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Read a text; UsageError for one that names no image."""
        kind, _, rest = text.partition(":")
        if kind not in _KINDS:
            if is_image(text):
                raise UsageError(
                    f"{text!r} does not say whether the image is to be verified",
                    hint=f"ostree-image-signed:{text} is as the policy of containers says, "
                    f"ostree-unverified-image:{text} need not be",
                )
            raise UsageError(f"{text!r} is no name of an image", hint=_HINT)
        check, in_registry = _KINDS[kind]
        remote = ""
        if check is Check.REMOTE:
            remote, _, rest = rest.partition(":")
            if not _REMOTE.fullmatch(remote):
                raise UsageError(f"{text!r} names no remote", hint=f"{kind}:REMOTE:IMAGE has one")
        transport, name = (Transport.REGISTRY, rest) if in_registry else _split(text, rest)
        _require_name(text, transport, name)
        return cls(check, transport, name, remote)


def _split(text: str, image: str) -> tuple[Transport, str]:
    for prefix, transport in _TRANSPORTS.items():
        if image.startswith(prefix):
            return transport, image.removeprefix(prefix)
    raise UsageError(f"{text!r} does not say where the image is", hint=_HINT)


def _require_name(text: str, transport: Transport, name: str) -> None:
    if len(text) > _LONGEST:
        raise UsageError(f"{text[:40]}... is too long for the name of an image")
    if transport is Transport.REGISTRY:
        found = _IN_REGISTRY.fullmatch(name)
        if not found:
            raise UsageError(
                f"{name!r} is no image of a registry",
                hint="it is HOST[:PORT]/REPOSITORY[:TAG | @sha256:DIGEST]",
            )
        if not re.search(r"[.:]|^localhost$", found["host"]):
            raise UsageError(
                f"{name!r} does not name its registry",
                hint="begin with a host, such as registry.example.org; a short name may be anybody's",
            )
        if found["host"] == "index.docker.io" or re.fullmatch(r"docker\.io/[^/]*", name):
            raise UsageError(  # skopeo and its policy know it by another name
                f"{name!r} is not the whole name of an image", hint="it is docker.io/library/REPOSITORY"
            )
        return
    found = _ON_DISK.fullmatch(name)
    if not found:
        raise UsageError(
            f"{name!r} is no image on a disk",
            hint="it is PATH[:NAME], with an absolute path of letters, digits and '.+@%=~_-'",
        )
    path = PurePosixPath(found["path"])
    if ".." in path.parts or str(path) != found["path"]:
        raise UsageError(f"the path {path} is not in its shortest form", hint="leave '.' and '..' out")
