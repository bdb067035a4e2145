"""Names of branches and commits."""

from __future__ import annotations

import pytest

from apt_ostree.errors import UsageError
from apt_ostree.model.refspec import Refspec, Revision

PRESENT = Refspec("vendor", "debian/13/server")
COMMIT = "0123456789abcdef" * 4


def partial(text: str) -> str:
    return str(Refspec.parse_partial(text, PRESENT))


def test_what_is_left_out_is_the_present_ones():
    assert partial("mirror:debian/14/server") == "mirror:debian/14/server"
    assert partial("debian/14/server") == "vendor:debian/14/server"
    assert partial("mirror:") == "mirror:debian/13/server"
    assert partial(":own/branch") == "own/branch"
    assert partial("ostree://mirror:") == "mirror:debian/13/server"
    assert partial("ostree://debian/14/server") == "vendor:debian/14/server"
    assert str(Refspec.parse_partial("own/branch", Refspec("", "x"))) == "own/branch"


@pytest.mark.parametrize(
    "text", ["a b", "a//b", "/a", "a/", "mirror:../x", "mi/rror:a", "-x:a", "x:-a", "a:b:c"]
)
def test_other_names_are_refused(text: str):
    with pytest.raises(UsageError, match="no name of a branch"):
        partial(text)


def test_an_origin_may_be_a_commit():
    assert Refspec.parse("vendor:a/b") == Refspec("vendor", "a/b")
    assert Refspec.parse("a/b") and not Refspec.parse("") and not Refspec.parse(COMMIT)


def test_revisions():
    assert Revision.parse(COMMIT) == Revision.parse(f"revision={COMMIT}") == Revision(commit=COMMIT)
    assert Revision.parse("13.2") == Revision.parse("version=13.2") == Revision(version="13.2")
    assert Revision.parse(f"version={COMMIT}") == Revision(version=COMMIT)
    assert Revision.parse(f"REVISION={COMMIT}") == Revision(commit=COMMIT)
    assert Revision.parse("Version=13.2") == Revision(version="13.2")
    assert Revision.parse("date=2026") == Revision(version="date=2026")
    assert str(Revision(commit=COMMIT)) == "commit 0123456789ab"


@pytest.mark.parametrize("text", ["", "version=", "revision=", "revision=13.2"])
def test_revisions_that_name_nothing(text: str):
    with pytest.raises(UsageError):
        Revision.parse(text)
