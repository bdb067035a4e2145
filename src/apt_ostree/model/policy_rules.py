"""The rules of the policy: what each setting says about facts, which are values, and the decision of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from apt_ostree.model.policy import Decision, Incoming, Policy, Reason, Rule, Scanner, Setting, Times


def judge_packages(policy: Policy, packages: Iterable[Incoming]) -> tuple[Reason, ...]:
    """Return what the rules about packages say about those that a change brings, if it brings any."""
    incoming = sorted(packages, key=lambda package: package.name)
    new = [package for package in incoming if not package.old]
    names = (*_judge_never(policy, new), *_judge_only(policy, new)) if new else ()
    return (*names, *_judge_origins(policy, incoming), *_judge_holds(policy, incoming))


def _judge_never(policy: Policy, incoming: list[Incoming]) -> Iterator[Reason]:
    if policy.never:
        wrong = {p.name: f"{p.described} is never installed" for p in incoming if policy.never.match(p.name)}
        yield from _one_or_each(Rule.NEVER, policy.never.setting, wrong, _passed(incoming))


def _judge_only(policy: Policy, incoming: list[Incoming]) -> Iterator[Reason]:
    if policy.only:
        wrong = {
            p.name: f"{p.described} is not among the packages that may be installed"
            for p in incoming
            if not policy.only.match(p.name)
        }
        yield from _one_or_each(Rule.ONLY, policy.only.setting, wrong, _passed(incoming))


def _judge_origins(policy: Policy, incoming: list[Incoming]) -> Iterator[Reason]:
    offered = [package for package in incoming if package.archives is not None]
    if policy.origins and offered:
        wrong = {p.name: _foreign(p) for p in offered if not policy.origins.match(p.archives or ())}
        passed = f"come from archives that are allowed: {', '.join(package.name for package in offered)}"
        yield from _one_or_each(Rule.ORIGINS, policy.origins.setting, wrong, passed)


def _judge_holds(policy: Policy, incoming: list[Incoming]) -> Iterator[Reason]:
    for package in incoming:
        hold = policy.hold_of(package.name)
        if hold and package.old not in ("", package.version):
            text = f"{package.name} {package.old} is on hold until {hold.setting.value}"
            yield Reason(Rule.HOLD, False, text, hold.setting, package.name)


def _foreign(package: Incoming) -> str:
    sources = " and ".join(archive.described for archive in package.archives or ())
    return f"{package.described} comes from {sources or 'a file'}, which is not allowed"


def refuses_version(policy: Policy, offer: Incoming) -> Reason | None:
    """Return why a version that an archive offers does not come in, or None.

    One of a package that is there is held back. SecurityOnly= is about these alone.
    """
    stays = f"{offer.name} {offer.old} stays: {offer.version}"
    hold = policy.hold_of(offer.name) if offer.old else None
    if hold:
        text = f"{stays} is held back until {hold.setting.value}"
        return Reason(Rule.HOLD, True, text, hold.setting, offer.name)
    if policy.origins and not policy.origins.match(offer.archives or ()):
        return Reason(Rule.ORIGINS, True, f"{stays} is held back", policy.origins.setting, offer.name)
    security = policy.security_only
    if security and security.on and offer.old and not offer.security:
        text = f"{stays} is no security update"
        return Reason(Rule.SECURITY, True, text, security.setting, offer.name)
    return None


def _passed(incoming: list[Incoming]) -> str:
    return f"may be installed: {', '.join(package.name for package in incoming)}"


def _one_or_each(rule: Rule, setting: Setting, wrong: Mapping[str, str], passed: str) -> Iterator[Reason]:
    """Yield a refusal for each subject, or the one reason that the rule allows the change."""
    if not wrong:
        yield Reason(rule, True, passed, setting)
    for subject, text in wrong.items():
        yield Reason(rule, False, text, setting, subject)


def judge_window(rule: Rule, setting: Setting, times: Times) -> Reason:
    """Return what a setting with windows says about a moment."""
    what = "reboots" if rule is Rule.REBOOT else "changes"
    if times.until is not None:
        return Reason(rule, True, f"the window for {what} is open", setting)
    when = f"it opens {times.opens_text}" if times.opens is not None else "it never opens again"
    return Reason(rule, False, f"the window for {what} is closed; {when}", setting, opens=times.opens)


def judge_scan(scanner: Scanner, complaint: Sequence[str] | None) -> Reason:
    """Return what a scanner says about the files of a change.

    complaint: the last lines that it printed when it did not accept them, or None.
    """
    name = scanner.command[0]
    if complaint is None:
        return Reason(Rule.SCANNER, True, f"{name} looks at what the change brings", scanner.setting)
    text = "; ".join(line.strip() for line in complaint if line.strip())
    return Reason(
        Rule.SCANNER, False, f"{name} does not accept the change: {text or 'no reason'}", scanner.setting
    )


def decide(policy: Policy, reasons: Iterable[Reason], override: str) -> Decision:
    """Return the decision about a change; the same reason counts once.

    override: why root wants the change in any case, or empty.
    """
    told = {(reason.rule, reason.subject, reason.allowed): reason for reason in reasons}
    refused = {reason.rule for reason in told.values() if not reason.allowed}
    kept = [r for r in told.values() if not (r.allowed and not r.subject and r.rule in refused)]
    switch = policy.override
    if override and refused and switch and not switch.on:
        kept.append(Reason(Rule.OVERRIDE, False, "nobody may override the policy", switch.setting))
    return Decision(tuple(kept), override)
