"""Turns a plan (a JSON object) into lines of text, without side effects. `render` prints them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from apt_ostree.model.sizes import show_size

#: Paths of /etc that are listed one by one, of those of which the same is to be said.
_ETC_LINES = 5
#: Units that are listed of those that nothing is done with.
_UNITS = 8
#: Packages that such a line names.
_OWNERS = 4
#: Layers of an image that are listed, the biggest ones.
_LAYERS = 12


def lines(
    kind: str,
    plan: Mapping[str, Any],
    *,
    verbose: bool = False,
    transaction: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Yield the lines of a plan.

    verbose: with all files and processes.
    transaction: the plan of packages that was shown before; a live plan does not list these again.
    """
    return _live(plan, transaction, verbose=verbose) if kind == "live" else _RENDERERS[kind](plan)


def _transaction(plan: Mapping[str, Any]) -> Iterator[str]:
    headings = (
        ("install", "Installing"),
        ("upgrade", "Upgrading"),
        ("downgrade", "Downgrading"),
        ("remove", "Removing"),
    )
    for key, heading in headings:
        steps = plan[key]
        if steps:
            yield f"{heading} {count(len(steps), 'package')}:"
            yield from (f"  {_step(step)}" for step in steps)
    yield from _rows("Initramfs", plan["initramfs"])
    yield from _rows("Security updates instead of requested versions", list(map(_newer, plan["taken"])))
    yield from _rows("Newer versions of packages that stay at theirs", list(map(_newer, plan["newer"])))
    yield from _rows("Requested from now on, as apt never removes them automatically", plan["protected"])
    if any(plan[key] for key, _heading in headings):
        yield f"Download {show_size(plan['download_bytes'])}, disk {show_size(plan['disk_bytes'])}"


def _newer(newer: Mapping[str, Any]) -> str:
    security = ", security" if newer["security"] else ""
    return f"{newer['request']}: {newer['version']} ({newer['origin']}{security})"


def _live(plan: Mapping[str, Any], transaction: Mapping[str, Any] | None, *, verbose: bool) -> Iterator[str]:
    if not (transaction and _names(plan["packages"]) <= _names(transaction)):
        yield from package_lines(plan["packages"])
    files = plan["files"]
    yield f"Files: {files['added']} added, {files['changed']} changed, {files['removed']} removed"
    yield from _rows("/etc", list(_etc_lines(plan["etc"], verbose=verbose)))
    yield from _unit_lines(plan["units"], verbose=verbose)
    yield from _rows("Triggers", [_trigger_line(step, verbose=verbose) for step in plan.get("triggers", ())])
    yield from _rows("Overlays", plan.get("overlays", ()))  # older records do not have these two
    yield from _rows("Waits for the reboot", plan["deferred"])
    yield from _rows("Health checks", plan["health_checks"])
    if plan["impact"] != "none":
        yield f"Impact: {plan['impact']} ({_IMPACTS[plan['impact']]})"
    yield from _rows("Refused", plan["refusals"])


def _etc_lines(steps: Sequence[Mapping[str, Any]], *, verbose: bool) -> Iterator[str]:
    """Yield a line for each path, or for many of which the same is to be said; conflicts always in full."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for step in steps:
        groups.setdefault((step["action"], step["reason"]), []).append(step)
    for (action, reason), same in groups.items():
        if verbose or action == "keep" or len(same) <= _ETC_LINES:
            yield from (f"{action} {step['path']}: {reason}{_owner(step)}" for step in same)
            continue
        owners = Counter(step.get("package") or "no package" for step in same)  # older records lack it
        packages = ", ".join(f"{package} {number}" for package, number in owners.most_common(_OWNERS))
        more = f" and {len(owners) - _OWNERS} more packages" if len(owners) > _OWNERS else ""
        yield f"{action} {len(same)} paths: {reason} ({packages}{more}; -v lists them)"


def _owner(step: Mapping[str, Any]) -> str:
    package = step.get("package")
    return f" ({package})" if package else ""


def _names(plan: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the packages of a transaction, or of a difference."""
    keys = ("install", "upgrade", "downgrade", "remove", "added", "removed", "changed")
    return frozenset(row["name"] for key in keys for row in plan.get(key, ()))


def package_lines(packages: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a difference between packages."""
    yield from _rows("Added", [f"{p['name']} {p['version']}" for p in packages["added"]])
    yield from _rows("Removed", [f"{p['name']} {p['version']}" for p in packages["removed"]])
    yield from _rows("Changed", [f"{p['name']} {p['old']} -> {p['new']}" for p in packages["changed"]])


def _unit_lines(steps: Sequence[Mapping[str, Any]], *, verbose: bool) -> Iterator[str]:
    """Yield the units on which the change acts, then those that it only lists, each with its reason."""
    yield from _rows("Units", [_unit_line(step, verbose=verbose) for step in steps if step["acts"]])
    named = [step for step in steps if not step["acts"]]
    advised = [step for step in named if step["action"] in _ADVISED]
    refreshed = [_unit_line(step, verbose=verbose) for step in named if step["action"] == "refresh view"]
    others = [step for step in named if step["action"] not in (*_ADVISED, "refresh view")]
    yield from _rows(
        "Not done without --restart-services", [_unit_line(step, verbose=verbose) for step in advised]
    )
    yield from _rows("Not done without --restart-services=all", refreshed)
    shown = others if verbose or len(others) <= _UNITS else others[: _UNITS - 1]
    more = [f"{len(others) - len(shown)} more units (-v lists them)"] if len(shown) < len(others) else []
    yield from _rows("Left alone", [*(_unit_line(step, verbose=verbose) for step in shown), *more])


#: Actions of units that --restart-services would act on.
_ADVISED = ("restart", "reload", "reexec", "stop", "start")
_IMPACTS = {
    "process": "programs use new code or configuration without a restart",
    "service": "services are started, stopped or restarted until nothing old runs",
    "session": "sessions have to end until nothing old runs",
    "reboot": "a part takes effect with a reboot only",
}


def _unit_line(step: Mapping[str, Any], *, verbose: bool) -> str:
    evidence = _some(step["evidence"], None if verbose else 2)
    processes = _some(step["processes"], None if verbose else 4)
    reason = f"{step['reason']}: {evidence}" if evidence else step["reason"]
    clients = step.get("clients", 0)  # older records do not have it
    using = f", {count(clients, 'client')} connected" if clients else ""
    return f"{step['action']} {step['unit']} ({reason}){f' [{processes}]' if processes else ''}{using}"


def _trigger_line(step: Mapping[str, Any], *, verbose: bool) -> str:
    files = _some(step["files"], None if verbose else 2)
    return f"{step['trigger']} ({step['reason']}{f': {files}' if files else ''})"


def _some(items: Sequence[str], most: int | None) -> str:
    more = f" and {len(items) - most} more" if most and len(items) > most else ""
    return ", ".join(items[:most]) + more


def _deployments(plan: Mapping[str, Any]) -> Iterator[str]:
    yield f"Next boot: {plan['next']}"
    yield from _rows("Dropped", [f"{row['id']} ({row['reason']})" for row in plan["dropped"]])
    yield from _rows("Kept", [f"{row['id']} ({row['reason']})" for row in plan["kept"]])


def matches(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a search's result, grouped as in rpm-ostree."""
    if not rows:
        yield "No matches found."
    group = None
    for row in rows:
        if row["group"] != group:
            group = row["group"]
            yield f"===== {group.title()} Matched ====="
        mark = " (installed)" if row["installed"] else ""
        yield f"{row['name']} : {row['summary']}{mark}"


def _rows(heading: str, rows: Sequence[str]) -> Iterator[str]:
    if rows:
        yield f"{heading}:"
        yield from (f"  {row}" for row in rows)


def _step(step: Mapping[str, Any]) -> str:
    versions = " -> ".join(filter(None, (step["old"], step["new"])))
    notes = [step["reason"], step["origin"], "security" if step["security"] else ""]
    return f"{step['name']} {versions} ({', '.join(filter(None, notes))})"


def count(number: int, noun: str) -> str:
    """Return "1 package", "2 packages"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _kernel_arguments(plan: Mapping[str, Any]) -> Iterator[str]:
    before, after = Counter(plan["before"]), Counter(plan["after"])
    yield "Kernel arguments:"
    yield from (f"  - {argument}" for argument in (before - after).elements())
    yield from (f"  + {argument}" for argument in (after - before).elements())
    if before == after:
        yield f"  in another order: {' '.join(plan['after'])}"


def _policy(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield the decision, and what each rule says about the change."""
    override = f", overridden ({plan['override']})" if plan["override"] else ""
    yield f"Policy: {'allowed' if plan['allowed'] else 'refused'}{override}"
    for reason in plan["reasons"]:
        setting = reason["setting"]
        place = f"{setting['file']}: [{setting['section']}] {setting['key']}={setting['value']}"
        yield f"  {'yes' if reason['allowed'] else 'no'}: {reason['text']} ({place})"


def _image(plan: Mapping[str, Any]) -> Iterator[str]:
    layers = plan["layers"]
    made_of = f"{plan['ref']} {plan['commit'][:12]}, {show_size(plan['bytes'])}"
    yield f"Image of {made_of} in {count(len(layers), 'layer')}:"
    differing = sorted((row for row in layers if row["fate"] != "unchanged"), key=lambda row: -row["bytes"])
    yield from (f"  {row['name']}: {show_size(row['bytes'])}, {row['fate']}" for row in differing[:_LAYERS])
    if rest := differing[_LAYERS:]:
        yield f"  {len(rest)} smaller ones, changed or new: {show_size(sum(row['bytes'] for row in rest))}"
    if same := [row for row in layers if row["fate"] == "unchanged"]:
        yield f"  {len(same)} as in the previous image: {show_size(sum(row['bytes'] for row in same))}"


def _install_to_disk(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the disk is and loses, and what it becomes."""
    names = " ".join(filter(None, (plan["model"], plan["serial"])))
    yield f"Disk {plan['path']}{f' ({names})' if names else ''}, {show_size(plan['size'])}"
    parts = [_part(part) for part in plan["parts"]]
    if plan["found"]:
        yield from _rows("What is on it goes", [", ".join(plan["found"]), *parts])
    else:
        yield "There is nothing on it"
    new = [f"{part['name']}: {show_size(part['size'])}" for part in plan["partitions"]]
    new[-1] += ", and at the first boot the rest of the disk" if plan["grows"] else ""
    yield from _rows("Partitions", new)
    version = f" ({plan['version']})" if plan["version"] else ""
    yield f"Commit {plan['commit'][:12]}{version} of {plan['repo'] or plan['image']}"
    url = f" ({plan['url']})" if plan["url"] else ""
    yield f"It follows {plan['follows'] or 'nothing'}{url}"


def _takeover(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield what becomes of the running system: what goes along, what both show, what stays behind."""
    version = f" ({plan['version']})" if plan["version"] else ""
    yield f"Commit {plan['commit'][:12]}{version} of {plan['repo'] or plan['image']}, beside {plan['system']}"
    yield f"Root is {plan['device']} ({plan['filesystem']}); the old root is at /sysroot then"
    url = f" ({plan['url']})" if plan["url"] else ""
    yield f"It follows {plan['follows']}{url}"
    yield f"Kernel arguments: {' '.join(plan['arguments'])}"
    yield f"Users that go along: {', '.join(plan['users']) or 'none'}; and root's password"
    yield from _rows("Files of /etc that go along", plan["files"])
    yield f"Directories that both systems show: {', '.join(plan['shared']) or 'none'}"
    yield from _rows("Mounted, too", plan["mounts"])
    yield from _rows("Does not go along", [f"{one['what']} ({one['reason']})" for one in plan["left"]])
    yield "All else in /etc and /var stays in /sysroot/etc and /sysroot/var"
    if plan["packages"]:
        yield f"{count(len(plan['packages']), 'package')} of this system not in the tree:"
        yield f"  {' '.join(plan['packages'])}"
    if plan["attempts"]:
        yield f"After {count(plan['attempts'], 'boot')} that fail, the menu starts the old system"
    yield "Until the reboot, nothing of the running system changes; the boot menu goes on to offer it"


def _part(part: Mapping[str, Any]) -> str:
    label = f' "{part["label"]}"' if part["label"] else ""
    return f"{part['path']}: {part['content'] or part['type']}{label}, {show_size(part['size'])}"


def _bootloader(plan: Mapping[str, Any]) -> Iterator[str]:
    yield from _rows("Loaders", list(loader_rows(plan["loaders"])))


def loader_rows(loaders: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each loader of a plan: what it is, and what happens to it and why."""
    for loader in loaders:
        what = " ".join(filter(None, (loader["component"], loader["version"])))
        yield f"{loader['action']} {loader['path']}: {what} ({loader['reason']})"


_RENDERERS: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "transaction": _transaction,
    "packages": package_lines,
    "deployments": _deployments,
    "kernel-arguments": _kernel_arguments,
    "policy": _policy,
    "image": _image,
    "install-to-disk": _install_to_disk,
    "install-to-existing-root": _takeover,
    "bootloader": _bootloader,
}
