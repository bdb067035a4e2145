"""apply-live of a part: packages by name, all but some, security updates; of a deployment or the archives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import livehost
from tests.system.livehost import Host, same

POOL = "/var/lib/testbed/repo/pool"
LAYERED = ("fx-service", "fx-conf", "fx-hello", "fx-set-40")
CHANGING = {"fx-service", "fx-conf", "fx-hello"}


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """The disk of a machine that boots into a deployment with packages of version 1.0."""
    with livehost.disk_after(lambda host: host.ao("install", *LAYERED), livehost.prepared_disk()) as path:
        yield path


@pytest.fixture
def pending(host: Host) -> Host:
    """A machine with a pending deployment that has everything in version 2.0."""
    host.suites("stable", "updates")
    host.ao("upgrade")
    return host


def versions(host: Host) -> dict[str, str]:
    """Return the fixture packages that the running system shows."""
    return host.installed("fx-*")


def refused(host: Host, code: int, *argv: str) -> str:
    """Run a command that must fail and touch nothing; return all that it says."""
    before = host.look()
    told = host.failure("apply-live", *argv, code=code)
    same(before.everything(), host.look().everything())
    return told


def objects(host: Host) -> set[str]:
    """Return the repository's objects, among which would be what is left of a commit that nobody keeps."""
    return set(host.sh("find /ostree/repo/objects -type f").splitlines())


def difference(host: Host, name: str) -> list[str]:
    """Return what `status` says is different, in the booted deployment (live) or the pending one."""
    found = next(row[name] for row in host.deployments() if name in row)
    return [row["name"] for kind in ("added", "removed", "changed") for row in found[kind]]


# --- by name


def test_one_package_of_the_pending_deployment(pending: Host):
    next_boot = pending.commit_of_pending()
    before = versions(pending)
    done = pending.json("apply-live", "--packages=fx-conf")
    assert done["live"] and done["selection"]["packages"] == ["fx-conf"]
    assert [c["name"] for c in done["plan"]["packages"]["changed"]] == ["fx-conf"]
    assert versions(pending) == before | {"fx-conf": "2.0"}
    assert pending.sh("cat /usr/share/fx-conf/version; ls /etc/fx-conf").split()[0] == "2.0"
    assert not pending.exists("/etc/fx-conf/old.conf")
    assert pending.sh("fx-hello; fx-many-001") == "hello 1.0\nfx-many-001 1.0\n"
    pending.check_clean()
    # Visible in status, and in the commit itself.
    assert difference(pending, "live-diff") == ["fx-conf"]
    assert {*CHANGING, "fx-set-40"} < set(difference(pending, "diff"))
    assert pending.commit_of_pending() == next_boot
    assert "--packages=fx-conf" in pending.sh(f"ostree show {done['commit']}")
    shown = f"ostree show {done['commit']} --print-metadata-key="
    assert pending.sh(f"{shown}apt-ostree.selected-from").strip("'\n") == next_boot
    base = pending.sh("ostree rev-parse debian/13/amd64/minimal")
    assert pending.sh(f"{shown}apt-ostree.base-checksum").strip("'\n") == base.strip()
    # Once more is nothing to do; then another one on top, and the rest.
    assert pending.ao("apply-live", "--packages=fx-conf", "--unchanged-exit-77", code=77)
    pending.ao("apply-live", "--packages", "fx-hello", "--packages", "fx-service")
    assert versions(pending) == before | dict.fromkeys(CHANGING, "2.0")
    pending.ao("apply-live", "--allow-replacement")
    assert set(versions(pending).values()) == {"2.0"}
    assert pending.look().records[-1][2] == next_boot


@pytest.mark.extended
def test_dependencies_come_along(pending: Host):
    before = versions(pending)
    done = pending.events("apply-live", "--packages=fx-set-40")
    assert any("fx-many-007 2.0 is also changed" in event.get("text", "") for event in done)
    expected = {name: "1.0" if name in CHANGING else "2.0" for name in before}
    assert versions(pending) == expected
    requested = {step["name"] for e in done if e["event"] == "plan" and e["kind"] == "transaction"
                 for step in e["plan"]["upgrade"] if step["reason"] == "requested"}  # fmt: skip
    assert requested == {"fx-set-40"}
    assert "fx-set-40" in pending.run("apt-mark", "showmanual").stdout.split()
    assert "fx-many-007" in pending.run("apt-mark", "showauto").stdout.split()


def test_part_of_the_way_survives_nothing_but_the_reboot_brings_all(own: Host):
    own.suites("stable", "updates")
    own.ao("upgrade")
    own.ao("apply-live", "--packages=fx-service")
    assert versions(own)["fx-service"] == "2.0" and versions(own)["fx-hello"] == "1.0"
    own.reboot()
    assert set(versions(own).values()) == {"2.0"}
    assert own.answer().startswith("2.0\n")


@pytest.mark.extended
def test_new_package_and_local_file_of_the_pending_deployment(host: Host):
    host.sh(f"mkdir -p /var/tmp/d; cp {POOL}/fx-var_2.0_all.deb /var/tmp/d/x.deb")
    host.ao("install", "/var/tmp/d/x.deb", "fx-divert", "fx-user")
    host.sh("rm -r /var/tmp/d")
    before = versions(host)
    host.ao("apply-live", "--packages=fx-var,fx-divert")
    assert versions(host) == before | {"fx-var": "2.0", "fx-divert": "1.0"}
    assert host.sh("cat /var/lib/fx-var/data; fx-hello") == "data 2.0\ndiverted\n"


def test_from_the_archives(host: Host):
    before = versions(host)
    host.suites("stable", "updates")
    done = host.json("apply-live", "--packages=fx-hello")
    assert done["live"]
    assert versions(host) == before | {"fx-hello": "2.0"}
    assert host.sh("ostree admin status").startswith("*")  # nothing was staged
    assert host.ao("apply-live", "--packages=fx-hello", "--unchanged-exit-77", code=77)
    host.ao("apply-live", "--packages=fx-hello=1.0,fx-opt")
    assert versions(host) == before | {"fx-opt": "1.0"}
    assert host.sh("/opt/fx/bin/fx") == "fx\n"


# --- all but some


@pytest.mark.extended
def test_all_but_some_of_the_pending_deployment(pending: Host):
    before = versions(pending)
    pending.ao("apply-live", "--except=fx-service", "--except", "fx-hello")
    assert versions(pending) == dict.fromkeys(before, "2.0") | {"fx-service": "1.0", "fx-hello": "1.0"}
    assert pending.answer().startswith("1.0\n")


@pytest.mark.extended
def test_all_but_some_of_the_archives(host: Host):
    before = versions(host)
    host.suites("stable", "updates")
    host.ao("apply-live", "--except=fx-conf,less")
    assert versions(host) == dict.fromkeys(before, "2.0") | {"fx-conf": "1.0"}


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize("staged", [True, False], ids=["pending", "archives"])
def test_a_dependency_that_is_excepted(host: Host, staged: bool):
    host.suites("stable", "updates")
    if staged:
        host.ao("upgrade")
    else:
        host.ao("refresh-md", "--force")
    for words in (["--except=fx-many-007"], ["--packages=fx-set-40", "--except=fx-many-007"]):
        text = refused(host, 3, *words)
        assert "fx-set-40 2.0 depends on fx-many-007 (>= 2.0)" in text and "fx-many-007 is excepted" in text


# --- security updates


def test_security_updates_of_the_archives(host: Host):
    before = versions(host)
    host.suites("stable", "security")
    host.ao("apply-live", "--security", "--except=fx-service")
    assert versions(host) == before | {"fx-hello": "1.1"}
    host.ao("apply-live", "--security")
    assert versions(host) == before | {"fx-hello": "1.1", "fx-service": "1.1"}
    host.ao("apply-live", "--security", "--unchanged-exit-77", code=77)
    assert difference(host, "live-diff") == ["fx-hello", "fx-service"]
    host.suites("stable", "security", "updates")  # newer ones of another archive are not asked for
    host.ao("apply-live", "--security", "--unchanged-exit-77", code=77)


@pytest.mark.extended
def test_security_updates_of_the_pending_deployment(host: Host):
    before = versions(host)
    host.suites("stable", "security", "updates")
    host.ao("upgrade")
    host.ao("apply-live", "--security", "--packages=fx-conf", "--unchanged-exit-77", code=77)
    host.ao("apply-live", "--security")
    assert versions(host) == before | {"fx-hello": "2.0", "fx-service": "2.0"}


def test_no_security_updates(pending: Host):
    before = pending.look()
    pending.ao("apply-live", "--security", "--unchanged-exit-77", code=77)
    same(before.everything(), pending.look().everything())


# --- what is refused, and what leaves nothing


def test_requests_that_cannot_be(pending: Host):
    for code, words, told in (
        (2, "--packages=fx-user", ["fx-user", "fx-conf, fx-hello"]),
        (2, "--packages=no-such", ["no-such"]),
        (2, "--except=no-such", ["no-such"]),
        (2, "--packages=less", ["less"]),
        (2, "--packages=fx-conf=2.0", ["fx-conf=2.0", "pending deployment"]),
        (2, "--packages=fx-conf --except=fx-conf", ["fx-conf"]),
    ):
        text = refused(pending, code, *words.split())
        assert [word for word in told if word not in text] == [], text
    for words in (
        "--packages=", "--except=a,,b", "--packages=x --reset", "--security --target=x", "--except=x --reset",
    ):  # fmt: skip
        pending.ao("apply-live", *words.split(), code=2)


@pytest.mark.extended
def test_requests_of_the_archives_that_cannot_be(host: Host):
    host.suites("stable", "updates")
    host.ao("refresh-md", "--force")
    for code, words, told in (
        (2, "--packages=no-such", ["no-such"]),
        (2, "--packages=fx-conf=7", ["fx-conf", "'7'", "2.0"]),
        (2, "--packages=fx-conf=2.0 --security", ["fx-conf=2.0"]),
        (2, "--except=no-such", ["no-such"]),
        (3, "--packages=fx-breaks-base", ["less"]),
        (1, "--packages=fx-fail", ["this postinst fails on purpose"]),
    ):
        text = refused(host, code, *words.split())
        assert [word for word in told if word not in text] == [], text


@pytest.mark.extended
def test_removals_are_the_whole_deployments(host: Host):
    host.suites("stable", "updates")
    host.ao("uninstall", "fx-hello")
    host.ao("upgrade")
    for words in (["--packages=fx-hello"], ["--except=fx-conf"]):
        assert "has no package fx-hello" in refused(host, 3, *words)
    before = versions(host)
    host.ao("apply-live", "--except=fx-hello,fx-conf")
    assert versions(host) == dict.fromkeys(before, "2.0") | {"fx-hello": "1.0", "fx-conf": "1.0"}


@pytest.mark.extended
def test_versions_that_are_gone(pending: Host):
    pending.suites("stable")
    pending.ao("refresh-md", "--force")
    text = refused(pending, 3, "--packages=fx-conf")
    assert "fx-conf 2.0" in text and "--allow-replacement" in text
    pending.ao("apply-live", "--allow-replacement")
    assert versions(pending)["fx-conf"] == "2.0"


def test_dry_run_shows_the_plan_and_leaves_nothing(pending: Host):
    for words in (["--packages=fx-conf"], ["--except=fx-hello"], ["--security"]):
        before, known = pending.look(), objects(pending)
        done = pending.json("apply-live", "--dry-run", *words)
        assert not done["live"]
        same(before.everything(), pending.look().everything())
        assert objects(pending) <= known
        if words[0] != "--security":
            assert done["changed"] and done["plan"]["etc"]


@pytest.mark.variants
@pytest.mark.parametrize(
    "failpoint", ["layering.after-install", "layering.before-commit", "prepare.before-layer", "act.switched"]
)
def test_a_failure_leaves_nothing(pending: Host, failpoint: str):
    before, known = pending.look(), objects(pending)
    pending.ao("apply-live", "--packages=fx-conf,fx-service", failpoint=f"{failpoint}=error", code=1)
    same(before.system(), pending.look().system())
    assert list(before.deployments) == list(pending.look().deployments)
    assert objects(pending) <= known
