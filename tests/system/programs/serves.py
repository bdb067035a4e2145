"""Prints, as a JSON object, what look.py leaves out: what fx-service answers, and what may be left behind."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import time
from pathlib import Path

DATABASE = Path("/var/lib/apt-ostree/state.db")
ASK = ("curl", "--silent", "--max-time", "5", "--unix-socket", "/run/fx-service/socket", "http://x/")


def run(*argv: str) -> str:
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()


def service() -> list[str | list[str]]:
    """Return whether the service is active, and the version that it answers with."""
    active, answer = run("systemctl", "is-active", "fx-service"), ""
    for _attempt in range(100 if active == "active" else 1):  # it listens a moment after it was started
        answer = run(*ASK)
        if answer:
            break
        time.sleep(0.1)
    return [active, answer.split()[:1]]


def recorded() -> dict[str, list[object]]:
    """Return which generations wait for a confirmation, and what the overlays hold."""
    if not DATABASE.exists():
        return {"unconfirmed": [], "overlays": []}
    db = sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True)
    overlays = []
    for name, commit, enabled in db.execute('SELECT id, "commit", enabled FROM overlay ORDER BY id'):
        listed = run("ostree", "ls", "-R", "-C", commit)
        overlays.append([name, enabled, hashlib.sha256(listed.encode()).hexdigest()])
        assert run("ostree", "rev-parse", f"apt-ostree/overlay/{name}") == commit
    rows = db.execute("SELECT confirm_by FROM generation ORDER BY id")
    return {"unconfirmed": [row[0] is not None for row in rows], "overlays": overlays}


def main() -> None:
    places = [line.split(" ")[4] for line in Path("/proc/1/mountinfo").read_text().splitlines()]
    shown = {
        "service": service(),
        **recorded(),
        "mount points": sorted(p for p in places if not p.startswith(("/run/credentials/", "/run/user/"))),
        "scratch": sorted(map(str, Path("/ostree/apt-ostree").glob("view-*"))),
    }
    print(json.dumps(shown))


main()
