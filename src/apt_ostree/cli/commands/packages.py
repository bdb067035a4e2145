"""install, uninstall, run, upgrade."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from apt_ostree.cli import options, render
from apt_ostree.model.queries import OfferedPackages
from apt_ostree.model.requests.packages import Install, Run, Uninstall, Upgrade


def _offered(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a package of the archives, or the path of a file."""
    if "/" in incomplete or not incomplete:
        return [CompletionItem(incomplete, type="file")]
    names = options.completions(OfferedPackages(prefix=incomplete), incomplete)
    return [CompletionItem(name) for name in names]


@click.command(
    epilog="Examples: apt-ostree install nginx; apt-ostree install -A -y htop; apt-ostree install ./tool.deb"
)
@click.argument("packages", nargs=-1, required=True, metavar="PACKAGE...", shell_complete=_offered)
@options.deploy
@options.idempotent
@click.option("--allow-inactive", is_flag=True, help="Request packages that the base already contains.")
@options.allow_replacement
@options.recommends
@click.option("--force-replacefiles", is_flag=True, help="Let the packages replace files of other packages.")
@options.also_uninstall
def install(packages: tuple[str, ...], allow_replacement: bool, **given: Any) -> int:
    """Layer packages on the next deployment.

    A PACKAGE is a name, NAME=VERSION, or the path of a .deb file.
    """
    deploy = options.deploy_options(given, allow_replacement=allow_replacement)
    with options.open_packages(packages) as (names, files):
        request = Install(
            packages=names,
            files=files,
            uninstall=given["uninstall"],
            idempotent=given["idempotent"],
            allow_inactive=given["allow_inactive"],
            recommends=given["recommends"],
            replace_files=given["force_replacefiles"],
            deploy=deploy,
        )
        return options.run_verb(request, given, ask=asks(given))


def asks(given: dict[str, Any]) -> bool:
    """Return whether to ask for confirmation: only changes of the running system need it."""
    return bool(given["apply_live"]) and options.can_ask(given)


@click.command(epilog="Examples: apt-ostree uninstall nginx; apt-ostree uninstall --all -A -y")
@click.argument("packages", nargs=-1, metavar="PACKAGE...", shell_complete=options.complete_requested)
@options.deploy
@options.idempotent
# Programs that call rpm-ostree pass it here, too; a request is dropped whether it is active or not.
@click.option("--allow-inactive", is_flag=True, hidden=True)
@click.option("--all", "everything", is_flag=True, help="Remove all layered packages.")
@options.also_install
def uninstall(packages: tuple[str, ...], everything: bool, **given: Any) -> int:
    """Remove layered packages from the next deployment.

    --all keeps what 'apt-ostree override' has removed and replaced.
    """
    if bool(packages) == everything:
        raise click.UsageError("name packages, or give --all")
    deploy = options.deploy_options(given, allow_replacement=True)  # the user has asked for removals
    with options.open_packages(given["install"]) as (names, files):
        request = Uninstall(
            packages=packages,
            install=names,
            files=files,
            recommends=options.recommends_of(given),
            everything=everything,
            idempotent=given["idempotent"],
            deploy=deploy,
        )
        return options.run_verb(request, given, ask=asks(given))


@click.command(
    epilog="Examples: apt-ostree run dpkg --add-architecture i386; apt-ostree run -A apt-mark hold nginx; "
    "apt-ostree run --forget dpkg --add-architecture i386",
    context_settings={"allow_interspersed_args": False},  # what follows the program is the program's
)
@click.argument("program", metavar="PROGRAM")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT]...")
@options.deploy
@click.option("--forget", is_flag=True, help="Build the deployment without this program.")
def run(program: str, arguments: tuple[str, ...], forget: bool, **given: Any) -> int:
    """Run a program in the next deployment, as if it were a script of a package.

    It may change /usr and /etc. It has no network, and sees nothing else of the machine. It is recorded, and
    is run again when the deployment is built on a new base.
    """
    deploy = options.deploy_options(given, allow_replacement=True)
    request = Run(program=program, arguments=arguments, forget=forget, deploy=deploy)
    return options.run_verb(request, given, ask=asks(given))


@click.command(
    epilog="Examples: apt-ostree upgrade; apt-ostree upgrade --packages-only -A; apt-ostree upgrade --check"
)
@options.deploy
@click.option("--check", is_flag=True, help="Only show available upgrades; exit with 77 if there are none.")
@click.option("--preview", "--check-diff", "preview", is_flag=True, hidden=True)
@click.option("--upgrade-unchanged-exit-77", "unchanged", is_flag=True, hidden=True)
@click.option(
    "--trigger-automatic-update-policy",
    "trigger",
    is_flag=True,
    help="Do what the policy of automatic updates says, as their timer does.",
)
@click.option("--after-reboot", is_flag=True, hidden=True)  # of a unit
@click.option(
    "--allow-downgrade",
    is_flag=True,
    help="Take the remote's commit even if it is older than the present one.",
)
@click.option(
    "--base-only", is_flag=True, help="Upgrade the base, and keep the versions of layered packages."
)
@click.option(
    "--packages-only", is_flag=True, help="Upgrade packages from the archives, and keep the base commit."
)
@options.also_install
@options.also_uninstall
@options.bypass_driver
def upgrade(
    check: bool, preview: bool, unchanged: bool, base_only: bool, packages_only: bool, **given: Any
) -> int:
    """Upgrade the base from its remote, or to its newest image, and the packages from the archives.

    Of an image that is another one now, --check tells the digest; what is in it is known once it is fetched.

    A package that was requested as NAME=VERSION takes security updates only, and none while it is on hold
    (apt-mark(8)). One given as a file stays.
    """
    given["unchanged_exit_77"] |= unchanged
    if given.pop("trigger"):
        return _trigger({**given, "check": check or preview, "only": base_only or packages_only})
    if base_only and packages_only:
        raise click.UsageError("--base-only and --packages-only exclude each other")
    only_check = check or preview
    if only_check:
        given["unchanged_exit_77"] = True
    with options.open_also(given) as packages:
        request = Upgrade(
            base=not packages_only,
            packages=not base_only,
            **packages,
            check=only_check,
            allow_downgrade=given["allow_downgrade"],
            bypass_driver=given["bypass_driver"],
            deploy=options.deploy_options(given, allow_replacement=True),
        )
        return options.run_verb(request, given, ask=asks(given), show=_show_unchanged)


#: Options beside --trigger-automatic-update-policy.
_WITH_TRIGGER = (
    "as_json", "events", "progress_fd", "quiet", "verbose", "no_wait", "unchanged_exit_77", "after_reboot",
)  # fmt: skip


def _trigger(given: dict[str, Any]) -> int:
    """Carry out the policy of automatic updates; it reboots if that says so."""
    others = {key: value for key, value in given.items() if key not in _WITH_TRIGGER and value != "none"}
    if any(others.values()) or given["recommends"] is False:
        raise click.UsageError("--trigger-automatic-update-policy excludes options that say what to do")
    from apt_ostree.model.requests.automatic import AutomaticUpdate

    return options.run_verb(AutomaticUpdate(after_reboot=given["after_reboot"]), {**given, "reboot": True})


def _show_unchanged(result: Mapping[str, Any]) -> None:
    """Print that there is nothing newer, in rpm-ostree's words, which programs look for."""
    if not result["changed"]:
        render.lines("No upgrade available.")
