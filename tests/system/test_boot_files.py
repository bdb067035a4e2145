"""The boot files of deployments: on a /boot that is too small, of kernels from elsewhere, made anew."""

from __future__ import annotations

import pytest

from tests.system import livehost
from tests.system.livehost import NOBODY, Host

REF = "debian/13/amd64/minimal"
#: Lays another initramfs over the booted tree, so that a deployment of it needs boot files of its own.
INITRAMFS = (
    "cd /usr/lib/modules/*/ && mkdir -p /var/tmp/new$PWD &&"
    " { cat initramfs.img; echo; } >/var/tmp/new$PWD/initramfs.img"
)
#: Fills /boot but for a block.
FILL = "fallocate -l $(($(stat -fc '%f*%S' /boot) - 4096)) /boot/fill"


def follow_another_initramfs(host: Host) -> None:
    """Have a newer commit of the booted ref, which differs in its initramfs."""
    host.sh(INITRAMFS)
    host.commit(REF, "/var/tmp/new")


def test_boot_files_that_do_not_fit(own: Host):
    own.sh("mkdir -p /var/log/journal; journalctl --flush")  # else the first boot's is in memory only
    follow_another_initramfs(own)
    own.run_program("small_boot.sh", "100M")
    before = own.look().everything()
    error = own.json("upgrade", "--base-only", code=3)
    assert "/boot is too small" in error["message"] and "needed" in error["message"]
    (directory,) = error["details"]
    assert directory.startswith("/boot/ostree/debian-") and "deployment 0 (booted)" in directory
    assert error["hint"].startswith("remove other files from /boot")
    livehost.same(before, own.look().everything())

    own.sh("mount -o remount,size=200M /boot")
    own.ao("upgrade", "--base-only")
    staged = own.commit_of_pending()
    assert own.json("status")["uncompleted-deployment"] is None
    own.sh(FILL)
    own.reboot()

    state = own.json("status")
    assert [entry["booted"] for entry in state["deployments"]] == [True]
    assert state["uncompleted-deployment"]["checksum"] == staged
    assert "No space left on device" in state["uncompleted-deployment"]["reason"]
    assert f"Warning: deployment {staged[:12]}" in own.ao("status").stdout
    told = own.run(*NOBODY, "apt-ostree", "status").stdout
    assert f"Warning: deployment {staged[:12]}" in told and "No space left on device" in told

    own.ao("upgrade", "--base-only")  # /boot is that of the disk again, where links need no space
    assert own.json("status")["uncompleted-deployment"] is None
    own.reboot()
    assert own.commit_of_booted() == staged
    assert own.json("status")["uncompleted-deployment"] is None
    own.check_clean()


@pytest.mark.extended
def test_a_power_cut_before_the_shutdown_is_told_too(own: Host):
    own.ao("install", "fx-hello")
    staged = own.commit_of_pending()
    own.sh("sync")
    own.power_cut()
    uncompleted = own.json("status")["uncompleted-deployment"]
    assert (uncompleted["checksum"], uncompleted["reason"]) == (staged, "")
    own.ao("cleanup", "-b")
    assert own.json("status")["uncompleted-deployment"] is None


def test_a_kernel_from_elsewhere_is_the_only_one(own: Host):
    for name in ("own-kernel", "proxmox-kernel-9.9.0-1-pve"):
        own.run_program("other_kernel.sh", name, f"/var/tmp/{name}.deb")
    before = own.look().everything()
    error = own.json("install", "/var/tmp/own-kernel.deb", code=3)  # by its name it is no kernel
    assert "9.9.0-1-pve is of own-kernel" in error["details"]
    livehost.same(before, own.look().everything())

    plan = own.json("install", "/var/tmp/proxmox-kernel-9.9.0-1-pve.deb")["transaction"]
    assert plan["initramfs"] == ["made for the new kernel of proxmox-kernel-9.9.0-1-pve"]
    assert {step["reason"] for step in plan["remove"]} == {"superseded kernel"}
    assert all(step["name"].startswith("linux-image-") for step in plan["remove"])
    own.ao("install", "fx-hello")
    pending = own.commit_of_pending()
    kernels = own.sh(f"ostree ls {pending} /usr/lib/modules").splitlines()[1:]
    assert [line.rpartition("/")[2] for line in kernels] == ["9.9.0-1-pve"]
    files = own.sh(f"ostree ls {pending} /usr/lib/modules/9.9.0-1-pve")
    assert "/vmlinuz" in files and "/initramfs.img" in files
    assert (
        own.sh(f"dpkg --audit --admindir=/ostree/deploy/debian/deploy/{pending}.0/usr/lib/sysimage/dpkg")
        == ""
    )


def boot_files(host: Host, commit: str) -> tuple[str, list[str]]:
    """Return the checksum of a deployment's initramfs, and the paths that it contains."""
    modules = f"/ostree/deploy/debian/deploy/{commit}.0/usr/lib/modules/*"
    digest = host.sh(f"cat {modules}/initramfs.img | sha256sum")
    return digest, host.sh(f"cat {modules}/initramfs.list").splitlines()


@pytest.mark.extended
def test_an_initramfs_follows_what_dracut_finds(own: Host):
    """A package changes nothing; the program of another, which the plan names, has dracut add a module."""
    image, held = boot_files(own, own.commit_of_booted())
    assert not [path for path in held if path.endswith("bin/biosdevname")]
    assert own.json("install", "fx-hello")["transaction"]["initramfs"] == []
    assert boot_files(own, own.commit_of_pending()) == (image, held)

    result = own.json("install", "fx-dkms", timeout=900)
    assert result["transaction"]["initramfs"] == ["may be made anew because of fx-dkms"]
    later, holds = boot_files(own, own.commit_of_pending())
    assert later != image
    assert [path for path in holds if path.endswith("bin/biosdevname")]
    assert {path for path in held if path.startswith("usr/lib/systemd/")} <= set(holds)


def test_kernel_arguments_of_the_next_boot(own: Host):
    shown = own.ao("kargs").stdout.strip()
    before = own.look()
    own.ao("kargs", "--delete=nosuch", code=2)
    assert own.json("kargs", "--append=x=1", "--dry-run")["kernel-arguments"]["after"][-1] == "x=1"
    livehost.same(before.everything(), own.look().everything())

    own.ao("kargs", "--append=quiet", "--append=x=1", '--append=dyndbg="file a.c +p"')
    own.ao("kargs", "--replace=x=1=2", "--append-if-missing=quiet")
    wanted = f'{shown} quiet x=2 dyndbg="file a.c +p"'
    assert own.ao("kargs").stdout.strip() == own.run(*NOBODY, "apt-ostree", "kargs").stdout.strip() == wanted
    assert own.ao("kargs", "--deploy-index=1").stdout.strip() == shown
    own.ao("kargs", "--append-if-missing=quiet", "--unchanged-exit-77", code=77)
    own.ao("kargs", "--delete-if-present=x", "--unchanged-exit-77", code=77)
    own.ao("kargs", "--append=locked", "--lock-finalization")
    assert own.deployments()[0]["finalization-locked"] is True
    own.ao("kargs", "--delete-if-present=locked")
    own.run("env", "EDITOR=truncate -s0", "apt-ostree", "kargs", "--editor", check=False)
    assert own.ao("kargs").stdout.strip() == wanted
    own.ao("install", "fx-hello")  # keeps them
    own.reboot()
    entries = own.sh("grep -h ^options /boot/loader/entries/*")
    assert sum(wanted in line for line in entries.splitlines()) == 1
    assert own.ao("kargs").stdout.strip() == wanted and own.run("fx-hello").stdout == "hello 1.0\n"
    own.run("env", "EDITOR=sed -i s/quiet/verbose/", "apt-ostree", "kargs", "--editor")
    assert own.ao("kargs").stdout.strip() == wanted.replace("quiet", "verbose")
    own.check_clean()
