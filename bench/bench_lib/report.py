"""Turns figures into rows with a ratio, a target and a verdict, and rows into tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Peak memory that no process of a verb may exceed (kB), but for those of the peers' own making.
_MEMORY_LIMIT = 200_000
#: What the service may add to a verb, and its status with a cold start may take (s), and its memory (kB).
_ADDED, _COLD, _SERVICE_MEMORY = 0.06, 0.3, 60_000
_MEMORY_EXEMPT = ("dpkg", "mmdebstrap")
_LAYER = "Preparing the layer"
_SWITCH = "Switching /usr"
#: Titles of steps -> columns of the growth tables; what is not named here is in `rest`.
_INSTALL_COLUMNS = {
    "Reading package lists": "read lists",
    "Resolving packages": "resolve",
    "Downloading packages": "find archives",
    "Installing packages": "install",
    "Writing the commit": "commit",
    "Staging the deployment": "staging",
}
_LIVE_COLUMNS = {
    "Comparing the trees": "compare",
    _LAYER: "prepare the layer",
    "Updating N paths in /etc": "/etc",
    _SWITCH: "switch",
    "Reloading systemd": "reload",
}

Table = list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. ratio, target: None where there is none; a target is an upper limit of the ratio."""

    what: str
    ours: str
    peer: str
    ratio: float | None = None
    target: float | None = None
    runs: int = 0

    @property
    def verdict(self) -> str:
        """Say whether the target is met."""
        if self.ratio is None or self.target is None:
            return ""
        return "met" if self.ratio <= self.target else "**missed**"


def rows(found: Mapping[str, Any]) -> list[Row]:
    """Return the comparisons for which there are figures, in the order of the document."""
    made: list[Row] = []
    for topic, maker in (
        ("installs", _install_rows),
        ("update", _update_rows),
        ("switch", _switch_rows),
        ("startup", _startup_rows),
        ("service", _service_rows),
        ("compose", _compose_rows),
        ("disk", _disk_rows),
        ("overlays", _overlay_rows),
        ("pull", _pull_rows),
        ("images", _image_rows),
        ("layers", _layer_rows),
        ("memory", _memory_rows),
        ("changes", _growth_rows),
    ):
        if topic in found:
            made += maker(found[topic])
    return made


def main_table(comparisons: Sequence[Row]) -> Table:
    """Return the table of comparisons, with its heading."""
    table: Table = [("", "apt-ostree", "peer", "ratio", "target", "verdict", "n")]
    for row in comparisons:
        ratio = "" if row.ratio is None else f"{row.ratio:.2g}" if row.ratio < 10 else f"{row.ratio:.0f}"
        target = "" if row.target is None else f"≤ {row.target:g}"
        runs = str(row.runs) if row.runs else ""
        table.append((row.what, row.ours, row.peer, ratio, target, row.verdict, runs))
    return table


def markdown(table: Table) -> str:
    """Return a table as Markdown, aligned so that it can be read as it is."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in table]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


# --- comparisons


def _install_rows(found: Mapping[str, Any]) -> list[Row]:
    made = []
    for name, live_target in (("small", 0.7), ("forty", 0.25)):
        one = found[name]
        count = f"{one['packages']} packages"
        both = list(map(sum, zip(one["apt"], one["deploy"], strict=True)))
        staged = list(map(sum, zip(one["apt"], one["deploy_staged"], strict=True)))
        made += [
            _compared(f"install {count}, against apt-get + deploy", one["install"], both, 1.3),
            _compared(f"install {count}, against apt-get + deploy --stage", one["install"], staged),
            _compared(f"apply-live of {count}, against apt-get", one["live"], one["apt"], live_target),
        ]
    if "removal" not in found:  # measured after all else
        return made
    small = found["small"]
    what = f"uninstall {small['packages']} packages, against installing them"
    return [*made, _compared(what, found["removal"], small["install"], 1)]


def _pull_rows(found: Mapping[str, Any]) -> list[Row]:
    sizes = {side: found["bytes"][side] / 1e6 for side in ("delta", "objects", "archives")}
    count = f"{found['packages']} updated packages of a base"
    megabytes = {side: f"{size:.1f} MB" for side, size in sizes.items()}
    made = [_compared(f"pull {count} by static delta, against without", found["delta"], found["objects"])]
    for side, what in (("objects", "without"), ("archives", "their archives")):
        ratio = sizes["delta"] / sizes[side]
        made.append(
            Row(f"bytes of the static delta, against {what}", megabytes["delta"], megabytes[side], ratio)
        )
    return made


def _image_rows(found: Mapping[str, Any]) -> list[Row]:
    what, sizes, pulled = "security update of nginx live from a registry", found["bytes"], found["pulled"]
    apt, new = [sum(steps.values()) for steps in found["apt"]], sum(sizes["new"].values())
    return [
        _compared(f"{what}, against apt-get update + upgrade", found["live"], apt),
        _compared(f"{what}, against upgrade and reboot", found["live"], found["reboot"]),
        _sizes("bytes pulled for it, against the layer of nginx", max(pulled), sizes["nginx"], 1.5),
        _sizes("bytes of the image's new layers, against one layer", new, sizes["whole"]),
    ]


def _disk_rows(found: Mapping[str, Any]) -> list[Row]:
    return [
        _compared("compose a disk image, against mkosi", [found["ours"]], [found["peer"]]),
        _sizes("bytes of the disk image, against mkosi", *found["bytes"]),
    ]


def _layer_rows(found: Mapping[str, Any]) -> list[Row]:
    updates, imports = found["updates"], found["import"]
    return [
        _sizes(
            f"bytes of {len(updates)} updates, layers against one layer",
            sum(step["new"] for step in updates),
            sum(step["whole"] for step in updates),
        ),
        _compared("import of an image, against ostree pull-local", imports["ours"], imports["peer"]),
    ]


def _sizes(what: str, ours: int, peer: int, target: float | None = None) -> Row:
    return Row(what, f"{ours / 1e6:.1f} MB", f"{peer / 1e6:.1f} MB", ours / peer, target)


def _update_rows(found: Mapping[str, Any]) -> list[Row]:
    peer = [sum(steps.values()) for steps in found["peer"]]
    made = [_compared("update of a running service, against apt-get + needrestart", found["ours"], peer, 1.5)]
    if "install" in found:  # figures that were kept before this was measured
        what = "install one small cached package, live, against apt-get"
        made.append(_compared(what, found["install"], found["install-peer"], 1.6))
    return made


def _switch_rows(found: Mapping[str, Any]) -> list[Row]:
    readers = {side: found[side] for side in ("ours", "peer", "idle")}
    gaps = {side: _seconds(max(seen["gap"] for seen in many)) for side, many in readers.items()}
    failed = {
        side: statistics.mean(seen["failures"] / seen["switches"] for seen in readers[side])
        for side in ("ours", "peer")
    }
    start = statistics.median(found["refresh_start"])
    bare = [max(seconds - start, 0.0) for seconds in found["refresh"]]
    worst = float(sum(seen["failures"] for seen in readers["ours"]))
    return [
        _compared("the switch alone, against sysext refresh", found["swap"], found["refresh"], 0.1),
        _compared("preparing and switching, against sysext refresh", found["show"], found["refresh"]),
        _compared("preparing and switching, against refresh less its start", found["show"], bare),
        Row(
            "failed lookups, each reader and switch",
            f"{failed['ours']:g}",
            f"{failed['peer']:.0f}",
            worst,
            0.0,
            len(found["swap"]),
        ),
        Row(f"longest gap of a reader (undisturbed: {gaps['idle']})", gaps["ours"], gaps["peer"]),
    ]


def _startup_rows(found: Mapping[str, Any]) -> list[Row]:
    plain, layered = found["plain"], found["layered"]
    return [
        _compared("status, against importing libostree", plain["status"], plain["import"], 3),
        _compared("status with packages layered and live", layered["status"], layered["import"]),
    ]


def _service_rows(found: Mapping[str, Any]) -> list[Row]:
    added = statistics.median(found["with"]) - statistics.median(found["without"])
    status, memory = statistics.median(found["status"]), found["memory"]
    runs = len(found["with"])
    return [
        _compared("a verb through the service, against without it", found["with"], found["without"]),
        Row("what the service adds to a verb", _seconds(added), "60 ms", added / _ADDED, 1, runs),
        Row(
            "status of the service, which it starts",
            _spread(found["status"]),
            "0.3 s",
            status / _COLD,
            1,
            runs,
        ),
        Row("memory of the service", f"{memory / 1000:.0f} MB", "60 MB", memory / _SERVICE_MEMORY, 1),
    ]


def _compose_rows(found: Mapping[str, Any]) -> list[Row]:
    peer = sum(found["peer"].values())
    return [_compared("compose, against mmdebstrap + dracut + ostree commit", [found["compose"]], [peer])]


def _memory_rows(found: Mapping[str, Mapping[str, int]]) -> list[Row]:
    made = []
    for verb, peaks in found.items():
        judged = {name: peak for name, peak in peaks.items() if name not in _MEMORY_EXEMPT}
        name, peak = max(judged.items(), key=lambda item: item[1])
        made.append(
            Row(f"peak memory, {verb}: {name}", f"{peak / 1000:.0f} MB", "200 MB", peak / _MEMORY_LIMIT, 1)
        )
    return made


def _overlay_rows(found: Mapping[str, Any]) -> list[Row]:
    """Return what many overlays take, and what the number of files does to one."""
    sides = {
        side: {key: [s for boot in found[side] for s in boot[key]] for key in found[side][0]}
        for side in ("ours", "peer")
    }
    create, ours, peer = found["create"], sides["ours"], sides["peer"]
    seen = {side: sum(reader["failures"] for reader in sides[side]["readers"]) for side in sides}
    each = {side: seen[side] / sum(reader["switches"] for reader in sides[side]["readers"]) for side in sides}
    made = [
        _compared("overlays: create each of 50, against copying + refresh", create["ours"], create["peer"]),
        _compared("overlays: --list, against sysext list", ours["list"], peer["list"], 33),
        _compared("overlays: reorder one of 50, against refresh", ours["reorder"], peer["reorder"], 19),
        _compared("overlays: switch one of 50 off, against refresh", ours["off"], peer["off"], 18),
        _compared("overlays: switch one of 50 on, against refresh", ours["on"], peer["on"], 18),
        _compared("overlays: boot with 50, against sysext's service", ours["boot"], peer["boot"], 4),
        Row(
            "overlays: failed lookups, each reader and reordering",
            f"{each['ours']:g}",
            f"{each['peer']:.0f}",
            float(seen["ours"]),
            0.0,
            min(sum(boot["readers"][0]["switches"] for boot in found[side]) for side in sides),
        ),
    ]
    few, many = sorted(found["sizes"], key=int)
    between = f"{many} files, against {few}"
    steps = [[s for key in ("on", "off") for s in found["sizes"][size][key]] for size in (many, few)]
    made.append(
        _compared(f"overlays: the switch, {between}", *([s[_SWITCH] for s in one] for one in steps), 2)
    )
    for key, word in (("on", "--enable"), ("off", "--disable")):
        totals = ([step["total"] for step in found["sizes"][size][key]] for size in (many, few))
        made.append(_compared(f"overlays: the whole {word}, {between}", *totals))
    rows = [(f"an overlay of {_files(one)}", one) for one in found["disk"]["overlays"]]
    rows.append(("a generation that switches 200 files", found["disk"]["generation"]))
    for what, one in rows:
        sizes = (f"{one[key] / 1000:.0f} kB" for key in ("used", "bytes"))
        made.append(Row(f"overlays: disk, {what}, against their bytes", *sizes, one["used"] / one["bytes"]))
    return made


def _files(one: Mapping[str, int]) -> str:
    each = one["bytes"] // one["files"]
    return f"{one['files']} new file{'s' if one['files'] > 1 else ''} of {each // 1000} kB"


def _growth_rows(found: Mapping[str, Any]) -> list[Row]:
    counts = sorted(found, key=int)
    few, many = (found[count]["apply-live"] for count in (counts[0], counts[-1]))
    switches = [[step[_SWITCH] for step in steps] for steps in (many, few)]
    rest = [[step["total"] - step[_LAYER] for step in steps] for steps in (many, few)]
    between = f"{counts[-1]} packages, against {counts[0]}"
    return [
        _compared(f"the switch, {between}", *switches, 2),
        _compared(f"apply-live but the layer, {between}", *rest, 2),
    ]


def _compared(what: str, ours: Sequence[float], peer: Sequence[float], target: float | None = None) -> Row:
    ratio = statistics.median(ours) / statistics.median(peer)
    return Row(what, _spread(ours), _spread(peer), ratio, target, min(len(ours), len(peer)))


def _spread(values: Sequence[float]) -> str:
    """Return the median and, when there are several values, the lowest and the highest."""
    middle = _seconds(statistics.median(values))
    return middle if len(values) < 2 else f"{middle} ({_seconds(min(values))} to {_seconds(max(values))})"


def _seconds(value: float) -> str:
    return (
        f"{value * 1000:.2g} ms"
        if value < 0.0095
        else f"{value * 1000:.0f} ms"
        if value < 1
        else f"{value:.1f} s"
    )


# --- growth and memory


def growth_tables(found: Mapping[str, Any], first: str) -> tuple[Table, Table]:
    """Return the steps of install and of apply-live (medians), a line for each size; `first` names them."""
    return (
        _growth_table(found, first, "install", _INSTALL_COLUMNS),
        _growth_table(found, first, "apply-live", _LIVE_COLUMNS),
    )


def _growth_table(found: Mapping[str, Any], first: str, verb: str, columns: Mapping[str, str]) -> Table:
    table: Table = [(first, "start", *columns.values(), "rest", "total")]
    for size in sorted(found, key=int):
        runs = found[size][verb]
        names = ("start", *columns)
        cells = [statistics.median(run.get(name, 0.0) for run in runs) for name in names]
        rest = statistics.median(run["total"] - sum(run.get(name, 0.0) for name in names) for run in runs)
        total = statistics.median(run["total"] for run in runs)
        table.append((size, *(_seconds(cell) if cell else "-" for cell in (*cells, rest, total))))
    return table


def memory_table(found: Mapping[str, Mapping[str, int]]) -> Table:
    """Return the kinds of processes that took most, for each verb."""
    table: Table = [("", "processes, by their highest VmHWM in MB")]
    for verb, peaks in found.items():
        largest = sorted(peaks.items(), key=lambda item: -item[1])[:7]
        table.append((verb, ", ".join(f"{name} {peak / 1000:.0f}" for name, peak in largest)))
    return table
