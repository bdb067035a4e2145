"""The entry point of the command line: imports and runs the command, and maps errors to exit codes.

Each command is in a module of `cli.commands`, which is imported only if the command is used.
"""

from __future__ import annotations

import importlib
import os
import sys
from itertools import takewhile

import click

from apt_ostree import __version__
from apt_ostree.cli import render
from apt_ostree.errors import AptOstreeError, Cancelled, UsageError, from_os_error
from apt_ostree.model.plan import RestartPolicy

#: Command -> (module, attribute, one line of help). The help is here so that `--help` imports no command.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "install": ("apt_ostree.cli.commands.packages", "install", "Layer packages on the next deployment"),
    "uninstall": ("apt_ostree.cli.commands.packages", "uninstall", "Remove layered packages"),
    "override": ("apt_ostree.cli.commands.override", "override", "Remove or replace packages of the base"),
    "run": ("apt_ostree.cli.commands.packages", "run", "Run a program in the next deployment"),
    "upgrade": ("apt_ostree.cli.commands.packages", "upgrade", "Upgrade the base and the packages"),
    "deploy": ("apt_ostree.cli.commands.rebase", "deploy", "Deploy a commit of the branch"),
    "rebase": ("apt_ostree.cli.commands.rebase", "rebase", "Follow another branch"),
    "reset": ("apt_ostree.cli.commands.override", "reset_all", "Deploy the base without layered packages"),
    "initramfs": ("apt_ostree.cli.commands.initramfs", "initramfs", "Show and change the initramfs"),
    "initramfs-etc": (
        "apt_ostree.cli.commands.initramfs",
        "initramfs_etc",
        "Show and change which files of /etc it has",
    ),
    "install-to-disk": (
        "apt_ostree.cli.commands.install_to_disk",
        "install_to_disk",
        "Install a system on a disk",
    ),
    "install-to-existing-root": (
        "apt_ostree.cli.commands.install_to_existing_root",
        "install_to_existing_root",
        "Turn the Debian that runs into such a system",
    ),
    "kargs": ("apt_ostree.cli.commands.kargs", "kargs", "Show and change the kernel arguments"),
    "bootloader": ("apt_ostree.cli.commands.bootloader", "bootloader", "Show and update the boot loader"),
    "status": ("apt_ostree.cli.commands.status", "status", "Show the deployments and the live state"),
    "metrics": ("apt_ostree.cli.commands.metrics", "metrics", "Print metrics for Prometheus"),
    "apply-live": ("apt_ostree.cli.commands.live", "apply_live", "Apply a deployment to the running system"),
    "confirm": ("apt_ostree.cli.commands.live", "confirm", "Keep a change made with --confirm-within"),
    "db": ("apt_ostree.cli.commands.db", "db", "Show and compare the packages of commits"),
    "policy": ("apt_ostree.cli.commands.policy", "policy", "Show what the policy decides about a command"),
    "approve": ("apt_ostree.cli.commands.policy", "approve", "Approve the plan of a change"),
    "history": ("apt_ostree.cli.commands.history", "history", "Show who did what, and how it ended"),
    "recover": ("apt_ostree.cli.commands.live", "recover", "Undo an interrupted live change"),
    "rollback": ("apt_ostree.cli.commands.deployments", "rollback", "Boot the previous deployment next"),
    "finalize-deployment": (
        "apt_ostree.cli.commands.deployments",
        "finalize_deployment",
        "Boot a deployment that was locked",
    ),
    "pin": ("apt_ostree.cli.commands.deployments", "pin", "Keep deployments"),
    "unpin": ("apt_ostree.cli.commands.deployments", "unpin", "Keep deployments no longer"),
    "cleanup": (
        "apt_ostree.cli.commands.deployments",
        "cleanup",
        "Remove deployments and downloads",
    ),
    "cancel": ("apt_ostree.cli.commands.transactions", "cancel", "Cancel the transaction that is at work"),
    "reload": ("apt_ostree.cli.commands.transactions", "reload", "Have the service look at the system again"),
    "refresh-md": ("apt_ostree.cli.commands.archives", "refresh_md", "Download the package lists"),
    "search": ("apt_ostree.cli.commands.archives", "search", "Search packages by name and summary"),
    "usroverlay": ("apt_ostree.cli.commands.overlays", "usroverlay", "Manage named overlays of files"),
    "container": ("apt_ostree.cli.commands.container", "container", "Work in containers of an image"),
    "compose": ("apt_ostree.cli.commands.compose", "compose", "Compose a tree from Debian packages"),
}

#: Other names of commands, as in rpm-ostree. Help and completion do not list them.
ALIASES = {
    "update": "upgrade",
    "remove": "uninstall",
    "pkg-add": "install",
    "pkg-remove": "uninstall",
    "makecache": "refresh-md",
    "rpm": "db",
    "unlock": "usroverlay",
}
#: Commands that help and completion do not list.
HIDDEN = {"ex": ("apt_ostree.cli.commands.experimental", "ex", "")}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import and return the command of that name, or None if there is none."""
        entry = {**COMMANDS, **HIDDEN}.get(ALIASES.get(name, name))
        if entry is None:
            return None
        module, attribute, _help = entry
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of a command line; raise UsageError, with a proposal, if there is none."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            import difflib

            near = difflib.get_close_matches(name, [*COMMANDS, *ALIASES], n=1)
            proposal = f"did you mean '{near[0]}'? " if near else ""
            raise UsageError(
                f"there is no command {name!r}", hint=f"{proposal}'{ctx.command_path} --help' lists all"
            )
        return super().resolve_command(ctx, _with_policy(args))

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(_ctx)])


def _with_policy(args: list[str]) -> list[str]:
    """Add the value to a bare --restart-services, because click would use the next argument as its value."""
    end = args.index("--") if "--" in args else len(args)
    pairs = zip(args[:end], [*args[1:end], ""], strict=False)
    bare = [option == "--restart-services" and value not in [*RestartPolicy] for option, value in pairs]
    full = f"--restart-services={RestartPolicy.NEEDED}"
    return [full if is_bare else arg for arg, is_bare in zip(args, bare, strict=False)] + args[end:]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="apt-ostree")
def apt_ostree() -> None:
    """Image-based Debian with atomic live updates that can be undone."""


def main() -> int:
    """Run the command line and return the documented exit code."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (`head`) has exited; prevent a flush of stdout at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    return code


def run(argv: list[str]) -> int:
    """Run one command line; return the exit code. Raises BrokenPipeError if the reader has exited."""
    argv = _verb_first(argv)
    own = _own_options(argv)
    as_json = "--json" in own
    view = render.view(as_json=as_json, events="--events" in own and not as_json, verbose=None)
    try:
        code = apt_ostree.main(args=argv, prog_name="apt-ostree", standalone_mode=False)
    except click.exceptions.Abort:
        return view.fail(Cancelled("cancelled; nothing was changed"))
    except click.ClickException as error:
        hint = "see 'apt-ostree --help'"
        if isinstance(error, click.UsageError) and error.ctx:
            hint = f"see '{error.ctx.command_path} --help'"
        return view.fail(UsageError(error.format_message(), hint=hint))
    except AptOstreeError as error:
        return view.fail(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        return view.fail(from_os_error(error))
    return code if isinstance(code, int) else 0


def _verb_first(argv: list[str]) -> list[str]:
    """Return the command line with the options before the verb behind it: they are the verb's."""
    before = list(takewhile(lambda arg: arg.startswith("-") and arg != "--", argv))
    if {"-h", "--help", "--version"} & {*before}:
        return argv  # the program's own
    verb, rest = argv[len(before) :][:1], argv[len(before) + 1 :]
    return [*verb, *before, *rest]


def _own_options(argv: list[str]) -> list[str]:
    """Return the part of a command line, which may be wrong, that can have options of ours."""
    own = argv[: argv.index("--")] if "--" in argv else argv
    # The first argument of `run` is a program, and the others are the program's.
    return list(takewhile(lambda arg: arg == "run" or arg.startswith("-"), own)) if "run" in own[:1] else own
