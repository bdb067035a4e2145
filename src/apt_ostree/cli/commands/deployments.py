"""rollback, pin, unpin, finalize-deployment and cleanup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from apt_ostree.cli import options, render
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.requests.deployments import Cleanup, FinalizeDeployment, Pin, Rollback, Unpin
from apt_ostree.model.requests.live import RollbackLive
from apt_ostree.model.sizes import show_size


@click.command(
    epilog="Examples: apt-ostree rollback -r; apt-ostree rollback --live; apt-ostree rollback --live 3"
)
@options.output
@options.reboot
@options.dry_run
@options.no_wait
@options.restart_services
@options.allow_failed
@click.option("--live", is_flag=True, help="Go back on the running system instead.")
@click.option(
    "--packages", multiple=True, metavar="NAME,...", help="With --live: go back with only these packages."
)
@click.argument("generation", type=int, required=False, shell_complete=options.complete_operation)
def rollback(live: bool, generation: int | None, **given: Any) -> int:
    """Boot the previous deployment next, or go back on the running system.

    A second rollback reverts the first. It is refused while a deployment is staged, which 'apt-ostree cleanup
    -p' drops.

    With --live, /usr, /etc and services are restored to their state before the last live change, or to that
    of a GENERATION, which 'apt-ostree history' lists; 0 is how the boot began. With --packages, only these
    packages get the versions of the GENERATION (default: of the booted tree), as a new generation.
    """
    packages = options.package_names(given["packages"], "--packages")
    if live:
        if given["reboot"]:
            raise click.UsageError("--live and --reboot exclude each other")
        back = RollbackLive(
            generation=generation,
            packages=packages,
            restart_services=RestartPolicy(given["restart_services"]),
            dry_run=given["dry_run"],
        )
        return options.run_verb(back, given)
    if generation is not None or packages or given["restart_services"] != "none":
        raise click.UsageError("a generation, --packages and --restart-services need --live")
    request = Rollback(dry_run=given["dry_run"], allow_failed=given["allow_failed"])
    return options.run_verb(request, given)


@click.command(epilog="Examples: apt-ostree pin booted; apt-ostree pin 0 1")
@options.output
@options.no_wait
@click.argument("deployments", nargs=-1, required=True, metavar="DEPLOYMENT...")
def pin(deployments: tuple[str, ...], **given: Any) -> int:
    """Keep deployments until they are unpinned: no new one takes their place, and cleanup leaves them.

    A DEPLOYMENT is its index, which 'apt-ostree status -v' shows, or booted, pending or rollback.
    """
    return options.run_verb(Pin(deployments=deployments), given)


@click.command(epilog="Examples: apt-ostree unpin 2; apt-ostree unpin rollback")
@options.output
@options.no_wait
@click.argument("deployments", nargs=-1, required=True, metavar="DEPLOYMENT...")
def unpin(deployments: tuple[str, ...], **given: Any) -> int:
    """Keep deployments no longer than others. Each is named as for 'apt-ostree pin'."""
    return options.run_verb(Unpin(deployments=deployments), given)


@click.command(
    epilog="Examples: apt-ostree finalize-deployment 0123...; "
    "apt-ostree finalize-deployment --allow-missing-checksum"
)
@options.output
@options.no_wait
@options.override_policy
@click.option("--allow-missing-checksum", is_flag=True, help="Accept whatever is staged.")
@click.option("--allow-unlocked", is_flag=True, help="Accept a deployment that is not locked.")
@click.argument("checksum", required=False)
def finalize_deployment(checksum: str | None, **given: Any) -> int:
    """Let the shutdown complete the staged deployment, which --lock-finalization has locked, and reboot.

    CHECKSUM is its commit, or that of its base: the one that was looked at, and no other, is booted.
    """
    if (checksum is None) != given["allow_missing_checksum"]:
        raise click.UsageError("either a CHECKSUM or --allow-missing-checksum is needed")
    request = FinalizeDeployment(
        checksum=checksum,
        allow_missing_checksum=given["allow_missing_checksum"],
        allow_unlocked=given["allow_unlocked"],
        override_policy=given["override_policy"],
    )
    return options.run_verb(request, {**given, "reboot": True})


@click.command(epilog="Examples: apt-ostree cleanup -b; apt-ostree cleanup -p -r; apt-ostree cleanup -m")
@options.output
@click.option("-b", "--base", is_flag=True, help="Remove temporary files and unused objects.")
@click.option("-p", "--pending", is_flag=True, help="Remove the pending deployment.")
@click.option("-r", "--rollback", is_flag=True, help="Remove the rollback deployment.")
@click.option("-m", "--repomd", is_flag=True, help="Remove downloaded package lists, archives and images.")
@click.option("--stateroot", "--os", metavar="NAME", help="Work on this stateroot instead of the booted one.")
def cleanup(base: bool, pending: bool, rollback: bool, repomd: bool, **given: Any) -> int:
    """Remove deployments, temporary files and downloads. At least one option is needed.

    Pinned deployments are kept. The commits that the running system shows are kept, too. The output names
    the live changes that keep their space, and says why.

    What a change leaves behind is removed at its end without this command.
    """
    request = Cleanup(
        base=base, pending=pending, rollback=rollback, repomd=repomd, stateroot=given["stateroot"]
    )
    return options.run_verb(request, given, show=None if given["quiet"] else _show_freed)


def _show_freed(result: Mapping[str, Any]) -> None:
    for line in (f"Freed {show_size(result['freed_bytes'])}.", *_held(result["held"])):
        render.lines(line)


def _held(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each generation that keeps space."""
    for row in rows:
        advice = f"; restart {row['unit']} to free it" if row["unit"].endswith(".service") else ""
        yield f"Generation {row['generation']} keeps its space: {row['reason']}{advice}."
