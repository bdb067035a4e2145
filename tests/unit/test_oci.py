"""Images as values and as bytes: manifests, bills of materials, layouts and archives of them, tar streams."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.errors import ExternalFailure, UsageError
from apt_ostree.model import oci, spdx
from apt_ostree.model.filestate import FileState
from apt_ostree.model.oci import Compression, Descriptor, Facts, Layer
from apt_ostree.model.package import Package
from apt_ostree.model.spdx import Record, Subject
from apt_ostree.system import ociblobs
from apt_ostree.system.apt import status
from apt_ostree.system.ociblobs import ImageLayout
from apt_ostree.system.tarstream import Member, TarStream

CREATED = 1763900000
FACTS = Facts("armhf", CREATED, {"a": "b"}, {oci.COMMIT: "c"})


def layer(name: str, content: str = "x") -> Layer:
    notes = {oci.LAYER: name, oci.CONTENT: content}
    return Layer(name, Descriptor("type", oci.digest_of(name.encode()), 1, notes), "sha256:0")


# --- manifests


def test_the_configuration_has_what_runtimes_and_machines_look_for():
    value = json.loads(oci.config(FACTS, [layer("one"), layer("two")]))
    assert (value["architecture"], value["variant"], value["os"]) == ("arm", "v7", "linux")
    assert value["created"] == "2025-11-23T12:13:20Z"
    assert value["config"]["Labels"] == {"a": "b"}
    assert value["config"]["Cmd"] == ["/sbin/init"]
    assert len(value["rootfs"]["diff_ids"]) == len(value["history"]) == 2


def test_labels_say_what_the_commit_says_and_the_caller_wins():
    metadata = {
        "org.opencontainers.image.source": "https://e.org",
        "other": "x",
        "org.opencontainers.image.x": 1,
    }
    found = oci.labels(
        "6.1", "13.1", CREATED, metadata, {"org.opencontainers.image.version": "mine", "k": "v"}
    )
    assert found == {
        "containers.bootc": "1",
        "ostree.bootable": "true",
        "ostree.linux": "6.1",
        "org.opencontainers.image.created": "2025-11-23T12:13:20Z",
        "org.opencontainers.image.source": "https://e.org",
        "org.opencontainers.image.version": "mine",
        "k": "v",
    }
    assert "ostree.bootable" not in oci.labels("", None, CREATED, {}, {})


def test_a_manifest_tells_the_next_image_of_its_layers():
    data = oci.manifest(FACTS, Descriptor(oci.CONFIG, "sha256:1", 2), [layer("one", "x"), layer("two", "y")])
    previous = oci.read_manifest(data)
    assert previous.digest == oci.digest_of(data)
    assert previous.contents == {"one": "x", "two": "y"}
    assert previous.blobs == {oci.digest_of(b"one"), oci.digest_of(b"two")}


def test_a_manifest_of_another_program_has_no_layers_of_ours():
    found = oci.read_manifest(b'{"layers":[{"digest":"sha256:1"},{"digest":"sha256:2","annotations":null}]}')
    assert found.contents == {}
    assert found.blobs == {"sha256:1", "sha256:2"}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"layers":[]}', b'{"layers":"x"}', b'{"layers":[1]}', b"\xff"]
)
def test_what_is_no_manifest_is_refused(data):
    with pytest.raises(ValueError):
        oci.read_manifest(data)


def test_the_commit_and_its_signatures_can_be_had_again():
    notes = oci.commit_annotations("abc", b"\0commit", b"\xffsigned")
    assert base64.b64decode(notes[oci.COMMIT_OBJECT]) == b"\0commit"
    assert base64.b64decode(notes[oci.COMMIT_DETACHED]) == b"\xffsigned"
    assert oci.COMMIT_DETACHED not in oci.commit_annotations("abc", b"x", b"")


# --- the bill of materials

SUBJECT = Subject("debian/13", "13.1", "c" * 64, CREATED, 'ID=debian\nVERSION_ID="13"\n', "apt-ostree-1")


def test_a_bill_of_materials_names_packages_and_sources():
    records = [
        Record(
            Package("libc6", "2.41-1+b1", "amd64"), "glibc", "2.41-1", "GNU Libc <l@e.org>", "https://e.org"
        ),
        Record(Package("bash", "1:5.2", "amd64"), "bash", "1:5.2"),
    ]
    value = spdx.document(SUBJECT, records)
    bash, libc = value["packages"][1:]
    assert libc["externalRefs"][0]["referenceLocator"] == (
        "pkg:deb/debian/libc6@2.41-1%2Bb1?arch=amd64&distro=debian-13&upstream=glibc%402.41-1"
    )
    assert libc["supplier"] == "Organization: GNU Libc (l@e.org)"
    assert (
        bash["externalRefs"][0]["referenceLocator"]
        == "pkg:deb/debian/bash@1%3A5.2?arch=amd64&distro=debian-13"
    )
    assert (bash["supplier"], "homepage" in bash) == ("NOASSERTION", False)
    ids = [package["SPDXID"] for package in value["packages"]]
    assert len(set(ids)) == 3
    relations = {(row["relationshipType"], row["relatedSpdxElement"]) for row in value["relationships"]}
    assert relations == {("DESCRIBES", ids[0]), *(("CONTAINS", one) for one in ids[1:])}
    assert spdx.document(SUBJECT, reversed(records)) == value


@pytest.mark.parametrize(
    ("architectures", "expected"),
    [
        (["all", "all", "amd64"], "amd64"),
        (["amd64", "i386", "amd64"], "amd64"),
        (["all"], "all"),
        ([], "all"),
    ],
)
def test_the_architecture_is_that_of_most_packages(architectures, expected):
    records = [Record(Package(f"p{n}", "1", name), "s", "1") for n, name in enumerate(architectures)]
    assert spdx.architecture(records) == expected


def test_sources_are_read_of_dpkgs_database():
    head = "Status: install ok installed\nArchitecture: amd64\n"
    text = (
        f"Package: a\n{head}Version: 1+b1\nSource: s (1)\n\n"
        f"Package: b\n{head}Version: 2\nSource: s\nMaintainer: M <m>\nHomepage: h\n\n"
        f"Package: c\n{head}Version: 3\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 4\n"
    )
    assert status.records(text.encode()) == (
        Record(Package("a", "1+b1", "amd64"), "s", "1"),
        Record(Package("b", "2", "amd64"), "s", "2", "M <m>", "h"),
        Record(Package("c", "3", "amd64"), "c", "3"),
    )


# --- tar


def written(*members: tuple[Member, bytes]) -> bytes:
    out = io.BytesIO()
    stream = TarStream(out.write)
    for member, content in members:
        stream.add(member, io.BytesIO(content))
    stream.finish()
    return out.getvalue()


MODES = st.integers(0, 0o7777)
OWNERS = st.sampled_from([0, 7, 70000, 2**31])
NAMES = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=80
)
XATTRS = st.dictionaries(st.sampled_from(["user.a", "security.capability"]), st.binary(max_size=40))


@given(NAMES, MODES, OWNERS, OWNERS, st.binary(max_size=2000), XATTRS)
def test_a_tar_can_be_read_again(name, mode, uid, gid, content, xattrs):
    path = f"usr/{name}/{name}"
    state = FileState("file", mode, uid, gid, b"", tuple(sorted(xattrs.items())))
    data = written(
        (Member("usr", FileState("directory", 0o755)), b""), (Member(path, state, len(content)), content)
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        top, member = archive.getmembers()
        assert (top.isdir(), top.name) == (True, "usr")
        assert (member.name, member.mode, member.uid, member.gid) == (path, mode, uid, gid)
        assert (member.mtime, member.uname, member.gname) == (0, "", "")
        assert archive.extractfile(member).read() == content
        got = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
    assert {k: v.encode("utf-8", "surrogateescape") for k, v in got.items()} == {
        f"SCHILY.xattr.{key}": value for key, value in xattrs.items()
    }


def test_links_have_targets_and_no_content():
    link = FileState("symlink", 0o777, 0, 0, "zu/ä\udcff".encode("utf-8", "surrogateescape"))
    file = FileState("file", 0o644)
    data = written((Member("a", file, 1), b"x"), (Member("b", file, 1, "a"), b"x"), (Member("c", link), b""))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        _a, b, c = archive.getmembers()
    assert (b.islnk(), b.linkname, b.size) == (True, "a", 0)
    assert (c.issym(), c.linkname) == (True, "zu/ä\udcff")


@pytest.mark.parametrize("content", [b"", b"12", b"1234"])
def test_content_of_another_size_is_an_error(content):
    with pytest.raises(ExternalFailure, match="usr/x"):
        written((Member("usr/x", FileState("file", 0o644), 3), content))


def test_an_attribute_that_no_tar_can_hold_is_an_error():
    state = FileState("file", 0o644, xattrs=(("user.a=b", b"x"),))
    with pytest.raises(ExternalFailure, match=r"user\.a=b"):
        written((Member("usr/x", state), b""))


# --- layouts


def unpacked(compression: Compression) -> Callable[[bytes], bytes]:
    zstd = zstandard.ZstdDecompressor()
    return {
        Compression.ZSTD: lambda data: zstd.decompressobj().decompress(data),
        Compression.GZIP: gzip.decompress,
        Compression.NONE: lambda data: data,
    }[compression]


@pytest.mark.parametrize("compression", Compression)
def test_a_blob_has_the_name_of_its_digest(tmp_path: Path, compression: Compression):
    pieces = [b"one" * 1000, b"", b"two" * 100000]
    for name in ("a", "b"):
        layout = ImageLayout(tmp_path / name)
        with layout.writing(compression) as blob:
            for piece in pieces:
                blob.write(piece)
        (file,) = (tmp_path / name / "blobs/sha256").iterdir()
        data = file.read_bytes()
        assert blob.stored_digest == oci.digest_of(data) == f"sha256:{file.name}"
        assert unpacked(compression)(data) == b"".join(pieces)
        assert blob.digest == oci.digest_of(b"".join(pieces))
        assert (blob.stored, blob.size) == (len(data), sum(map(len, pieces)))
    assert len({next((tmp_path / name / "blobs/sha256").iterdir()).name for name in "ab"}) == 1


def test_a_blob_that_fails_has_no_name(tmp_path: Path):
    layout = ImageLayout(tmp_path / "image")
    with pytest.raises(RuntimeError), layout.writing(Compression.NONE) as blob:
        blob.write(b"half")
        raise RuntimeError
    assert oci.digest_of(b"half").removeprefix("sha256:") not in {p.name for p in tmp_path.rglob("*")}


def make_image(path: Path, *, images: int = 1) -> bytes:
    layout = ImageLayout(path)
    config = layout.add(oci.config(FACTS, [layer("one")]), oci.CONFIG)
    manifest = oci.manifest(FACTS, config, [layer("one")])
    described = layout.add(manifest, oci.MANIFEST)
    index = json.loads(oci.index(FACTS, described))
    layout.finish(oci.to_bytes(index | {"manifests": index["manifests"] * images}))
    return manifest


def test_an_image_is_read_from_a_directory_an_archive_and_its_manifest(tmp_path: Path):
    manifest = make_image(tmp_path / "image")
    ociblobs.pack(tmp_path / "image", tmp_path / "a.tar")
    ociblobs.pack(tmp_path / "image", tmp_path / "b.tar")
    (tmp_path / "manifest.json").write_bytes(manifest)
    for name in ("image", "a.tar", "manifest.json"):
        assert ociblobs.read_manifest(tmp_path / name, or_alone=True) == manifest
    with pytest.raises(UsageError):
        ociblobs.read_manifest(tmp_path / "manifest.json")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert {"oci-layout", "index.json"} < set(archive.getnames())


def test_what_is_no_image_is_refused(tmp_path: Path):
    make_image(tmp_path / "two", images=2)
    make_image(tmp_path / "damaged")
    digest = json.loads((tmp_path / "damaged/index.json").read_text())["manifests"][0]["digest"]
    (tmp_path / "damaged/blobs/sha256" / digest.removeprefix("sha256:")).write_text("{}")
    make_image(tmp_path / "outside")
    index = (tmp_path / "outside/index.json").read_text()
    (tmp_path / "outside/index.json").write_text(index.replace(digest, "sha256:../../../etc/passwd"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("text")
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.add(tmp_path / "text", "text")
    for name in ("two", "damaged", "outside", "empty", "text", "other.tar", "none"):
        with pytest.raises(UsageError, match=name):
            ociblobs.read_manifest(tmp_path / name)
