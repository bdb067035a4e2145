"""Options that several commands share, and functions that carry out requests and queries."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from apt_ostree.cli import render
from apt_ostree.errors import EXIT_UNCHANGED, AptOstreeError, NotAuthorized, UsageError, from_os_error
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.request import Request
from apt_ostree.model.sizes import read_size
from apt_ostree.model.spans import read_span

if TYPE_CHECKING:  # what reads, such as `status`, is not to wait for all requests to be imported
    from apt_ostree.model.queries import Status
    from apt_ostree.model.requests.options import DeployOptions, LiveOptions

Command = Callable[..., Any]


class Span(click.ParamType):
    """A span of time such as 90, 10m or 1h30m (systemd.time(7)), in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds; raise click.BadParameter for another text."""
        if isinstance(value, float):
            return value
        try:
            return read_span(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Size(click.ParamType):
    """A size such as 500k, 20M or 2G, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes; raise click.BadParameter for another text."""
        try:
            return value if isinstance(value, int) else read_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


json_document = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Print less.")


def without_effect(*names: str) -> Callable[[Command], Command]:
    """Return an option that rpm-ostree has, and that asks for what is done anyway."""
    return click.option(*names, is_flag=True, hidden=True, expose_value=False)


verbose = click.option(
    "-v", "--verbose", is_flag=True, help="Show all files and processes in the plan, and all of an error."
)
_OUTPUT = (
    json_document,
    click.option("--events", is_flag=True, help="Print events and the result as JSON lines."),
    click.option(
        "--progress-fd",
        type=click.IntRange(0),
        metavar="FD",
        help="Write events and the result as JSON lines to this file descriptor.",
    ),
    quiet,
    verbose,
)


def output(command: Command) -> Command:
    """Return the command with the options for the output of a verb."""
    for option in reversed(_OUTPUT):
        command = option(command)
    return command


dry_run = click.option("-n", "--dry-run", is_flag=True, help="Show what would be done and change nothing.")
assume_yes = click.option("-y", "--assumeyes", is_flag=True, help="Do not ask for confirmation.")
reboot = click.option("-r", "--reboot", is_flag=True, help="Reboot when the deployment is ready.")
cache_only = click.option(
    "-C", "--cache-only", is_flag=True, help="Use only cached package lists and archives."
)
download_only = click.option("--download-only", is_flag=True, help="Only download the packages.")
idempotent = click.option("--idempotent", is_flag=True, help="Succeed if nothing has to be changed.")
unchanged_exit_77 = click.option("--unchanged-exit-77", is_flag=True, help="Exit with 77 if nothing changed.")
apply_live = click.option("-A", "--apply-live", is_flag=True, help="Apply the result to the running system.")
allow_replacement = click.option(
    "--allow-replacement", is_flag=True, help="Allow running packages to be replaced or removed."
)


def complete_requested(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a requested package."""
    from apt_ostree.model.queries import RequestedPackages

    return completions(RequestedPackages(), incomplete)


recommends = click.option(
    "--recommends/--no-recommends",
    default=None,
    help="Also layer what the packages recommend, or not; else as apt is configured.",
)


def also_install(command: Command) -> Command:
    """Return the command with the options for packages that are layered besides."""
    return click.option("--install", multiple=True, metavar="PACKAGE", help="Also layer a package.")(
        recommends(command)
    )


also_uninstall = click.option(
    "--uninstall",
    multiple=True,
    metavar="PACKAGE",
    shell_complete=complete_requested,
    help="Also remove a layered package.",
)

force = click.option(
    "--force", is_flag=True, help="Accept all risks of a live change that can be accepted; see the plan."
)
restart_services = click.option(
    "--restart-services",
    is_flag=False,
    flag_value="needed",
    default="none",
    show_default=True,
    type=click.Choice(["none", "needed", "all"]),
    help="Restart and reload affected units; 'all': also units that would keep using the old /usr.",
)
confirm_within = click.option(
    "--confirm-within",
    metavar="TIME",
    type=Span(),
    help="Undo the change after TIME (such as 10m) unless 'apt-ostree confirm' is run.",
)

test = click.option(
    "--test", is_flag=True, help="Boot the result in a container first; refuse it if services fail there."
)

no_wait = click.option("--no-wait", is_flag=True, help="Fail if another program is changing the system.")

override_policy = click.option(
    "--override-policy",
    metavar="REASON",
    default="",
    help="Make the change even if the policy does not allow it. Only root can; the journal keeps the REASON.",
)

bypass_driver = click.option(
    "--bypass-driver", is_flag=True, help="Make the change even if another program drives updates."
)

allow_failed = click.option(
    "--allow-failed", is_flag=True, help="Try the same packages again even if they have failed before."
)

lock_finalization = click.option(
    "--lock-finalization", is_flag=True, help="Boot it only after 'apt-ostree finalize-deployment'."
)

_DEPLOY = (
    no_wait,
    output,
    dry_run,
    assume_yes,
    reboot,
    cache_only,
    download_only,
    unchanged_exit_77,
    apply_live,
    restart_services,
    confirm_within,
    force,
    test,
    lock_finalization,
    override_policy,
    allow_failed,
)


def deploy(command: Command) -> Command:
    """Return the command with the options of all verbs that make a deployment."""
    for option in reversed(_DEPLOY):
        command = option(command)
    return command


def deploy_options(given: Mapping[str, Any], *, allow_replacement: bool) -> DeployOptions:
    """Return the options of a deployment; raise click.UsageError for options that exclude each other."""
    from apt_ostree.model.requests.options import DeployOptions, LiveOptions

    if given["apply_live"] and given["reboot"]:
        raise click.UsageError("--apply-live and --reboot exclude each other")
    if given["cache_only"] and given["download_only"]:
        raise click.UsageError("--cache-only and --download-only exclude each other")
    live = replace(live_options(given, allow_replacement=allow_replacement), override_policy="")
    alone = replace(live, allow_replacement=False, test=False, allow_failed=False)
    if not given["apply_live"] and alone != LiveOptions():
        raise click.UsageError("--restart-services, --confirm-within and --force need --apply-live")
    refuse_lock_and_reboot(given)
    return DeployOptions(
        dry_run=given["dry_run"],
        cache_only=given["cache_only"],
        download_only=given["download_only"],
        live=live if given["apply_live"] else None,
        lock_finalization=given["lock_finalization"],
        reboot=given["reboot"],
        override_policy=given["override_policy"],
        test=given["test"],
        allow_failed=given["allow_failed"],
    )


def next_boot_options(given: Mapping[str, Any]) -> DeployOptions:
    """Return the options of a deployment that differs in how it boots."""
    from apt_ostree.model.requests.options import DeployOptions

    names = ("dry_run", "lock_finalization", "reboot", "override_policy", "allow_failed")
    return DeployOptions(**{name: given[name] for name in names})


def refuse_lock_and_reboot(given: Mapping[str, Any]) -> None:
    """Raise click.UsageError for a reboot that would not start the new deployment."""
    if given["lock_finalization"] and given["reboot"]:
        raise click.UsageError("--lock-finalization and --reboot exclude each other")


def live_options(given: Mapping[str, Any], *, allow_replacement: bool = False) -> LiveOptions:
    """Return the options of a live change."""
    from apt_ostree.model.requests.options import LiveOptions

    return LiveOptions(
        restart_services=RestartPolicy(given["restart_services"]),
        confirm_within=given["confirm_within"],
        allow_replacement=allow_replacement,
        force=given["force"],
        override_policy=given["override_policy"],
        test=given.get("test", False),
        allow_failed=given.get("allow_failed", False),
    )


def can_ask(given: Mapping[str, Any]) -> bool:
    """Return whether to ask for confirmation: stdin is a terminal, and no option answers beforehand."""
    silent = given["assumeyes"] or given["dry_run"] or given["as_json"] or given["events"]
    return not silent and sys.stdin.isatty()


def run_verb(
    request: Request,
    given: Mapping[str, Any],
    *,
    ask: bool = False,
    show: Callable[[Mapping[str, Any]], None] | None = None,
    then: Callable[[Mapping[str, Any]], None] | None = None,
) -> int:
    """Carry out a request, show its events, and return the exit code.

    ask: whether to ask the user for confirmation.
    show: prints the result as text; None: the events are enough.
    then: called with the result after a success, before it is printed; its errors are the command's.
    """
    from apt_ostree.cli import client  # not at the top: `status` starts no worker

    judge = click.get_current_context().find_root().obj
    if judge:  # `policy VERB` only wants to know what would be decided
        return int(judge(request, as_json=given["as_json"]))
    view = render.view(
        as_json=given["as_json"],
        events=given["events"],
        progress_fd=given["progress_fd"],
        quiet=given["quiet"],
        verbose=given["verbose"],
    )
    try:
        answer = client.call(request, view, ask=ask, wait=not given.get("no_wait"))
        if then:
            then(answer.result)
    except AptOstreeError as failure:
        return view.fail(failure)
    except OSError as error:
        return view.fail(from_os_error(error))
    view.end(answer.result)
    if view.is_text and show:
        show(answer.result)
    if given.get("unchanged_exit_77") and not answer.result["changed"]:
        return EXIT_UNCHANGED
    if given.get("reboot") and answer.next_boot:
        try:
            client.reboot()
        except AptOstreeError as failure:
            return view.fail(failure)
    elif view.is_text and answer.next_boot and not answer.result.get("live"):
        # rpm-ostree's words, which programs look for.
        render.lines('Changes queued for next boot. Run "systemctl reboot" to start a reboot')
    return 0


def answer(query: Request) -> Any:
    """Answer a query in this process; return its answer and raise its errors."""
    from apt_ostree.core import queries

    return queries.answer(query)


def answer_json(query: Request) -> Any:
    """Return the answer to a query as JSON.

    The service answers what the caller has no right to read; it raises what the query raises.
    """
    from apt_ostree.core import queries

    try:
        return queries.answer_json(query.verb, query.to_json())
    except NotAuthorized:
        from apt_ostree.cli import bus

        with suppress(bus.Unavailable):
            return bus.ask(query)
        raise


def answer_here(query: Request) -> Any:
    """Return the answer to a query as JSON; one about another system is answered with the caller's rights."""
    return answer_json(query) if query.is_for_users else answer(query)


def whole_status(query: Status) -> Any:
    """Return the status as JSON; see `as_a_whole`."""
    return as_a_whole(query) if query.sysroot == "/" else answer(query).to_json()


def as_a_whole(query: Request) -> Any:
    """Return the answer as JSON. The service gives it to users, who themselves can read only a part of it."""
    if os.geteuid() != 0:
        from apt_ostree.cli import bus

        with suppress(bus.Unavailable):
            return bus.ask(query)
    from apt_ostree.core import queries

    return queries.answer_json(query.verb, query.to_json())


def completions(query: Request, incomplete: str) -> list[str]:
    """Return the names of a query's answer with this prefix; none if the query fails."""
    try:
        return [name for name in answer_json(query) if name.startswith(incomplete)]
    except AptOstreeError:
        return []


def complete_operation(_context: object, _parameter: object, incomplete: str) -> list[CompletionItem]:
    """Complete the number of an operation of the history; shells that can show what it was."""
    from apt_ostree.model.queries import History

    try:
        entries = answer_json(History())
    except AptOstreeError:
        return []
    numbers = {str(entry["number"]): f"{entry['verb']} ({entry['outcome']})" for entry in entries}
    return [CompletionItem(n, help=text) for n, text in numbers.items() if n.startswith(incomplete)]


@contextmanager
def open_files(paths: Iterable[str]) -> Iterator[tuple[OpenFile, ...]]:
    """Open files with the caller's rights and yield them for a request; raise UsageError if one fails."""
    from apt_ostree.system import openfiles

    with ExitStack() as stack:
        yield tuple(stack.enter_context(openfiles.opened(path)) for path in paths)


@contextmanager
def open_packages(packages: Sequence[str]) -> Iterator[tuple[tuple[str, ...], tuple[OpenFile, ...]]]:
    """Yield the packages that are named, and those that are given as .deb files, opened by `open_files`.

    Raises UsageError for a URL.
    """
    if urls := [package for package in packages if "://" in package]:
        raise UsageError(
            f"{urls[0]} is a URL, and packages are taken from the archives or from files",
            hint="download it, such as with curl(1) or 'apt download', and give the path: ./NAME.deb",
        )
    names = tuple(package for package in packages if not package.endswith(".deb"))
    with open_files(package for package in packages if package.endswith(".deb")) as files:
        yield names, files


@contextmanager
def open_also(given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what --install and --uninstall ask for, as fields of a BaseRequest.

    Raises what `open_packages` and `recommends_of` do.
    """
    fields = {"recommends": recommends_of(given), "uninstall": given["uninstall"]}
    with open_packages(given["install"]) as (names, files):
        yield {"install": names, "files": files, **fields}


def recommends_of(given: Mapping[str, Any]) -> bool | None:
    """Return whether what the packages of --install recommend comes along; click.UsageError without any."""
    if given["recommends"] is not None and not given["install"]:
        raise click.UsageError("--recommends and --no-recommends are for packages of --install")
    chosen: bool | None = given["recommends"]
    return chosen


def package_names(given: Iterable[str], option: str) -> tuple[str, ...]:
    """Return the names of a repeatable comma-separated list; raise click.UsageError if one is empty."""
    names = [name.strip() for part in given for name in part.split(",")]
    if not all(names):
        raise click.UsageError(f"{option} names no package")
    return tuple(dict.fromkeys(names))
