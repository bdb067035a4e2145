"""Searching: what matches, in which group, in which order, and how it is shown."""

from dataclasses import asdict

import pytest

from apt_ostree.cli import plans
from apt_ostree.model.search import Group, Offer, find

OFFERS = (
    Offer("vim", "2", "Vi IMproved", installed="1"),
    Offer("nano", "8", "small editor"),
    Offer("editorconfig", "1", "coding style"),
    Offer("gedit-editor", "1", "Text Editor for GNOME"),
    Offer("apache2", "2.4", "HTTP Server"),
)


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        (["EDITOR"], [("gedit-editor", Group.BOTH), ("editorconfig", Group.NAME), ("nano", Group.SUMMARY)]),
        (["apache", "server"], [("apache2", Group.BOTH)]),
        (["http", "server"], [("apache2", Group.SUMMARY)]),
        (["vim"], [("vim", Group.NAME)]),
        (["editor", "server"], []),
        (["*edit*"], [("gedit-editor", Group.BOTH), ("editorconfig", Group.NAME), ("nano", Group.SUMMARY)]),
        (["edit*"], [("editorconfig", Group.NAME)]),
        (["[nv]*", "editor"], [("nano", Group.BOTH)]),
    ],
)
def test_find(terms, found):
    assert [(match.name, match.group) for match in find(OFFERS, terms)] == found


def test_text_has_rpm_ostrees_groups_and_marks_what_is_installed():
    lines = list(plans.matches([asdict(match) for match in find(OFFERS, ["editor"])]))
    assert lines == [
        "===== Summary & Name Matched =====",
        "gedit-editor : Text Editor for GNOME",
        "===== Name Matched =====",
        "editorconfig : coding style",
        "===== Summary Matched =====",
        "nano : small editor",
    ]
    (line,) = list(plans.matches([asdict(match) for match in find(OFFERS, ["vim"])]))[1:]
    assert line == "vim : Vi IMproved (installed)"
    assert list(plans.matches([])) == ["No matches found."]
