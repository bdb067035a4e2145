"""deploy and rebase on a booted machine that follows a remote: live, by reboot, killed at each step."""

from __future__ import annotations

import pytest

from tests.system import livehost
from tests.system.livehost import WRITABLE_SYSROOT, Host, program, same

MINIMAL, OTHER = "debian/13/amd64/minimal", "debian/13/amd64/other"
#: A branch of the remote with one commit, of the version o1.
ADD_OTHER = (
    "cd /var/tmp && mkdir -p other/usr/share && echo other >other/usr/share/other &&"
    f" ostree commit --repo=base --branch={OTHER} --owner-uid=0 --owner-gid=0"
    f" --add-metadata-string=version=o1 --tree=ref={MINIMAL}^ --tree=dir=other"
)

#: What a plan does with packages.
KINDS = ("install", "upgrade", "remove")


@pytest.fixture
def follower(own: Host) -> Host:
    """The machine follows a branch of a remote with one newer commit, of the version 14."""
    own.run(*WRITABLE_SYSROOT, *program("newer_base.sh", "--no-gpg-verify"))
    own.sh(ADD_OTHER)
    return own


def versions(host: Host) -> list[str]:
    """Return the versions of the deployments' bases, the next boot's first."""
    return [entry["version"] for entry in host.deployments()]


def test_to_a_newer_commit_and_another_branch_and_back(follower: Host):
    first = versions(follower)[0]
    follower.ao("install", "-A", "-y", "fx-service", "fx-user")
    follower.sh("echo mine >>/etc/fx-service.conf; id -u fx-user >/var/uid")
    result = follower.json("deploy", "-A", "-y", "14")
    assert result["live"] and follower.sh("cat /usr/share/new-base") == "new\n"
    result = follower.json("rebase", "-A", "-y", OTHER)
    assert follower.sh("cat /usr/share/other") == "other\n"
    assert not follower.exists("/usr/share/new-base")
    assert follower.is_active("fx-service.service")
    titles = [entry["verb"] for entry in follower.json("history")]
    assert titles[-2:] == ["deploy -A 14", f"rebase -A {OTHER}"]
    follower.reboot()

    booted = follower.deployments()[0]
    assert (booted["booted"], booted["origin"], booted["version"]) == (True, f"base:{OTHER}", "o1")
    assert booted["requested-packages"] == ["fx-service", "fx-user"]
    assert follower.is_active("fx-service.service")
    kept = "id -u fx-user | cmp - /var/uid && tail -n 1 /etc/fx-service.conf"
    assert follower.sh(kept) == "mine\n"
    follower.ao("upgrade", "--base-only", "--unchanged-exit-77", code=77)
    follower.ao("rebase", MINIMAL, first)
    follower.ao("upgrade", "--check")  # goes on with the newest commit of the branch
    follower.reboot()
    assert versions(follower)[0] == first and follower.sh(kept) == "mine\n"
    follower.check_clean()


def test_packages_change_with_the_base(follower: Host):
    follower.ao("install", "--no-recommends", "fx-recommends")  # it recommends fx-conf
    assert follower.json("status")["deployments"][0]["packages"] == ["fx-recommends"]
    follower.ao("install", "fx-hello=1.0", "fx-conf")
    before = follower.look()
    assert "'nosuch'" in follower.failure("upgrade", "--uninstall=nosuch", code=2)
    assert "'nosuch'" in follower.failure("rebase", OTHER, "--install=nosuch", code=2)
    after = follower.look()
    pulled = [[ref for ref in look.refs if not ref.startswith("base:")] for look in (before, after)]
    assert pulled[0] == pulled[1] and before.deployments == after.deployments
    follower.suites("stable", "updates")
    plan = follower.json("upgrade", "--packages-only", "--install=fx-user", "--uninstall=fx-hello")
    found = {kind: [step["name"] for step in plan["transaction"][kind]] for kind in KINDS}
    assert found == {"install": ["fx-user"], "upgrade": ["fx-conf"], "remove": ["fx-hello"]}
    follower.ao("upgrade", "-A", "-y", "--install=fx-service", "--uninstall=fx-conf")
    assert follower.sh("cat /usr/share/new-base; id -un fx-user") == "new\nfx-user\n"
    assert follower.is_active("fx-service.service") and not follower.exists("/usr/share/fx-conf")
    follower.ao("rebase", OTHER, "--install=fx-hello", "--uninstall=fx-user")
    follower.reboot()
    booted = follower.deployments()[0]
    assert (booted["version"], booted["requested-packages"]) == (
        "o1",
        ["fx-hello", "fx-recommends", "fx-service"],
    )
    assert follower.sh("fx-hello") == "hello 2.0\n" and follower.is_active("fx-service.service")
    assert not follower.exists("/usr/share/new-base") and not follower.exists("/usr/share/fx-conf")
    follower.check_clean()


#: What the scripts of fx-divert make of /etc.
ALTERNATIVE = "/etc/alternatives/fx-editor"


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize("others", [(), ("fx-user",)])
def test_dropped_packages_clean_up_before_the_base_changes(follower: Host, others):
    follower.ao("install", "-A", "-y", "fx-divert", *others)
    follower.sh("echo mine >/etc/mine")
    follower.reboot()
    assert follower.run("readlink", ALTERNATIVE).stdout == "/usr/bin/fx-editor-two\n"
    follower.ao("upgrade", "--base-only", "--uninstall=fx-divert", *(["-A", "-y"] if others else []))
    if others:
        assert not follower.is_link(ALTERNATIVE)
    follower.reboot()
    booted = follower.deployments()[0]
    assert (booted["version"], booted["requested-packages"]) == ("14", list(others))
    assert not follower.is_link(ALTERNATIVE) and follower.sh("cat /etc/mine") == "mine\n"
    follower.check_clean()


#: Makes a package that has a file of gzip, which belongs to the base.
FORCED = """
mkdir -p /var/tmp/forced/DEBIAN /var/tmp/forced/usr/bin
printf '#!/bin/sh\\necho forced\\n' >/var/tmp/forced/usr/bin/zgrep
chmod 755 /var/tmp/forced/usr/bin/zgrep
printf 'Package: fx-forced\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n' \\
    >/var/tmp/forced/DEBIAN/control
dpkg-deb --root-owner-group --build /var/tmp/forced /var/tmp/forced.deb
sha256sum /usr/bin/zgrep >/var/tmp/zgrep.sha256
"""


@pytest.mark.extended
def test_replaced_files_stay_on_a_new_base_and_come_back(follower: Host):
    follower.sh(FORCED)
    assert "zgrep" in str(follower.json("install", "/var/tmp/forced.deb", code=1))
    follower.ao("install", "-A", "-y", "--force-replacefiles", "/var/tmp/forced.deb")
    assert follower.run("zgrep").stdout == "forced\n"
    pending = follower.deployments()[0]
    assert pending["requested-local-fileoverride-packages"] == ["fx-forced=1"]
    assert pending["requested-local-packages"] == []
    follower.ao("upgrade", "-A", "-y", "--base-only")
    assert follower.run("zgrep").stdout == "forced\n" and follower.exists("/usr/share/new-base")
    assert follower.sh("dpkg --verify gzip fx-forced") == ""
    follower.ao("uninstall", "-A", "-y", "fx-forced")
    follower.sh(
        "sha256sum --check /var/tmp/zgrep.sha256; dpkg --verify gzip; ! dpkg-divert --list | grep fx-f"
    )
    follower.check_clean()


@pytest.mark.extended
def test_an_update_driver_decides(follower: Host):
    unit = "driver.service"
    kept = ("-p", "Type=oneshot", "-p", "RemainAfterExit=yes")
    follower.ao("deploy", "--register-driver=Test", code=2)  # no service runs this
    register = ("apt-ostree", "deploy", "", "--register-driver=Test")
    follower.run("systemd-run", "--quiet", f"--unit={unit}", *kept, *register)
    driver = follower.json("status")["update-driver"]
    assert driver == {"driver-name": "Test", "driver-sd-unit": unit, "driver-active": True}
    before = follower.look()
    for words in (["upgrade"], ["deploy", "14"], ["rebase", OTHER]):
        assert f"driven by Test ({unit})" in follower.ao(*words, code=3).stderr
    same(before.everything(), follower.look().everything())
    follower.ao("upgrade", "--check")
    follower.ao("deploy", "14", "--bypass-driver")
    follower.ao("cleanup", "-p")
    follower.sh(f"systemctl stop {unit}")
    assert "not active" in follower.ao("status").stdout
    follower.ao("deploy", "14")


def test_refusals_touch_nothing(follower: Host):
    before = follower.look()
    for words, code in (
        (("deploy", "15"), 2),
        (("deploy", "-C", "revision=" + "0" * 64, "--skip-branch-check"), 2),
        (("rebase", MINIMAL), 2),
        (("rebase", "nosuch:x"), 2),
        (("rebase", "base:nosuch"), 1),
        (("rebase", "a", "-b", "b"), 2),
    ):
        error = follower.json(*words, code=code)
        assert error["message"] and error["hint"], error
    livehost.same(before.everything(), follower.look().everything())


#: Each is passed once by a rebase to a commit.
POINTS = ("repo.after-history", "stage.before", "stage.after", "rebase.before-forget")


@pytest.mark.extended
def test_killed_or_failed_at_each_step(follower: Host):
    first = versions(follower)
    for point in POINTS:
        for action in ("kill", "error"):
            follower.run(*WRITABLE_SYSROOT, "ostree", "pull", f"base:{MINIMAL}")
            failed = follower.run(
                "apt-ostree",
                "rebase",
                OTHER,
                "o1",
                env={"APT_OSTREE_FAILPOINT": f"{point}={action}"},
                check=False,
            )
            assert failed.returncode != 0, point
            assert versions(follower) in (first, ["o1", *first]), point
            follower.undeploy()
            follower.ao("upgrade", "-C", "--base-only")
            assert versions(follower) == ["14", *first], point
            follower.undeploy()
            if (point, action) == ("repo.after-history", "kill"):  # of the branch, only the commit is there
                follower.ao("rebase", "-C", OTHER, code=2)
            follower.ao("rebase", OTHER, "o1")
            assert versions(follower) == ["o1", *first], point
            follower.undeploy()
    follower.check_clean()


def test_commits_of_a_remote_have_to_be_signed(own: Host):
    own.sh(
        "gpg --batch --quiet --passphrase '' --quick-generate-key os@example.com ed25519 sign never &&"
        " gpg --export >/var/tmp/os.gpg"
    )
    own.run(*WRITABLE_SYSROOT, *program("newer_base.sh", "--gpg-import=/var/tmp/os.gpg"))
    assert own.deployments()[0]["signatures"] == []
    before = own.look()
    for words in (("upgrade", "--base-only"), ("deploy", "14"), ("upgrade", "-A", "-y")):
        assert "list-gpg-keys base" in own.failure(*words, code=3)
    livehost.same(before.everything(), own.look().everything())

    signing = ("compose", "sign", "--repo=/var/tmp/base", f"--rev={MINIMAL}", "--key=os@example.com")
    assert own.json(*signing)["changed"] and not own.json(*signing)["changed"]
    own.ao("upgrade", "-A", "-y", "--base-only")
    assert own.sh("cat /usr/share/new-base") == "new\n"
    (signature,) = own.deployments()[0]["signatures"]
    assert signature["valid"] and signature["mail"] == "os@example.com"
    assert f"GPGSignature: Valid signature by {signature['fingerprint']}" in own.ao("status").stdout

    own.ao("rollback", "--live")
    own.undeploy()
    own.sh("echo gpg-verify=false >>/etc/ostree/remotes.d/base.conf")
    own.ao("rebase", MINIMAL, "14")
    noted = own.sh(
        "journalctl -o cat -t apt-ostree APT_OSTREE_UNVERIFIED=$(ostree rev-parse base:" + MINIMAL + ")"
    )
    assert "gpg-verify=false is set for the remote base" in noted
    assert "not required" in own.ao("status").stdout
