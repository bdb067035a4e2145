"""What a maintainer script cannot do, in the real sandbox of this machine, and what it still can."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from apt_ostree.errors import ExternalFailure
from apt_ostree.system import sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="scripts run as root")
PROGRAM = Path(__file__).parents[1] / "fixtures/escapes.py"
Run = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program in the sandbox, with this machine's /usr; return the lines that it printed."""
    root = tmp_path / "root"
    for name in ("usr", "etc", "var", "tmp", "run", "proc", "sys", "dev", "mnt", "sysroot"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "escapes.py").write_text(PROGRAM.read_text())

    def run_inside(*command: str) -> list[str]:
        what = f"try {len(list(tmp_path.iterdir()))}"
        sandbox.run(root, command, what=what, timeout=120, read_only=["/usr"])
        return sandbox.output_of(root, f"{what}: {shlex.join(command)}")

    return run_inside


def test_no_attempt_to_get_out_succeeds(run: Run):
    """But for a fork bomb: the unit of the worker has the limit (tests/system/test_hardening.py)."""
    outcomes = json.loads(run("python3", "/escapes.py", "except", "fork-bomb")[-1])
    assert len(outcomes) >= 30
    assert {name: outcome for name, outcome in outcomes.items() if outcome is not None} == {}


def test_the_attempts_succeed_where_nothing_stands_in_their_way(run: Run, monkeypatch: pytest.MonkeyPatch):
    """Without the filter, those do that no capability covers; so the test above can fail."""
    monkeypatch.setattr("apt_ostree.system.seccomp._DENIED", ())
    monkeypatch.setattr("apt_ostree.system.seccomp._ABSENT", ())
    monkeypatch.setattr("apt_ostree.system.seccomp._WITH_FLAGS", ())
    outcomes = json.loads(run("python3", "/escapes.py", "except", "fork-bomb")[-1])
    succeeded = {name for name, outcome in outcomes.items() if outcome is not None}
    assert {"user-namespace", "user-namespace-by-clone3", "keyring"} <= succeeded


def test_what_scripts_need_goes_on_working(run: Run):
    """Users, owners, modes, capabilities of files, processes, threads, chroot, other architectures."""
    script = """
touch /etc/file; chown 33:33 /etc/file; chmod 4755 /etc/file
setpriv --reuid=33 --regid=33 --clear-groups id -u
python3 -c 'import threading; t = threading.Thread(target=print, args=("thread",)); t.start(); t.join()'
python3 -c 'import subprocess; subprocess.run(["echo", "child"])'
unshare --fork echo forked
linux32 uname -m
"""
    assert run("sh", "-euc", script)[-5:] == ["33", "thread", "child", "forked", "i686"]


def test_failure_names_the_program_itself(run: Run):
    with pytest.raises(ExternalFailure, match="sh ended with exit code 7"):
        run("sh", "-c", "exit 7")
