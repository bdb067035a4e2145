"""refresh-md and search: what the configured archives offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from apt_ostree.core.state import reading
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import UsageError
from apt_ostree.model.origin import pinned_requests
from apt_ostree.model.queries import Archives, OfferedPackages, Packages, Search
from apt_ostree.model.requests.archives import RefreshMd
from apt_ostree.model.result import Result
from apt_ostree.model.search import find, first_of_groups
from apt_ostree.system import newer_versions
from apt_ostree.system.caller import require_root
from apt_ostree.system.ostree.sysroot import is_booted_on_ostree


def refresh_md(tx: Transaction, request: RefreshMd) -> Result:
    """Download and verify the package lists of the configured archives, unless they are current.

    Returns `sources` when lists were downloaded. Raises NotAuthorized without root's rights, and
    ExternalFailure when a download fails.
    """
    require_root("refresh the package lists")
    from apt_ostree.system.apt import acquire, catalogue, config

    config.use_host()
    if not request.force and acquire.lists_are_current() and not acquire.failed_archives():
        tx.message("The package lists are current; --force downloads them again.")
        return Result(changed=False)
    with tx.task("Refreshing package lists"):
        acquire.refresh_lists(tx.report)
    if is_booted_on_ostree():
        newer_versions.write(catalogue.newer(_pinned()))
    sources = catalogue.sources()
    for source in sources:
        tx.message(f"{source.uri} {source.suite}{'' if source.signed else ' (not signed)'}")
    return Result(changed=True, details={"sources": [asdict(source) for source in sources]})


def _pinned() -> tuple[str, ...]:
    """Return the requests with a version of all deployments, each once."""
    with reading.opened() as sysroot:
        pinned = [pinned_requests(deployment.origin) for deployment in sysroot.deployments().all]
        return tuple(dict.fromkeys(request for requests in pinned for request in requests))


def offered_packages(query: OfferedPackages) -> list[str]:
    """Return the names of packages of the archives, for shell completion."""
    from apt_ostree.system.apt import catalogue, config

    config.use_host()
    return catalogue.names(query.prefix)


def packages(query: Packages) -> list[Mapping[str, Any]]:
    """Return name, version, architecture, summary and archive of packages; with terms, also the group."""
    from apt_ostree.system.apt import catalogue, config

    config.use_host()
    if not query.terms:
        return [asdict(row) for row in catalogue.described(query.names)]
    groups = {match.name: match.group for match in first_of_groups(find(catalogue.offered(), query.terms))}
    rows = [{"group": groups[row.name], **asdict(row)} for row in catalogue.described(groups)]
    return sorted(rows, key=lambda row: [*groups].index(row["name"]))


def archives(_query: Archives) -> list[Mapping[str, Any]]:
    """Return the configured archives, in the order of the configuration."""
    from apt_ostree.system.apt import catalogue, config

    config.use_host()
    return [{"id": source.id, **asdict(source)} for source in catalogue.sources()]


def search(query: Search) -> Mapping[str, Any]:
    """Find packages whose name or summary contains all terms.

    Returns `matches`, in groups, the best group first, and `warnings`. Raises UsageError without a term.
    """
    terms = [term for term in query.terms if term.strip()]
    if not terms:
        raise UsageError("nothing to search for", hint="name a word of the package's name or summary")
    from apt_ostree.system.apt import acquire, catalogue, config

    config.use_host()
    matches = find(catalogue.offered(), terms)
    present = any(source.downloaded for source in catalogue.sources())
    warnings = [] if present else ["there are no package lists; run 'apt-ostree refresh-md'"]
    if failed := acquire.failed_archives():
        warnings.append(acquire.failed_text(failed))
    return {"matches": [asdict(match) for match in matches], "warnings": warnings}
