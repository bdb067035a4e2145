"""Overlays over a base: the commit, the mounted layers and a plain copy agree; hostile ones are refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.fixtures import hostile
from tests.integration.trees import TREES, describe, mounted, new_case

from apt_ostree.core.overlays import edit, stack
from apt_ostree.errors import AptOstreeError, Refused
from apt_ostree.model.filestate import FileState
from apt_ostree.model.overlay import Definition, Overlay, Scope, State, in_order, parents
from apt_ostree.model.overlay_content import WHITEOUT, Node
from apt_ostree.model.overlay_edit import Content
from apt_ostree.model.overlay_rules import Item
from apt_ostree.system.ostree import layers, overlay_repo
from apt_ostree.system.ostree.repo import Repo

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, so it needs root")
TORTURE = bool(os.environ.get("APT_OSTREE_TORTURE"))
_NAMES = ("a", "b", "c", "d/a", "d/e/a", "d/e/b", "läng lich", "b/new", "c/x/y")
#: Content of a file, None: the path is removed.
_texts = st.none() | st.sampled_from(["one", "two", "three"])
_files = st.dictionaries(st.sampled_from(_NAMES), _texts, max_size=6)
_overlays = st.lists(st.tuples(st.integers(0, 3), _files), max_size=5)


def _overlay(repo: Repo, definition: Definition, nodes: dict[str, Node]) -> Overlay:
    commit = edit.write(repo, Content(definition, nodes), parent=None, subject="test")
    return Overlay(definition, State(definition.id, commit, True, "boot"))


def _nodes(repo: Repo, files: dict[str, str | None], below: dict[str, Node]) -> dict[str, Node]:
    """Return an overlay's nodes, but for what would change the type of a path, which the rules refuse."""
    nodes: dict[str, Node] = {}
    with repo.transaction():
        plain = overlay_repo.put(repo, FileState("directory", 0o755))
        for path, text in sorted(files.items()):
            above = list(parents(path))
            kinds = {(nodes.get(p) or below.get(p, plain)).kind for p in above}
            own = nodes.get(path) or below.get(path)
            if kinds - {"directory"} or (text is not None and own and own.kind == "directory"):
                continue
            for parent in above:
                nodes[parent] = below.get(parent, plain)
            state = FileState("file", 0o644, 0, 0, (text or "").encode())
            nodes[path] = overlay_repo.put(repo, state) if text is not None else WHITEOUT
    return nodes


def _copied(view: dict[str, tuple], nodes: dict[str, Node], below: dict[str, Node], repo: Repo) -> None:
    """Copy an overlay's files over a view, as rm -r, mkdir -p and cp would."""
    for path, node in sorted(nodes.items(), key=lambda row: row[0].count("/")):
        if node.kind == "directory":
            continue
        for gone in [p for p in view if p == path or p.startswith(f"{path}/")]:
            del view[gone]
        if node.kind == "whiteout":
            continue
        for above in parents(path):
            if above not in view or view[above][0] != 0o040000:
                for gone in [p for p in view if p == above or p.startswith(f"{above}/")]:
                    del view[gone]
                state = repo.directory_state(below.get(above, nodes[above]).checksum)
                view[above] = (0o040000, state.mode, state.uid, state.gid)
        view[path] = (0o100000, 0o644, 0, 0, repo.file_state(node.checksum).content)


@given(TREES, _overlays)
@settings(
    deadline=None,
    max_examples=600 if TORTURE else 60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(("dir", 0o755, 0, {}), [(0, {"c/x/y": "one"}), (1, {"c": "one"}), (2, {"c/x/y": None})])
def test_any_order_shows_what_a_plain_copy_would(disk: Path, tree, wanted):
    work, repo, (base,) = new_case(disk, tree)
    below = overlay_repo.of_base(repo, base, _NAMES)
    overlays = {}
    for number, (priority, files) in enumerate(wanted):
        definition = Definition(f"o{number}", priority=priority, allow=("privileged-code",))
        overlay = _overlay(repo, definition, _nodes(repo, files, below))
        overlays[overlay.id] = overlay
    goal = stack.goal(repo, base, overlays.values(), overlays=overlays)

    repo.checkout(base, work, "plain", subpath="/usr")
    view = describe(work / "plain")
    for definition in reversed(in_order(o.definition for o in overlays.values())):
        _copied(view, overlay_repo.read(repo, overlays[definition.id].state.commit), below, repo)
    if goal.commit != base:
        repo.checkout(goal.commit, work, "composed", subpath="/usr")
        assert describe(work / "composed") == view
    lowers = [layers.check_out(repo, a.layer, work / "layers") for a in goal.overlays]
    assert describe(mounted([*lowers, work / "plain", _empty(work)], work)) == view
    assert stack.goal(repo, base, overlays.values(), overlays=overlays, shown_now=goal).commit == goal.commit


def _empty(work: Path) -> Path:
    (work / "empty").mkdir()
    return work / "empty"


# --- hostile overlays, as commits that somebody hands over

#: What cannot come in a commit: names that OSTree refuses, devices, too much of anything.
_NOT_IN_COMMITS = {
    "bad-path",
    "outside-scope",
    "device-node",
    "duplicate",
    "too-many",
    "too-large",
    "too-deep",
}


def _handed_over(repo: Repo, items: Iterable[Item]) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    with repo.transaction():
        for item in items:
            name = re.sub("^usr/", "", item.path)
            if item.type == "whiteout":
                nodes[name] = WHITEOUT
                continue
            content = item.target.encode() if item.type == "symlink" else b"x" * min(item.size, 10)
            xattrs = tuple((xattr, b"1") for xattr in sorted(item.xattrs))
            state = FileState(item.type, item.mode, item.uid, item.gid, content, xattrs)
            nodes[name] = overlay_repo.put(repo, state)
        plain = overlay_repo.put(repo, FileState("directory", 0o755))
    return {p: plain for name in list(nodes) for p in parents(name)} | nodes


def _base_of(items: Iterable[Item]) -> Iterator[Item]:
    """Yield what the base has of these paths."""
    for item in items:
        if item.base != "absent":
            mode = item.base_mode or (0o755 if item.base == "directory" else 0o644)
            owner = (max(item.base_uid, 0), max(item.base_gid, 0))
            yield Item(item.path, item.base, mode, *owner, 1, "elsewhere" if item.base == "symlink" else "")


def _can_come_in_a_commit(items: Sequence[Item]) -> bool:
    kinds = {item.path: item.type for item in items}
    owners = (number for item in items for number in (item.uid, item.gid))
    storable = {"file", "symlink", "directory", "whiteout", "absent"}
    types = {*kinds.values(), *(item.base for item in items)}
    if len(kinds) < len(items):
        return False  # a commit has each path once
    if not (types <= storable and all(0 <= n < 2**32 - 1 for n in owners)):
        return False
    if any(re.search("[\udc80-\udcff\0]", item.path + item.target) for item in items):
        return False
    lost = {("whiteout", "absent"), ("directory", "file"), ("directory", "symlink")}
    if any((item.type, item.base) in lost for item in items):
        return False  # what removes nothing, and what leads to nothing, is left out
    if any(i.kept_directory and (i.mode != i.base_mode or i.uid or i.gid or i.xattrs) for i in items):
        return False  # a directory of the base keeps its metadata, whatever the overlay says
    return all(kinds.get(above, "directory") == "directory" for path in kinds for above in parents(path))


def test_hostile_overlays_are_not_activated(disk: Path):
    """As commits, on bases that have what they want to replace: each is refused, with its rule."""
    _work, repo, (plain,) = new_case(disk, ("dir", 0o755, 0, {"a": ("file", 0o644, 0, "1")}))
    count = 1000 if TORTURE else 150
    tried = named = 0
    for number, (rule, items) in enumerate(hostile.hostile(20261123, count)):
        if rule in _NOT_IN_COMMITS or not _can_come_in_a_commit(items):
            continue
        root = overlay_repo.root_metadata(repo, plain)
        layer = overlay_repo.write_layer(repo, _handed_over(repo, _base_of(items)), root, subject="base")
        base = overlay_repo.compose(repo, plain, [layer], ["base"])
        definition = Definition(f"evil{number}", Scope(hostile.scope_of(rule)))
        try:
            overlay = _overlay(repo, definition, _handed_over(repo, items))
        except AptOstreeError:
            continue  # OSTree itself does not take it
        tried += 1
        told: tuple[str, ...] = ()
        try:
            stack.goal(repo, base, [overlay], overlays={overlay.id: overlay})
        except Refused as refused:
            told = tuple(refused.details)
        assert told, (rule, [item for item in items if "evil" in item.path])
        named += any(f"({rule})" in line for line in told)
    assert tried > count / 4 and named > 0.95 * tried  # some are refused for a more serious one
    print(f"{tried} of {count} can come in commits; {named} are refused with the rule they were made for")
