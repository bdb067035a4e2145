"""The machine's state: what scripts made of a machine stays as it is, whatever is changed afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.livehost import WRITABLE_SYSROOT, Host, program

#: What the machine is known by, and where its services have their data.
STATE = """\
cat /etc/fx-state/key; id fx-state; getent shadow fx-state | cut -d: -f1; stat -c '%a %U' /etc/fx-state/key
cd /var/lib/fx-state && find . -printf '%P %y %m %U %G\\n' | sort
find . -type f -exec sha256sum {} + | sort -k 2
"""


@pytest.fixture
def used(own: Host) -> Iterator[Host]:
    """A machine on which a package with state was installed live, and its state used since."""
    own.ao("install", "-A", "-y", "fx-state", "fx-hello")
    own.sh("cd /var/lib/fx-state; rm -r log empty; echo mine >db; echo mine >new; chmod 700 .")
    own.sh("chown root: /var/lib/fx-state/shipped")
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


def test_state_outlives_its_package(used: Host):
    state = used.sh(STATE)
    used.ao("uninstall", "-A", "-y", "fx-state")
    left = used.sh("cat /var/lib/fx-state/db; ls /var/lib/fx-state")
    assert left == "mine\ndb\nnew\nof-root\n"  # but what the package shipped, and nobody changed
    used.ao("install", "-A", "-y", "fx-state")
    assert used.sh("cat /var/lib/fx-state/db") == "mine\n"
    assert state.splitlines()[1:3] == used.sh(STATE).splitlines()[1:3]  # the accounts


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


def test_accounts_are_in_all_files_or_in_none(own: Host):
    own.sh("echo root:x | chpasswd")
    own.ao("install", "fx-state")
    own.reboot()
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


def test_a_power_cut_before_the_delta_was_played(own: Host):
    """The next boot plays it, and starts the units that scripts enabled."""
    own.ao("install", "fx-service", "fx-state")
    own.sh("mkdir -p /run/systemd/system/apt-ostree-finalized.service.d")
    own.sh("printf '[Service]\\nExecStop=\\n' >/run/systemd/system/apt-ostree-finalized.service.d/no.conf")
    own.sh("systemctl daemon-reload")
    own.reboot()
    own.sh("cat /etc/fx-state/key")
    assert own.is_active("fx-service.service")
    assert not own.exists("/var/lib/apt-ostree/etc-due")
