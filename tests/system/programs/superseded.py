"""Tries to run every copy of fx-privileged's programs, by every path, and sees which of them gain privileges.

`find` prints the paths of all copies in all mounts, as far as the caller sees them. `try GO` opens
directories, says so by the file GO.ready, and waits for a line in the FIFO GO, with further paths. Then it
runs all that it can reach, and prints a JSON object: path -> [version of the copy, whether it could read
/etc/shadow].
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "/usr/libexec/fx-privileged"
NAMES = ("setuid", "setgid", "capability")
SECRET = "/etc/shadow"
HELD = ("/", "/usr", "/usr/libexec", PACKAGE)
ENDING = re.compile(rb"\nfx-privileged ([0-9.]+)\n\Z|fx-privileged ([0-9.]+)\n\Z")


def version_of(path: str) -> str | None:
    """Return the version of a copy, or None if the file is none."""
    try:
        with open(path, "rb") as file:
            file.seek(-32, os.SEEK_END)
            ending = ENDING.search(file.read())
    except OSError:
        return None
    return (ending[1] or ending[2]).decode() if ending else None


def is_program(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def copies() -> Iterator[str]:
    """Yield the paths of all copies below all mount points."""
    points = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    for top in sorted(points):
        if f"{top}/".startswith(("/proc/", "/sys/", "/dev/")):
            continue
        device = os.stat(top).st_dev if os.access(top, os.X_OK) else None
        for place, directories, files in os.walk(top):
            if os.stat(place).st_dev != device:
                directories.clear()
                continue
            directories[:] = [name for name in directories if os.path.join(place, name) not in points]
            for name in files:
                path = os.path.join(place, name)
                if is_program(path) and version_of(path):
                    yield path


def reads_secret(*command: str, **options: object) -> bool:
    try:
        done = subprocess.run([*command, SECRET], capture_output=True, check=False, timeout=20, **options)  # type: ignore[call-overload]
    except OSError:
        return False
    return done.returncode == 0 and b"root:" in done.stdout


def other_ways(held: dict[str, int], sleepers: list[int]) -> Iterator[str]:
    """Yield paths that go by open directories, and by what processes show of theirs."""
    for top, descriptor in held.items():
        yield f"/proc/self/fd/{descriptor}/{os.path.relpath(PACKAGE, top)}"
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        for top in (f"/proc/{pid}/root", f"/proc/{pid}/cwd"):
            if os.access(top, os.X_OK):
                yield top + PACKAGE
                yield top
    for pid in sleepers:
        for deployed in Path("/ostree/deploy").glob("*/deploy/*.?"):
            yield f"/proc/{pid}/root{deployed}{PACKAGE}"


def try_all(go: str) -> None:
    held = {path: os.open(path, os.O_PATH) for path in HELD}
    os.chdir(PACKAGE)
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo; exec sleep infinity"]
    sleeper = subprocess.Popen(namespace, stdout=subprocess.PIPE)
    assert sleeper.stdout and sleeper.stdout.readline() == b"\n"
    Path(f"{go}.ready").touch()
    further = json.loads(Path(go).read_text())
    paths = {*further, *copies(), *NAMES, *(f"./{name}" for name in NAMES)}
    for directory in other_ways(held, [sleeper.pid]):
        paths |= {f"{directory}/{name}" for name in NAMES}
    result: dict[str, tuple[str | None, bool]] = {}
    descriptors = tuple(held.values())
    for path in sorted(paths):
        if os.path.lexists(path) or path in further:
            own = path if "/" in path else f"./{path}"
            result[path] = (version_of(path), reads_secret(own, pass_fds=descriptors))
    inside = ("nsenter", "--user", "--mount", "--preserve-credentials", f"--target={sleeper.pid}")
    for path in (f"{PACKAGE}/{name}" for name in NAMES):
        version = version_of(f"/proc/{sleeper.pid}/root{path}")
        result[f"namespace:{path}"] = (version, reads_secret(*inside, path))
    sleeper.kill()
    print(json.dumps(result))


if sys.argv[1] == "find":
    print(json.dumps(sorted(copies())))
else:
    try_all(sys.argv[2])
