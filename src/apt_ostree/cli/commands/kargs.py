"""kargs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.model import kargs as arguments
from apt_ostree.model.queries import KernelArguments
from apt_ostree.model.requests.deployments import Kargs


def _changes(command: options.Command) -> options.Command:
    rows = (
        ("append", "KEY[=VALUE]", "Add an argument."),
        ("append-if-missing", "KEY[=VALUE]", "Add an argument unless it is there."),
        ("replace", "KEY=[OLD=]NEW", "Give an argument another value."),
        ("delete", "KEY[=VALUE]", "Remove an argument."),
        ("delete-if-present", "KEY[=VALUE]", "Remove exactly this argument, if it is there."),
    )
    for name, metavar, text in reversed(rows):
        command = click.option(f"--{name}", multiple=True, metavar=metavar, help=text)(command)
    return command


@click.command(
    epilog="Examples: apt-ostree kargs; apt-ostree kargs --append=quiet --delete-if-present=debug; "
    "apt-ostree kargs --replace=console=ttyS0 -r"
)
@_changes
@options.output
@options.dry_run
@options.no_wait
@options.reboot
@options.unchanged_exit_77
@options.lock_finalization
@options.override_policy
@options.allow_failed
@click.option("--editor", is_flag=True, help="Edit the arguments in an editor.")
@click.option("--import-proc-cmdline", is_flag=True, help="Start from the arguments of the running kernel.")
@click.option(
    "--deploy-index", type=int, metavar="INDEX", help="Show or start from those of this deployment."
)
def kargs(editor: bool, import_proc_cmdline: bool, deploy_index: int | None, **given: Any) -> int:
    """Show the kernel arguments of the next boot, or change them in a new deployment.

    Each of the options may be given several times. --append, --replace and --delete take several arguments,
    with spaces between them, too. Arguments are removed first, then replaced, then added. Without a change,
    --import-proc-cmdline shows those of the running kernel.
    """
    names = ("append", "append_if_missing", "replace", "delete", "delete_if_present")
    changes = {name: given[name] for name in names if given[name]}
    if import_proc_cmdline and deploy_index is not None:
        raise click.UsageError("--import-proc-cmdline and --deploy-index exclude each other")
    if editor and changes:
        raise click.UsageError("--editor and changes of single arguments exclude each other")
    query = KernelArguments(deploy_index=deploy_index, running=import_proc_cmdline)
    if not (editor or changes):
        return _show(query, given)
    options.refuse_lock_and_reboot(given)
    seen = tuple(options.answer_json(query)) if editor else None
    request = Kargs(
        changes=arguments.Changes.split(**changes),
        whole=None if seen is None else _edited(seen),
        seen=seen,
        import_running=import_proc_cmdline,
        deploy_index=deploy_index,
        deploy=options.next_boot_options(given),
    )
    return options.run_verb(request, given)


def _show(query: KernelArguments, given: Mapping[str, Any]) -> int:
    """Print the arguments that a query asks for."""
    if given["reboot"]:
        raise click.UsageError("--reboot needs a change of the kernel arguments")
    shown = options.answer_json(query)
    if given["as_json"]:
        render.result_json({"kernel-arguments": shown})
    else:
        render.lines(" ".join(shown))
    return 0


def _edited(before: arguments.Arguments) -> arguments.Arguments:
    """Return what the user makes of the arguments in an editor, one in each line."""
    header = "# The kernel arguments, one in each line. A line that begins with # is left out.\n"
    text = click.edit("\n".join((header.rstrip(), *before, "")), editor=os.environ.get("SUDO_EDITOR"))
    return before if text is None else arguments.read_edited(text)
