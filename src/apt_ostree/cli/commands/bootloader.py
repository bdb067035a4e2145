"""bootloader: shows the loaders of the machine, and brings those on the EFI system partition up to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from apt_ostree.cli import options, plans, render
from apt_ostree.model.queries import BootloaderStatus
from apt_ostree.model.requests.deployments import BootloaderRollback, BootloaderUpdate

_SHOWN = 12  # characters of a digest
_FIRMWARE = {"uefi": "UEFI", "bios": "BIOS"}


@click.group(
    epilog="Examples: apt-ostree bootloader status; apt-ostree bootloader update; "
    "apt-ostree bootloader rollback"
)
def bootloader() -> None:
    """Show the boot loader, and update it by what the booted deployment ships."""


@bootloader.command()
@options.json_document
def status(as_json: bool) -> int:
    """Show the loaders on the disk, what the booted deployment ships, and what an update would change.

    Where only root may look at the EFI system partition, the service answers.
    """
    answer = options.answer_json(BootloaderStatus())
    if as_json:
        render.result_json(answer)
    else:
        render.lines("\n".join(_lines(answer)))
    return 0


@bootloader.command()
@options.output
@options.dry_run
@options.assume_yes
@options.no_wait
@options.unchanged_exit_77
@options.override_policy
def update(dry_run: bool, override_policy: str, **given: Any) -> int:
    """Replace the loaders on the EFI system partition by those of the booted deployment.

    Those before stay beside them, for 'apt-ostree bootloader rollback'. What something else has installed is
    not touched, nor are older loaders put in the place of newer ones. It takes effect with the next boot.
    """
    given = {**given, "dry_run": dry_run}
    request = BootloaderUpdate(dry_run=dry_run, override_policy=override_policy)
    return options.run_verb(
        request, given, ask=options.can_ask(given), show=None if given["quiet"] else _show
    )


@bootloader.command()
@options.output
@options.dry_run
@options.assume_yes
@options.no_wait
def rollback(dry_run: bool, **given: Any) -> int:
    """Put the loaders back that the last update has replaced.

    A second time, the new ones are put back. A loader that Secure Boot would not start any more stays away.
    """
    given = {**given, "dry_run": dry_run}
    request = BootloaderRollback(dry_run=dry_run)
    return options.run_verb(
        request, given, ask=options.can_ask(given), show=None if given["quiet"] else _show
    )


def _show(result: Mapping[str, Any]) -> None:
    if not result["changed"]:
        render.lines("The boot loader is as the booted deployment has it, or newer.")


def _lines(answer: Mapping[str, Any]) -> Iterator[str]:
    secure = {True: "on", False: "off", None: "unknown"}[answer["secure-boot"]]
    yield f"Firmware: {_FIRMWARE[answer['firmware']]}, Secure Boot {secure}"
    if answer["sbat-level"]:
        yield f"Least generations (SBAT): {_generations(answer['sbat-level'])}"
    yield f"EFI system partition: {answer['esp'] or 'none is mounted'}"
    yield from (f"  {row}" for row in plans.loader_rows(answer["loaders"]))
    yield from _rows("Replaced before", [_described(loader) for loader in answer["previous"]])
    yield from _rows("The booted deployment ships", [_described(loader) for loader in answer["shipped"]])
    if bios := answer["bios"]:
        digest = f", {bios['digest'][:_SHOWN]}" if bios["digest"] else ""
        yield f"BIOS: GRUB in {bios['device']}{digest}: {bios['reason']}"
    if answer["update-available"]:
        yield "Update: available, 'apt-ostree bootloader update' makes it"
    else:
        yield "Update: none"


def _described(loader: Mapping[str, Any]) -> str:
    version = f" {loader['version']}" if loader["version"] else ""
    return f"{loader['path']}: {loader['component']}{version}, {loader['digest'][:_SHOWN]}"


def _generations(level: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(level.items()) if name != "sbat")


def _rows(heading: str, rows: Sequence[str]) -> Iterator[str]:
    if rows:
        yield f"{heading}:"
        yield from (f"  {row}" for row in rows)
