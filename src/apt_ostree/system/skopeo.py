"""skopeo(1): looks at images, and fetches them. Nothing else speaks with registries.

Credentials, mirrors and certificates are as for all programs of containers (containers-auth.json(5),
containers-registries.conf(5)). skopeo's image proxy is not used: that of Debian 12 enforces no policy.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model import image_policy
from apt_ostree.model.image_reference import ImageReference, Transport
from apt_ostree.system import process
from apt_ostree.system.ocilayout import KeptLayout

#: Program -> its Debian package.
PROGRAMS: Mapping[str, str] = {"skopeo": "skopeo"}
#: The policy in force. A user's own is not, even root's: skopeo is told which one it is.
POLICY = Path("/etc/containers/policy.json")
#: Credentials for images of machines, as for bootc and rpm-ostree; without them, skopeo looks for its own.
_CREDENTIALS = tuple(Path(place, "ostree/auth.json") for place in ("/etc", "/run", "/usr/lib"))
#: The name of the image in the layout to which it is fetched; the one before has it no more.
NAME = "fetched"
_HINT = "'skopeo inspect {}' tries it by itself; 'man containers-auth.json' has the credentials"
#: What skopeo prints when it begins to fetch a blob.
_BEGUN = re.compile(r"^Copying (?:blob|config) (sha256:[0-9a-f]{64})$", re.MULTILINE)
#: How skopeo says that the policy does not accept an image.
_REJECTED = ("Source image rejected", "rejected by policy")


def policy_digest() -> str:
    """Return a digest of the policy in force; "" without one."""
    try:
        return hashlib.sha256(POLICY.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def policy_accepts_anything(reference: ImageReference) -> bool:
    """Return whether the policy in force verifies nothing of an image; Refused if it cannot be read."""
    try:
        text = POLICY.read_text()
        return image_policy.accepts_anything(text, reference.transport, _resolved(reference))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Refused(
            f"the policy of containers in {POLICY} cannot be read: {reason}",
            hint="it says what images are accepted, see containers-policy.json(5); nothing was changed",
            concerns_trust=True,
        ) from error


def manifest(reference: ImageReference, *, patience: float) -> bytes:
    """Return what an image's name stands for now: a manifest, or an index of several.

    patience: seconds in which it has to be there; skopeo itself would wait for ever.

    Raises ExternalFailure if it cannot be had.
    """
    command = ["skopeo", "inspect", "--raw", *_credentials("--authfile"), reference.image]
    text = _run(command, reference, f"look at {reference.image}", timeout=patience)
    if "\ufffd" in text:  # else the digest would be that of another text
        raise ExternalFailure(f"the manifest of {reference.image} is not UTF-8")
    return text.encode()


def fetch(reference: ImageReference, layout: KeptLayout, *, patience: float) -> None:
    """Copy an image to a layout, if the policy in force accepts it; blobs that are there are not fetched.

    patience: seconds for which a registry may send nothing; how long all of it takes has no limit.

    Raises Refused for one that the policy does not accept, and ExternalFailure if it cannot be had.
    """
    # The signatures are checked, and not copied: a layout has no place for them, and skopeo would fail.
    # It would compress layers that are not, too, which makes another image of it.
    options = ("--remove-signatures", "--preserve-digests", *_credentials("--src-authfile"))
    command = ["skopeo", f"--policy={POLICY}", "copy", *options, reference.image, f"oci:{layout.path}:{NAME}"]
    watch = _Watch(reference, layout, patience) if reference.transport is Transport.REGISTRY else None
    _run(command, reference, f"fetch {reference.image}", watch=watch)


class _Watch:
    """Ends a fetch for which a registry sends nothing any more. patience: in seconds."""

    def __init__(self, reference: ImageReference, layout: KeptLayout, patience: float) -> None:
        self._reference, self._layout, self._patience = reference, layout, patience
        self._size, self._since = layout.size, time.monotonic()

    def __call__(self, printed: str) -> None:
        """Look at what has come since the last time. printed: by skopeo."""
        size, now = self._layout.size, time.monotonic()
        if size != self._size:
            self._size, self._since = size, now
        elif now - self._since > self._patience:
            begun = dict.fromkeys(_BEGUN.findall(printed))
            blobs = [digest for digest in begun if not self._layout.has(digest)]
            image, host = self._reference.image, self._reference.name.partition("/")[0]
            raise ExternalFailure(
                f"cannot fetch {image}: {host} has sent nothing for {self._patience:g} seconds",
                details=[f"the blob {digest} is not whole" for digest in blobs],
                hint="try again: what is whole is kept; StallTimeout in apt-ostree.conf(5) is the limit",
            )


def _run(
    command: list[str],
    reference: ImageReference,
    what: str,
    timeout: float | None = None,
    watch: Callable[[str], None] | None = None,
) -> str:
    """Run skopeo; return what it prints. timeout: in seconds."""
    done = process.run(command, what=what, check=False, timeout=timeout, watch=watch)
    if not done.returncode:
        return done.stdout
    output = done.stderr or done.stdout
    failure = process.failure(what, done, output)
    if any(word in output for word in _REJECTED):
        raise Refused(
            f"the policy of containers does not accept {reference.image}",
            details=failure.details,
            hint=f"{POLICY} says which signatures it has to have, see containers-policy.json(5)",
            internals=failure.internals,
            concerns_trust=True,
        )
    failure.hint = _HINT.format(reference.image)
    raise failure


def _credentials(option: str) -> list[str]:
    found = next((path for path in _CREDENTIALS if path.is_file()), None)
    return [f"{option}={found}"] if found else []


def _resolved(reference: ImageReference) -> str:
    """Return the name of an image with the path that its policy is about."""
    if reference.transport is Transport.REGISTRY:
        return reference.name
    path, colon, name = reference.name.partition(":")
    return f"{os.path.realpath(path)}{colon}{name}"
