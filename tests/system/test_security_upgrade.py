"""A Debian 12 without its security updates gets them on the running system, then boots into them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed_lib.images import Wanted, image

from tests.system import livehost
from tests.system.livehost import Host

TREEFILE = Path(__file__).resolve().parents[2] / "examples/debian-12-release-only.yaml"
SECURITY = """\
Types: deb
URIs: http://security.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
IMAGE = "linux-image-"
LIMIT = 200_000  # kB


@pytest.fixture
def host() -> Iterator[Host]:
    with livehost.booted(image(Wanted(treefile=TREEFILE))) as machine:
        yield machine


def kernel(host: Host) -> str:
    return host.sh("ls /usr/lib/modules").strip()


@pytest.mark.extended
def test_security_upgrade(host: Host):
    old_kernel = kernel(host)
    host.machine.exec("tee", "/etc/apt/sources.list.d/security.sources", input=SECURITY.encode(), check=True)
    host.suites("none")

    result = host.json("upgrade", "-A", "-y", timeout=900)

    steps = {step["name"]: step for step in result["transaction"]["upgrade"]}
    if not any(step["security"] for step in steps.values()):
        pytest.skip("there are no security updates since the last point release")
    assert result["live"]
    after = host.installed()
    assert {name: after[name] for name in steps} == {name: step["new"] for name, step in steps.items()}
    assert after["openssl"].partition("-")[0] in host.run("openssl", "version").stdout
    added = {step["name"] for step in result["transaction"]["install"]}
    new_kernel = next((n.removeprefix(IMAGE) for n in added if n.startswith(IMAGE)), old_kernel)
    if new_kernel != old_kernel:
        # By their names: a container runs the host's kernel, which is the one whose modules would stay.
        deferred = "\n".join(result["plan"]["deferred"])
        assert f"kernel {old_kernel}" in deferred and f"kernel {new_kernel}" in deferred
        assert f"initramfs of {new_kernel}" in deferred
    advisories = host.json("status", "--advisories")["deployments"][0]["advisories"]
    assert any(name.startswith("CVE-") for row in advisories for name in row["cves"])
    host.check_clean()

    host.reboot()

    assert host.installed() == after
    assert kernel(host) == new_kernel
    assert after["openssl"].partition("-")[0] in host.run("openssl", "version").stdout
    assert host.exists(f"/usr/lib/modules/{new_kernel}/initramfs.img")
    assert host.run("systemctl", "is-system-running", check=False).stdout == "running\n"
    host.check_clean()
    host.run("ostree", "fsck", "--quiet")
    host.ao("upgrade", "--check", code=77)

    # With all of Debian to choose from.
    assert 20_000 < host.memory_of_worker("install", packages=["ncdu"]) < LIMIT
