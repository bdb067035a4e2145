"""Files of overlays in a real repository: edited, read, laid over a base, and those that the image ships."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.core.overlays import edit, image, stack
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.filestate import FileState
from apt_ostree.model.origin import Origin
from apt_ostree.model.overlay import (
    Definition,
    EditAction,
    Goal,
    OnConflict,
    Overlay,
    Scope,
    State,
)
from apt_ostree.model.overlay_content import WHITEOUT, Node
from apt_ostree.model.overlay_edit import Content, EditBase, PathEdit
from apt_ostree.system import openfiles
from apt_ostree.system.ostree import overlay_repo
from apt_ostree.system.ostree.repo import Repo
from tests.unit import repos
from tests.unit.repos import System

ADD, MODIFY, REMOVE, DROP = EditAction.ADD, EditAction.MODIFY, EditAction.REMOVE_FILE, EditAction.DROP
BASE = {**repos.ONE, "usr/share/ut/base": "base", "usr/share/ut/deep/er": "deep"}


class Desk:
    """A repository with a base, and what it takes to make overlays for it."""

    def __init__(self, place: Path, stack_: ExitStack) -> None:
        self.place, self._stack = place, stack_
        self.repo: Repo = repos.make_repo(place / "repo")
        self.base = repos.write_commit(self.repo, BASE)
        self._count = 0

    def source(self, content: str | dict[str, str]) -> openfiles.OpenFile:
        """Open a file, or a directory with files."""
        self._count += 1
        path = self.place / f"source{self._count}"
        if isinstance(content, str):
            path.write_text(content)
        else:
            path.mkdir()
            repos.write_files(path, content)
        return self._stack.enter_context(openfiles.opened(path))

    def edit(self, content: Content, action: EditAction, path: str, source=None, **options) -> Content:
        file = self.source(source) if isinstance(source, str | dict) else source
        request = PathEdit(action=action, path=path, source=file, **options)
        return edit.apply(self.repo, content, [request], EditBase(self.base))

    def overlay(self, name: str = "x", files: dict[str, str | None] | None = None, **options) -> Overlay:
        """Make an overlay of files; None hides a path."""
        content = Content(Definition(name, **options))
        for path, text in (files or {}).items():
            action = REMOVE if text is None else ADD
            content = self.edit(content, action, path, text)
        return self.written(content)

    def written(self, content: Content) -> Overlay:
        commit = edit.write(self.repo, content, parent=None, subject="test")
        return Overlay(content.definition, State(content.definition.id, commit, True, "boot"))

    def goal(self, *overlays: Overlay, **options) -> Goal:
        return stack.goal(self.repo, self.base, overlays, overlays={o.id: o for o in overlays}, **options)

    def shown(self, commit: str) -> dict[str, str]:
        """Return the files below /usr/share/ut and /etc of a commit."""
        files = repos.read_files(self.repo, commit, self.place, "/usr")
        return {p: text for p, text in files.items() if p.startswith(("share/ut/", "etc/ut/"))}

    def text(self, node: Node) -> str:
        return self.repo.file_state(node.checksum).content.decode()


@pytest.fixture
def desk() -> Iterator[Desk]:
    with repos.memory_directory() as place, ExitStack() as opened:
        yield Desk(place, opened)


EMPTY = Content(Definition("x"))


# --- edits


def test_a_file_is_added_with_the_directories_above_it(desk: Desk):
    content = desk.edit(EMPTY, ADD, "/usr/share/ut/new/file", "text")
    assert {p: n.kind for p, n in content.nodes.items()} == {
        "share": "directory",
        "share/ut": "directory",
        "share/ut/new": "directory",
        "share/ut/new/file": "file",
    }
    assert desk.text(content.nodes["share/ut/new/file"]) == "text"
    below = overlay_repo.of_base(desk.repo, desk.base, ["share/ut/base"])
    assert content.nodes["share/ut"] == below["share/ut"]  # as the base has it
    assert content.definition.against == {"share/ut/new/file": ("", "")}


def test_what_is_added_belongs_to_root_and_has_its_mode(desk: Desk):
    content = desk.edit(EMPTY, ADD, "/usr/share/ut/a", "#!x")
    state = desk.repo.file_state(content.nodes["share/ut/a"].checksum)
    assert (state.uid, state.gid, state.mode) == (0, 0, 0o644 & ~_umask())
    content = desk.edit(content, ADD, "/usr/share/ut/b", "x", mode=0o4750, owner=(7, 8))
    state = desk.repo.file_state(content.nodes["share/ut/b"].checksum)
    assert (state.uid, state.gid, state.mode) == (7, 8, 0o4750)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_directory_is_added_with_all_that_is_in_it(desk: Desk):
    content = desk.edit(EMPTY, ADD, "/usr/share/ut/tree", {"a": "1", "b/c": "2", "link": "-> a"})
    assert {p for p in content.nodes if p.startswith("share/ut/tree")} == {
        "share/ut/tree", "share/ut/tree/a", "share/ut/tree/b", "share/ut/tree/b/c", "share/ut/tree/link",
    }  # fmt: skip
    link = desk.repo.file_state(content.nodes["share/ut/tree/link"].checksum)
    assert (link.type, link.content) == ("symlink", b"a")
    assert content.definition.against.keys() == {
        "share/ut/tree/a", "share/ut/tree/b/c", "share/ut/tree/link",
    }  # fmt: skip


def test_what_an_edit_is_made_against_is_remembered(desk: Desk):
    content = desk.edit(EMPTY, ADD, "/usr/share/ut/base", "mine")
    base = overlay_repo.of_base(desk.repo, desk.base, ["share/ut/base"])["share/ut/base"].checksum
    assert content.definition.against == {"share/ut/base": (base, "")}


def test_a_path_of_the_base_is_hidden(desk: Desk):
    content = desk.edit(EMPTY, REMOVE, "/usr/share/ut/base")
    assert content.nodes["share/ut/base"] == WHITEOUT
    content = desk.edit(content, DROP, "/usr/share/ut/base")
    assert (content.nodes, content.definition.against) == ({}, {})


def test_what_only_the_overlay_has_can_be_removed(desk: Desk):
    content = desk.edit(EMPTY, ADD, "/usr/share/ut/new", "x")
    assert desk.edit(content, REMOVE, "/usr/share/ut/new").nodes["share/ut/new"] == WHITEOUT


@pytest.mark.parametrize(
    ("action", "path", "source", "message"),
    [
        (REMOVE, "/usr/share/ut/nosuch", None, "no /usr/share/ut/nosuch to remove"),
        (MODIFY, "/usr/share/ut/nosuch", "x", "no /usr/share/ut/nosuch to modify"),
        (ADD, "/usr/share/ut/nosuch", None, "to add to the overlay"),
        (DROP, "/usr/share/ut/nosuch", None, "the overlay has no"),
        (ADD, "/usr/../x", "x", "not a plain absolute path"),
        (ADD, "/var/x", "x", "lies outside of /usr and /etc"),
    ],
)
def test_edits_that_cannot_be(desk: Desk, action, path, source, message):
    with pytest.raises(UsageError, match=message):
        desk.edit(EMPTY, action, path, source)


def test_nothing_lies_below_a_file_or_a_removed_directory(desk: Desk):
    for content in (
        desk.edit(EMPTY, ADD, "/usr/share/ut/deep", "a file now"),
        desk.edit(EMPTY, REMOVE, "/usr/share/ut/deep"),
    ):
        with pytest.raises(UsageError, match="so that it cannot have /usr/share/ut/deep/x"):
            desk.edit(content, ADD, "/usr/share/ut/deep/x", "x")


def test_modifying_needs_content(desk: Desk):
    content = desk.edit(EMPTY, ADD, "/usr/share/ut/new", "x")
    with pytest.raises(UsageError, match="there is no new content for"):
        desk.edit(content, MODIFY, "/usr/share/ut/new")
    assert desk.text(desk.edit(content, MODIFY, "/usr/share/ut/new", "y").nodes["share/ut/new"]) == "y"


def test_a_path_is_a_file_or_a_template(desk: Desk):
    content = desk.edit(EMPTY, ADD, "/usr/share/ut/t", "plain")
    content = desk.edit(content, ADD, "/usr/share/ut/t", "{{ word }}", template=True, when="word")
    assert "share/ut/t" in content.templates
    assert "share/ut/t" not in content.nodes
    assert content.definition.conditions == {"share/ut/t": "word"}


def test_what_is_no_file_is_refused(desk: Desk, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with openfiles.opened(tmp_path) as file, pytest.raises(Refused, match="rule device-node"):
        desk.edit(EMPTY, ADD, "/usr/share/ut/x", file)


def test_names_that_are_no_text_are_refused(desk: Desk, tmp_path):
    place = tmp_path / "names"
    place.mkdir()
    (place / os.fsdecode(b"\xff")).touch()
    with openfiles.opened(place) as file, pytest.raises(Refused, match="rule bad-path"):
        desk.edit(EMPTY, ADD, "/usr/share/ut/x", file)


def test_an_edit_does_not_change_what_it_was_made_from(desk: Desk):
    content = desk.edit(EMPTY, ADD, "/usr/share/ut/a", "1")
    nodes, against = dict(content.nodes), dict(content.definition.against)
    desk.edit(content, ADD, "/usr/share/ut/b", "2")
    assert (content.nodes, content.definition.against) == (nodes, against)
    assert EMPTY.nodes == {}


def test_content_survives_its_commit(desk: Desk):
    content = desk.edit(EMPTY, ADD, "/usr/share/ut/a", "1")
    content = desk.edit(content, ADD, "/usr/share/ut/t", "{{ x }}", template=True)
    content = desk.edit(content, REMOVE, "/usr/share/ut/base")
    commit = edit.write(desk.repo, content, parent=None, subject="test")
    assert edit.read(desk.repo, content.definition, commit) == content
    assert '"hides": true' in overlay_repo.definition_text(desk.repo, commit)


def test_nodes_of_an_unlocked_usr_replace_what_was_there(desk: Desk):
    content = desk.edit(EMPTY, ADD, "/usr/share/ut/a", "1", when="x")
    with desk.repo.transaction():
        node = overlay_repo.put(desk.repo, FileState("file", 0o600, 0, 0, b"2"))
    content = edit.with_nodes(desk.repo, content, {"share/ut/a": node, "share/ut/base": WHITEOUT}, desk.base)
    assert desk.text(content.nodes["share/ut/a"]) == "2"
    assert content.nodes["share/ut/base"] == WHITEOUT
    assert content.definition.conditions == {}


# --- laid over a base


def test_an_overlay_shows_over_the_base(desk: Desk):
    goal = desk.goal(desk.overlay("x", {"/usr/share/ut/new": "1", "/usr/share/ut/base": None}))
    assert desk.shown(goal.commit) == {
        "share/ut/new": "1", "share/ut/deep/er": "deep", "etc/ut/tool.conf": "one\n",
    }  # fmt: skip
    assert [applied.id for applied in goal.overlays] == ["system/x"]
    layer = overlay_repo.read(desk.repo, goal.overlays[0].layer, "/")
    assert layer["share/ut/base"] == WHITEOUT
    assert desk.repo.packages(goal.commit) == desk.repo.packages(desk.base)


def test_nothing_to_show_is_the_base(desk: Desk):
    assert desk.goal().commit == desk.base
    assert desk.goal(desk.overlay()).commit == desk.base


def test_the_higher_priority_wins(desk: Desk):
    low = desk.overlay("low", {"/usr/share/ut/x": "low", "/usr/share/ut/only-low": "low"}, priority=10)
    high = desk.overlay("high", {"/usr/share/ut/x": "high"}, priority=90)
    goal = desk.goal(low, high)
    assert [applied.id for applied in goal.overlays] == ["system/high", "system/low"]
    found = desk.shown(goal.commit)
    assert (found["share/ut/x"], found["share/ut/only-low"]) == ("high", "low")
    assert desk.goal(high, low).commit == goal.commit


def test_the_same_gives_the_same(desk: Desk):
    one, two = desk.overlay("a", {"/usr/share/ut/a": "1"}), desk.overlay("b", {"/usr/share/ut/b": "2"})
    goal = desk.goal(one, two)
    assert desk.goal(one, two, shown_now=goal) == goal
    assert desk.goal(one, shown_now=goal).overlays == goal.overlays[:1]


@pytest.mark.parametrize(
    ("policy", "text", "note"),
    [
        (OnConflict.KEEP, "mine", "the overlay's is shown"),
        (OnConflict.DROP, "newer", "the base's is shown"),
        (OnConflict.DISABLE, "newer", "is left out"),
    ],
)
def test_the_base_may_have_changed_since(desk: Desk, policy, text, note):
    overlay = desk.overlay("x", {"/usr/share/ut/base": "mine", "/usr/share/ut/n": "n"}, on_conflict=policy)
    desk.base = repos.write_commit(desk.repo, {**BASE, "usr/share/ut/base": "newer"})
    goal = desk.goal(overlay)
    assert desk.shown(goal.commit)["share/ut/base"] == text
    assert any(note in line for line in goal.notes)
    assert ("share/ut/n" in desk.shown(goal.commit)) == (policy is not OnConflict.DISABLE)


def test_conditions_decide_what_is_shown(desk: Desk):
    overlay = desk.overlay(
        "x", {"/usr/share/ut/a": "1"}, when="values.place == 'here'", values={"place": "there"}
    )
    goal = desk.goal(overlay)
    assert (goal.commit, goal.overlays) == (desk.base, ())
    assert "its condition is not met" in goal.notes[0]
    content = edit.read(desk.repo, overlay.definition, overlay.state.commit)
    moved = desk.written(replace(content, definition=replace(content.definition, values={"place": "here"})))
    assert desk.shown(desk.goal(moved).commit)["share/ut/a"] == "1"


def test_templates_are_rendered(desk: Desk):
    content = Content(Definition("x", values={"name": "world"}))
    content = desk.edit(content, ADD, "/usr/share/ut/hello", "Hello {{ values.name }}", template=True)
    content = desk.edit(content, ADD, "/usr/share/ut/no", "x", when="values.name == 'moon'")
    found = desk.shown(desk.goal(desk.written(content)).commit)
    assert found["share/ut/hello"] == "Hello world"
    assert "share/ut/no" not in found


def test_an_overlay_inherits_and_says_what_differs(desk: Desk):
    content = Content(Definition("parent", values={"who": "parent"}))
    content = desk.edit(content, ADD, "/usr/share/ut/t", "{{ values.who }}", template=True)
    parent = desk.written(desk.edit(content, ADD, "/usr/share/ut/p", "parent"))
    child = desk.overlay("child", {"/usr/share/ut/p": "child"}, inherits=("parent",), values={"who": "child"})
    known = {o.id: o for o in (parent, child)}
    goal = stack.goal(desk.repo, desk.base, [child], overlays=known)
    found = desk.shown(goal.commit)
    assert (found["share/ut/p"], found["share/ut/t"]) == ("child", "child")
    with pytest.raises(Refused, match="inherits from 'parent', which does not exist"):
        desk.goal(child)


def test_nobody_inherits_in_a_circle(desk: Desk):
    pair = [desk.overlay("a", inherits=("b",)), desk.overlay("b", inherits=("a",))]
    with pytest.raises(Refused, match="in a circle: system/a -> system/b -> system/a"):
        desk.goal(*pair)


def test_content_that_breaks_a_rule_is_not_shown(desk: Desk):
    content = desk.edit(EMPTY, ADD, "/usr/share/ut/tool", "x", mode=0o4755)
    with pytest.raises(Refused, match="breaks 1 rules of content") as caught:
        desk.goal(desk.written(content))
    assert caught.value.details[0].startswith("usr/share/ut/tool: ")
    rule = caught.value.details[0].rpartition("(")[2].rstrip(")")
    assert desk.goal(desk.written(content), allowed=[rule]).overlays
    allowing = replace(content, definition=replace(content.definition, allow=(rule,)))
    assert desk.goal(desk.written(allowing)).overlays


# --- overlays of the image


def ship(system: System, tree: dict[str, str]) -> None:
    """Boot a deployment whose image ships overlays."""
    files = {f"usr/lib/apt-ostree/overlays/{name}": text for name, text in tree.items()}
    commit = repos.write_commit(system.repo, {**repos.ONE, **files}, ref="shipped", packages=[])
    with system.open() as machine:
        machine.stage(commit, Origin("shipped"), machine.deployments().all[0])
        system.booted = machine.deployments().all[0].checksum


def test_the_image_ships_overlays(system: System):
    ship(system, {
        "web/usr/share/ut/page": "page",
        "web/etc/ut/web.conf": "conf",
        "web/overlay.conf": "[Overlay]\nPriority=70\nOnConflict=drop\nWhen=true\n",
        "README": "not one",
    })  # fmt: skip
    with system.transaction() as tx:
        place = (tx.sysroot, tx.live.booted)
        assert image.names(*place) == ["web"]
        overlay = image.imported(*place, "web", None)
        definition = overlay.definition
        assert (definition.id, definition.priority, definition.on_conflict) == ("global/web", 70, "drop")
        assert definition.when == "true"
        assert not overlay.state.enabled
        nodes = edit.read(tx.sysroot.repo, definition, overlay.state.commit).nodes
        assert {"share/ut/page", "etc/ut/web.conf"} <= nodes.keys()
        assert image.imported(*place, "web", overlay) is overlay  # the same keeps its commit
        enabled = replace(overlay, state=replace(overlay.state, enabled=True))
        assert list(image.updates(*place, [overlay, enabled])) == []


def test_an_overlay_follows_the_image(system: System):
    ship(system, {"web/usr/share/ut/page": "1"})
    with system.transaction() as tx:
        old = image.imported(tx.sysroot, tx.live.booted, "web", None)
        tx.sysroot.repo.set_ref("old", old.state.commit)
        enabled = replace(old, state=replace(old.state, enabled=True))
    ship(system, {"web/usr/share/ut/page": "2"})
    with system.transaction() as tx:
        repo = tx.sysroot.repo
        (move,) = image.updates(tx.sysroot, tx.live.booted, [enabled])
        assert move.after is not None
        assert move.after.enabled
        assert repo.ancestry(move.after.commit) == [move.after.commit, old.state.commit]
    ship(system, {})
    with system.transaction() as tx:
        (move,) = image.updates(tx.sysroot, tx.live.booted, [enabled])
        assert move.after is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[Overlay]\nColour=red\n", "unknown setting 'colour'"),
        ("[Overlay]\nPriority=high\n", "cannot be read"),
        ("[Overlay]\nOnConflict=shout\n", "cannot be read"),
        ("Priority=1\n", "cannot be read"),
    ],
)
def test_a_mistake_in_an_overlay_of_the_image_is_named(system: System, text, message):
    ship(system, {"web/usr/share/ut/page": "1", "web/overlay.conf": text})
    with system.transaction() as tx, pytest.raises(UsageError, match=message) as caught:
        image.imported(tx.sysroot, tx.live.booted, "web", None)
    assert "overlay.conf" in caught.value.message


def test_an_image_without_overlays(system: System):
    with system.transaction() as tx:
        assert image.names(tx.sysroot, tx.live.booted) == []
        mine = Overlay(Definition("x", Scope.SYSTEM), State("system/x", system.one, True, "b"))
        assert list(image.updates(tx.sysroot, tx.live.booted, [mine])) == []
