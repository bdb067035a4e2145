"""initramfs."""

from __future__ import annotations

import shlex
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.model.queries import Status
from apt_ostree.model.requests.deployments import Initramfs


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
