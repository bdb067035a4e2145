"""The machine's state: what scripts made of a machine stays as it is, whatever is changed afterwards."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.system.livehost import WRITABLE_SYSROOT, Host, program, wait_for_stopped_worker
from tests.system.sweep import SEED, TORTURE

#: What the machine is known by, and where its services have their data.
STATE = """\
cat /etc/fx-state/key /etc/fx-state/first; id fx-state; getent shadow fx-state | cut -d: -f1
stat -c '%a %U' /etc/fx-state/key
stat -c '%a %G' /etc/fx-state /etc/cron.d /etc/fx-state/*.d
cd /var/lib/fx-state && find . -printf '%P %y %m %U %G\\n' | sort
find . -type f -exec sha256sum {} + | sort -k 2
"""


#: What the boot does with the state, step by step, and how it may fail there.
STEPS = ("delta.directories", "delta.before", "delta.played", "seeds.before-copy", "seeds.copied",
         "seeds.placed", "seeds.before-record")  # fmt: skip
FAILURES = tuple(itertools.product(STEPS, ("error", "kill", "cut")))

#: What the shutdown does with /etc, by the unit that is stopped, and how it may fail there.
STOPS = (
    *(
        ("live", step)
        for step in ("shutdown.remembered", "shutdown.etc", "etc.before-write", "etc.after-write")
    ),
    *(("finalized", step) for step in ("delta.directories", "delta.before", "delta.played")),
)
STOP_FAILURES = tuple(itertools.product(STOPS, ("error", "kill")))


def sample(cases: Sequence[Any], count: int) -> Sequence[Any]:
    return cases if TORTURE else random.Random(SEED).sample(cases, count)


@pytest.fixture
def used(own: Host) -> Iterator[Host]:
    """A machine on which a package with state was installed live, and its state used since."""
    own.ao("install", "-A", "-y", "fx-state", "fx-hello")
    own.sh("cd /var/lib/fx-state; rm -r log empty; echo mine >db; echo mine >new; chmod 700 .")
    own.sh("chown root: /var/lib/fx-state/shipped; chmod 2750 /etc/cron.d; chgrp adm /etc/cron.d")
    yield own
    own.sh("! ls -A /var/lib | grep -F .apt-ostree")


def test_what_packages_left_is_given_whole(own: Host):
    own.ao("install", "-A", "-y", "fx-state")
    state = own.sh(STATE)
    for line in (
        "db f 644",
        "log/1 f 644",
        "of-root d 755 0 0",
        "of-root/file f 644 0 0",
        "shipped f 644",
    ):
        assert line in state
    own.reboot()
    assert own.sh(STATE) == state
    own.ao("install", "fx-conf")  # systemd-tmpfiles would refuse lines below a user's directory
    own.reboot()
    assert own.sh(STATE) == state


def test_state_stays_through_changes_of_other_packages(used: Host):
    state = used.sh(STATE)
    used.ao("install", "-A", "-y", "fx-conf", "fx-user")
    assert used.sh(STATE) == state
    used.ao("uninstall", "-A", "-y", "fx-conf")
    assert used.sh(STATE) == state
    used.reboot()
    assert used.sh(STATE) == state
    used.ao("install", "fx-var")
    used.ao("uninstall", "fx-var", "fx-user")
    used.reboot()
    assert used.sh(STATE) == state
    used.check_clean()


def test_state_stays_on_a_newer_base(used: Host):
    state = used.sh(STATE)
    used.reboot()
    used.run(*WRITABLE_SYSROOT, *program("newer_base.sh", "--no-gpg-verify"))
    used.ao("upgrade", "--base-only")
    used.reboot()
    assert used.exists("/usr/share/new-base")
    assert used.sh(STATE) == state
    assert used.sh("cat /etc/fx-state/*.d/*") == "made\nshipped\nshipped\n"


def _newer_base_with_account(host: Host, uid: str) -> None:
    host.sh(
        "mkdir -p /var/tmp/new/usr/etc; ostree cat debian/13/amd64/minimal /usr/etc/passwd >/var/tmp/passwd;"
        f"echo fx-new:x:{uid}:65534::/:/usr/sbin/nologin | cat /var/tmp/passwd -"
        " >/var/tmp/new/usr/etc/passwd"
    )
    host.run(*WRITABLE_SYSROOT, *program("newer_base.sh", "--no-gpg-verify"))


@pytest.mark.extended
def test_a_base_with_an_account_that_has_the_id_of_a_packages_is_refused(used: Host):
    used.reboot()
    _newer_base_with_account(used, "$(id -u fx-state)")
    before = used.deployments()
    told = used.failure("upgrade", "--base-only", code=3)
    assert "the users fx-new and fx-state have the id" in told
    assert used.deployments() == before


@pytest.mark.extended
def test_a_base_with_an_account_that_has_another_id_here_is_told(own: Host):
    own.sh("useradd --system --uid 987 mine; echo fx-new:x:986: >>/etc/group")
    _newer_base_with_account(own, "987")
    told = own.ao("upgrade", "--base-only").stderr
    assert "user fx-new has the id 987 in the tree, but mine has it on this machine" in told


@pytest.mark.extended
def test_state_outlives_its_package(used: Host):
    state = used.sh(STATE)
    used.ao("uninstall", "-A", "-y", "fx-state")
    left = used.sh("cat /var/lib/fx-state/db; ls /var/lib/fx-state")
    assert left == "mine\ndb\nnew\nof-root\n"  # but what the package shipped, and nobody changed
    used.ao("install", "-A", "-y", "fx-state")
    assert used.sh("cat /var/lib/fx-state/db") == "mine\n"
    assert state.splitlines()[:4] == used.sh(STATE).splitlines()[:4]  # the key and the accounts


def test_a_package_that_comes_again_has_what_it_ships(own: Host):
    """The tree between was the base, so that this is another build."""
    own.ao("install", "-A", "-y", "fx-state")
    own.sh("echo mine >/var/lib/fx-state/db")
    own.ao("uninstall", "-A", "-y", "fx-state")
    own.ao("install", "-A", "-y", "fx-state")
    assert own.sh("cat /var/lib/fx-state/shipped /var/lib/fx-state/db") == "shipped\nmine\n"


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize("live", [True, False])
def test_a_package_that_comes_again_is_not_configured_as_the_first_time(own: Host, live: bool):
    """Its scripts know the version of before, as after `apt remove`: else slapd makes another directory."""

    def change(*words: str) -> None:
        own.ao(*words, *(("-A", "-y") if live else ()))
        if not live:
            own.reboot()

    change("install", "fx-state")
    first = own.sh("cat /etc/fx-state/first")
    change("uninstall", "fx-state")
    change("install", "fx-state")
    assert own.sh("cat /etc/fx-state/first") == first
    change("uninstall", "fx-state")
    own.reboot()
    assert "Config-Version: 1.0\n" in own.sh("cat /etc/apt-ostree/removed-packages")
    own.sh("rm /etc/apt-ostree/removed-packages")  # as a purge
    change("install", "fx-state")
    assert own.sh("cat /etc/fx-state/first") != first


@pytest.mark.extended
def test_a_seed_that_was_cut_short_is_given_again(own: Host):
    own.ao("install", "fx-state")
    own.reboot()
    state = own.sh(STATE)
    own.sh(
        "mv /var/lib/fx-state /var/lib/.apt-ostree-seed-$(printf fx-state | sha256sum | cut -c -16);"
        "rm /var/lib/apt-ostree/seeds*.json"
    )
    own.reboot()
    assert own.sh(STATE).splitlines()[4:] == state.splitlines()[4:]
    own.sh("! ls -A /var/lib | grep -F .apt-ostree")


@pytest.mark.extended
def test_a_seed_that_was_cut_short_is_tidied_up(own: Host):
    own.ao("install", "-A", "-y", "fx-state", code=1, failpoint="seeds.copied=kill")
    assert ".apt-ostree-seed" in own.sh("ls -A /var/lib")
    own.ao("recover")
    own.sh("! ls -A /var/lib | grep -F .apt-ostree; ! test -e /var/lib/apt-ostree/seeds-placing.json")
    assert not own.exists("/var/lib/fx-state")
    own.ao("install", "-A", "-y", "fx-state", code=1, failpoint="seeds.copied=error")
    own.sh("! ls -A /var/lib | grep -F .apt-ostree; ! test -e /var/lib/apt-ostree/seeds-placing.json")


def test_accounts_are_in_all_files_or_in_none(own: Host):
    own.sh("echo root:x | chpasswd")
    own.ao("install", "fx-state")
    own.sh("mkdir /etc/fx-state; echo mine >/etc/fx-state/key")
    own.reboot()
    assert own.sh("cat /etc/fx-state/key") == "mine\n"
    assert "ToMerge: /etc/fx-state/key.dpkg-dist\n" in own.ao("status").stdout
    own.sh("rm /etc/fx-state/key.dpkg-dist; ! apt-ostree status | grep ToMerge")
    own.sh("for file in passwd shadow group gshadow; do grep -q '^fx-state:' /etc/$file; done")
    own.sh("pwck -qr; grpck -qr")
    ids = own.sh("id fx-state")
    own.ao("install", "fx-user")
    own.ao("uninstall", "fx-user")
    own.reboot()
    assert own.sh("id fx-state") == ids
    own.sh("su -s /bin/sh fx-state -c true; pwck -qr; grpck -qr")


def test_scripts_see_the_machine(own: Host):
    own.sh("hostname web1; echo mine >/etc/of-the-administrator")
    own.sh("echo 'fx-looks fx-looks/answer string forty two' | debconf-set-selections")
    own.ao("install", "-A", "-y", "fx-looks")
    seen = "web1\nmine\n1777\n1777\n1777\n0 forty two\nworks\n"
    assert own.sh("cat /etc/fx-looks") == seen
    own.reboot()
    assert own.sh("cat /etc/fx-looks") == seen
    assert own.sh("debconf-show fx-looks; echo 'get fx-looks/answer' | debconf-communicate x") != ""


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize("live", [True, False])
def test_an_edit_goes_along_with_a_renamed_conffile(own: Host, live: bool):
    how = ("-A", "-y", "--allow-replacement") if live else ()
    own.ao("install", *how, "fx-moved")
    if not live:
        own.reboot()
    own.sh("echo mine >/etc/fx-moved.conf")
    own.suites("stable", "updates")
    own.ao("upgrade", *how[:2], "--packages-only")
    for reboot in (not live, True):
        if reboot:
            own.reboot()
        assert own.sh("cat /etc/fx-moved/main.conf; ls -d /etc/fx-moved*") == "mine\n/etc/fx-moved\n"


@pytest.mark.parametrize("edited", [False, True])
def test_what_ucf_makes_follows_the_package_unless_it_was_edited(own: Host, edited: bool):
    own.sh("cp /usr/etc/apt/sources.list /etc/apt")  # ucf is of Debian
    own.ao("refresh-md", timeout=300)
    own.ao("install", "-A", "-y", "fx-ucf", timeout=300)
    assert own.sh("cat /etc/fx-ucf.conf*") == "version 1.0, whole\n"
    if edited:
        own.sh("echo mine >/etc/fx-ucf.conf")
    own.suites("stable", "updates")
    own.ao("upgrade", "-A", "-y", "--packages-only", timeout=300)
    assert own.sh("cat /etc/fx-ucf.conf") == ("mine\n" if edited else "version 2.0, whole\n")
    assert own.exists("/etc/fx-ucf.conf.ucf-dist") == edited


def test_what_scripts_did_is_undone_and_comes_again(own: Host):
    before = own.look().etc
    own.ao("install", "-A", "-y", "fx-state")
    key = own.sh("cat /etc/fx-state/key")
    own.ao("apply-live", "--reset")
    assert own.look().etc == before
    own.reboot()
    assert own.sh("cat /etc/fx-state/key") == key
    own.sh("rm /etc/fx-state/key")
    own.reboot()
    assert not own.exists("/etc/fx-state/key")  # it is the machine's


def _without_finalized(host: Host) -> None:
    """Have the power fail, as it were, before the shutdown plays the delta."""
    directory = "/run/systemd/system/apt-ostree-finalized.service.d"
    host.sh(f"mkdir -p {directory}; printf '[Service]\\nExecStop=\\n' >{directory}/no.conf")
    host.sh("systemctl daemon-reload")


@pytest.mark.extended
@pytest.mark.variants
@pytest.mark.parametrize("earlier", [(), ("fx-hello",)])
def test_what_scripts_of_a_removal_did_is_live(own: Host, earlier: Sequence[str]):
    """Also if nothing is left of the packages, so that the booted tree is shown again."""
    made = "/etc/fx-state/conf.d/made"
    own.ao("install", "-A", "-y", "fx-state", *earlier)
    assert own.exists(made)
    own.ao("uninstall", "-A", "-y", "fx-state")
    assert not own.exists(made)
    own.ao("rollback", "--live")
    assert own.exists(made)
    own.reboot()
    assert not own.exists(made)


@pytest.mark.extended
def test_accounts_of_a_package_that_was_only_live_stay(own: Host):
    """So does what it made below /var, which is theirs."""
    own.ao("install", "-A", "-y", "fx-state", "fx-user")
    ids = own.sh("id fx-state; id fx-user")
    own.ao("uninstall", "-A", "-y", "fx-state", "fx-user")
    assert own.sh("id fx-state; id fx-user") == ids
    own.reboot()
    assert own.sh("id fx-state; id fx-user; getent shadow fx-state | cut -d: -f1") == f"{ids}fx-state\n"
    assert own.sh("stat -c %U /var/lib/fx-state/db") == "fx-state\n"
    own.check_clean()


@pytest.mark.extended
def test_what_scripts_of_a_dropped_removal_did_does_not_come(own: Host):
    """The deployment that was dropped had the booted tree."""
    own.ao("install", "-A", "-y", "fx-state")
    own.ao("uninstall", "-A", "-y", "fx-state")
    own.ao("apply-live", "--reset")
    own.ao("cleanup", "-p")
    own.reboot()
    assert not own.exists("/etc/fx-state") and not own.exists("/etc/apt-ostree/removed-packages")


def test_a_power_cut_before_the_delta_was_played(own: Host):
    """The next boot plays it, and starts the units that scripts enabled."""
    own.sh("chmod 2750 /etc/cron.d")
    own.ao("install", "fx-service", "fx-state")
    _without_finalized(own)
    own.reboot()
    own.sh("cat /etc/fx-state/key")
    assert own.sh("stat -c %a /etc/cron.d /etc/fx-state/empty.d") == "2750\n750\n"
    assert own.is_active("fx-service.service")
    assert not own.exists("/var/lib/apt-ostree/etc-due")


@pytest.mark.variants
@pytest.mark.parametrize(("step", "action"), sample(FAILURES, 2))
def test_what_a_boot_could_not_give_the_next_one_gives(own: Host, step: str, action: str):
    """A seed is given whole or not at all, and a delta is played once, at whatever step the boot fails."""
    own.ao("install", "fx-service", "fx-state")
    _without_finalized(own)
    drop_in = "/etc/systemd/system/apt-ostree-state.service.d/failing.conf"
    line = (
        "ExecCondition=/bin/false" if action == "cut" else f"Environment=APT_OSTREE_FAILPOINT={step}={action}"
    )
    own.sh(f"mkdir -p $(dirname {drop_in}); printf '[Service]\\n{line}\\n' >{drop_in}")
    own.reboot()
    own.sh(f"rm {drop_in}; sync")
    if action == "cut":
        own.run(
            "systemd-run", "--unit=cut", f"--setenv=APT_OSTREE_FAILPOINT={step}=stop",
            "apt-ostree", "recover", "--at=state",
        )  # fmt: skip
        wait_for_stopped_worker(own, "cut")
        own.power_cut()
    else:
        assert any("apt-ostree-state.service" in line for line in own.failed_units())
        begun = own.sh("cat /var/lib/fx-state/db /etc/fx-state/key 2>/dev/null || true")
        own.reboot()
        assert own.sh("cat /var/lib/fx-state/db /etc/fx-state/key").endswith(begun)
    assert own.failed_units() == []
    for name in ("db f 644", "log/1 f 644", "log/2 f 644", "of-root/file f 644 0 0", "shipped f 644"):
        assert name in own.sh(STATE)
    assert own.is_active("fx-service.service")
    own.sh("! ls -A /var/lib | grep -F .apt-ostree; ! test -e /var/lib/apt-ostree/etc-due")
    own.sh("rm /etc/fx-state/key; rm -r /var/lib/fx-state/log")
    own.reboot()
    own.sh("! test -e /etc/fx-state/key; ! test -e /var/lib/fx-state/log")


@pytest.mark.variants
@pytest.mark.parametrize(("stop", "action"), sample(STOP_FAILURES, 2))
def test_what_a_shutdown_could_not_do_the_boot_does(own: Host, stop: tuple[str, str], action: str):
    """Edits stay the administrator's and state the machine's, at whatever step the shutdown fails."""
    own.ao("install", "-A", "-y", "fx-service", "fx-conf", "fx-state")
    own.sh("echo mine >/etc/fx-conf/main.conf; rm /etc/fx-conf/constant.conf")
    own.sh("chmod 2750 /etc/cron.d; chmod 700 /etc/fx-conf")
    shown = (
        "sha256sum /etc/fx-state/key; cat /etc/fx-conf/main.conf; stat -c %a /etc/cron.d /etc/fx-conf;"
        "ls /etc/fx-conf /etc/fx-state"
    )
    before = own.sh(shown)
    unit, step = stop
    _fail_at(own, f"/run/systemd/system/apt-ostree-{unit}.service.d", f"{step}={action}")
    for _boot in range(2):
        own.reboot()
        assert own.sh(shown) == before
        assert own.failed_units() == []
        assert own.is_active("fx-service.service")
        own.sh("! test -e /var/lib/apt-ostree/etc-due")
    own.check_clean()


@pytest.mark.extended
@pytest.mark.parametrize("action", sample(("error", "kill"), 1))
def test_a_boot_that_could_not_clear_up_is_repeated(own: Host, action: str):
    before = own.look().etc
    own.ao("install", "-A", "-y", "fx-service", "fx-conf", "fx-state")
    drop_in = "/etc/systemd/system/apt-ostree-recover.service.d"
    _fail_at(own, drop_in, f"boot.cleared={action}")
    own.power_cut()
    assert any("apt-ostree-recover.service" in line for line in own.failed_units())
    own.sh(f"rm -r {drop_in}; systemctl daemon-reload; systemctl reset-failed")
    own.ao("recover")
    assert own.look().etc == before
    own.reboot()
    assert own.look().etc == before and own.failed_units() == []
    own.ao("install", "-A", "-y", "fx-service", "fx-conf", "fx-state")
    own.check_clean()


def _fail_at(host: Host, directory: str, failpoint: str) -> None:
    """Have a unit's program fail, by a directory of drop-ins for the unit."""
    text = f"[Service]\\nEnvironment=APT_OSTREE_FAILPOINT={failpoint}\\n"
    host.sh(f"mkdir -p {directory}; printf '{text}' >{directory}/failing.conf; systemctl daemon-reload; sync")
