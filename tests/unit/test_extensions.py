"""Extensions of a base: what their file may say, what fits the base, and what apt's answer means."""

from __future__ import annotations

import json

import pytest

from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import extensions
from apt_ostree.model.extensions import Extensions, Kind
from apt_ostree.model.package import Package
from apt_ostree.system import yamlfile

BASE = (Package("linux-image-amd64", "6.12-1", "amd64"), Package("libc6", "2.41-1", "amd64"))
TEXT = """
archives: [{suite: trixie, mirror: "http://more/debian"}]
extensions:
  tracers:
    packages: [strace, ltrace]
    architectures: [amd64, arm64]
  elsewhere: {packages: [grub-ieee1275], architectures: [ppc64el]}
  headers: {kind: development, packages: [linux-headers-amd64, libc6], match-base-evr: linux-image-amd64}
"""


def parse(text: str) -> Extensions:
    document = yamlfile.parse(text, "/x/ext.yaml")
    return extensions.parse(document.data, name=document.name, lines=document.lines)


def test_a_file_is_read():
    given = parse(TEXT)
    assert [one.name for one in given.extensions] == ["tracers", "elsewhere", "headers"]
    assert given.archives[0].mirror == "http://more/debian"
    assert given.extensions[2].kind is Kind.DEVELOPMENT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "at least one extension"),
        ("extensions: [a]", "a mapping"),
        ("extensions: {a: {}}", "at least one package"),
        ("extensions: {a: {packages: [B]}}", "a package: NAME"),
        ("extensions: {a: {packages: [bb], kind: other}}", "one of os-extension"),
        ("extensions: {a: {packages: [bb], architectures: [x86_64]}}", "one of amd64"),
        ("extensions: {a: {packages: [bb=1], match-base-evr: cc}}", "plain names"),
        ("extensions: {a: {packages: [bb], modules: {}}}", "one of the keys"),
        ("repos: [x]\nextensions: {a: {packages: [bb]}}", "one of the keys"),
        ("extensions: {1: {packages: [bb]}}", "names as keys"),
    ],
)
def test_a_mistake_is_named(text, expected):
    with pytest.raises(UsageError, match=r"ext\.yaml") as caught:
        parse(text)
    assert expected in str(caught.value)


def test_what_is_for_a_base():
    fitting = extensions.for_base(parse(TEXT), "amd64", BASE)
    assert fitting.packages(Kind.OS) == ("strace", "ltrace")
    assert fitting.packages(Kind.DEVELOPMENT) == ("linux-headers-amd64=6.12-1", "libc6=6.12-1")
    assert extensions.for_base(parse(TEXT), "ppc64el", BASE).packages(Kind.OS) == ("grub-ieee1275",)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("packages: [libc6]", "libc6 is in the base already"),
        ("packages: ['libc6=2']", "libc6=2 is in the base already"),
        ("packages: [bb], match-base-evr: none", "none, whose version is to match, is not in the base"),
    ],
)
def test_what_does_not_fit_a_base_is_refused(entry, reason):
    with pytest.raises(Refused) as caught:
        extensions.for_base(parse(f"extensions: {{a: {{{entry}}}}}"), "amd64", BASE)
    assert caught.value.details == (f"a: {reason}",)


def test_what_apt_would_do_is_read():
    output = """
Remv dracut [106-6]
Inst libelf1 (0.19-1 Debian:13/stable [amd64])
Inst libc6 [2.41-1] (2.41-2 Debian:13/stable [amd64]) []
Conf libelf1 (0.19-1 Debian:13/stable [amd64])
"""
    found = extensions.read_simulation(output)
    assert found.added == (Package("libelf1", "0.19-1", "amd64"),)
    assert found.changed == ("dracut would be removed", "libc6 2.41-1 would become 2.41-2")


def test_the_file_beside_the_packages_says_what_they_are():
    fitting = extensions.for_base(parse(TEXT), "amd64", BASE)
    value = json.loads(extensions.format_extensions(fitting, "c" * 64, [{"name": "strace"}]))
    assert value["extensions"]["headers"] == {
        "kind": "development",
        "match-base-evr": "linux-image-amd64",
        "packages": ["linux-headers-amd64=6.12-1", "libc6=6.12-1"],
    }
    assert (value["base"], value["packages"]) == ("c" * 64, [{"name": "strace"}])
