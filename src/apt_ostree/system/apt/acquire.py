"""Downloads package lists and archives, which libapt verifies, and reports progress."""

from __future__ import annotations

import hashlib
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apt_pkg

from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model.events import Message, Progress, Report
from apt_ostree.system import files, refreshed, signals
from apt_ostree.system.apt.config import explained, no_source
from apt_ostree.system.apt.resolver import Resolver
from apt_ostree.system.failpoints import failpoint

_LOCAL = ("file:", "copy:")  # archives that are not copied to the cache
_DAY = 24 * 3600.0  # seconds; apt's own daily timer has the same pace


class _Progress:
    """The callbacks of libapt during a download (the interface of python-apt's AcquireProgress)."""

    def __init__(self, report: Report, title: str) -> None:
        self._report = report
        self._title = title
        self._last = 0.0
        self._state = (0, 0)
        self._failed: dict[str, str] = {}
        self._cancelled = False
        # Set by libapt.
        self.current_bytes = self.total_bytes = self.fetched_bytes = 0
        self.current_items = self.total_items = self.current_cps = self.elapsed_time = 0

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""

    def pulse(self, _owner: Any) -> bool:
        """Report progress a few times a second; return whether libapt is to go on."""
        if self._cancelled:
            return False
        now, state = time.monotonic(), (int(self.current_bytes), int(self.total_bytes))
        if now - self._last > 0.2 and state != self._state:
            self._last, self._state = now, state
            self._report(Progress(self._title, *state))
        return True

    def cancel(self) -> None:
        """Make libapt stop at the next pulse."""
        self._cancelled = True

    def fail(self, item: Any) -> None:
        """Record why one file could not be downloaded; an optional file is left idle or done by libapt."""
        if item.owner.status in (item.owner.STAT_DONE, item.owner.STAT_IDLE):
            self._failed.pop(item.description, None)
        else:
            self._failed[item.description] = item.owner.error_text

    def fetch(self, item: Any) -> None:
        """A file is being fetched."""

    def done(self, item: Any) -> None:
        """A file is complete, perhaps after a failed attempt (another compression or user)."""
        self._failed.pop(item.description, None)

    @property
    def failures(self) -> tuple[str, ...]:
        """Return "DESCRIPTION: REASON" for each file that could not be downloaded."""
        return tuple(f"{description}: {reason}" for description, reason in self._failed.items())

    def ims_hit(self, item: Any) -> None:
        """A file had not changed."""

    def media_change(self, media: str, drive: str) -> bool:
        """Return that no disc can be changed."""
        return False


def lists_are_current(max_age: float = _DAY) -> bool:
    """Return whether the package lists are those of the sources, and at most `max_age` seconds old."""
    when = refreshed.when()
    if when is None:
        return False
    lists = Path(apt_pkg.config.find_dir("Dir::State::lists"))
    if not any(lists.glob("*Packages*")) or refreshed.RECORD.read_text().splitlines()[:1] != [_inputs()]:
        return False
    return time.time() - when < max_age


def failed_archives() -> tuple[str, ...]:
    """Return "URI SUITE" of each archive that failed at the last refresh, and whose older lists are used."""
    return tuple(files.text_of(refreshed.RECORD).splitlines()[1:])


def failed_text(archives: Sequence[str]) -> str:
    """Return a warning about these archives, for a command that uses their older lists."""
    return (
        f"the package lists of {', '.join(archives)} are old, as they could not be refreshed; "
        "'apt-ostree refresh-md' tries it again"
    )


def _inputs() -> str:
    """Return what the lists depend on: the architectures, and a checksum of the sources."""
    config, sources = apt_pkg.config, hashlib.sha256()
    parts = Path(config.find_dir("Dir::Etc::sourceparts"))
    for path in (Path(config.find_file("Dir::Etc::sourcelist")), *sorted(parts.glob("*"))):
        sources.update(f"{path.name}\n{files.text_of(path) if path.is_file() else ''}\n".encode())
    return " ".join((*apt_pkg.get_architectures(), sources.hexdigest()))


def refresh_lists(report: Report, *, everything: bool = True, strict: bool = True) -> None:
    """Download the package lists of the configured sources and verify their signatures.

    ExternalFailure is raised if one of them fails; if not strict, only if all of them do. Otherwise a warning
    names each that failed, and its older lists stay in use.

    everything: all sources are configured, so that other lists are removed, and the time is recorded, with
        the archives that failed.
    """
    lists = Path(apt_pkg.config.find_dir("Dir::State::lists"))
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    sources = apt_pkg.SourceList()
    with explained("read the package sources", hint="check the files in /etc/apt/sources.list.d"):
        sources.read_main_list()
    progress = _Progress(report, "Refreshing package lists")
    problems, failed = "", []
    try:
        with (
            warnings.catch_warnings(record=True) as caught,  # apt's warnings, as python-apt passes them on
            signals.held(progress.cancel),
        ):
            _empty_cache().update(progress, sources, 250_000)
    except (apt_pkg.Error, SystemError) as error:
        problems = str(error)
    reasons = messages(problems) or progress.failures
    if reasons:
        failed = list(dict.fromkeys(_failed_archives(sources, reasons)))
        text = f"cannot refresh the package lists of {', '.join(failed) or 'some archives'}"
        if strict or not failed or len(failed) == len({(entry.uri, entry.dist) for entry in sources.list}):
            raise ExternalFailure(text, details=reasons, hint=_hint(reasons))
        report(Message(f"{text}: {'; '.join(reasons)}", "warning"))
    for warning in caught:
        report(Message(str(warning.message).removeprefix("W:"), "warning"))
    if everything:
        refreshed.RECORD.parent.mkdir(parents=True, exist_ok=True)
        refreshed.RECORD.write_text("\n".join((_inputs(), *failed)))


def _empty_cache() -> apt_pkg.Cache:
    """Open a cache without any source, only for its method update(), which does not use its contents.

    A full one takes a second to open, and is outdated after the update.
    """
    with no_source():
        return apt_pkg.Cache(None)


def messages(problems: str) -> tuple[str, ...]:
    """Return the messages of a libapt error, which joins them ("E:one., W:two, E:three")."""
    parts = re.split(r"(?:^|, )[EW]:", problems)
    return tuple(dict.fromkeys(part.strip().rstrip(",") for part in parts if part.strip()))


def _failed_archives(sources: apt_pkg.SourceList, reasons: tuple[str, ...]) -> Iterator[str]:
    """Yield "URI SUITE" of the archives that the messages name."""
    for entry in sources.list:
        uri = public_uri(entry.uri).rstrip("/")
        names = (f"{uri} {entry.dist} ", f"{uri}/dists/{entry.dist}/", f"{uri}/ {entry.dist} ")
        if any(name in f"{reason} " for reason in reasons for name in names):
            yield archive_name(entry)


def archive_name(entry: Any) -> str:
    """Return "URI SUITE" of an entry of an apt_pkg.SourceList."""
    return f"{public_uri(entry.uri).rstrip('/')} {entry.dist}"


def public_uri(uri: str) -> str:
    """Return the URI of an archive without user name and password."""
    return re.sub(r"//[^/]*@", "//", uri)


def _hint(reasons: tuple[str, ...]) -> str:
    text = " ".join(reasons)
    if "not signed" in text or "signature" in text:
        return "name the key of the archive with Signed-By in its file below /etc/apt/sources.list.d"
    if "Release file" in text:
        return "check the archive's address and suite in /etc/apt/sources.list.d"
    return "check the network and the files in /etc/apt/sources.list.d"


def remove_downloads() -> int:
    """Remove package lists, archives and libapt's caches; return the number of removed lists and archives."""
    config, removed = apt_pkg.config, 0
    for directory in (config.find_dir("Dir::State::lists"), config.find_dir("Dir::Cache::archives")):
        if not Path(directory).is_dir():
            continue
        with (
            explained(f"lock {directory}", hint="wait for other package tools to end"),
            apt_pkg.FileLock(f"{directory}lock"),
        ):
            removed += _remove_files(Path(directory))
    caches = [Path(config.find_file(f"Dir::Cache::{name}")) for name in ("pkgcache", "srcpkgcache")]
    for path in (*caches, *(refreshed.RECORD.parent / cache.name for cache in caches), refreshed.RECORD):
        path.unlink(missing_ok=True)
    return removed


def _remove_files(directory: Path) -> int:
    paths = [path for path in directory.rglob("*") if path.is_file() and path.name != "lock"]
    for path in paths:
        path.unlink(missing_ok=True)
    return len(paths)


@dataclass(frozen=True, slots=True)
class Archives:
    """Downloaded archives.

    manager: the apt_pkg.PackageManager that installs them.
    fetcher: the apt_pkg.Acquire that downloaded them.
    directories: where they are.
    """

    manager: Any
    fetcher: Any
    directories: frozenset[Path]

    @property
    def paths(self) -> list[Path]:
        """Return the files."""
        return [Path(item.destfile) for item in self.fetcher.items]


def download(resolver: Resolver, report: Report, *, cache_only: bool = False) -> Archives:
    """Download the archives of the resolved transaction into the host's cache and verify them.

    ExternalFailure is raised if any of them fails.

    cache_only: raise Refused if an archive is not in the cache.
    """
    progress = _Progress(report, "Downloading packages")
    fetcher: Any = apt_pkg.Acquire(progress)
    manager = apt_pkg.PackageManager(resolver.depcache)
    with explained("prepare the downloads"):
        manager.get_archives(fetcher, resolver.sources, apt_pkg.PackageRecords(resolver.cache))
    absent = [i.desc_uri for i in fetcher.items if not (i.complete or i.desc_uri.startswith(_LOCAL))]
    if cache_only and absent:
        raise Refused(
            f"{len(absent)} packages are not in the cache",
            details=[public_uri(uri) for uri in absent],
            hint="leave --cache-only out to download them",
        )
    failpoint("download.before")
    with explained("download the packages"), signals.held(progress.cancel):
        fetcher.get_lock(apt_pkg.config.find_dir("Dir::Cache::archives"))  # also creates partial/ for _apt
        result = fetcher.run()
    missing = [
        f"{public_uri(i.desc_uri)}: {i.error_text}"
        for i in fetcher.items
        if not (i.complete and i.status == i.STAT_DONE)
    ]
    if missing or result != fetcher.RESULT_CONTINUE:
        raise ExternalFailure(
            f"cannot download {len(missing)} packages",
            details=missing,
            hint="check the network, or run 'apt-ostree refresh-md' if the archive has changed",
        )
    if fetcher.items:
        report(Message(f"{len(fetcher.items)} archives ready"))
    failpoint("download.after")
    return Archives(manager, fetcher, frozenset(Path(item.destfile).parent for item in fetcher.items))
