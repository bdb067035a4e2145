"""Overlays in a virtual machine: a web server's configuration through reboots, power cuts and a new base."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system.livehost import Host, wait_for, wait_for_stopped_worker

TIMEOUT = 900  # seconds of one command; everything is emulated
CONF = "/etc/nginx/nginx.conf"
TOOL = "/usr/bin/getent"  # the binary that is wrapped
WRAPPER = f'#!/bin/sh\n[ "$1" = fx ] && echo wrapped && exit\nexec {TOOL}.real "$@"\n'
PATHS = ("/etc/nginx", "/etc/issue", "/etc/mine", TOOL, f"{TOOL}.real", "/usr/share/nginx")
REF = "test/changed"


@pytest.fixture
def host(new_vm: Callable[..., Host]) -> Host:
    return new_vm(_prepare)


def _prepare(host: Host) -> None:
    """Have nginx, and a base in which TOOL is another."""
    host.ao("install", "-y", "nginx-light", timeout=TIMEOUT)
    host.sh("echo mine >/etc/mine; echo edited >>/etc/issue")
    host.reboot()
    host.sh(f"mkdir -p /var/tmp/new/usr/bin; printf '#!/bin/sh\\necho base\\n' >/var/tmp/new{TOOL};"
            f"chmod 0755 /var/tmp/new{TOOL}")  # fmt: skip
    host.commit(REF, "/var/tmp/new")
    edit = "s/^http {/http { add_header X-Overlay one always;/"
    host.sh(f"mkdir /var/tmp/w; cp -a {TOOL} /var/tmp/w/real; sed '{edit}' {CONF} >/var/tmp/w/conf")
    host.run("sh", "-c", "cat >/var/tmp/w/wrapper; sync", input=WRAPPER)


def usroverlay(host: Host, *words: str) -> None:
    host.ao("usroverlay", "-y", *words, timeout=TIMEOUT)


def create(host: Host) -> None:
    usroverlay(
        host, "--create", "--name=web", f"--add={CONF}", "--from=/var/tmp/w/conf",
        f"--add={TOOL}", "--from=/var/tmp/w/wrapper",
        f"--add={TOOL}.real", "--from=/var/tmp/w/real", "--restart-services",
    )  # fmt: skip


def listing(host: Host) -> list[str]:
    return host.run_program("list_files.sh", *PATHS, timeout=TIMEOUT).stdout.splitlines()


def shows(host: Host, *, overlay: bool) -> None:
    """See that nginx and the wrapper are the overlay's, or that neither is."""
    wait_for(host, "curl --silent --fail --output /dev/null http://localhost/", TIMEOUT)
    answers = "curl --silent --head http://localhost/ | grep -q 'X-Overlay: one'"
    wait_for(host, answers if overlay else f"! {answers}", TIMEOUT)  # nginx takes a moment to reload
    found = host.run("getent", "fx", check=False).stdout
    assert (found == "wrapped\n") == overlay, found
    assert host.run("getent", "passwd", "root").stdout.startswith("root:")
    assert host.sh("tail -n 1 /etc/issue; cat /etc/mine") == "edited\nmine\n"


def cut(host: Host) -> None:
    host.machine.kill()
    host.machine.boot(vm=True)


@pytest.mark.vm
def test_a_web_servers_overlay_from_its_making_to_a_new_base(host: Host):
    before = listing(host)
    shows(host, overlay=False)
    create(host)
    shows(host, overlay=True)
    after = listing(host)
    host.reboot()
    assert listing(host) == after
    shows(host, overlay=True)

    assert "system/web" in host.run("apt-ostree", "usroverlay", "--list").stdout
    done = host.run("apt-ostree", "apply-live", f"--target={REF}", "--allow-replacement", "-y",
                    check=False, timeout=TIMEOUT)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the base has another {TOOL} now" in done.stdout + done.stderr
    assert listing(host) == after
    shows(host, overlay=True)
    host.run("apt-ostree", "apply-live", "--reset", "-y", timeout=TIMEOUT)

    usroverlay(host, "--disable=web", "--restart-services")
    assert listing(host) == before
    shows(host, overlay=False)
    host.reboot()
    assert listing(host) == before
    shows(host, overlay=False)
    host.check_clean()


@pytest.mark.vm
def test_power_cuts_between_the_steps_of_a_web_servers_overlay(host: Host):
    before = listing(host)
    cut(host)
    assert listing(host) == before
    create(host)
    after = listing(host)
    for words, wanted in (
        ((), after),
        (("--disable=web", "--restart-services"), before),
        (("--enable=web", "--restart-services"), after),
        (("--remove", "--name=web", "--restart-services"), before),
    ):
        if words:
            usroverlay(host, *words)
        cut(host)
        assert listing(host) == wanted, words
        shows(host, overlay=wanted == after)
    for point, wanted in (("journal.after", before), ("act.switched", before)):
        # Stopped between two steps, and cut there: the old state boots.
        host.run("systemd-run", "--unit=cut", f"--setenv=APT_OSTREE_FAILPOINT={point}=stop",
                 "apt-ostree", "usroverlay", "-y", "--create", "--name=web",
                 f"--add={CONF}", "--from=/var/tmp/w/conf")  # fmt: skip
        wait_for_stopped_worker(host, "cut")
        cut(host)
        assert listing(host) == wanted, point
        shows(host, overlay=False)
    host.check_clean()
