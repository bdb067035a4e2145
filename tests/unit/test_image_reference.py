"""Names of images, and what the policy of containers says of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.errors import UsageError
from apt_ostree.model import image_policy, image_reference
from apt_ostree.model.image_policy import accepts_anything
from apt_ostree.model.image_reference import Check, ImageReference, Transport

DIGEST = f"sha256:{'ab' * 32}"

hosts = st.from_regex(r"[a-z0-9][a-z0-9-]{0,5}(\.[a-z0-9]{1,5}){1,3}(:[0-9]{1,4})?|localhost", fullmatch=True)
components = st.from_regex(r"[a-z0-9]{1,5}([._-][a-z0-9]{1,5}){0,2}", fullmatch=True)
suffixes = st.one_of(
    st.just(""),
    st.from_regex(r":[A-Za-z0-9_][\w.-]{0,9}", fullmatch=True).filter(str.isascii),
    st.just(f"@{DIGEST}"),
)
in_registries = st.builds(
    lambda host, parts, suffix: f"{host}/{'/'.join(parts)}{suffix}",
    hosts, st.lists(components, min_size=1, max_size=3), suffixes,
)  # fmt: skip
words = st.text("abcXYZ019.+@%=~_-", min_size=1, max_size=9).filter(lambda word: word not in (".", ".."))
on_disks = st.builds(
    lambda parts, name: f"/{'/'.join(parts)}{name}",
    st.lists(words, min_size=1, max_size=4), st.sampled_from(["", ":13", ":a_b.c"]),
)  # fmt: skip
places = st.one_of(
    st.tuples(st.just(Transport.REGISTRY), in_registries),
    st.tuples(st.sampled_from([Transport.DIRECTORY, Transport.ARCHIVE]), on_disks),
)
checks = st.one_of(
    st.tuples(st.sampled_from([Check.SIGNED, Check.UNVERIFIED]), st.just("")),
    st.tuples(
        st.just(Check.REMOTE), st.from_regex(r"[A-Za-z0-9_][\w.-]{0,6}", fullmatch=True).filter(str.isascii)
    ),
)
references = st.builds(lambda check, place: ImageReference(check[0], *place, check[1]), checks, places)


@given(references)
def test_what_is_written_is_read(reference: ImageReference):
    text = str(reference)
    assert ImageReference.parse(text) == reference
    assert image_reference.is_image(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str):
    try:
        reference = ImageReference.parse(text)
    except UsageError:
        return
    assert ImageReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ostree-image-signed:docker://example.org/os:13", "ostree-image-signed:docker://example.org/os:13"),
        ("ostree-image-signed:registry:example.org/os", "ostree-image-signed:docker://example.org/os"),
        ("ostree-unverified-image:docker://e.org:5000/a/b", "ostree-unverified-registry:e.org:5000/a/b"),
        ("ostree-unverified-registry:localhost/os:1", "ostree-unverified-registry:localhost/os:1"),
        ("ostree-unverified-image:oci:/srv/os:13", "ostree-unverified-image:oci:/srv/os:13"),
        (
            "ostree-unverified-image:oci-archive:/srv/os.tar",
            "ostree-unverified-image:oci-archive:/srv/os.tar",
        ),
        ("ostree-remote-image:r:docker://e.org/os", "ostree-remote-image:r:docker://e.org/os"),
        ("ostree-remote-registry:r:e.org/os", "ostree-remote-image:r:docker://e.org/os"),
    ],
)
def test_what_rpm_ostree_reads(text: str, shown: str):
    assert str(ImageReference.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "ostree-image-signed:",
        "ostree-image-signed:example.org/os",
        "ostree-image-signed:docker:example.org/os",
        "ostree-image-signed:docker://",
        "ostree-image-signed:docker://os",
        "ostree-image-signed:docker://debian/os",
        "ostree-unverified-registry:docker.io/debian:13",
        "ostree-unverified-registry:index.docker.io/library/debian:13",
        "ostree-unverified-registry:example.org",
        "ostree-unverified-registry:example.org/Os",
        "ostree-unverified-registry:example.org/os:1@" + DIGEST,
        "ostree-unverified-registry:example.org/os@sha256:12",
        "ostree-unverified-registry:example.org/os:",
        "ostree-unverified-registry:example.org//os",
        "ostree-unverified-registry:example.org/os --x",
        "ostree-unverified-registry:-e.org/../os",
        "ostree-unverified-image:oci:os",
        "ostree-unverified-image:oci:",
        "ostree-unverified-image:oci:/",
        "ostree-unverified-image:oci:/a/../b",
        "ostree-unverified-image:oci:/a/./b",
        "ostree-unverified-image:oci:/a b",
        "ostree-unverified-image:oci:/a\nb",
        "ostree-unverified-image:oci:/a:b:c",
        "ostree-unverified-image:oci:/a\\b",
        "ostree-unverified-image:dir:/a",
        "ostree-unverified-image:containers-storage:x",
        "ostree-remote-image:docker://e.org/os",
        "ostree-remote-image::docker://e.org/os",
        "ostree-remote-registry:e.org/os",
        "docker://e.org/os",
        "oci:/srv/os",
        "debian/13/server",
        "remote:ref",
        "",
        "ostree-unverified-registry:e.org/" + "a" * 3000,
    ],
)
def test_what_names_no_image(text: str):
    with pytest.raises(UsageError):
        ImageReference.parse(text)


def test_a_name_without_a_check_is_no_branch():
    assert all(map(image_reference.is_image, ("docker://e.org/os", "oci:/srv/os", "ostree-image-signed:x")))
    assert not any(
        map(image_reference.is_image, ("debian/13", "vendor:debian/13", ":local", "ostree://r:b", "ab" * 32))
    )
    with pytest.raises(UsageError) as caught:
        ImageReference.parse("docker://e.org/os")
    assert "ostree-image-signed:docker://e.org/os" in str(caught.value.hint)


def test_another_image_of_a_repository():
    tagged = ImageReference.parse("ostree-image-signed:docker://e.org:5000/a/os:13")
    pinned = tagged.at(DIGEST)
    assert str(pinned) == f"ostree-image-signed:docker://e.org:5000/a/os@{DIGEST}"
    assert (tagged.is_pinned, pinned.is_pinned, pinned.at(DIGEST)) == (False, True, pinned)
    with pytest.raises(UsageError, match="not in a registry"):
        ImageReference.parse("ostree-unverified-image:oci:/srv/os").at(DIGEST)


# --- the policy

ANY, SIGNED, REJECT = ([{"type": kind}] for kind in ("insecureAcceptAnything", "sigstoreSigned", "reject"))


def accepts(
    name: str, transports: dict, default: list = REJECT, transport: Transport = Transport.REGISTRY
) -> bool:
    return accepts_anything(json.dumps({"default": default, "transports": transports}), transport, name)


@pytest.mark.parametrize(
    "scope",
    ["e.org/a/os:13", "e.org/a/os", "e.org/a", "e.org", "*.org", ""],
)
def test_each_scope_of_an_image_counts_alone(scope: str):
    assert accepts("e.org/a/os:13", {"docker": {scope: ANY}})
    assert not accepts("e.org/a/os:13", {"docker": {scope: SIGNED}}, ANY)


def test_the_most_specific_scope_wins():
    order = [
        "e.x.org:5000/a/os:13",
        "e.x.org:5000/a/os",
        "e.x.org:5000/a",
        "e.x.org:5000",
        "*.x.org",
        "*.org",
    ]
    assert list(image_policy.scopes(Transport.REGISTRY, order[0])) == order
    for number in range(len(order) - 1):
        docker = {order[number]: SIGNED, **dict.fromkeys(order[number + 1 :], ANY), "": ANY}
        assert not accepts(order[0], {"docker": docker}, ANY)
        assert accepts(order[0], {"docker": {**docker, order[number]: ANY, order[number + 1]: SIGNED}})


def test_scopes_without_a_tag_with_a_digest_and_on_disk():
    assert image_policy.scopes(Transport.REGISTRY, "e.org/os")[0] == "e.org/os:latest"
    assert image_policy.scopes(Transport.REGISTRY, f"e.org/os@{DIGEST}")[:2] == (
        f"e.org/os@{DIGEST}",
        "e.org/os",
    )
    assert image_policy.scopes(Transport.DIRECTORY, "/srv/os:13") == ("/srv/os", "/srv")
    assert accepts("/srv/os", {"oci": {"/srv": ANY}}, transport=Transport.DIRECTORY)
    assert not accepts("/srv/os", {"oci-archive": {"/srv": ANY}}, transport=Transport.DIRECTORY)


def test_a_list_with_one_check_verifies():
    assert not accepts("e.org/os", {"docker": {"e.org": [*ANY, *SIGNED]}})
    assert accepts("e.org/os", {"docker": {"e.org": [*ANY, *ANY]}})
    assert not accepts("e.org/os", {"docker": {"e.org/other": ANY}})
    assert accepts("e.org/os", {"atomic": {"": SIGNED}}, ANY)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"default": []}', '{"default": ["x"]}', '{"default": {}}',
             '{"default": [], "transports": []}', '{"default": [{}], "transports": {"docker": []}}',
             '{"default": [{"type":"reject"}], "transports": {"docker": {"": []}}}'],
)  # fmt: skip
def test_what_is_no_policy_accepts_nothing(text: str):
    with pytest.raises(ValueError):
        assert not accepts_anything(text, Transport.REGISTRY, "e.org/os")
        raise ValueError("it accepts nothing")
