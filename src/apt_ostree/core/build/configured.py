"""Which versions of packages the machine configured last, so that dpkg goes on from there.

The functions run inside the build root (core.build.inside).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from apt_ostree.model import identities, layout
from apt_ostree.system import files

#: Packages that were removed and not purged, as in dpkg's status file. The tree's dpkg forgets them.
_REMOVED = Path("/etc/apt-ostree/removed-packages")
_STATUS = Path("/", layout.DPKG_ADMINDIR, "status")


def remember(configured: Mapping[str, str], installed: Sequence[str]) -> None:
    """Have dpkg install packages as after a removal, so that their scripts know the version of before.

    Without it they would do what belongs to a first installation: slapd makes another directory.

    configured: name -> paragraphs, as dpkg has them after a removal.
    """
    text = files.text_of(_STATUS)
    described = {line.removeprefix("Package: ") for line in text.splitlines() if line.startswith("Package: ")}
    names = [name for name in installed if name in configured and name not in described]
    if names:
        files.write_text(_STATUS, "\n".join([text, *(configured[name] for name in names)]))


def removed() -> dict[str, str]:
    """Return name -> paragraphs of packages that were removed and of which the machine has a state."""
    found: dict[str, str] = {}
    for text in files.text_of(_REMOVED).split("\n\n"):
        name = text.partition("\n")[0].removeprefix("Package: ")
        found[name] = "\n".join(filter(None, (found.get(name), f"{text.strip()}\n")))
    found.pop("", None)
    return found


def record(gone: Mapping[str, str], installed: Sequence[str]) -> None:
    """Record packages that were removed, by name, and forget those that were installed."""
    before = removed()
    after = {name: text for name, text in {**before, **gone}.items() if name not in installed}
    if after:
        files.write_text(_REMOVED, "\n".join(after[name] for name in sorted(after)))
    else:
        _REMOVED.unlink(missing_ok=True)


def unconfigure(names: Sequence[str]) -> None:
    """Have dpkg configure packages of the tree again, as after their removal if the machine removed them."""
    before = removed()
    versions = {name: _configured_version(before.get(name, "")) for name in names}
    files.write_text(_STATUS, identities.half_configured(files.text_of(_STATUS), versions))


def _configured_version(paragraphs: str) -> str:
    key = "Config-Version: "
    return next((line.removeprefix(key) for line in paragraphs.splitlines() if line.startswith(key)), "")
