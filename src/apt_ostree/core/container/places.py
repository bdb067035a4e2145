"""Where `container` verbs may change something: in a container of an image that was made of a tree."""

from __future__ import annotations

from pathlib import Path

from apt_ostree.errors import Refused
from apt_ostree.model import layout
from apt_ostree.system import running
from apt_ostree.system.caller import require_root

_MADE_BY = (
    "images are made with 'apt-ostree compose image'; 'container commit' is a RUN step of a Containerfile"
)


def require_container(root: Path, what: str) -> None:
    """Raise Refused where /usr is a machine's, or not that of an image. what: the change, for messages.

    Raises NotAuthorized without root's rights.
    """
    require_root(what)
    if running.booted_on_ostree() or running.booted_with_systemd():
        raise Refused(f"cannot {what} on a running system", hint=_MADE_BY)
    if (root / "usr/etc").exists():
        raise Refused(
            f"cannot {what} in a deployment or a tree, which has /usr/etc", hint="a container has /etc alone"
        )
    if not (root / layout.DPKG_ADMINDIR / "status").is_file():
        raise Refused(
            f"cannot {what}, as this is no image of a tree: there is no /{layout.DPKG_ADMINDIR}",
            hint=_MADE_BY,
        )
