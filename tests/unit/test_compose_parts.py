"""The steps of a compose as verbs: what they refuse before anything is touched, and the keys of caches."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from apt_ostree.core.compose import cache, inputs, parts, places
from apt_ostree.core.compose.cache import Cache
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import initramfs_inputs, layout, rootfs_record
from apt_ostree.model.package import Package
from apt_ostree.model.requests.compose import ComposeCommit, ComposeInstall, ComposePostprocess, ComposeRootfs
from apt_ostree.model.rootfs_record import Record, Stage
from apt_ostree.system import copies, exchange, filestore, mmdebstrap, rootstate, tar
from apt_ostree.system.mmdebstrap import Bootstrap
from tests.unit import repos

PLAIN = "ref: test/small\nsuite: trixie\narchives: [{suite: trixie, mirror: 'http://deb.example/debian'}]\n"


@pytest.fixture(autouse=True)
def as_root(monkeypatch) -> None:
    """A machine of which root's rights are not needed: no program is started."""
    monkeypatch.setattr(mmdebstrap, "native_architecture", lambda: "amd64")
    monkeypatch.setattr(mmdebstrap, "tools", lambda: ("apt 3.0",))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    real = Path.stat

    def as_roots(path: Path, **how: bool) -> os.stat_result:
        info = list(real(path, **how))
        info[4] = 0 if info[4] == os.getuid() else info[4]
        return os.stat_result(info)

    if os.getuid() != 0:
        monkeypatch.setattr(Path, "stat", as_roots)


def run(verb, request):
    return verb(Transaction([].append, "compose"), request)


def treefile(place: Path, text: str = PLAIN) -> str:
    (place / "os.yaml").write_text(text)
    return str(place / "os.yaml")


def make_tree(root: Path) -> Path:
    """Make a root filesystem in the form of a tree, with one package."""
    files = {"usr/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "usr/etc/group": "root:x:0:\n"}
    status = "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nDescription: x\n"
    repos.write_files(root, files | {f"{layout.DPKG_ADMINDIR}/status": status})
    for name in layout.TOP_DIRECTORIES:
        (root / name).mkdir()
    for name, target in layout.TOP_LINKS.items():
        (root / name).symlink_to(target)
    return root


# --- places


def test_a_new_directory_is_removed_after_a_failure_and_kept_after_a_success(tmp_path):
    with pytest.raises(RuntimeError), places.new_directory(str(tmp_path / "new")):
        raise RuntimeError
    assert not (tmp_path / "new").exists()
    with places.new_directory(str(tmp_path / "new")) as place:
        (place / "rootfs").mkdir()
    assert (tmp_path / "new/rootfs").is_dir()


def test_what_a_killed_install_left_is_no_obstacle(tmp_path):
    (tmp_path / "dest/.apt-ostree-compose-x/root").mkdir(parents=True)
    with places.new_directory(str(tmp_path / "dest")) as place:
        assert list(place.iterdir()) == []


@pytest.mark.parametrize("name", ["link", "dangling", "/", "..", "file", "none/dest"])
@pytest.mark.parametrize("verb", ["install", "rootfs"])
def test_a_destination_that_cannot_be_one_is_a_mistake(tmp_path, name, verb):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "file").touch()
    path = str(tmp_path / name)
    with pytest.raises(UsageError):
        if verb == "rootfs":
            run(parts.rootfs_for_others, ComposeRootfs(treefile=treefile(tmp_path), dest=path))
        else:
            with places.new_directory(path):
                pass
    assert list((tmp_path / "real").iterdir()) == []


def test_a_link_above_a_destination_is_followed_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert places.new_root(str(tmp_path / "link/dest")) == tmp_path / "real/dest"


def test_a_destination_with_something_in_it_is_refused(tmp_path):
    repos.write_files(tmp_path, {"dest/mine": "x"})
    with pytest.raises(Refused, match="is not empty"), places.new_directory(str(tmp_path / "dest")):
        pass
    with pytest.raises(Refused, match="is not empty"):
        run(parts.rootfs_for_others, ComposeRootfs(treefile=treefile(tmp_path), dest=str(tmp_path / "dest")))
    assert (tmp_path / "dest/mine").read_text() == "x"


def test_a_directory_of_extensions_is_only_replaced_if_it_is_one(tmp_path):
    repos.write_files(tmp_path, {"mine/a": "x", "old/extensions.json": "{}"})
    assert places.replaceable(str(tmp_path / "old"), "extensions.json") == tmp_path / "old"
    with pytest.raises(Refused, match="has files, and no"):
        places.replaceable(str(tmp_path / "mine"), "extensions.json")


@pytest.mark.parametrize("path", ["/", "/usr/.."])
def test_the_running_system_is_not_touched(path):
    for verb, request in (
        (parts.postprocess_rootfs, ComposePostprocess(rootfs=path)),
        (parts.commit, ComposeCommit(treefile="none", rootfs=path, repo="x")),
    ):
        with pytest.raises((Refused, UsageError)):
            run(verb, request)


def test_what_is_mounted_is_not_touched():
    with pytest.raises(Refused, match="mounted"):
        places._refuse_mounts(Path("/proc"))


@pytest.mark.parametrize("name", ["etc", "var/lib"])
def test_a_root_filesystem_with_links_in_the_place_of_directories_is_refused(tmp_path, name):
    repos.write_files(tmp_path / "root", {"usr/x": "x"})
    (tmp_path / "root" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "root" / name).symlink_to("/tmp")
    with pytest.raises(Refused, match="has links where directories belong"):
        places.existing_root(str(tmp_path / "root"))


def test_a_root_filesystem_that_others_can_change_is_refused(tmp_path):
    (tmp_path / "root/usr").mkdir(parents=True)
    (tmp_path / "root").chmod(0o777)
    with pytest.raises(Refused, match="is not root's alone"):
        places.existing_root(str(tmp_path / "root"))


# --- postprocess and commit


@pytest.mark.parametrize("text", [None, "postprocessed"])
def test_what_has_the_form_of_a_tree_is_not_postprocessed_again(tmp_path, text):
    root = make_tree(tmp_path / "root")
    if text:
        record = Record(stage=Stage.POSTPROCESSED, timestamp=1, source_date=1)
        (root / rootfs_record.NAME).write_text(rootfs_record.format_record(record))
    with pytest.raises(Refused, match="has the form of a tree already"):
        run(parts.postprocess_rootfs, ComposePostprocess(rootfs=str(root)))


def test_what_has_no_packages_is_not_postprocessed(tmp_path):
    (tmp_path / "root/usr").mkdir(parents=True)
    with pytest.raises(Refused, match="has no packages of Debian"):
        run(parts.postprocess_rootfs, ComposePostprocess(rootfs=str(tmp_path / "root")))


def installed(root: Path, path: str, **changes: object) -> Record:
    """Make what `compose install` leaves of a treefile."""
    repos.write_files(root, {"usr/x": "x", "etc/x": "x", f"{layout.DPKG_ADMINDIR}/status": ""})
    tree = inputs.read_treefile(path)
    record = Record(stage=Stage.INSTALLED, timestamp=1, source_date=1)
    record = replace(record, installed_from=inputs.installed_digest(tree), **changes)
    (root / rootfs_record.NAME).write_text(rootfs_record.format_record(record))
    return record


def test_a_treefile_with_other_packages_is_refused(tmp_path):
    installed(tmp_path / "root", treefile(tmp_path))
    path = treefile(tmp_path, PLAIN + "packages: [more]\n")
    with pytest.raises(Refused, match="asks for other packages"):
        run(parts.postprocess_rootfs, ComposePostprocess(rootfs=str(tmp_path / "root"), treefile=path))


def commit(tmp_path: Path, **options: str):
    request = ComposeCommit(
        treefile=treefile(tmp_path), rootfs=str(tmp_path / "root"), repo=str(tmp_path / "repo"), **options
    )
    return run(parts.commit, request)


def test_what_is_not_postprocessed_is_not_committed(tmp_path):
    installed(tmp_path / "root", treefile(tmp_path))
    with pytest.raises(Refused, match="has not been postprocessed"):
        commit(tmp_path)
    (tmp_path / "root" / rootfs_record.NAME).unlink()
    with pytest.raises(Refused, match="has not the form of a tree"):
        commit(tmp_path)
    assert not (tmp_path / "repo").exists()


def test_another_treefile_than_that_of_postprocess_is_refused(tmp_path):
    root = make_tree(tmp_path / "root")
    record = Record(stage=Stage.POSTPROCESSED, timestamp=1, source_date=1, applied="0" * 64)
    (root / rootfs_record.NAME).write_text(rootfs_record.format_record(record))
    with pytest.raises(Refused, match="is not what"):
        commit(tmp_path)


def test_the_commit_of_a_treefile_may_be_otherwise(tmp_path):
    path = treefile(tmp_path)
    first = inputs.applied_digest(inputs.read_treefile(path))
    assert first == inputs.applied_digest(inputs.read_treefile(path, ref="other", version="2"))
    other = treefile(tmp_path, PLAIN + "postprocess: echo\n")
    assert first != inputs.applied_digest(inputs.read_treefile(other))


def test_a_tree_with_something_in_var_is_not_committed(tmp_path):
    make_tree(tmp_path / "root")
    (tmp_path / "root/var/lib").mkdir()
    with pytest.raises(Refused) as caught:
        commit(tmp_path)
    assert any("/var" in line for line in caught.value.details)


def test_special_files_and_files_of_nobody_are_found(tmp_path):
    repos.write_files(tmp_path / "root", {"usr/x": "x"})
    os.mkfifo(tmp_path / "root/usr/pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "root/usr/socket"))
    assert rootstate.special_files(tmp_path / "root") == [
        "/usr/pipe is a named pipe",
        "/usr/socket is a socket",
    ]
    assert rootstate.owned_by_others(tmp_path / "root", {os.getuid()}, {os.getgid()}) == []
    assert "/usr/x belongs to" in " ".join(rootstate.owned_by_others(tmp_path / "root", {1}, {1}))


def test_a_record_survives_its_text_and_another_text_is_a_mistake():
    record = Record(stage=Stage.INSTALLED, timestamp=1, source_date=2, packages=(Package("a", "1", "all"),))
    assert rootfs_record.parse(rootfs_record.format_record(record), name="x") == record
    for text in ("", "[]", '{"stage": "half"}'):
        with pytest.raises(UsageError, match="x"):
            rootfs_record.parse(text, name="x")


def test_an_install_needs_root(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    request = ComposeInstall(treefile=treefile(tmp_path), destdir=str(tmp_path / "dest"))
    with pytest.raises(Refused, match="needs root"):
        run(parts.install, request)
    assert not (tmp_path / "dest").exists()


# --- keys of the cache


BOOTSTRAP = Bootstrap("trixie", "minbase", ("deb http://x trixie main",), ("a1", "b1"))
PLAN = {Package("a1", "1", "all"): ("0" * 64,)}


def test_a_root_is_kept_by_all_that_decides_about_it(tmp_path):
    kept = Cache(filestore.open_store(tmp_path / "cache", apart_from={}))

    def key(bootstrap: Bootstrap = BOOTSTRAP, plan=PLAN, keys=("k",), date: int = 1) -> str | None:
        return kept.root_key(bootstrap, plan, keys, date)

    others = [
        key(replace(BOOTSTRAP, suite="sid")),
        key(replace(BOOTSTRAP, variant="apt")),
        key(replace(BOOTSTRAP, sources=("deb http://y trixie main",))),
        key(replace(BOOTSTRAP, packages=("a1",))),
        key(replace(BOOTSTRAP, recommends=True)),
        key(replace(BOOTSTRAP, documentation=False)),
        key(replace(BOOTSTRAP, locked={"a1": "1"})),
        key(plan={Package("a1", "2", "all"): ("0" * 64,)}),
        key(plan={Package("a1", "1", "all"): ("1" * 64,)}),
        key(keys=("l",)),
        key(date=2),
    ]
    assert key() == key()
    assert len({key(), *others}) == len(others) + 1
    assert key(plan={Package("a1", "1", "all"): ()}) is None


def test_another_program_finds_nothing(tmp_path, monkeypatch):
    store = filestore.open_store(tmp_path / "cache", apart_from={})
    first = Cache(store).root_key(BOOTSTRAP, PLAN, (), 1)
    monkeypatch.setattr(mmdebstrap, "tools", lambda: ("apt 3.1",))
    assert Cache(store).root_key(BOOTSTRAP, PLAN, (), 1) != first


def test_lists_have_another_digest_when_one_of_them_changes(tmp_path):
    repos.write_files(tmp_path, {"a_InRelease": "1", "lock": "", "partial/x": "1"})
    first = cache.lists_digest(tmp_path)
    repos.write_files(tmp_path, {"lock": "x", "partial/x": "2"})
    assert cache.lists_digest(tmp_path) == first
    (tmp_path / "a_InRelease").write_text("2")
    assert cache.lists_digest(tmp_path) != first


def test_changes_of_a_root_are_found_whatever_they_are(tmp_path):
    repos.write_files(tmp_path, dict.fromkeys(("a", "b", "c", "d", "same"), "1"))
    before = rootstate.take(tmp_path)
    info = (tmp_path / "a").stat()
    (tmp_path / "a").write_text("2")  # of the same size and time
    os.utime(tmp_path / "a", ns=(info.st_atime_ns, info.st_mtime_ns))
    (tmp_path / "b").chmod(0o600)
    (tmp_path / "c").unlink()
    (tmp_path / "new").touch()
    changed = rootstate.changed(tmp_path, before)
    assert changed == {"a", "b", "c", "new"}
    digests = {rootstate.digest_of(tmp_path, changed)}
    (tmp_path / "a").write_text("3")
    digests.add(rootstate.digest_of(tmp_path, changed))
    (tmp_path / "b").chmod(0o640)
    digests.add(rootstate.digest_of(tmp_path, changed))
    assert len(digests) == 3


def test_which_changes_count_for_the_initramfs():
    changed = {"etc/motd", "etc/fstab", "usr/share/doc/x", "usr/share/documents", "var/lib/x"}
    assert initramfs_inputs.relevant(changed, has_arguments=False) == {"etc/fstab", "usr/share/documents"}
    assert initramfs_inputs.relevant(changed, has_arguments=True) == changed
    for rule in ("etc/dracut.conf.d/x.conf", "usr/lib/dracut/modules.d/99x/module-setup.sh"):
        assert initramfs_inputs.relevant({*changed, rule}, has_arguments=False) == {*changed, rule}


# --- tools


def test_a_directory_survives_being_packed_and_copied(tmp_path):
    files = {"a/file": "1", "a/link": "-> file"}
    repos.write_files(tmp_path / "one", files)
    (tmp_path / "one/a/file").chmod(0o4751)
    os.link(tmp_path / "one/a/file", tmp_path / "one/hard")
    os.utime(tmp_path / "one/a/file", ns=(1, 1_234_567_891))
    before = rootstate.fingerprint(tmp_path / "one")
    tar.pack(tmp_path / "one", tmp_path / "x.tar")
    (tmp_path / "two").mkdir()
    with (tmp_path / "x.tar").open("rb") as stream:
        tar.unpack(stream, tmp_path / "two")
    copies.copy_tree(tmp_path / "one", tmp_path / "three")
    for name in ("two", "three"):
        assert rootstate.fingerprint(tmp_path / name) == before
        assert (tmp_path / name / "hard").stat().st_nlink == 2


def test_two_directories_change_places(tmp_path):
    repos.write_files(tmp_path, {"one/a": "1", "two/b": "2"})
    exchange.exchange(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "one/b").exists() and (tmp_path / "two/a").exists()
    with pytest.raises(OSError, match="No such file"):
        exchange.exchange(tmp_path / "one", tmp_path / "none")


def test_archives_are_named_as_apt_names_them():
    assert mmdebstrap.archive_name(Package("libc6:i386", "2:1.0_1", "i386")) == "libc6_2%3a1.0%5f1_i386.deb"
