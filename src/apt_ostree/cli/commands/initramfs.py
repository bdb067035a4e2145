"""initramfs and initramfs-etc."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.model.queries import Status
from apt_ostree.model.requests.deployments import Initramfs, InitramfsEtc


@click.command(
    epilog="Examples: apt-ostree initramfs; apt-ostree initramfs --enable --arg=-I --arg=/etc/crypttab; "
    "apt-ostree initramfs --disable"
)
@options.output
@options.dry_run
@options.no_wait
@options.reboot
@options.lock_finalization
@options.override_policy
@options.allow_failed
@options.unchanged_exit_77
@click.option("--enable", is_flag=True, help="Make an initramfs here, now and in each later deployment.")
@click.option("--arg", "arguments", multiple=True, metavar="ARG", help="Argument of dracut; with --enable.")
@click.option("--disable", is_flag=True, help="Take the initramfs of the base again.")
def initramfs(enable: bool, disable: bool, arguments: tuple[str, ...], **given: Any) -> int:
    """Show or change whether the machine makes its own initramfs.

    The initramfs of the base is the same for all machines. Its own one has what the arguments of dracut(8)
    add, and dracut sees the machine's /etc. To have changed files of /etc in it, use --enable again.
    """
    if enable and disable:
        raise click.UsageError("--enable and --disable exclude each other")
    if arguments and not enable:
        raise click.UsageError("--arg needs --enable")
    if not (enable or disable):
        return _show(as_json=given["as_json"])
    options.refuse_lock_and_reboot(given)
    chosen = options.next_boot_options(given)
    return options.run_verb(Initramfs(enable=enable, arguments=arguments, deploy=chosen), given)


def _show(*, as_json: bool) -> int:
    deployment = options.answer_json(Status())["deployments"][0]
    found = {key: deployment.get(key, []) for key in ("regenerate-initramfs", "initramfs-args")}
    if as_json:
        render.result_json(found)
        return 0
    state = "enabled" if found["regenerate-initramfs"] else "disabled"
    render.lines(f"Initramfs regeneration: {state}")
    if found["initramfs-args"]:
        render.lines(f"Initramfs args: {shlex.join(found['initramfs-args'])}")
    return 0


@click.command(
    "initramfs-etc",
    epilog="Examples: apt-ostree initramfs-etc; apt-ostree initramfs-etc --track=/etc/vconsole.conf; "
    "apt-ostree initramfs-etc --untrack-all --track=/etc/cmdline.d -r; apt-ostree initramfs-etc --force-sync",
)
@options.output
@options.dry_run
@options.no_wait
@options.reboot
@options.lock_finalization
@options.override_policy
@options.allow_failed
@options.unchanged_exit_77
@click.option("--track", multiple=True, metavar="FILE", help="Have a file or directory of /etc in it.")
@click.option("--untrack", multiple=True, metavar="FILE", help="Have it in it no longer.")
@click.option("--untrack-all", is_flag=True, help="Have nothing in it but what --track says.")
@click.option("--force-sync", is_flag=True, help="Take the present contents, if they are others.")
def initramfs_etc(track: tuple[str, ...], untrack: tuple[str, ...], **given: Any) -> int:
    """Show or change which files of /etc are also in the initramfs.

    They are added to the initramfs as it is, whether the base's or the machine's own, so that it need not be
    made again. Each deployment that is built takes what they contain then; a change of them alone makes no
    deployment.

    What is tracked can be read where the initramfs can: the file in /boot is root's alone, but a /boot on a
    file system without permissions, such as an EFI one, protects nothing.
    """
    everything, sync = given.pop("untrack_all"), given.pop("force_sync")
    if not (track or untrack or everything or sync):
        return _show_tracked(given)
    options.refuse_lock_and_reboot(given)
    chosen = options.next_boot_options(given)
    changes = {"track": track, "untrack": untrack, "untrack_all": everything, "force_sync": sync}
    return options.run_verb(InitramfsEtc(**changes, deploy=chosen), given)


def _show_tracked(given: Mapping[str, Any]) -> int:
    if given["reboot"]:
        raise click.UsageError("--reboot needs --track, --untrack, --untrack-all or --force-sync")
    tracked = options.answer_json(Status())["deployments"][0].get("initramfs-etc", [])
    if given["as_json"]:
        render.result_json({"initramfs-etc": tracked})
    elif tracked:
        render.lines("\n".join(["Tracked files:", *(f"  {path}" for path in tracked)]))
    else:
        render.lines("No tracked files.")
    return 0
