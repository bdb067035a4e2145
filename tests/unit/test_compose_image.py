"""`compose image` on a repository in a directory, and its command line."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.cli import client, main, plans
from apt_ostree.core.compose.image import export, members, planning
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import events, jsonvalue, layout, oci, spdx, tmpfiles
from apt_ostree.model.image_screen import Header, Kept, Screen
from apt_ostree.model.oci import Compression, Form
from apt_ostree.model.requests.compose import ComposeTree
from apt_ostree.model.requests.images import ComposeImage
from apt_ostree.model.result import Result
from apt_ostree.system import another_worker, ociblobs, tarreader
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree
from apt_ostree.system.ostree.repo import Repo
from tests.fixtures import image_tree
from tests.fixtures.image_tree import REF, Image
from tests.unit import repos

# --- the command line


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[ComposeImage]:
    """The requests that the command line makes."""
    found: list[ComposeImage] = []

    def call(request, *_args, **_options):
        found.append(request)
        rows = [{"reused": True}, {"reused": False}]
        result = {"changed": True, "output": "/x", "layers": rows, "size": 9 * 10**6, "new_size": 10**6}
        return client.Answer({**result, "manifest": "sha256:1"}, next_boot=False)

    monkeypatch.setattr(client, "call", call)
    return found


def test_all_options_are_in_the_request(sent: list[ComposeImage], capsys, tmp_path: Path):
    words = ["--repo=r", "--ref=os", "-o", "x", "--format=oci-archive", "--compression=gzip"]
    words += ["--max-layers=40", "--previous=p", "--label=a=b=c", "-l", "d=", "--cachedir=c", "--lockfile=f"]
    words += ["--copymeta=k", "--copymeta-opt=o", f"--touch-if-changed={tmp_path}/t", "--force-nocache"]
    assert main.run(["compose", "image", "os.yaml", *words]) == 0
    assert sent == [
        ComposeImage(
            output="x", treefile="os.yaml", repo="r", ref="os", cachedir="c", lockfiles=("f",), force=True,
            format=Form.ARCHIVE, compression=Compression.GZIP, max_layers=40, previous="p",
            labels={"a": "b=c", "d": ""}, copy_metadata=("k",), copy_optional=("o",),
        )
    ]  # fmt: skip
    assert capsys.readouterr().out == "/x: 2 layers, 9.0 MB; 1 new, 1.0 MB\nsha256:1\n"
    assert (tmp_path / "t").exists()


@pytest.mark.parametrize(
    "verb", [["image", "os.yaml", "x"], ["container-encapsulate", "os", "oci:x", "--repo=r"]]
)
def test_what_is_to_be_verified_has_to_be_made(sent: list[ComposeImage], verb: list[str]):
    assert main.run(["compose", *verb, "--verify-reproducible"]) == 0
    assert sent.pop().verify
    assert main.run(["compose", *verb, "--verify-reproducible", "--dry-run"]) == 2
    assert sent == []


def test_it_can_be_typed_as_with_rpm_ostree(sent: list[ComposeImage]):
    assert main.run(["compose", "image", "-i", "--format=ociarchive", "os.yaml", "x"]) == 0
    words = ["--repo=r", "os/1", "oci:/x", "--max-layers=10", "--previous-build-manifest=m.json", "-l", "a=b"]
    assert main.run(["compose", "container-encapsulate", *words]) == 0
    assert sent == [
        ComposeImage(output="x", treefile="os.yaml", format=Form.ARCHIVE, initialize=True),
        ComposeImage(
            output="/x",
            repo="r",
            ref="os/1",
            format=Form.OCI,
            max_layers=10,
            previous="m.json",
            labels={"a": "b"},
        ),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["image"],
        ["image", "os.yaml"],
        ["image", "os.yaml", "x", "-o", "y"],
        ["image", "-o", "x", "--format=docker"],
        ["image", "-o", "x", "--label=a"],
        ["image", "-o", "x", "--label==a"],
        ["image", "-o", "x", "--max-layers=7"],
        ["image", "-o", "x", "--max-layers=121"],
        ["container-encapsulate", "--repo=r", "os", "docker://e.org/x"],
        ["container-encapsulate", "--repo=r", "os", "oci:"],
        ["container-encapsulate", "os", "oci:x"],
    ],
)
def test_mistakes_are_not_sent(sent: list[ComposeImage], words: list[str]):
    assert main.run(["compose", *words]) == 2
    assert sent == []


def test_only_so_many_layers_can_be_asked_for():
    with pytest.raises(ValueError, match="max_layers"):
        ComposeImage(output="x", max_layers=5)


# --- images


class Place:
    """A directory with a repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repo = path / "repo"
        self.events: list[events.Event] = []
        self.repo.mkdir()
        mode = OSTree.RepoMode.BARE if image_tree.IS_ROOT else OSTree.RepoMode.BARE_USER
        OSTree.Repo.new(Gio.File.new_for_path(str(self.repo))).create(mode, None)
        (self.repo / "config").write_text((self.repo / "config").read_text() + "fsync=false\n")
        self.commit = self.write()

    def write(self, changed: dict[str, str | None] | None = None, **metadata: str) -> str:
        return image_tree.write(self.repo, self.path / "tree", changed, **metadata)

    def compose(self, output: str = "image", **options) -> dict:
        request = ComposeImage(
            output=str(self.path / output), **{"repo": str(self.repo), "ref": REF, **options}
        )
        self.events = []
        result = export.compose_image(Transaction(self.events.append, request.title), request)
        return result.to_json()

    def image(self, output: str = "image") -> Image:
        return Image(self.path / output)

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.path.iterdir()} - {"repo", "tree"}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(planning.os, "geteuid", lambda: 0)
    with repos.memory_directory() as directory, repos.same_signals():
        yield Place(directory)


def fates(result: dict) -> dict[str, str]:
    return {row["name"]: row["fate"] for row in result["layers"]}


def test_the_image_has_the_tree_in_layers(place: Place):
    result = place.compose()
    image = place.image()
    assert set(image.layers) == {
        "source bash", "source git", "source glibc", "source six", "generated", "etc", "dpkg", "initramfs",
        "kernel", "sbom",
    }  # fmt: skip
    kept = {f"{layout.DPKG_ADMINDIR}/info/{name}.list" for name in ("libc6", "libc-bin")}
    assert image.files("source glibc") == {"usr/lib/libc.so.6", "usr/lib/libc.so", "usr/bin/ldd", *kept}
    assert f"{layout.DPKG_ADMINDIR}/status" in image.files("dpkg")
    assert "usr/lib/python3/six/__pycache__/six.pyc" in image.files("source six")
    assert "usr/share/doc/linux-image-6.12/changelog" in image.files("kernel")
    assert image.files("etc") == {"etc/passwd", "etc/skel/.profile"}
    assert image.files("sbom") == {spdx.PATH}
    assert image.layers["source glibc"]["annotations"]["ostree.components"] == "glibc"
    every = [name for layer in image.layers for name in image.files(layer)]
    assert len(every) == len(set(every))
    assert not [name for name in every if name.startswith("usr/etc")]
    assert {"boot", "tmp", "usr/share/nothing", "usr/src"} <= {
        n for la in image.layers for n in image.names(la)
    }
    assert (result["manifest"], result["changed"]) == (image.digest, True)
    assert result["size"] == sum(row["size"] for row in image.layers.values()) == result["new_size"]
    assert [row["diff_id"] for row in result["layers"]] == image.config["rootfs"]["diff_ids"]
    for name, diff_id in zip(image.layers, image.config["rootfs"]["diff_ids"], strict=True):
        assert oci.digest_of(image.tar(name)) == diff_id


def test_var_is_what_a_machine_makes_at_boot(place: Place):
    conf = "d /var/lib/app 0700 root root -\nL /var/run - - - - ../run\n"
    place.commit = place.write({layout.TMPFILES_LAYOUT: tmpfiles.layout_text(), layout.TMPFILES_VAR: conf})
    place.compose()
    with place.image().opened("generated") as archive:
        found = {member.name: member for member in archive if member.name.startswith("var/")}
    assert found["var/lib/app"].isdir() and found["var/lib/app"].mode == 0o700
    assert found["var/lib/dpkg"].linkname == "../../usr/lib/sysimage/dpkg"
    assert found["var/run"].linkname == "../run"
    assert found["var/roothome"].mode == 0o700
    restored = Repo.create(_made(place.path / "restored"))
    assert image_tree.restore(place.image(), restored) == place.commit
    before = place.image().layers["generated"]["annotations"]
    place.write({layout.TMPFILES_LAYOUT: tmpfiles.layout_text(), layout.TMPFILES_VAR: conf + "d /var/new\n"})
    place.compose()
    assert place.image().layers["generated"]["annotations"] != before


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_image_says_what_it_is(place: Place):
    place.write(vendor="me")
    place.compose(labels={"vendor": "you"}, copy_optional=("vendor", "none"), copy_metadata=("version",))
    labels = place.image().config["config"]["Labels"]
    assert labels == {
        "containers.bootc": "1",
        "ostree.bootable": "true",
        "ostree.linux": image_tree.KERNEL,
        "org.opencontainers.image.version": "13.1",
        "org.opencontainers.image.created": "2025-11-23T12:13:20Z",
        "version": "13.1",
        "vendor": "you",
    }
    assert place.image().config["architecture"] == "amd64"
    with place.image().opened("sbom") as archive:
        bill = json.load(archive.extractfile(spdx.PATH))
    assert {package["name"] for package in bill["packages"]} == {REF, *image_tree.SOURCES}


@pytest.mark.skipif(not image_tree.IS_ROOT, reason="owners need root")
@pytest.mark.parametrize("compression", Compression)
def test_the_commit_can_be_had_again_with_its_signatures(place: Place, compression: Compression):
    repo = Repo.open(place.repo)
    kept = GLib.Variant("a{sv}", {"test.note": GLib.Variant("s", "beside")})
    repo.handle.write_commit_detached_metadata(place.commit, kept, None)
    place.compose(compression=compression)
    (place.path / "restored").mkdir()
    target = Repo.create(place.path / "restored")
    assert image_tree.restore(place.image(), target) == place.commit
    assert target.handle.fsck_object(OSTree.ObjectType.COMMIT, place.commit, None)
    assert target.handle.read_commit_detached_metadata(place.commit, None)[1].unpack() == {
        "test.note": "beside"
    }


def test_every_layer_has_its_directories_as_the_tree_has_them(place: Place):
    place.compose()
    for name in place.image().layers:
        seen = set()
        with place.image().opened(name) as archive:
            for member in archive:
                parent = member.name.rpartition("/")[0] or "."
                assert member.name == "." or parent in seen, (name, member.name)
                seen.add(member.name)


def test_what_is_the_same_file_twice_is_a_link(place: Place):
    place.compose()
    with place.image().opened("source git") as archive:
        link = archive.getmember("usr/lib/git-core/git-mv")
        assert archive.getmember("usr/lib/git-core/naïve").isreg()
        assert archive.getmember("usr/bin/git").isreg()
    # For root, usr/bin/git has another owner.
    target = "usr/lib/git-core/git-add" if image_tree.IS_ROOT else "usr/bin/git"
    assert (link.islnk(), link.linkname) == (True, target)


def test_two_exports_are_the_same(place: Place):
    first, second = place.compose("one"), place.compose("two")
    assert first["manifest"] == second["manifest"]
    assert place.image("one").layers == place.image("two").layers
    archives = place.compose("a.tar"), place.compose("b.oci-archive")
    assert {one["manifest"] for one in archives} == {first["manifest"]}
    assert (place.path / "a.tar").read_bytes() == (place.path / "b.oci-archive").read_bytes()
    assert oci.digest_of(ociblobs.read_manifest(place.path / "a.tar")) == first["manifest"]


def test_an_archive_repository_gives_the_same_image(place: Place):
    (place.path / "archive").mkdir()
    archive = OSTree.Repo.new(Gio.File.new_for_path(str(place.path / "archive")))
    archive.create(OSTree.RepoMode.ARCHIVE, None)
    options = GLib.Variant("a{sv}", {"refs": GLib.Variant("as", [REF])})
    archive.pull_with_options(f"file://{place.repo}", options, None, None)
    first = place.compose("one")
    second = place.compose("two", repo=str(place.path / "archive"), ref=place.commit)
    assert first["layers"][:-1] == second["layers"][:-1]  # the bill has the name that was given


# --- one after another


def test_the_same_commit_changes_nothing(place: Place):
    first = place.compose()
    stamp = (place.path / "image/index.json").stat()
    again = place.compose()
    assert (again["changed"], again["new_size"], again["manifest"]) == (False, 0, first["manifest"])
    assert (place.path / "image/index.json").stat() == stamp
    assert set(fates(again).values()) == {"unchanged"}
    assert place.names == {"image"}


@pytest.mark.parametrize("output", ["image", "image.tar"])
def test_an_update_replaces_the_image_and_says_what_is_new(place: Place, output: str):
    place.compose(output)
    place.write({"usr/lib/libc.so.6": "newer", "usr/bin/new": "x"}, version="13.2")
    result = place.compose(output)
    assert {name for name, fate in fates(result).items() if fate != "unchanged"} == {
        "source glibc", "generated", "sbom"
    }  # fmt: skip
    assert {row["name"] for row in result["layers"] if not row["reused"]} == {
        "source glibc", "generated", "sbom"
    }  # fmt: skip
    assert 0 < result["new_size"] < result["size"]
    assert oci.read_manifest(ociblobs.read_manifest(place.path / output)).digest == result["manifest"]
    assert place.names == {output}


def test_the_layers_of_the_previous_image_are_kept(place: Place):
    place.compose(max_layers=12)  # three sources have layers of their own
    before = place.image().manifest
    assert "source six" not in place.image().layers
    (place.path / "manifest.json").write_text(json.dumps(before))
    place.write({"usr/lib/python3/six/six.py": "6" * 10000})
    kept = {
        "replaced": place.compose(max_layers=12, dry_run=True),
        "directory": place.compose("two", max_layers=12, previous=str(place.path / "image")),
        "manifest": place.compose("three", max_layers=12, previous=str(place.path / "manifest.json")),
    }
    for how, result in kept.items():
        assert "source bash" in fates(result), how
        assert "source six" not in fates(result), how
    assert "source six" in fates(place.compose("four", max_layers=12))
    assert "source six" in fates(place.compose(max_layers=12, initialize=True))


def test_a_dry_run_shows_the_plan_and_writes_nothing(place: Place):
    result = place.compose(dry_run=True)
    assert place.names == set()
    assert (result["changed"], "manifest" in result) == (True, False)
    (plan,) = [event for event in place.events if isinstance(event, events.PlanShown)]
    assert (plan.kind, plan.plan["commit"]) == ("image", place.commit)
    rows = list(plans.lines(plan.kind, json.loads(json.dumps(plan.plan))))
    assert rows[0].startswith(f"Image of {REF} {place.commit[:12]}, ") and rows[0].endswith(" in 10 layers:")
    assert "  source glibc: 20.1 kB, new" in rows
    place.compose()
    assert not place.compose(dry_run=True)["changed"]
    (plan,) = [event for event in place.events if isinstance(event, events.PlanShown)]
    assert "10 as in the previous image" in list(plans.lines(plan.kind, plan.plan))[1]


def test_progress_is_told(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("apt_ostree.core.compose.image.writing._STEP", 1)
    result = place.compose()
    told = [event for event in place.events if isinstance(event, events.Progress)]
    assert told[-1].done == told[-1].total == result["bytes"]
    assert [event.done for event in told] == sorted(event.done for event in told)


# --- what is refused


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ref": None}, UsageError),
        ({"repo": None}, UsageError),
        ({"ref": "none"}, UsageError),
        ({"repo": "/nonexistent/repo"}, UsageError),
        ({"treefile": "os.yaml", "dry_run": True}, UsageError),
        ({"previous": "/nonexistent"}, UsageError),
        ({"treefile": "/nonexistent.yaml", "previous": "/dev/null"}, UsageError),
        ({"previous": "x", "initialize": True}, UsageError),
        ({"labels": {"ostree.final-diffid": "x"}}, UsageError),
        ({"copy_metadata": ("none",)}, UsageError),
        ({"output": "no/such/directory"}, UsageError),
        ({"output": "no/such/directory.tar"}, UsageError),
        ({"output": "image:tag"}, UsageError),
    ],
)
def test_what_cannot_be_is_refused(place: Place, options: dict, error: type[Exception]):
    with pytest.raises(error):
        place.compose(**options)
    assert place.names == set()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"usr/lib/sysimage/dpkg/status": None}, "no packages"),
        ({"etc/passwd": "x"}, "has /etc"),
        ({"usr/share/.wh.name": "x"}, "such names"),
        ({spdx.PATH: "x"}, "sbom"),
    ],
)
def test_a_tree_that_no_image_can_hold_is_refused(place: Place, changed: dict, message: str):
    place.write(changed)
    with pytest.raises(Refused, match=message):
        place.compose()
    assert place.names == set()


def test_it_needs_root(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planning.os, "geteuid", lambda: 7)
    with pytest.raises(Refused, match="needs root"):
        place.compose()


def test_what_is_no_image_is_not_replaced(place: Place):
    (place.path / "full").mkdir()
    (place.path / "full/precious").touch()
    (place.path / "file.tar").write_text("precious")
    (place.path / "link.tar").symlink_to("file.tar")
    place.compose("two")
    index = place.path / "two/index.json"
    both = json.loads(index.read_text())
    index.write_text(json.dumps(both | {"manifests": both["manifests"] * 2}))
    for output in ("full", "file.tar", "two"):
        with pytest.raises(Refused):
            place.compose(output)
    with pytest.raises(UsageError):
        place.compose("link.tar")
    assert (place.path / "file.tar").read_text() == "precious"
    assert place.names == {"full", "file.tar", "link.tar", "two"}


def test_a_damaged_repository_is_told(place: Place):
    for path in (place.repo / "objects").rglob("*.file"):
        if path.lstat().st_size == 20000:
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(b"x" + data[1:])
    with pytest.raises(ExternalFailure, match="damaged"):
        place.compose()
    assert place.names == set()


# --- what fails on the way


@pytest.mark.parametrize("output", ["image", "image.tar"])
@pytest.mark.parametrize("point", ["image.blob-written=error:3", "image.written=error"])
def test_a_failure_leaves_the_old_image(
    place: Place, monkeypatch: pytest.MonkeyPatch, point: str, output: str
):
    first = place.compose(output)
    place.write({"usr/lib/libc.so.6": "newer"})
    monkeypatch.setenv("APT_OSTREE_FAILPOINT", point)
    with pytest.raises(OSError, match="failpoint"):
        place.compose(output)
    assert oci.digest_of(ociblobs.read_manifest(place.path / output)) == first["manifest"]
    assert place.names == {output}


def test_a_full_disk_is_explained(place: Place, monkeypatch: pytest.MonkeyPatch):
    @contextmanager
    def full(*_args: object) -> Iterator[None]:
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    monkeypatch.setattr(ociblobs.ImageLayout, "writing", full)
    with pytest.raises(ExternalFailure, match="does not fit") as failure:
        place.compose()
    assert "before compression" in (failure.value.hint or "")
    assert place.names == set()


# --- of a treefile


@pytest.mark.parametrize("repo", [None, "repo"])
def test_the_tree_of_a_treefile_is_composed_first(
    place: Place, monkeypatch: pytest.MonkeyPatch, repo: str | None
):
    asked: list[ComposeTree] = []

    def compose_tree(_tx: Transaction, request: ComposeTree) -> Result:
        asked.append(request)
        if repo is None:  # for the image alone
            image_tree.write(Path(request.repo or ""), place.path / "tree")
        return Result(changed=True, details={"ref": REF})

    monkeypatch.setattr(export.trees, "compose_tree", compose_tree)
    where = str(place.path / repo) if repo else None
    result = place.compose(
        treefile="os.yaml", repo=where, ref=None, cachedir="c", lockfiles=("l",), force=True
    )
    (request,) = asked
    assert (request.treefile, request.cachedir, request.lockfiles, request.force) == (
        "os.yaml",
        "c",
        ("l",),
        True,
    )
    assert request.repo == where if repo else request.repo.startswith(str(place.path))
    assert (result["ref"], place.image().digest) == (REF, result["manifest"])
    assert place.names == {"image"}


# --- what no machine takes


def _links_out(tree: Path) -> None:
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "usr/lib/out").symlink_to("../../../etc/shadow")


def _boots_otherwise(tree: Path) -> None:
    (tree / "boot/grub").mkdir(parents=True)


def _is_in_the_root(tree: Path) -> None:
    tree.mkdir()
    (tree / "note").write_text("x")


def _has_an_attribute(tree: Path) -> None:
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share/x").write_text("x")
    os.setxattr(tree / "usr/share/x", "user.overlay.opaque", b"y")


def _has_a_newline(tree: Path) -> None:
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share/a\nb").write_text("x")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (_links_out, "usr/lib/out"),
        (_boots_otherwise, "boot/grub"),
        (_is_in_the_root, "note"),
        pytest.param(
            _has_an_attribute,
            "usr/share/x",
            marks=pytest.mark.skipif(not image_tree.IS_ROOT, reason="needs root"),
        ),
        (_has_a_newline, "usr/share/a\nb"),
    ],
)
def test_what_machines_would_refuse_is_not_written(place: Place, change: Callable[[Path], None], path: str):
    tree = place.path / "tree"
    if tree.exists():
        tree.rmdir()
    change(tree)
    place.write()
    with pytest.raises(Refused, match="no machine takes") as caught:
        place.compose()
    assert any(repr(path) in line for line in caught.value.details)
    assert place.names == set()


def test_what_is_looked_at_is_what_an_import_reads(place: Place, monkeypatch: pytest.MonkeyPatch):
    seen: list[list[Header]] = []

    class Watched(Screen):
        def __init__(self) -> None:
            super().__init__()
            seen.append([])

        def take(self, header: Header) -> Kept | None:
            seen[-1].append(header)
            return super().take(header)

    monkeypatch.setattr(members, "Screen", Watched)
    place.compose()
    image = place.image()
    assert len(seen) == len(image.layers)
    for name, headers in zip(image.layers, seen, strict=True):
        read = io.BytesIO(image.tar(name)).read
        assert [member.header for member in tarreader.members(read)] == headers


def test_all_of_it_is_named_at_once(place: Place):
    place.write({f"usr/share/a\t{number:02}": "x" for number in range(30)})
    with pytest.raises(Refused) as caught:
        place.compose()
    assert len(caught.value.details) == 21 and caught.value.details[-1] == "and 10 more"


def test_a_label_that_no_machine_takes(place: Place):
    with pytest.raises(Refused, match="version"):
        place.compose(labels={"org.opencontainers.image.version": "13\x1b[2J"})


# --- whether it is reproducible


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> dict:
    """How a second image is made: by this process, with `changed` options and after `before` was called."""
    how: dict = {"changed": {}, "before": lambda: None}

    def carry_out(verb, request, **_how):
        how["before"]()
        how["request"] = jsonvalue.read(ComposeImage, request, name="x")
        wanted = replace(how["request"], **how["changed"])
        return export.compose_image(Transaction([].append, verb), wanted).to_json()

    monkeypatch.setattr(another_worker, "carry_out", carry_out)
    return how


@pytest.mark.parametrize("options", [{}, {"compression": Compression.GZIP, "labels": {"a": "b"}}])
def test_an_image_that_is_reproducible_is_written(place: Place, second: dict, options: dict):
    result = place.compose(verify=True, **options)
    assert result["verified"] == result["manifest"] == place.image().digest
    assert place.names == {"image"}
    request = second["request"]
    assert (request.treefile, request.verify, request.ref, request.previous) == (None, False, REF, None)
    place.write({"usr/lib/libc.so.6": "newer"})
    again = place.compose(verify=True, **options)
    assert again["verified"] == place.image().digest != result["verified"]
    assert second["request"].previous == str(place.path / "image")


@pytest.mark.parametrize("compression", Compression)
def test_layers_and_paths_that_differ_are_named(place: Place, second: dict, compression: Compression):
    second["before"] = lambda: place.write({"usr/lib/libc.so.6": "newer"})
    with pytest.raises(Refused, match="not reproducible") as caught:
        place.compose(verify=True, compression=compression)
    layers = {row["layer"] for row in caught.value.reasons if "layer" in row}
    paths = {row["path"]: row["differs"] for row in caught.value.reasons if "path" in row}
    assert layers >= {"source glibc"} and "source bash" not in layers
    assert paths["/usr/lib/libc.so.6"] == ["content"]
    assert "layer source glibc: other content" in caught.value.details
    assert place.names == set()


def test_another_compression_and_another_configuration_are_told(place: Place, second: dict):
    second["changed"] = {"labels": {"time": "now"}}
    with pytest.raises(Refused) as caught:
        place.compose(verify=True)
    assert caught.value.details == ("configuration or annotations",)
    second["changed"] = {"compression": Compression.GZIP}
    with pytest.raises(Refused) as caught:
        place.compose(verify=True)
    assert all("compressed otherwise" in line for line in caught.value.details)
    assert place.names == set()
