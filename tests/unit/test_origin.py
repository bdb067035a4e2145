"""The requests of an origin: new ones, and those that go."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.errors import UsageError
from apt_ostree.model.origin import (
    LocalPackage,
    Origin,
    active_requests,
    add_command,
    add_requests,
    added_requests,
    adds_recommended,
    drop_requests,
    format_origin,
    named_architectures,
    new_local,
    new_requests,
    overridden_names,
    parse_origin,
    pinned_requests,
    without_command,
    without_layers,
    without_overrides,
    without_requests,
    yielding_requests,
)
from apt_ostree.model.package import Package

LOCAL = LocalPackage("0" * 64, "own", "1", "all")
ORIGIN = Origin("debian:13", requested=("htop", "vim=2:9"), local=(LOCAL,))


@pytest.mark.parametrize(
    ("requests", "fresh"),
    [
        (["mc", "tmux"], ("mc", "tmux")),
        (["mc", "mc"], ("mc",)),
        (["vim"], ("vim",)),  # another version than the one that is requested
        (["htop=3"], ("htop=3",)),
        (["bash=5"], ("bash=5",)),  # another version than the base's
        ([], ()),
    ],
)
def test_new_requests(requests: list[str], fresh: tuple[str, ...]):
    assert new_requests(ORIGIN, requests, {"bash"}) == fresh


@pytest.mark.parametrize("request_", ["htop", "vim=2:9", "bash"])
def test_what_is_there_is_refused_unless_that_is_accepted(request_: str):
    with pytest.raises(UsageError) as caught:
        new_requests(ORIGIN, ["mc", request_], {"bash"})
    assert repr(request_) in caught.value.message
    assert caught.value.hint and "--idempotent" in caught.value.hint
    assert new_requests(ORIGIN, ["mc", request_], {"bash"}, idempotent=True) == ("mc",)


@pytest.mark.parametrize("idempotent", [True, False])
def test_two_requests_for_one_package_are_a_mistake(idempotent: bool):
    with pytest.raises(UsageError):
        new_requests(ORIGIN, ["mc=1", "mc=2"], (), idempotent=idempotent)


@pytest.mark.parametrize("names", [["vim", "own"], ["vim=2:9", "own=1"], ["vim", "vim=2:9", "own"]])
def test_requests_that_go_by_name_or_as_they_are_shown(names: list[str]):
    assert without_requests(ORIGIN, names) == Origin("debian:13", requested=("htop",))


def test_no_requests_that_go():
    assert without_requests(ORIGIN, []) == ORIGIN


@pytest.mark.parametrize("name", ["mc", "vim=2:8", "own=2", "htop=1"])
def test_what_is_not_requested_cannot_go_unless_that_is_accepted(name: str):
    with pytest.raises(UsageError) as caught:
        without_requests(ORIGIN, ["htop", name])
    assert caught.value.hint and "htop, own, vim" in caught.value.hint
    assert without_requests(ORIGIN, ["htop", name], idempotent=True).requested == ("vim=2:9",)


def test_recommended_packages_are_chosen_for_each_request():
    origin = add_requests(ORIGIN, ("mc", "vim=2:10"), (), recommends=False)
    assert origin.recommends == (("mc", False), ("vim", False))
    origin = add_requests(origin, ("tmux",), (replace(LOCAL, name="mine"),), recommends=True)
    assert dict(origin.recommends) == {"mc": False, "vim": False, "tmux": True, "mine": True}
    assert parse_origin(format_origin(origin)) == origin
    origin = without_requests(add_requests(origin, ("vim",), ()), ["mc", "mine"])
    assert origin.recommends == (("tmux", True),)  # the new request says nothing


def test_packages_that_replace_files_are_requests_that_said_so():
    origin = add_requests(ORIGIN, ("mc", "vim=2:10"), (replace(LOCAL, name="mine"),), replaces=True)
    assert origin.replacing == ("mc", "mine", "vim")
    assert parse_origin(format_origin(origin)) == origin
    origin = without_requests(add_requests(origin, ("vim",), ()), ["mc"])
    assert origin.replacing == ("mine",)  # the new request says nothing


def test_overrides_are_active_while_the_base_has_the_package():
    base = {"bash", "own", "vim"}
    origin = add_requests(ORIGIN, ("bash=5",), (replace(LOCAL, version="2"),), overrides=True)
    assert parse_origin(format_origin(origin)) == origin
    assert active_requests(origin, base) == origin
    assert active_requests(origin, {"bash"}).names == {"bash", "htop", "vim"}
    assert overridden_names(origin, set()) == {"bash", "own"}
    assert overridden_names(origin, base) == {"bash", "own", "vim"}
    reset = without_overrides(origin, ["own=2", "bash"], set())
    assert reset == replace(ORIGIN, local=())
    assert add_requests(origin, ("bash",), ()).overriding == ("own",)  # a mere request overrides nothing


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_file_of_what_the_base_has_is_refused_unless_that_is_accepted(version: str):
    local = (replace(LOCAL, version=version),)
    base = [Package("own", "2", "amd64")]
    fresh = () if version == "2" else local
    assert new_local(local, base, idempotent=True) == fresh
    with contextlib.nullcontext() if fresh else pytest.raises(UsageError):
        new_local(local, base)


@pytest.mark.parametrize(
    ("chosen", "requests", "upgrade", "adds"),
    [
        ({}, ("mc",), False, None),
        ({}, (), True, None),
        ({"mc": False}, ("mc",), False, False),
        ({"mc": True}, ("mc=1",), False, True),
        ({"mc": False}, ("vim",), False, None),  # another one is there already
        ({"mc": False}, ("mc", "vim"), False, False),
        ({"mc": True}, ("mc", "vim"), False, None),
        ({"mc": False, "vim": True}, ("mc", "vim"), False, False),
        ({"mc": False}, (), True, False),
        ({"mc": False}, ("vim",), True, False),
        ({"mc": True}, ("mc",), True, None),
    ],
)
def test_whether_all_recommended_packages_are_added(chosen, requests, upgrade, adds):
    origin = replace(ORIGIN, recommends=tuple(chosen.items()))
    assert adds_recommended(origin, requests, (), upgrade=upgrade) is adds


def test_added_requests():
    other = LocalPackage("1" * 64, "own", "2", "all")
    newer = add_requests(ORIGIN, ("mc", "vim=2:10"), (other,))
    assert added_requests(ORIGIN, newer) == (("mc", "vim=2:10"), (other,))
    assert added_requests(newer, newer) == ((), ())


@pytest.mark.parametrize(
    ("held", "yielding"),
    [
        ([], {"a=1", "b:i386=1"}),
        (["a:amd64"], {"b:i386=1"}),
        (["b:i386"], {"a=1"}),
        (["b:amd64"], {"a=1", "b:i386=1"}),
        (["b"], {"a=1"}),  # of any architecture
    ],
)
def test_requests_give_way_unless_the_package_is_on_hold(held: list[str], yielding: set[str]):
    assert yielding_requests(Origin(requested=("a=1", "b:i386=1", "c")), held) == yielding


def test_pinned_requests():
    assert pinned_requests(ORIGIN) == ("vim=2:9", "own=1")


def test_an_architecture_stays_while_a_command_names_it():
    origin = add_command(Origin("r"), ("sh", "-c", "dpkg --add-architecture i386"))
    assert named_architectures(origin, ("amd64", "i386", "arm64")) == ("i386",)
    assert named_architectures(ORIGIN, ("amd64", "i386")) == ()


def test_a_command_is_recorded_once_and_as_the_last_one():
    one, other = ("dpkg", "--add-architecture", "i386"), ("locale-gen",)
    origin = add_command(add_command(add_command(Origin("r"), one), other), one)
    assert origin.commands == (other, one)
    assert origin.layered
    assert without_command(origin, one).commands == (other,)
    with pytest.raises(UsageError, match="'dpkg --add-architecture i386' was not run"):
        without_command(ORIGIN, one)


_names = st.sets(st.sampled_from(["a", "b", "c", "d=1"]))


@given(_names, _names)
def test_dropping_is_the_inverse_of_adding(present: set[str], more: set[str]):
    origin = add_requests(Origin("r"), tuple(sorted(present)), ())
    fresh = new_requests(origin, sorted(more), (), idempotent=True)
    grown = add_requests(origin, fresh, ())
    assert set(grown.requested) == present | more
    assert drop_requests(grown, frozenset(r.partition("=")[0] for r in fresh)) == origin


# --- the text of an origin

_words = st.text("abz09.+-~:", min_size=1, max_size=8)
_locals = st.builds(
    LocalPackage, st.text("0123456789abcdef", min_size=64, max_size=64), _words, _words, _words
)
_values = st.text("ab Z09:/._-", max_size=12).map(str.strip)
_rest = st.dictionaries(
    st.sampled_from(["override", "overrides", "libostree-transient", "rpmostree"]),
    st.dictionaries(st.text("abZ-", min_size=1, max_size=6), _values, max_size=3).map(
        lambda d: tuple(d.items())
    ),
).map(lambda d: tuple((name, items) for name, items in d.items() if items or name != "rpmostree"))
_origins = st.builds(
    Origin,
    refspec=st.sampled_from(["", "debian/13", "origin:debian/13/amd64", "a:b/c"]),
    requested=st.lists(_words, unique=True).map(lambda w: tuple(sorted(w))),
    local=st.lists(_locals, max_size=2).map(tuple),
    upgraded=st.booleans(),
    removed=st.lists(_words, unique=True).map(lambda w: tuple(sorted(w))),
    initramfs=st.none() | st.lists(st.text(), max_size=2).map(tuple),
    initramfs_etc=st.lists(_words.map("/etc/{}".format), unique=True).map(lambda w: tuple(sorted(w))),
    commands=st.lists(st.lists(st.text(), min_size=1, max_size=3).map(tuple), max_size=2).map(tuple),
    rest=_rest,
)


_images = st.builds(
    lambda origin, image: replace(origin, refspec="", image=image, image_digest=f"sha256:{'0' * 64}"),
    _origins,
    st.sampled_from(["ostree-unverified-registry:e.org/os:13", "ostree-image-signed:oci:/a+b=c"]),
)


@given(_images)
def test_an_origin_of_an_image_is_as_rpm_ostree_has_it(origin: Origin):
    text = format_origin(origin)
    assert parse_origin(text) == origin
    assert text.startswith(f"[origin]\ncontainer-image-reference={origin.image}\n") and "refspec=" not in text


@given(_origins)
def test_origin_round_trip(origin: Origin):
    text = format_origin(origin)
    assert parse_origin(text) == origin
    assert format_origin(parse_origin(text)) == text
    assert ("baserefspec" in text) == origin.layered


def test_what_the_initramfs_has_of_etc_is_recorded_as_rpm_ostree_does():
    text = "[origin]\nrefspec=x\n\n[rpmostree]\ninitramfs-etc=/etc/a b;/etc/fstab;\nother=1\n"
    origin = parse_origin(text)
    assert origin.initramfs_etc == ("/etc/a b", "/etc/fstab") and origin.layered
    assert origin.rest == (("rpmostree", (("other", "1"),)),)
    assert "initramfs-etc=/etc/a b;/etc/fstab;\n" in format_origin(origin)
    assert "initramfs-etc" not in format_origin(replace(origin, initramfs_etc=()))
    alone = parse_origin(text.replace("other=1\n", ""))
    assert alone.rest == () and "rpmostree" not in format_origin(replace(alone, initramfs_etc=()))


def test_without_layers_only_overrides_of_the_base_are_left():
    local = (LocalPackage("0" * 64, "tool", "1", "all"), LocalPackage("1" * 64, "mine", "1", "all"))
    origin = Origin("x", ("bash=1", "dash", "htop=2"), local, removed=("nano",))
    left = without_layers(origin, {"bash", "dash", "nano", "tool"})
    assert (left.requested, left.local, left.removed) == (("bash=1",), local[:1], ("nano",))
