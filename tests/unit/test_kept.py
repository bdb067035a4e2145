"""What is kept from the present tree, because no archive offers it any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from apt_ostree.model import kept
from apt_ostree.model.closure import Key, Member, Relation
from apt_ostree.model.package import Package

SOURCE = Path(__file__).resolve().parents[2] / "src"


def member(name: str, *depends: str, provides: str = "") -> Member:
    """Return version 1 of a package; a dependency is NAME, NAME=VERSION or several with | between them."""
    groups = tuple(tuple(_relation(one) for one in group.split("|")) for group in depends)
    virtual = ((provides, ""),) if provides else ()
    return Member(Package(name, "1", "all"), depends=groups, provides=virtual)


def _relation(text: str) -> Relation:
    name, equals, version = text.partition("=")
    return Relation(name, equals, version)


PRESENT: dict[Key, Member] = {
    m.key: m
    for m in (
        member("tool", "library=1", "libc"),
        member("library", "data|other-data"),
        member("data"),
        member("libc"),
        member("mailer", "mta"),
        member("postfix", provides="mta"),
        *(Member(Package("wine", "1", architecture)) for architecture in ("amd64", "i386")),
    )
}


def names(requests: list[str], offered: dict[str, str], lost: tuple[str, ...] = ()) -> list[str]:
    """Return what is kept; offered: name -> the only version of the archives."""

    def is_offered(relation: Relation) -> bool:
        version = offered.get(f"{relation.name}:{relation.architecture}", offered.get(relation.name))
        return version is not None and relation.version in ("", version)

    packages = kept.kept(
        requests, lost, PRESENT, is_offered, lambda one, _operator, other: one == other, native="amd64"
    )
    return [package.qualified for package in packages]


def test_what_packages_need():
    def needed(*names: str) -> list[str]:
        packages = kept.needed(names, PRESENT, lambda one, _operator, other: one == other)
        return sorted(package.name for package in packages)

    assert needed("tool") == ["data", "libc", "library", "tool"]
    assert needed("mailer", "missing") == ["mailer", "postfix"]


@pytest.mark.parametrize(
    ("patterns", "name", "protected"),
    [
        ((), "postgresql-15", False),
        (("^linux-image$", "^postgresql.*-15"), "postgresql-15", True),
        (("^postgresql.*-15",), "postgresql-17", False),
        (("^POSTGRESQL-",), "postgresql-15", True),
        (("(", "^postgresql-"), "postgresql-15", True),
        (("(",), "postgresql-15", False),
    ],
)
def test_what_apt_protects(patterns: tuple[str, ...], name: str, protected: bool):
    program = "\n".join(
        (
            "import sys, apt_pkg; from apt_ostree.system.apt import config; apt_pkg.init_config()",
            "apt_pkg.config.clear('APT::NeverAutoRemove')",
            "for one in sys.argv[2:]: apt_pkg.config.set('APT::NeverAutoRemove::', one)",
            "config._leave_protection_to_us()",
            "print(config.is_protected(sys.argv[1]), apt_pkg.config.value_list('APT::NeverAutoRemove'))",
        )
    )
    words = [sys.executable, "-c", program, name, *patterns]
    done = subprocess.run(words, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(protected), "[]"]


@pytest.mark.parametrize(
    ("requests", "offered", "result"),
    [
        (["tool"], {"tool": "2"}, []),
        (["tool=1"], {"tool": "1"}, []),
        (["tool=1"], {"tool": "2", "library": "1", "libc": "2"}, ["tool"]),
        (["tool"], {"library": "1", "libc": "2"}, ["tool"]),
        (["tool:amd64=1"], {"library": "1", "libc": "2"}, ["tool"]),
        # Offered for the other architecture only.
        (["wine:i386"], {"wine:amd64": "2"}, ["wine:i386"]),
        (["wine"], {"wine:i386": "2"}, ["wine:amd64"]),
        (["wine:i386", "wine"], {"wine:i386": "2", "wine:amd64": "2"}, []),
        # What it needs, and what that needs; any version of libc will do.
        (["tool=1"], {"tool": "2", "library": "2", "libc": "2"}, ["data", "library", "tool"]),
        (["tool=1"], {"library": "2", "libc": "2", "other-data": "1"}, ["library", "tool"]),
        (["mailer"], {}, ["mailer", "postfix"]),
        (["mailer"], {"mta": "1"}, ["mailer"]),
        # What the present tree does not have either is told by the resolver.
        (["tool=2", "nothing"], {}, []),
    ],
)
def test_what_no_archive_offers_is_kept_with_what_it_needs(requests, offered, result):
    assert names(requests, offered) == result


def test_a_file_that_is_gone_is_kept_whatever_is_offered():
    offered = {"tool": "1", "library": "1", "libc": "1"}
    assert names([], offered, lost=("tool=1",)) == ["tool"]
    assert names([], offered, lost=("tool=3",)) == []


def test_the_control_file_has_the_packages_own_fields():
    paragraph = (
        "Package: tool\nStatus: install ok installed\nVersion: 1\nConffiles:\n /etc/tool 0123\n /etc/b 4567\n"
        "Description: a tool\n It does things.\n .\n Well.\nTriggers-Awaited: other\nConfig-Version: 1"
    )
    assert kept.control(paragraph) == (
        "Package: tool\nVersion: 1\nDescription: a tool\n It does things.\n .\n Well.\n"
    )


def test_a_file_is_where_another_package_has_diverted_it():
    diversions = {"/usr/bin/a": ("/usr/bin/a.real", "other"), "/boot/k": ("/usr/lib/modules/1/k", ":")}
    assert kept.truename("/usr/bin/a", "tool", diversions) == "/usr/bin/a.real"
    assert kept.truename("/usr/bin/a", "other", diversions) == "/usr/bin/a"
    assert kept.truename("/boot/k", "linux", diversions) == "/usr/lib/modules/1/k"
    assert kept.truename("/usr/bin/b", "tool", diversions) == "/usr/bin/b"


@pytest.mark.parametrize(
    ("found", "shipped"),
    [
        ((0o4755, 0, 0), (0o4755, 0, 0)),
        ((0o2755, 0, 8), (0o2755, 0, 8)),
        ((0o2755, 0, 105), (0o755, 0, 0)),
        ((0o1770, 101, 42), (0o1770, 0, 42)),
    ],
)
def test_what_scripts_gave_to_an_account_is_given_again(found, shipped):
    assert kept.as_shipped(*found) == shipped
