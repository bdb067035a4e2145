"""The update that is known: what the next upgrade changes, or what the pending deployment does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model import jsonvalue
from apt_ostree.model.package import Package, PackageDiff


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """An update.

    against: the commit of the deployment that it changes.
    osname, origin: of that deployment; `origin` is empty for a base without a ref or an image.
    commit: of the base after the update; of a deployment that waits, its own; empty if there is a `digest`.
    version, timestamp: of that commit.
    new_base: the base differs.
    gpg_enabled: commits of the base's remote must be signed.
    deployment: the id of the deployment that waits for the next boot, or empty.
    layered: the names of the packages of `diff` that are not the base's.
    digest: of an image that was not fetched, so that nothing else is known of it.
    """

    against: str
    osname: str
    origin: str
    commit: str
    version: str | None
    timestamp: int
    new_base: bool
    gpg_enabled: bool
    diff: PackageDiff
    deployment: str = ""
    layered: tuple[str, ...] = ()
    digest: str = ""

    def __bool__(self) -> bool:
        return bool(self.new_base or self.diff or self.deployment)

    def to_json(self) -> dict[str, Any]:
        """Return the update as a JSON object."""
        return asdict(self)


def packages_after(packages: Iterable[Package], plan: Mapping[str, Any]) -> frozenset[Package]:
    """Return the packages after a plan was carried out. plan: the JSON object of a PackagePlan."""
    now = {(package.name, package.architecture): package.version for package in packages}
    for step in (*plan["install"], *plan["upgrade"], *plan["downgrade"]):
        key = step["name"], step["architecture"]
        if step["old"] and key not in now:  # of another architecture before: one of them is "all"
            now = {k: old for k, old in now.items() if (k[0], old) != (step["name"], step["old"])}
        now[key] = step["new"]
    for step in plan["remove"]:
        now.pop((step["name"], step["architecture"]), None)
    return frozenset(Package(name, version, architecture) for (name, architecture), version in now.items())


def format_record(update: Update) -> str:
    """Return the text of a record."""
    return json.dumps(update.to_json())


def parse_record(text: str) -> Update | None:
    """Return the update of a record; None for one that cannot be read, as it is a cache."""
    try:
        return jsonvalue.read(Update, json.loads(text), name="update")
    except (ValueError, UsageError):
        return None
