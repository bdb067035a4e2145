"""apply-live on a booted machine: what it shows, refuses, restores, and leaves behind."""

from __future__ import annotations

import concurrent.futures
import subprocess
from pathlib import Path

import pytest

from tests.system import livehost
from tests.system.livehost import (
    NOBODY,
    WRITABLE_SYSROOT,
    Host,
    same,
    wait_for,
    wait_for_stopped_worker,
)

SERVICE = "fx-service.service"


# --- refusing and planning touch nothing


def test_dry_run_changes_nothing(host: Host):
    host.ao("install", "fx-service")
    before = host.look()
    result = host.json("apply-live", "--dry-run")
    assert result["changed"] and not result["live"]
    assert [p["name"] for p in result["plan"]["packages"]["added"]] == ["fx-service"]
    same(before.everything(), host.look().everything())


@pytest.mark.extended
def test_a_dry_run_of_both_halves_plans_what_the_run_does(host: Host):
    restart = ("-A", "-y", "--restart-services")
    for words, suites in (
        (("install", *restart, "fx-service", "fx-conf"), ("stable",)),
        (("upgrade", *restart, "--packages-only"), ("stable", "updates")),
        (("uninstall", *restart, "fx-service"), ("stable", "updates")),
    ):
        host.suites(*suites)
        before = host.look()
        planned = host.json(*words, "--dry-run")
        assert planned["changed"] and not planned["staged"] and not planned["live"]
        same(before.everything(), host.look().everything())
        done = host.json(*words)
        for result in (planned, done):
            del result["plan"]["target"]  # a commit has the time at which it was written
        assert done["plan"] == planned["plan"]
        assert done["staged"] and done["live"]
    host.suites("stable")


def test_replacement_is_refused_with_counts_and_names(own: Host):
    own.ao("install", "-A", "-y", "fx-hello", "fx-conf")
    own.suites("stable", "updates")
    own.ao("upgrade")
    before = own.look()
    error = own.json("apply-live", code=3)
    assert error["error"] == "Refused"
    details = "\n".join(error["details"])
    assert "2" in details and "fx-hello" in details and "fx-conf" in details
    same(before.everything(), own.look().everything())
    own.ao("apply-live", "--allow-replacement")
    assert own.sh("fx-hello") == "hello 2.0\n"


def test_refused_install_stages_nothing(own: Host):
    own.ao("install", "-A", "-y", "fx-hello")
    own.suites("stable", "updates")
    before = own.look()
    own.ao("install", "-A", "-y", "fx-set-40=1.0", "fx-hello=2.0", code=3)
    same(before.everything(), own.look().everything())


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize("point", ["act.switched", "stage.before", "stage.after"])
def test_failed_install_leaves_what_was_pending(own: Host, point: str):
    own.ao("install", "-y", "fx-hello")
    before = own.look()
    failed = own.ao("install", "-A", "-y", "fx-service", code=1, failpoint=f"{point}=error")
    after = own.look()
    same({**before.system(), "next": before.deployments}, {**after.system(), "next": after.deployments})
    # What was pending is not touched at all where nothing has been staged yet.
    assert ("Dropping the staged deployment" in failed.stdout + failed.stderr) == (point == "stage.after")


@pytest.mark.parametrize("target", ["no-such-ref", "0" * 64])
def test_unknown_target(host: Host, target: str):
    before = host.look()
    host.ao("apply-live", "--target", target, code=2)
    same(before.everything(), host.look().everything())


def test_target_that_is_no_system(host: Host):
    host.sh("mkdir -p /var/tmp/x/etc")
    host.run(
        *WRITABLE_SYSROOT, "ostree", "commit", "--repo=/ostree/repo", "--branch=x", "--tree=dir=/var/tmp/x"
    )
    before = host.look()
    host.ao("apply-live", "--target", "x", code=2)
    same(before.everything(), host.look().everything())


def test_nothing_pending_is_refused(host: Host):
    host.ao("apply-live", code=3)


def test_not_root(host: Host):
    for words in (("apply-live",), ("apply-live", "--reset"), ("install", "-A", "-y", "fx-hello")):
        done = host.run(*NOBODY, "apt-ostree", *words, check=False)
        assert done.returncode == 4


# --- what a live change does


def test_install_starts_the_service_and_reset_ends_it(host: Host):
    before = host.look()
    result = host.json("install", "-A", "-y", "fx-service")
    assert result["live"] and result["staged"]
    assert host.answer() == "1.0\ngreeting=hello\n"
    live = host.look()
    assert len(live.mounts) == len(before.mounts) + 1
    assert live.records[-1][1:] == ["live", result["commit"]]
    assert host.run("touch", "/usr/x", check=False).returncode != 0
    host.ao("apply-live", "--reset")
    after = host.look()
    same(before.system(), after.system())
    assert not host.exists("/usr/libexec/fx-service")


def test_uninstall_stops_the_service_and_removes_its_files(host: Host):
    host.ao("install", "-A", "-y", "fx-service")
    host.ao("uninstall", "-A", "-y", "fx-service")
    assert not host.is_active(SERVICE)
    for path in ("/usr/libexec/fx-service", "/etc/fx-service.conf", f"/usr/lib/systemd/system/{SERVICE}"):
        assert not host.exists(path)
    host.run("dpkg", "--verify")
    host.ao("apply-live", "--reset")
    assert not host.is_active(SERVICE)


def test_user_has_the_trees_ids_live_and_after_reboot(own: Host):
    own.sh("useradd --system fx-other")  # takes an id that a build without the host's list would give away
    own.ao("install", "-A", "-y", "fx-user")
    ids = own.sh("id fx-user; stat -c %u:%g:%a /var/lib/fx-user")
    sysusers = own.sh("grep -h fx-user /usr/lib/sysusers.d/apt-ostree.conf")
    assert ids.split("uid=")[1].partition("(")[0] in sysusers
    own.reboot()
    assert own.sh("id fx-user; stat -c %u:%g:%a /var/lib/fx-user") == ids
    assert own.sh("id -un fx-other") == "fx-other\n"


def test_upgrade_of_configuration(own: Host):
    own.ao("install", "-A", "-y", "fx-conf")
    own.reboot()
    own.sh("cd /etc/fx-conf; echo mine >>main.conf; rm constant.conf; echo extra >extra.conf")
    own.suites("stable", "updates")
    before = own.look()
    plan = own.json("upgrade", "-A", "-y")["plan"]
    actions = {step["path"]: step["action"] for step in plan["etc"]}
    assert actions == {
        "fx-conf/main.conf": "keep", "fx-conf/new.conf": "write", "fx-conf/old.conf": "remove",
        "fx-conf/main.conf.dpkg-dist": "write",
    }  # fmt: skip
    assert own.sh("cat /usr/share/fx-conf/version") == "2.0\n"
    assert (
        own.sh("tail -n 1 /etc/fx-conf/main.conf; ls /etc/fx-conf")
        == "mine\nextra.conf\nmain.conf\nmain.conf.dpkg-dist\nnew.conf\n"
    )
    own.ao("apply-live", "--reset")
    same(before.system(), own.look().system())
    assert own.sh("cat /usr/share/fx-conf/version") == "1.0\n"


@pytest.mark.extended
def test_edits_after_the_change_are_kept_on_reset(own: Host):
    before = own.look()
    own.ao("install", "-A", "-y", "fx-service", "fx-conf", "fx-user")
    own.sh("echo mine >>/etc/fx-service.conf; rm /etc/fx-conf/main.conf; useradd --no-create-home joe; "
           "echo joe:secret | chpasswd; echo note >/etc/fx-conf/note")  # fmt: skip
    own.ao("apply-live", "--reset")
    after = own.look()
    assert (
        own.sh("cat /etc/fx-service.conf; cat /etc/fx-conf/note; id -un joe")
        == "greeting=hello\nmine\nnote\njoe\n"
    )
    assert own.run("id", "fx-user", check=False).returncode == 1
    assert own.run("grep", "-c", "^joe:[$]", "/etc/shadow").stdout == "1\n"
    changed = {p for p in before.etc.keys() | after.etc.keys() if before.etc.get(p) != after.etc.get(p)}
    accounts = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
    changed -= {f"/etc/{name}{end}" for name in accounts for end in ("", "-")}
    assert changed == {"/etc/fx-service.conf", "/etc/fx-conf", "/etc/fx-conf/note"}
    assert after.usr == before.usr and after.records == [] and after.live_refs == []


@pytest.mark.extended
def test_user_added_between_apply_and_reset_without_accounts_in_the_change(own: Host):
    own.ao("install", "-A", "-y", "fx-hello")
    own.sh("useradd --no-create-home joe")
    own.ao("apply-live", "--reset")
    assert own.sh("id -un joe") == "joe\n"
    own.ao("apply-live")
    own.sh("useradd --no-create-home jane")
    own.power_cut()
    assert own.sh("id -un joe jane || id -un joe; id -un jane").split()[-1] == "jane"


def test_second_apply_on_top_of_the_first(host: Host):
    host.ao("install", "-A", "-y", "fx-service")
    pid = host.unit_property(SERVICE, "MainPID")
    one = host.look()
    host.ao("install", "-A", "-y", "fx-hello", "fx-set-40")
    two = host.look()
    assert len(two.mounts) == len(one.mounts) and len(two.records) == 2
    assert host.sh("fx-hello; fx-many-040") == "hello 1.0\nfx-many-040 1.0\n"
    assert host.unit_property(SERVICE, "MainPID") == pid


def test_target(host: Host):
    host.ao("install", "fx-service")
    commit = host.commit_of_pending()
    host.create_ref("kept", commit)
    host.undeploy()
    host.ao("apply-live", "--target", commit)
    assert host.is_active(SERVICE)
    booted = host.commit_of_booted()
    host.ao("apply-live", "--target", booted, code=3)
    host.ao("apply-live", "--target", booted, "--allow-replacement")
    assert not host.is_active(SERVICE)
    assert not host.exists("/etc/fx-service.conf")


@pytest.mark.extended
def test_types_change_live(own: Host):
    """A file becomes a directory, a directory a link, and so on, below /usr; and back."""
    own.ao("install", "-A", "-y", "fx-dirs")
    own.reboot()
    before = own.look()
    own.suites("stable", "updates")
    own.ao("upgrade", "-A", "-y")
    shown = own.sh("cd /usr/share/fx-dirs; find . -printf '%p %y %m %l\\n' | sort")
    own.ao("apply-live", "--reset")
    own.suites("stable")
    same(before.system(), own.look().system())
    own.ao("apply-live", "--allow-replacement")
    assert own.sh("cd /usr/share/fx-dirs; find . -printf '%p %y %m %l\\n' | sort") == shown
    own.reboot()
    assert own.sh("cd /usr/share/fx-dirs; find . -printf '%p %y %m %l\\n' | sort") == shown


@pytest.mark.extended
def test_types_change_in_etc(own: Host):
    """Directories of /etc become files and the other way round, also with files of the administrator."""
    own.run_program("types_in_etc.sh")
    own.commit("one", "/var/tmp/one")
    own.commit("two", "/var/tmp/two")
    own.ao("apply-live", "--target", "one")
    one = own.look()
    own.sh("echo mine >/etc/fx/kept/mine")
    own.ao("apply-live", "--target", "two")
    assert own.sh("cd /etc/fx; cat dir file/inner link/inner kept/mine") == "2\n2\n2\nmine\n"
    own.sh("rm /etc/fx/kept/mine")
    own.ao("apply-live", "--target", "one")
    assert (
        own.sh("cd /etc/fx; cat file link dir/sub/inner kept/inner; ls -A")
        == "1\n1\n1\n1\ndir\nfile\nkept\nlink\n"
    )
    assert own.look().etc == one.etc
    own.ao("apply-live", "--reset")
    assert not own.exists("/etc/fx")


# --- surroundings


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize("how", [(), ("--transient",)], ids=["development", "transient"])
def test_unlocked(own: Host, how: tuple[str, ...]):
    own.run("ostree", "admin", "unlock", *how)
    writable = ["unshare", "-m", "sh", "-euc"]
    # The new mount API, which mount(8) would use, refuses to reconfigure an overlay.
    prefix = "LIBMOUNT_FORCE_MOUNT2=always mount -o remount,rw /usr;" if how else ""
    own.run(*writable, f"{prefix} echo edited >/usr/share/fx-edit; rm /usr/share/common-licenses/GPL-3")
    before = own.look()
    own.ao("install", "-A", "-y", "fx-service")
    assert own.answer() == "1.0\ngreeting=hello\n"
    assert own.sh("cat /usr/share/fx-edit") == "edited\n"
    assert not own.exists("/usr/share/common-licenses/GPL-3")
    own.ao("install", "-A", "-y", "fx-hello")
    assert own.sh("fx-hello; cat /usr/share/fx-edit") == "hello 1.0\nedited\n"
    own.ao("apply-live", "--reset")
    same(before.system(), own.look().system())
    # An edit made on top of the change would be lost: refused, until it is gone.
    own.ao("apply-live")
    own.run(*writable, f"{prefix} echo late >/usr/share/fx-late")
    live = own.look()
    own.ao("apply-live", "--reset", code=3)
    same(live.everything(), own.look().everything())
    own.run(*writable, f"{prefix} rm /usr/share/fx-late")
    own.ao("apply-live", "--reset")
    same(before.system(), own.look().system())
    # A second change that fails gives the first one back, with its edits, and as writable as it was.
    own.ao("apply-live")
    own.run(*writable, f"{prefix} echo late >/usr/share/fx-late")
    own.ao("uninstall", "-A", "-y", "fx-hello", failpoint="act.switched=error", code=1)
    assert own.sh("fx-hello; cat /usr/share/fx-late") == "hello 1.0\nlate\n"
    own.run(*writable, f"{prefix} rm /usr/share/fx-late")
    own.ao("apply-live", "--reset")
    same(before.system(), own.look().system())
    own.sh("umount -l /usr")  # for dpkg --verify


def test_submount_below_usr_stays(host: Host):
    host.sh("mount -t tmpfs -o size=1m none /usr/local/share; echo there >/usr/local/share/file")
    before = host.look()
    for package in ("fx-service", "fx-hello"):
        host.ao("install", "-A", "-y", package)
        assert host.sh("cat /usr/local/share/file; echo more >>/usr/local/share/more") == "there\n"
    host.ao("apply-live", "--reset")
    assert host.look().mounts == before.mounts
    assert host.sh("cat /usr/local/share/file") == "there\n"
    host.sh("umount /usr/local/share")


def test_submount_that_the_target_lacks_is_refused(host: Host):
    host.ao("install", "-A", "-y", "fx-hello")
    host.sh("mount -t tmpfs -o size=1m none /usr/share/fx-hello")
    host.ao("uninstall", "fx-hello")
    before = host.look()
    host.ao("apply-live", "--allow-replacement", code=3)
    same(before.everything(), host.look().everything())
    host.sh("umount /usr/share/fx-hello")


def test_foreign_mount_over_the_view_is_refused(host: Host):
    host.ao("install", "-A", "-y", "fx-hello")
    host.sh("mkdir /var/tmp/extension; mount -t overlay foreign -o lowerdir=/var/tmp/extension:/usr /usr")
    before = host.look()
    assert "MountedOver: /usr, by another program: foreign" in host.ao("status").stdout
    host.ao("apply-live", "--reset", code=3)
    host.ao("install", "-A", "-y", "fx-service", code=3)
    same(before.everything(), host.look().everything())
    host.sh("umount --lazy /usr")


@pytest.mark.extended
def test_shared_peer_group_stacks_and_resets(disk: Path):
    with livehost.booted(disk, shared_peer_group=True) as host:
        before = host.look()
        for package in ("fx-service", "fx-hello", "fx-conf"):
            host.ao("install", "-A", "-y", package)
        assert host.answer() == "1.0\ngreeting=hello\n"
        host.ao("apply-live", "--reset")
        same(before.system(), host.look().system())
        host.ao("apply-live")
        host.ao("uninstall", "-A", "-y", "fx-service", failpoint="act.switched=error", code=1)
        assert host.answer() == "1.0\ngreeting=hello\n"
        host.ao("apply-live", "--reset")
        same(before.system(), host.look().system())
        host.check_clean()


@pytest.mark.extended
def test_modules_of_the_running_kernel_stay(own: Host):
    release = own.run("uname", "-r").stdout.strip()
    modules = f"/usr/lib/modules/{release}"
    for ref, text in (("with", "old"), ("changed", "new")):
        top = f"/var/tmp/{ref}{modules}"
        own.sh(f"mkdir -p {top}/kernel/net; echo old >{top}/kernel/net/x.ko; echo {text} >{top}/changed")
        own.commit(ref, f"/var/tmp/{ref}")
    own.sh("ostree admin deploy with")
    own.reboot()
    for target in ("changed", "debian/13/amd64/minimal"):
        own.ao("apply-live", "--target", target)
        assert own.sh(f"cat {modules}/kernel/net/x.ko {modules}/changed") == "old\nold\n"
        assert own.exists("/usr/lib/modules/6.12.117+deb13-amd64") or own.sh("ls -d /usr/lib/modules/*deb13*")


# --- the next boot


def _assert_no_trace(host: Host) -> None:
    after = host.look()
    assert after.live_refs == [] and after.records == []
    assert all(mount[2] != "overlay" for mount in after.mounts)
    assert not any("/layers" in path for path in after.store)
    assert "/var/lib/apt-ostree/live" not in after.state


def test_reboot_into_what_was_applied(own: Host):
    own.ao("install", "-A", "-y", "fx-service", "fx-conf")
    live = own.contents_of_usr()
    own.sh("echo mine >>/etc/fx-conf/main.conf; rm /etc/fx-conf/old.conf")
    own.reboot()
    assert own.contents_of_usr() == live
    assert own.answer() == "1.0\ngreeting=hello\n"
    assert own.sh("tail -n 1 /etc/fx-conf/main.conf; ls /etc/fx-conf") == "mine\nconstant.conf\nmain.conf\n"
    _assert_no_trace(own)


@pytest.mark.extended
def test_reboot_without_the_pending_deployment(own: Host):
    before = own.look()
    own.ao("install", "-A", "-y", "fx-service", "fx-user")
    own.undeploy()
    own.reboot()
    after = own.look()
    same(before.system(), after.system())
    _assert_no_trace(own)


def test_power_cut_after_apply(own: Host):
    before = own.look()
    own.ao("install", "-A", "-y", "fx-service", "fx-user")
    own.power_cut()
    same(before.system(), own.look().system())
    _assert_no_trace(own)


@pytest.mark.extended
def test_power_cut_then_boot_of_another_deployment(own: Host):
    """The deployment that was changed live gets its /etc back although another one was booted."""
    own.ao("install", "fx-hello")
    own.reboot()
    before = own.look()
    own.ao("install", "-A", "-y", "fx-service")
    own.undeploy()
    own.sh("ostree admin set-default 1")
    own.power_cut()
    assert not own.exists("/usr/bin/fx-hello")
    _assert_no_trace(own)
    own.sh("ostree admin set-default 1")
    own.reboot()
    same(before.system(), own.look().system())


@pytest.mark.extended
def test_disabled_unit_stays_disabled(own: Host):
    own.ao("install", "-A", "-y", "fx-service")
    own.run("systemctl", "disable", "--now", SERVICE)
    own.reboot()
    assert not own.is_active(SERVICE)
    assert own.run("systemctl", "is-enabled", SERVICE, check=False).stdout == "disabled\n"


# --- interruptions


def _in_background(host: Host, name: str, *argv: str, failpoint: str | None = None) -> None:
    env = [f"--setenv=APT_OSTREE_FAILPOINT={failpoint}"] if failpoint else []
    host.run("systemd-run", f"--unit={name}", "--property=KillMode=process", "--remain-after-exit", *env,
             "apt-ostree", *argv)  # fmt: skip


def _interrupt(host: Host, client: str, worker: str) -> None:
    """Press Ctrl-C; the stopped worker goes on when the client has passed it on: SIGTERM is pending."""
    host.sh(f"kill -INT {client}")
    wait_for(host, f"grep -Eq 'ShdPnd:.*[4-7c-f]...$' /proc/{worker}/status")
    host.sh(f"kill -CONT {worker}")


def _exit_code(host: Host, name: str) -> int:
    wait_for(host, f"systemctl show -p SubState --value {name} | grep -qE 'exited|failed'")
    code = int(host.unit_property(name, "ExecMainStatus"))
    host.sh(f"systemctl stop {name}; systemctl reset-failed {name} 2>/dev/null || true")
    return code


@pytest.mark.parametrize(
    "point", ["prepare.before-layer", "journal.after", "etc.after-write", "act.switched", "act.started"]
)
def test_interrupt_undoes(host: Host, point: str):
    host.ao("install", "fx-service")
    before = host.look()
    _in_background(host, "cut", "apply-live", failpoint=f"{point}=stop")
    cli, worker = wait_for_stopped_worker(host, "cut")
    _interrupt(host, cli, worker)
    assert _exit_code(host, "cut") == 130
    same(before.system(), host.look().system())
    assert host.look().deployments == before.deployments


def test_apply_live_catches_up_with_what_is_pending(host: Host):
    host.ao("install", "fx-hello")
    again = host.json("install", "-A", "--idempotent", "fx-hello")
    assert again["live"] and host.run("fx-hello").stdout == "hello 1.0\n"
    assert not host.json("install", "-A", "--idempotent", "fx-hello")["changed"]


def test_a_second_caller_waits(host: Host):
    host.ao("install", "fx-hello")
    _in_background(host, "first", "apply-live", failpoint="act.switched=stop")
    _cli, worker = wait_for_stopped_worker(host, "first")
    during = host.look()
    refused = host.ao("install", "--no-wait", "fx-conf", code=3)
    assert "another program" in refused.stderr
    same(during.everything(), host.look().everything())
    with concurrent.futures.ThreadPoolExecutor() as pool:
        second = pool.submit(host.ao, "install", "-A", "-y", "fx-conf")
        wait_for(host, "grep -q waiting /run/apt-ostree/transactions/*/events")
        host.sh(f"kill -CONT {worker}")
        assert "waiting" in second.result().stderr
    assert _exit_code(host, "first") == 0
    assert host.run("fx-hello").stdout == "hello 1.0\n"
    assert host.exists("/etc/fx-conf/main.conf")


def test_interrupted_reset_is_finished(host: Host):
    before = host.look()
    host.ao("install", "-A", "-y", "fx-service")
    _in_background(host, "cut", "apply-live", "--reset", failpoint="undo.switched=stop")
    cli, worker = wait_for_stopped_worker(host, "cut")
    _interrupt(host, cli, worker)
    assert _exit_code(host, "cut") == 0
    same(before.system(), host.look().system())


def test_worker_outlives_its_client(host: Host):
    host.ao("install", "fx-service")
    _in_background(host, "cut", "apply-live", failpoint="act.switched=stop")
    cli, worker = wait_for_stopped_worker(host, "cut")
    host.sh(f"kill -KILL {cli}; kill -CONT {worker}")
    wait_for(host, f"! test -d /proc/{worker}")
    assert host.answer() == "1.0\ngreeting=hello\n"
    assert host.look().records[-1][1] == "live"
    host.sh("systemctl reset-failed cut 2>/dev/null || systemctl stop cut")


def test_several_at_a_time(host: Host):
    host.ao("install", "fx-service")
    for name in ("first", "second", "third"):
        _in_background(host, name, "apply-live", *(["--reset"] if name == "second" else []))
    assert {_exit_code(host, name) for name in ("first", "second", "third")} == {0}


def test_edit_while_the_plan_is_being_read(host: Host):
    """What is edited between the plan and the act is not overwritten."""
    host.ao("install", "fx-service")
    before = host.look()
    _in_background(host, "cut", "apply-live", failpoint="prepare.before-layer=stop")
    _cli, worker = wait_for_stopped_worker(host, "cut")
    host.sh(f"echo mine >/etc/fx-service.conf; kill -CONT {worker}")
    assert _exit_code(host, "cut") == 3
    assert host.sh("cat /etc/fx-service.conf; rm /etc/fx-service.conf") == "mine\n"
    same(before.system(), host.look().system())


def test_full_disk(own: Host):
    own.ao("install", "fx-service", "fx-set-40")
    before = own.look()
    own.sh("fallocate -l $(($(df -B1 --output=avail /var | tail -1) - 8192)) /var/tmp/fill; "
           "dd if=/dev/zero of=/var/tmp/more bs=4k 2>/dev/null || true; df /var | tail -1")  # fmt: skip
    # Even what would be refused is not begun, as it cannot be recorded.
    for words in (("apply-live",), ("apply-live", "--force"), ("install", "-A", "-y", "fx-hello")):
        error = own.json(*words, code=1)
        assert error["error"] == "ExternalFailure", error
    own.sh("rm /var/tmp/fill /var/tmp/more")
    after = own.look()
    same(before.system(), after.system())
    assert after.deployments == before.deployments
    own.ao("apply-live")
    assert own.is_active(SERVICE)


#: Takes all that is free, for root as well.
FILL = """\
fallocate -l $(($(stat -fc '%f*%S' /var) - 40000000)) /var/tmp/fill-$$ 2>/dev/null || true
dd if=/dev/zero of=/var/tmp/more-$$ bs=4k 2>/dev/null || true
sync -f /var
"""


@pytest.mark.extended
def test_a_full_disk_is_no_dead_end(own: Host):
    """Packages can be removed, live changes undone, deployments dropped; the shutdown gives /etc back."""
    first = own.look()
    own.ao("install", "-A", "-y", "fx-service", "fx-conf")
    own.sh(FILL)
    assert "cleanup" in own.failure("install", "fx-hello", code=1)
    own.ao("uninstall", "fx-conf")
    own.sh(FILL)
    own.ao("apply-live", "--reset")
    same(first.system(), own.look().system())
    own.sh(FILL)
    own.ao("cleanup", "-b", "-p")
    own.sh("rm -f /var/tmp/fill-* /var/tmp/more-*")
    own.ao("install", "-A", "-y", "fx-service", "fx-conf")
    own.ao("cleanup", "-p")
    own.sh(FILL)
    own.reboot()
    own.sh("rm -f /var/tmp/fill-* /var/tmp/more-*")
    same(first.system(), own.look().system())
    own.ao("install", "-A", "-y", "fx-hello")
    own.sh(FILL)
    own.ao("uninstall", "-A", "-y", "fx-hello")
    assert not own.exists("/usr/bin/fx-hello")
    own.sh("rm -f /var/tmp/fill-* /var/tmp/more-*")


#: Takes what is free, but for what is reserved for root.
FILL_FOR_USERS = """\
fallocate -l $(($(stat -fc '%a*%S' /var) - 40000000)) /var/tmp/fill
setpriv --reuid=65534 --regid=65534 --clear-groups dd if=/dev/zero of=/var/tmp/more bs=4k 2>/dev/null || true
sync -f /var
stat -fc %a /var
"""


@pytest.mark.extended
def test_packages_can_be_removed_from_a_disk_that_is_full_for_users(own: Host):
    own.ao("install", "fx-service", "fx-hello")
    own.machine.stop()
    subprocess.run(["tune2fs", "-m", "5", own.machine._disk()], check=True, stdout=subprocess.DEVNULL)
    own.machine.boot()
    assert own.sh(FILL_FOR_USERS) == "0\n"
    assert "cleanup" in own.failure("install", "-C", "fx-conf", code=1)  # apt's lists need space of a user's
    own.ao("uninstall", "-A", "-y", "fx-hello")
    assert not own.exists("/usr/bin/fx-hello")
    own.ao("uninstall", "fx-service")
    own.sh("rm /var/tmp/fill /var/tmp/more")


def test_refused_where_nothing_was_booted_from_ostree():
    for words in (["apply-live"], ["apply-live", "--reset"], ["install", "-A", "-y", "fx-hello"]):
        livehost.check_refused_here(*words)
