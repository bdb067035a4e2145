"""Downloads: package lists and archives, verified by libapt, with progress."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import apt_pkg

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.events import Message, Progress, Report
from apt_ostree.system.apt.config import explained
from apt_ostree.system.apt.resolver import Resolver
from apt_ostree.system.failpoints import failpoint

_STAMP = Path("/var/cache/apt-ostree/refreshed")
_MAX_AGE = 24 * 3600  # seconds; apt's own daily timer has the same pace


class _Progress:
    """What libapt calls while it downloads (python-apt's AcquireProgress, by shape)."""

    def __init__(self, report: Report, title: str) -> None:
        self._report = report
        self._title = title
        self._last = 0.0
        self.failures: list[str] = []
        # Set by libapt.
        self.current_bytes = self.total_bytes = self.fetched_bytes = 0
        self.current_items = self.total_items = self.current_cps = self.elapsed_time = 0

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""

    def pulse(self, _owner: Any) -> bool:
        """Report progress a few times a second; libapt stops when this is False."""
        now = time.monotonic()
        if now - self._last > 0.2:
            self._last = now
            self._report(Progress(self._title, int(self.current_bytes), int(self.total_bytes)))
        return True

    def fail(self, item: Any) -> None:
        """Remember why one file could not be had."""
        if item.owner.status != item.owner.STAT_DONE:
            self.failures.append(f"{item.description}: {item.owner.error_text}")

    def fetch(self, item: Any) -> None:
        """A file is being fetched."""

    def done(self, item: Any) -> None:
        """A file is here."""

    def ims_hit(self, item: Any) -> None:
        """A file had not changed."""

    def media_change(self, media: str, drive: str) -> bool:
        """No one is there to change a disc."""
        return False


def lists_are_current() -> bool:
    """Tell whether the package lists are here, younger than a day and younger than the sources."""
    try:
        refreshed = _STAMP.stat().st_mtime
    except FileNotFoundError:
        return False
    config = apt_pkg.config
    sources = [Path(config.find_file("Dir::Etc::sourcelist")), Path(config.find_dir("Dir::Etc::sourceparts"))]
    files = [p for s in sources if s.exists() for p in (s, *(s.iterdir() if s.is_dir() else ()))]
    newest = max((p.stat().st_mtime for p in files if p.exists()), default=0.0)
    lists = Path(config.find_dir("Dir::State::lists"))
    if not any(lists.glob("*Packages*")):
        return False
    return newest < refreshed and time.time() - refreshed < _MAX_AGE


def refresh_lists(report: Report, *, everything: bool = True) -> None:
    """Download the configured sources' package lists and verify their signatures.

    everything: these are all sources, so lists of others are removed and the time is remembered.
    """
    lists = Path(apt_pkg.config.find_dir("Dir::State::lists"))
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    sources = apt_pkg.SourceList()
    with explained("read the package sources", hint="check the files in /etc/apt/sources.list.d"):
        sources.read_main_list()
    progress = _Progress(report, "Refreshing package lists")
    try:
        with explained("refresh the package lists"):
            apt_pkg.Cache(None).update(progress, sources, 250_000)
    except ExternalFailure as error:
        reasons = tuple(dict.fromkeys((*error.details, *progress.failures)))
        raise ExternalFailure(
            "cannot refresh the package lists",
            details=reasons,
            hint="check the network and the files in /etc/apt/sources.list.d",
        ) from error
    if progress.failures:
        raise ExternalFailure("cannot refresh some package lists", details=progress.failures)
    if everything:
        _STAMP.parent.mkdir(parents=True, exist_ok=True)
        _STAMP.touch()


def download(resolver: Resolver, report: Report) -> None:
    """Download the archives of the resolved transaction into the host's cache and verify them."""
    progress = _Progress(report, "Downloading packages")
    fetcher: Any = apt_pkg.Acquire(progress)
    manager = apt_pkg.PackageManager(resolver.depcache)
    with explained("prepare the downloads"):
        manager.get_archives(fetcher, resolver.sources, apt_pkg.PackageRecords(resolver.cache))
    failpoint("download.before")
    with explained("download the packages"):
        fetcher.get_lock(apt_pkg.config.find_dir("Dir::Cache::archives"))  # also makes partial/, for _apt
        result = fetcher.run()
    missing = [
        f"{i.desc_uri}: {i.error_text}" for i in fetcher.items if not (i.complete and i.status == i.STAT_DONE)
    ]
    if missing or result != fetcher.RESULT_CONTINUE:
        raise ExternalFailure(
            f"cannot download {len(missing)} packages",
            details=missing,
            hint="check the network, or run 'apt-ostree refresh-md' if the archive has changed",
        )
    report(Message(f"{len(fetcher.items)} archives ready"))
    failpoint("download.after")
