"""refresh-md and search: what the configured archives offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from apt_ostree.core import host
from apt_ostree.errors import UsageError
from apt_ostree.model.events import Message, Report, task
from apt_ostree.model.search import find


def refresh_md(report: Report, *, force: bool = False) -> Mapping[str, Any]:
    """Download and verify the package lists of the configured archives, unless they are current."""
    host.require_root("refresh the package lists")
    from apt_ostree.system.apt import acquire, catalogue, config

    config.use_host()
    if not force and acquire.lists_are_current():
        report(Message("The package lists are current; --force downloads them again."))
        return {"changed": False}
    with task(report, "Refreshing package lists"):
        acquire.refresh_lists(report)
    sources = catalogue.sources()
    for source in sources:
        report(Message(f"{source.uri} {source.suite}{'' if source.signed else ' (not signed)'}"))
    return {"changed": True, "sources": [asdict(source) for source in sources]}


def search(report: Report, *, terms: Sequence[str]) -> Mapping[str, Any]:
    """Find packages whose name or summary holds all terms, in groups, the best first."""
    wanted = [term for term in terms if term.strip()]
    if not wanted:
        raise UsageError("nothing to search for", hint="name a word of the package's name or summary")
    from apt_ostree.system.apt import catalogue, config

    config.use_host()
    matches = find(catalogue.offered(), wanted)
    if not any(source.downloaded for source in catalogue.sources()):
        report(Message("there are no package lists; run 'apt-ostree refresh-md'", "warning"))
    return {"matches": [asdict(match) for match in matches]}
