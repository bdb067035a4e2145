"""Updating a service and installing a package: apt-ostree on one machine, apt-get on a plain Debian.

The plain Debian is a second machine with a writable /usr: the same tree on the same file system, of which
OSTree knows nothing any more. Both run the daemon of fx-service 1.0, and are offered 2.0.
"""

from __future__ import annotations

import time
from itertools import pairwise

from bench_lib import product
from bench_lib.measure import BenchError, flush, run

_SERVICE = "fx-service"
#: A small package without dependencies that the base lacks.
_PACKAGE = "hello"
_SOCKET = f"/run/{_SERVICE}/socket"
_ASK = ("curl", "--silent", "--unix-socket", _SOCKET, "http://x/")
_NONINTERACTIVE = {
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_SUSPEND": "1",  # not from apt as well: it is called afterwards
}
_APT_GET = ("apt-get", "--yes", "--quiet=2")


def prepare() -> None:
    """Layer the service's old version, and what the archive has had since the tree was composed."""
    product.install((_SERVICE,))
    run("apt-ostree", "upgrade", "--packages-only", "--quiet")
    run("apt-ostree", "install", "--download-only", "--quiet", _PACKAGE)


def measure() -> float:
    """Return the seconds from the new version in the archive to a service that runs it; go back."""
    _expect("1.0")
    run("testbed-fixtures", "stable", "updates")
    flush()
    began = time.perf_counter()
    run("apt-ostree", "upgrade", "-A", "-y", "-q", "--packages-only", "--restart-services")
    _expect("2.0")
    seconds = time.perf_counter() - began
    run("testbed-fixtures", "stable")
    product.undo_live()
    product.drop_pending()
    run("systemctl", "restart", _SERVICE)
    run("apt-ostree", "refresh-md", "--force", "--quiet")
    return seconds


def measure_install() -> float:
    """Return the seconds of installing a package of which the archive is cached, live; go back."""
    flush()
    began = time.perf_counter()
    run("apt-ostree", "install", "-A", "-y", "-q", _PACKAGE)
    seconds = time.perf_counter() - began
    run(_PACKAGE)
    product.undo_live()
    product.drop_pending()
    return seconds


def measure_plain_install() -> float:
    """Return the seconds of the same on a plain Debian; go back."""
    flush()
    began = time.perf_counter()
    apt_get("install", _PACKAGE)
    seconds = time.perf_counter() - began
    run(_PACKAGE)
    apt_get("purge", _PACKAGE)
    return seconds


def prepare_plain() -> None:
    """Make this machine a plain Debian, with the same content and with needrestart."""
    run("mount", "-o", "remount,rw", "/usr")
    apt_get("update")
    apt_get("upgrade")  # what the archive has had since the tree was composed is not to be measured
    apt_get("install", _SERVICE, "needrestart")
    apt_get("install", "--download-only", _PACKAGE)


def measure_plain() -> dict[str, float]:
    """Return the seconds of each step of the same on a plain Debian; go back."""
    _expect("1.0")
    run("testbed-fixtures", "stable", "updates")
    flush()
    began = [time.perf_counter()]
    apt_get("update")
    began.append(time.perf_counter())
    apt_get("upgrade")
    began.append(time.perf_counter())
    run("needrestart", "-r", "a", "-b")
    _expect("2.0")
    began.append(time.perf_counter())
    run("testbed-fixtures", "stable")
    apt_get("update")
    apt_get("install", "--allow-downgrades", f"{_SERVICE}=1.0")
    update, upgrade, needrestart = (end - begin for begin, end in pairwise(began))
    return {"update": update, "upgrade": upgrade, "needrestart": needrestart}


def _expect(version: str) -> None:
    """See that the service runs this version."""
    serving = run(*_ASK).split()[0]
    if serving != version:
        raise BenchError(f"{_SERVICE} runs {serving} and not {version}")


def apt_get(*words: str) -> None:
    """Run apt-get, which asks nothing."""
    run(*_APT_GET, *words, env=_NONINTERACTIVE)
