"""Deployments and updates as rpm-ostree's dictionaries: the keys, and the D-Bus type of each value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apt_ostree.model.versions import epoch_of

#: Key of a deployment -> its type. Keys of `status` that are not here are our own.
DEPLOYMENT: Mapping[str, str] = {
    "id": "s",
    "osname": "s",
    "checksum": "s",
    "serial": "i",
    "booted": "b",
    "staged": "b",
    "pinned": "b",
    "finalization-locked": "b",
    "unlocked": "s",
    "origin": "s",
    "container-image-reference": "s",
    "container-image-reference-digest": "s",
    "version": "s",
    "timestamp": "t",
    "gpg-enabled": "b",
    "signatures": "av",
    "remote-error": "s",
    "base-checksum": "s",
    "base-version": "s",
    "base-timestamp": "t",
    "base-commit-meta": "a{sv}",
    "layered-commit-meta": "a{sv}",
    "packages": "as",
    "requested-packages": "as",
    "requested-local-packages": "as",
    "requested-local-fileoverride-packages": "as",
    "requested-base-removals": "as",
    "requested-base-local-replacements": "as",
    "base-removals": "av",
    "base-local-replacements": "a(vv)",
    "base-remote-replacements": "a{sv}",
    "regenerate-initramfs": "b",
    "initramfs-args": "as",
    "initramfs-etc": "as",
    "endoflife": "s",
    "live-inprogress": "s",
    "live-replaced": "s",
}
#: Key of an update -> its type, and the field of model.update.Update.
_UPDATE: Mapping[str, tuple[str, str]] = {
    "osname": ("s", "osname"),
    "checksum": ("s", "commit"),
    "version": ("s", "version"),
    "timestamp": ("t", "timestamp"),
    "origin": ("s", "origin"),
    "container-image-reference-digest": ("s", "digest"),
    "gpg-enabled": ("b", "gpg_enabled"),
    "ref-has-new-commit": ("b", "new_base"),
    "update-sha256": ("s", "against"),
    "deployment": ("s", "deployment"),
}

#: The type of a package in a list, and its value there.
NEVRA = "(sstsss)"
#: The type of a signature: the values of OSTree.GpgSignatureAttr.
SIGNATURE = "(bbbbbsxxsssssxx)"
Nested = tuple[str, Any]
#: Key -> (type, value), Nested where the type has v; D-Bus has no null, so that what is not known has no key.
Typed = dict[str, tuple[str, Any]]


def deployment(row: Mapping[str, Any]) -> Typed:
    """Return a deployment of `status`."""
    removed, changes = row.get("base-removals", ()), row.get("base-local-replacements", ())
    shaped = {
        **row,
        "signatures": [(SIGNATURE, tuple(one.values())) for one in row.get("signatures", ())],
        "base-removals": [_nevra(package, package["version"]) for package in removed],
        "base-local-replacements": [(_nevra(one, one["new"]), _nevra(one, one["old"])) for one in changes],
    }
    return {key: (kind, shaped[key]) for key, kind in DEPLOYMENT.items() if shaped.get(key) is not None}


def boot_config(row: Mapping[str, Any], arguments: Sequence[str]) -> Typed:
    """Return how a deployment of `status` is booted. arguments: of its kernel."""
    result: Typed = {"options": ("s", " ".join(arguments)), "staged": ("b", row["staged"])}
    if row.get("version") is not None:
        result["version"] = ("s", row["version"])
    return result


def _nevra(package: Mapping[str, Any], version: str) -> Nested:
    """Return a package as rpm-ostree has it: NAME-EVR.ARCH, name, epoch, version, release, architecture."""
    name, architecture = package["name"], package["architecture"]
    upstream, dash, revision = (version.partition(":")[2] or version).rpartition("-")
    parts = (upstream, revision) if dash else (revision, "")
    return NEVRA, (f"{name}-{version}.{architecture}", name, epoch_of(version), *parts, architecture)


def update(found: Mapping[str, Any]) -> Typed:
    """Return an update, without the packages. found: the JSON object of an Update."""
    rows = {key: (kind, found[field]) for key, (kind, field) in _UPDATE.items()}
    return {key: (kind, value) for key, (kind, value) in rows.items() if value not in (None, "")}
