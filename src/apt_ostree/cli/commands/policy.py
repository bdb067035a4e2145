"""policy: what the policy decides about a command, and by which settings. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from apt_ostree.cli import options, plans, render
from apt_ostree.errors import UsageError
from apt_ostree.model.queries import PolicySettings
from apt_ostree.model.request import Request
from apt_ostree.model.requests.policy import Approve

#: Commands whose requests are told to the judge, and not carried out.
_JUDGED = (
    *("apply-live", "deploy", "finalize-deployment", "initramfs", "initramfs-etc", "install", "kargs"),
    *("override", "rebase", "reset", "run", "uninstall", "upgrade", "usroverlay"),
    *("bootloader", "cleanup", "confirm", "pin", "recover", "rollback", "unpin"),
)
#: The decision about what no rule is about.
_FREE = {"allowed": True, "reasons": [], "override": None}


@click.command(
    epilog="Examples: apt-ostree policy; apt-ostree policy install nginx; apt-ostree policy --json upgrade",
    context_settings={"allow_interspersed_args": False},  # what follows the verb is the verb's
)
@options.json_document
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[VERB [ARGUMENT]...]")
def policy(command: tuple[str, ...], as_json: bool) -> int:
    """Show what the policy decides about a command, and the setting behind each reason.

    Nothing is changed or downloaded: package lists and commits are used as they are here. Without a VERB, the
    settings in effect are listed, each with its file.
    """
    json_before = as_json
    if not command:
        answer = options.answer_json(PolicySettings())
        if json_before:
            render.result_json(answer)
        else:
            render.lines("\n".join(_settings(answer)))
        return 0
    from apt_ostree.cli.main import ALIASES, COMMANDS, apt_ostree

    name = ALIASES.get(command[0], command[0])
    if name in COMMANDS and name not in _JUDGED:  # it would be carried out
        raise UsageError(f"{name} is no change", hint=f"what is judged: {', '.join(_JUDGED)}")

    def judge(request: Request, *, as_json: bool) -> int:
        decision = _decision(request)
        if as_json or json_before:
            render.result_json(decision)
        else:
            render.lines("\n".join(plans.lines("policy", decision)))
        return 0 if decision["allowed"] else 3

    code = apt_ostree.main([*command], prog_name="apt-ostree", standalone_mode=False, obj=judge)
    return code if isinstance(code, int) else 0


@click.command(epilog="Example: apt-ostree approve 3f9c1e07ab52d4c86e10b7725d09e4f1a8c30b6d")
@options.output
@click.argument("plan")
def approve(plan: str, **given: Any) -> int:
    """Approve the plan of a change that needs it; the change is then made by the command that was refused.

    PLAN is the name that the refusal shows. 'apt-ostree policy' and '--dry-run' with the same command show it
    with the packages. It stands for this change of this state of the system, and no other.
    """
    return options.run_verb(Approve(plan=plan), given)


def _decision(request: Request) -> Mapping[str, Any]:
    """Return the decision about a request."""
    from apt_ostree.cli import client

    if request.reach is None:
        return _FREE
    answer = client.call(request.preview, render.view(as_json=True), ask=False)
    decision: Mapping[str, Any] = answer.result.get("policy", _FREE)
    return decision


def _settings(answer: Mapping[str, Any]) -> Iterator[str]:
    for setting in answer["settings"]:
        yield f"{setting['file']}: [{setting['section']}] {setting['key']}={setting['value']}"
    for rule, times in answer["windows"].items():
        opens = f"opens {times['opens_text']}" if times["opens_text"] else "never opens again"
        yield f"{rule}: {'open' if times['until'] is not None else 'closed'}; {opens}"
    if not answer["settings"]:
        yield "No policy is set."
