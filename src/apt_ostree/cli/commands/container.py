"""container: checks the content of an image, and brings it into the form of a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from apt_ostree.cli import options, plans, render
from apt_ostree.model.lint import Linted, Outcome, Rule, Severity, State
from apt_ostree.model.queries import ContainerLint, ContainerRules
from apt_ostree.model.requests.images import ContainerCommit, ContainerPrepare

#: So many findings of a rule are shown, unless all are wanted.
_SHOWN = 5


@click.group(
    epilog="Example, in a Containerfile: RUN apt-ostree container commit && apt-ostree container lint"
)
def container() -> None:
    """Work in containers of an image for machines."""


@container.command()
@click.option(
    "--shared",
    multiple=True,
    metavar="PATH",
    help="All machines have this file, though it looks like a key or an id of one; may be repeated.",
)
@click.option(
    "--account-ids",
    metavar="FILE",
    help="Give accounts the ids of FILE, which has lines of sysusers.d(5).",
)
@options.output
def commit(shared: tuple[str, ...], account_ids: str | None, **given: Any) -> int:
    """Finish the image whose container this is: the last RUN step that changes it.

    It does what a compose does after installing packages. What they left below /var becomes what machines are
    given, and what belongs to one machine is left to each. Then /run, /tmp and /var are emptied.
    """
    return options.run_verb(ContainerCommit(shared=shared, account_ids=account_ids), given, show=_show)


def _show(result: Mapping[str, Any]) -> None:
    if result["deferred"]:
        render.lines(f"Each machine configures itself: {', '.join(result['deferred'])}")
    kernel = f", with the kernel {result['kernel']}" if result["kernel"] else ""
    render.lines(f"The image has {plans.count(result['packages'], 'package')}{kernel}.")


@container.command()
@options.output
def prepare(**given: Any) -> int:
    """Fill /var in a container as on a machine, for the scripts of packages.

    apt does this before it runs dpkg. It is needed before packages are installed in another way.
    """
    return options.run_verb(ContainerPrepare(), given)


@container.command()
@click.option(
    "--rootfs",
    "--rootdir",
    default="/",
    show_default=True,
    metavar="DIR",
    help="Check this root directory, such as that of an unpacked image.",
)
@click.option("--fatal-warnings", is_flag=True, help="Fail if a rule is broken that is only a warning, too.")
@click.option(
    "--skip", multiple=True, metavar="RULE", help="Leave out the rule of this name; may be repeated."
)
@click.option("--list", "list_rules", is_flag=True, help="Only list the rules.")
@click.option("--no-truncate", is_flag=True, help="Show all that breaks a rule, not only the first of it.")
@options.json_document
def lint(
    rootfs: str,
    *,
    fatal_warnings: bool,
    skip: tuple[str, ...],
    list_rules: bool,
    no_truncate: bool,
    as_json: bool,
) -> int:
    """Check the content of an image; exit with 1 if a rule is broken without which machines fail.

    The rules are those of 'bootc container lint', and others about packages, accounts and keys. It only
    reads, in a container or in a directory.
    """
    if list_rules:
        return _list(options.answer(ContainerRules()), as_json=as_json)
    linted: Linted = options.answer(ContainerLint(rootfs=rootfs, skip=skip))
    if as_json:
        render.result_json(linted.to_json())
    else:
        render.lines("\n".join(_lines(linted, None if no_truncate else _SHOWN)))
    return 1 if linted.failed(fatal_warnings=fatal_warnings) else 0


def _list(rules: list[Rule], *, as_json: bool) -> int:
    if as_json:
        render.result_json([rule.to_json() for rule in rules])
    else:
        rows = [(rule.name, str(rule.severity), rule.description) for rule in rules]
        render.lines("\n".join(render.table(("RULE", "KIND", "WHAT IT ASKS FOR"), rows)))
    return 0


def _lines(linted: Linted, most: int | None) -> Iterator[str]:
    for outcome in linted.outcomes:
        if outcome.state is State.FAILED:
            yield from _broken(outcome, most)
    counts = [f"{plans.count(linted.count(State.PASSED), 'rule')} passed"]
    counts += [f"{skipped} skipped"] if (skipped := linted.count(State.SKIPPED)) else []
    for severity, word in ((Severity.WARNING, "warning"), (Severity.FATAL, "fatal error")):
        broken = linted.count(State.FAILED, severity)
        counts += [plans.count(broken, word)] if broken else []
    yield ", ".join(counts)


def _broken(outcome: Outcome, most: int | None) -> Iterator[str]:
    rule, findings = outcome.rule, outcome.findings
    yield f"{rule.severity}: {rule.name}: {rule.description}"
    yield from (f"  {finding}" for finding in findings[:most])
    if most is not None and len(findings) > most:
        yield f"  and {len(findings) - most} more (--no-truncate)"
