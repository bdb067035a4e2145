"""The files of an overlay while it is edited."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.errors import UsageError
from apt_ostree.model.filestate import FileState
from apt_ostree.model.overlay import Definition, EditAction, Persistence, parents
from apt_ostree.model.overlay_content import WHITEOUT, Node
from apt_ostree.model.overlay_edit import (
    Content,
    Draft,
    PathEdit,
    lasting,
    refuse_conflicts,
    with_metadata,
    without_unused,
)

DIRECTORY, FILE = Node("directory", "d"), Node("file", "f")
DROP = PathEdit(action=EditAction.DROP, path="/usr/bin/a")
ADD = PathEdit(action=EditAction.ADD, path="/p")
ADD_OWNED = PathEdit(action=EditAction.ADD, path="/p", mode=0o600, owner=(7, 8))


def draft(nodes: dict[str, Node], templates: dict[str, Node] | None = None) -> Draft:
    rows = {**nodes, **(templates or {})}
    return Draft(
        Definition("x"), nodes, templates or {}, dict.fromkeys(rows, ("", "")), dict.fromkeys(rows, "yes")
    )


def test_a_draft_does_not_change_the_content_that_it_begins_with():
    content = Content(
        Definition("x", against={"bin/a": ("1", "")}, conditions={"bin/a": "yes"}),
        {"bin": DIRECTORY, "bin/a": FILE}, {"etc": DIRECTORY, "etc/t": FILE},
    )  # fmt: skip
    begun = Draft.of(content)
    assert begun.content() == content
    begun.drop(DROP, "bin/a")
    begun.forget("etc/t")
    assert begun.content() == Content(Definition("x"), {}, {"etc": DIRECTORY})
    assert content.nodes == {"bin": DIRECTORY, "bin/a": FILE}
    assert content.definition.conditions == {"bin/a": "yes"}


def test_forgetting_a_path_forgets_what_is_below_it_everywhere():
    begun = draft({"d": DIRECTORY, "d/a": FILE, "dx": FILE}, {"d/t": FILE})
    assert begun.forget("d")
    assert (begun.nodes, begun.templates) == ({"dx": FILE}, {})
    assert (set(begun.against), set(begun.conditions)) == ({"dx"}, {"dx"})
    assert not begun.forget("d")


def test_dropping_takes_the_way_to_it_along_and_refuses_what_is_not_there():
    begun = draft({"bin": DIRECTORY, "bin/a": FILE, "lib": DIRECTORY, "lib/b": FILE})
    begun.drop(DROP, "bin/a")
    assert begun.nodes == {"lib": DIRECTORY, "lib/b": FILE}
    with pytest.raises(UsageError, match="/usr/bin/a"):
        begun.drop(DROP, "bin/a")


@pytest.mark.parametrize(
    ("nodes", "templates", "refused"),
    [
        ({"d": DIRECTORY, "d/a": FILE}, {"d": DIRECTORY, "d/b": FILE}, False),
        ({"d": FILE, "d/a": FILE}, {}, True),
        ({"d": WHITEOUT, "d/e/a": FILE}, {}, True),
        ({"d": WHITEOUT}, {"d/t": FILE}, True),
        ({"d/a": FILE}, {"d": FILE}, True),
        ({"d": WHITEOUT, "dx": FILE}, {}, False),
    ],
)
def test_paths_lie_in_directories_alone(nodes: dict[str, Node], templates: dict[str, Node], refused: bool):
    if not refused:
        refuse_conflicts(draft(nodes, templates))
        return
    with pytest.raises(UsageError) as caught:
        refuse_conflicts(draft(nodes, templates))
    assert "/usr/d/" in caught.value.message
    assert caught.value.hint and "--drop=/usr/d" in caught.value.hint


SHOWN = FileState("file", 0o640, 5, 6, b"old", (("user.x", b"1"),))
SOURCE = FileState("file", 0o664, 1000, 1000, b"new", (("user.mine", b"1"),))
ABSENT = FileState("absent")


@pytest.mark.parametrize(
    ("edit", "state", "like", "own", "expected"),
    [
        # What the system shows is taken as it is.
        (ADD, SHOWN, SHOWN, True, SHOWN),
        # What replaces it gets its metadata, whoever owned the source.
        (ADD, SOURCE, SHOWN, False, FileState("file", 0o640, 5, 6, b"new", SHOWN.xattrs)),
        # What is new is root's.
        (ADD, SOURCE, ABSENT, False, FileState("file", 0o664, 0, 0, b"new")),
        (ADD, SOURCE, FileState("directory", 0o700, 9, 9), False,
         FileState("file", 0o664, 0, 0, b"new")),
        (ADD_OWNED, SOURCE, SHOWN, False,
         FileState("file", 0o600, 7, 8, b"new", SHOWN.xattrs)),
        # A mode is meant for files: directories keep theirs, or nobody could enter them.
        (ADD_OWNED, FileState("directory", 0o755, 1, 1), ABSENT, False,
         FileState("directory", 0o755, 7, 8)),
        (ADD_OWNED, FileState("symlink", 0o777, 1, 1, b"x"), ABSENT, False,
         FileState("symlink", 0o777, 0, 0, b"x")),
    ],
)  # fmt: skip
def test_metadata(edit: PathEdit, state: FileState, like: FileState, own: bool, expected: FileState):
    assert with_metadata(edit, state, like, own=own) == expected


PATHS = ("a", "d", "d/a", "d/e", "d/e/a", "f", "f/x")
_nodes = st.dictionaries(st.sampled_from(PATHS), st.sampled_from([DIRECTORY, DIRECTORY, FILE, WHITEOUT]))


@given(_nodes, st.sets(st.sampled_from(PATHS)))
def test_only_directories_that_lead_to_something_stay(nodes: dict[str, Node], keep: set[str]):
    left = dict(nodes)
    without_unused(left, keep=keep)
    for path, node in nodes.items():
        leads = any(n != DIRECTORY and path in parents(p) for p, n in nodes.items())
        kept = any(path == p or path in parents(p) for p in keep)
        assert (path in left) == (node != DIRECTORY or leads or kept)
    again = dict(left)
    without_unused(again, keep=keep)
    assert again == left


def test_what_of_a_hybrid_overlay_outlives_the_boot():
    definition = Definition("x", persistence=Persistence.HYBRID, persists=("/etc/*", "/usr/lib/keep/*"))
    nodes = {"etc": DIRECTORY, "etc/a": FILE, "etc/gone": WHITEOUT, "bin": DIRECTORY, "bin/a": FILE,
             "lib": DIRECTORY, "lib/keep": DIRECTORY, "lib/keep/a": FILE, "lib/b": WHITEOUT}  # fmt: skip
    assert set(lasting(definition, nodes)) == {"etc", "etc/a", "etc/gone", "lib", "lib/keep", "lib/keep/a"}
    assert lasting(Definition("x", persistence=Persistence.TEMPORARY), nodes) == {}
