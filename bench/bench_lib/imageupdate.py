"""Inside the machine: a security update of nginx, from an image in a registry, and by apt-get.

Containers share the host's network, so nginx of each machine has a port of its own.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from bench_lib import product
from bench_lib.measure import BenchError, flush, run
from bench_lib.update import apt_get

_SITE = Path("/etc/nginx/sites-available/default")
_FETCHED, _KEPT = Path("/var/cache/apt-ostree/images"), Path("/var/lib/bench/images")
_LAYERS = Path("/var/lib/bench/layers")
_INSECURE = '[[registry]]\nlocation = "{address}"\ninsecure = true\n'
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'
#: Seconds after which a service that does not serve is a failure.
_PATIENCE = 60


def follow(image: str, port: int) -> None:
    """Follow an image, HOST:PORT/NAME, which is that of the old base, and serve; it has to be booted then."""
    containers = Path("/etc/containers")
    (containers / "registries.conf.d").mkdir(parents=True, exist_ok=True)
    address = image.partition("/")[0]
    (containers / "registries.conf.d/bench.conf").write_text(_INSECURE.format(address=address))
    (containers / "policy.json").write_text(_POLICY)
    _serve(port)
    run("apt-ostree", "rebase", "-q", f"ostree-unverified-registry:{image}")


def keep() -> None:
    """Keep what was fetched and imported, to have it again after each round."""
    run("apt-ostree", "cleanup", "-b", "-r", "-q")
    run("cp", "-a", _FETCHED, _KEPT)
    _LAYERS.write_text(_layers())


def measure_live(old: str, new: str) -> float:
    """Return the seconds of an upgrade to the new base until nginx is verified to be new; go back."""
    verify(old)
    flush()
    began = time.monotonic()
    run("apt-ostree", "upgrade", "-A", "-y", "-q", "--base-only", "--restart-services")
    seconds = verify(new) - began
    product.undo_live()
    product.drop_pending()
    run("systemctl", "restart", "nginx")
    _forget_fetched()
    return seconds


def upgrade(old: str) -> float:
    """Stage an upgrade to the new base, which has to be booted then; return when it began."""
    verify(old)
    flush()
    began = time.monotonic()
    run("apt-ostree", "upgrade", "-q", "--base-only")
    return began


def roll_back() -> None:
    """Choose the old base again, which has to be booted then."""
    run("apt-ostree", "rollback", "-q")


def forget_upgrade() -> None:
    """Remove the deployment of the new base, and all that was fetched for it."""
    run("apt-ostree", "cleanup", "-p", "-r", "-b", "-q")
    _forget_fetched()


def verify(version: str) -> float:
    """Wait until nginx answers, is of a version, and runs the program that is shown now; return the time.

    The time is that of the monotonic clock, which the host and its containers share.
    """
    end = time.monotonic() + _PATIENCE
    while not (_answers() and _runs(version)):
        if time.monotonic() > end:
            raise BenchError(f"nginx {version} does not serve")
        time.sleep(0.02)
    return time.monotonic()


def _serve(port: int) -> None:
    _SITE.write_text(f'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "ok"; }} }}\n')
    run("systemctl", "restart", "nginx")


def _answers() -> bool:
    address = _SITE.read_text().split()[3].rstrip(";")
    try:
        return run("curl", "--silent", address) == "ok"
    except BenchError:  # it is starting
        return False


def _runs(version: str) -> bool:
    pid = run("systemctl", "show", "--value", "--property=MainPID", "nginx").strip()
    try:
        is_shown = Path(f"/proc/{pid}/exe").samefile("/usr/sbin/nginx")
    except FileNotFoundError:  # it ended
        return False
    return is_shown and run("dpkg-query", "--show", "--showformat=${Version}", "nginx") == version


def _layers() -> str:
    return "\n".join(sorted(run("ostree", "refs", "--list", "apt-ostree/image/layer").split()))


def _forget_fetched() -> None:
    """Have nothing of the new image any more, so that the next round fetches and imports the same."""
    shutil.rmtree(_FETCHED)
    run("cp", "-a", _KEPT, _FETCHED)
    if _layers() != _LAYERS.read_text():
        raise BenchError("layers of the new image are still there")


# --- a plain Debian


def prepare_plain(old: str, port: int) -> None:
    """Make this machine a plain Debian with the same content."""
    run("mount", "-o", "remount,rw", "/usr")
    apt_get("update")
    apt_get("upgrade")  # what the archive has had since the tree was composed is not to be measured
    _serve(port)
    _downgrade(old)


def measure_plain(old: str, new: str) -> dict[str, float]:
    """Return the seconds of each step of the same on a plain Debian; go back."""
    verify(old)
    flush()
    began = time.monotonic()
    apt_get("update")
    updated = time.monotonic()
    apt_get("upgrade")
    upgraded = verify(new)
    _downgrade(old)
    return {"update": updated - began, "upgrade": upgraded - updated}


def _downgrade(version: str) -> None:
    apt_get("install", "--allow-downgrades", f"nginx={version}", f"nginx-common={version}")
    apt_get("clean")
