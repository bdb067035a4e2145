"""The steps of a compose one after another, caches and extensions, with real packages.

Needs root and a Debian mirror. The tree has no kernel: a test would take a quarter of a minute more.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apt_ostree.model import layout, rootfs_record
from apt_ostree.system import mounts, rootstate
from apt_ostree.system.ostree.repo import Repo

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SOURCE = Path(__file__).resolve().parents[2] / "src"
REF = "test/parts"
TREEFILE = """
ref: test/parts
version: "1"
suite: trixie
archives: [{suite: trixie}]
packages-amd64: [openssh-client]
packages: [systemd]
documentation: false
default-target: rescue.target
remove-files: [/usr/share/bash-completion]
units: [fstrim.timer]
add-files: [{src: motd, dest: /etc/motd}]
postprocess: |
  echo "$SOURCE_DATE_EPOCH" > /etc/made-at
  echo state > /var/lib/vendor
metadata: {vendor: example}
"""
EXTENSIONS = """
extensions:
  tracers: {packages: [strace]}
  never: {packages: [no-such-package], architectures: [s390x]}
  sources: {kind: development, packages: [libsystemd-dev], match-base-evr: systemd}
"""
EPOCH = "1763900000"


def start(*words, failpoint=None, network=True) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "SOURCE_DATE_EPOCH": EPOCH}
    if failpoint:
        env["APT_OSTREE_FAILPOINT"] = failpoint
    command = [sys.executable, "-m", "apt_ostree", "compose", *map(str, words), "--json"]
    command = command if network else ["unshare", "--net", *command]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def compose(*words, failpoint=None, network=True, code=0) -> dict:
    process = start(*words, failpoint=failpoint, network=network)
    out, err = process.communicate()
    assert process.returncode == code, err
    return json.loads(out) if out.strip() else {}


class World:
    """A treefile, a cache, and a commit of `compose tree` with its root filesystem before and after."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.treefile = place / "os.yaml"
        self.treefile.write_text(TREEFILE)
        (place / "motd").write_text("Hello\n")
        self.cache = f"--cachedir={place}/cache"
        self.commit = compose("tree", self.treefile, f"--repo={place}/repo", self.cache)["commit"]
        compose("install", self.treefile, place / "dest", self.cache, "--unified-core")
        self.installed = place / "dest/rootfs"
        self.finished = self.copy("finished")
        compose("postprocess", self.finished, self.treefile, "--unified-core")

    def copy(self, name: str, source: Path | None = None) -> Path:
        target = self.place / name
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "--archive", source or self.installed, target], check=True)
        return target


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("parts"))


def leftovers(place: Path) -> list[str]:
    return [path.name for path in place.iterdir() if path.name.startswith(".apt-ostree-compose-")]


# --- the steps


def test_the_steps_give_the_commit_of_compose_tree(world, tmp_path):
    before = rootstate.fingerprint(world.finished)
    result = compose("commit", world.treefile, world.finished, f"--repo={tmp_path}/repo", "--ex-unified-core")
    assert result["commit"] == world.commit
    assert rootstate.fingerprint(world.finished) == before
    again = compose("tree", world.treefile, f"--repo={tmp_path}/repo")
    assert (again["commit"], again["changed"]) == (world.commit, False)


def test_what_the_treefile_says_is_in_the_tree(world):
    tree = world.finished
    assert (tree / "usr/etc/made-at").read_text() == f"{EPOCH}\n"
    assert os.readlink(tree / "usr/etc/systemd/system/default.target").endswith("/rescue.target")
    assert not (tree / "usr/share/bash-completion").exists()
    assert (tree / "usr/bin/ssh").exists()
    assert (tree / "usr/share/doc/systemd/copyright").exists()
    assert not (tree / "usr/share/man/man1").exists()
    assert (tree / "usr/etc/systemd/system/timers.target.wants/fstrim.timer").is_symlink()
    assert (tree / "usr/share/factory/var/lib/vendor").read_text() == "state\n"


@pytest.mark.extended
def test_a_root_filesystem_for_other_tools_is_the_tree(world, tmp_path):
    (tmp_path / "tree").mkdir()
    compose("rootfs", world.treefile, tmp_path / "tree", world.cache)
    assert not (tmp_path / "tree" / rootfs_record.NAME).exists()
    assert leftovers(tmp_path) == []
    result = compose("commit", world.treefile, tmp_path / "tree", f"--repo={tmp_path}/repo")
    repo = Repo.open(tmp_path / "repo")
    assert repo.tree_checksums(result["commit"]) == Repo.open(world.place / "repo").tree_checksums(
        world.commit
    )
    assert layout.META_INPUTS not in repo.metadata(result["commit"])  # nobody has recorded how it came about


def test_what_others_change_between_the_steps_is_committed_as_such(world, tmp_path):
    root = world.copy("changed", world.finished)
    (root / "usr/etc/ours").write_text("x")
    result = compose("commit", world.treefile, root, f"--repo={tmp_path}/repo")
    assert result["commit"] != world.commit
    assert layout.META_INPUTS not in Repo.open(tmp_path / "repo").metadata(result["commit"])


def test_a_root_filesystem_of_another_program_becomes_a_tree(world, tmp_path):
    root = world.copy("foreign")
    (root / rootfs_record.NAME).unlink()
    (root / "var/lib/dpkg").unlink()
    (root / layout.DPKG_ADMINDIR).rename(root / "var/lib/dpkg")
    (root / "etc/hostname").write_text("builder\n")
    compose("postprocess", root)
    result = compose("commit", world.treefile, root, f"--repo={tmp_path}/repo")
    assert layout.META_INPUTS not in Repo.open(tmp_path / "repo").metadata(result["commit"])
    assert not (root / "usr/etc/made-at").exists()
    assert not (root / "usr/etc/hostname").exists()


# --- the commit

#: A commit that no repository has.
FAR = "0123456789abcdef" * 4
GIVEN = {"build": {"number": 7, "half": 0.5, "of": ["a", True]}, "vendor": "other", "stamp": 1_700_000_000}


def shown(repo: Path, checksum: str, key: str) -> str:
    command = ["ostree", f"--repo={repo}", "show", f"--print-metadata-key={key}", checksum]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_has_what_the_command_line_says_of_it(world, tmp_path):
    (tmp_path / "given.json").write_text(json.dumps(GIVEN))
    place, told = tmp_path / "repo", tmp_path / "told.json"
    words = ("commit", world.treefile, world.finished, f"--repo={place}", f"--write-composejson-to={told}")
    first = compose(*words, f"--parent={FAR}", f"--add-metadata-from-json={tmp_path}/given.json")["commit"]
    repo, given = Repo.open(place), json.loads(told.read_text())
    assert repo.metadata(first) == repo.metadata(first) | GIVEN
    assert (repo.parent(first), given["ostree-parent-commit"]) == (FAR, FAR)
    assert shown(place, first, "stamp") == "int64 1700000000"
    assert shown(place, first, "build") == "{'number': <int64 7>, 'half': <0.5>, 'of': <[<'a'>, <true>]>}"
    assert (given["ref"], given["ostree-commit"], given["ostree-version"]) == (REF, first, "1")
    assert given["ostree-timestamp"] == "2025-11-23T12:13:20Z"
    assert given["rpm-ostree-inputhash"] == repo.metadata(first)[layout.META_INPUTS]
    assert given["ostree-n-content-written"] > 1000 and given["ostree-content-bytes-written"] > 1_000_000
    assert "pkgdiff" not in given

    second = compose(*words, f"--parent={REF}", "--add-metadata-string=version=2")
    assert (second["version"], repo.parent(second["commit"])) == ("2", first)
    given = json.loads(told.read_text())
    assert (given["pkgdiff"], given["ostree-version"], given["ostree-n-content-written"]) == ([], "2", 0)
    subprocess.run(["ostree", "fsck", "-q", f"--repo={place}"], check=True)


@pytest.mark.extended
def test_a_tree_is_compared_with_what_the_command_line_names(world, tmp_path):
    place, touched, told = tmp_path / "repo", tmp_path / "touched", tmp_path / "told.json"
    (tmp_path / "given.json").write_text(json.dumps(GIVEN))
    words = ("tree", world.treefile, f"--repo={place}", world.cache, "--workdir-tmpfs")
    dry = (*words, f"--touch-if-changed={touched}", "--dry-run")
    first = compose(*words)["commit"]
    assert not compose(*dry)["changed"] and not touched.exists()
    words = (*words, f"--add-metadata-from-json={tmp_path}/given.json", f"--write-composejson-to={told}")
    dry = (*words, f"--touch-if-changed={touched}", "--dry-run")
    assert compose(*dry)["changed"] and touched.exists()

    made = compose(*words, f"--parent={world.commit[:63]}x", code=2)
    assert "no commit or ref" in made["message"] and not told.exists()
    second = compose(*words, f"--previous-commit={first}")["commit"]
    given = json.loads(told.read_text())
    assert (given["ostree-parent-commit"], given["pkgdiff"]) == (first, [])
    assert given["ostree-n-metadata-written"] > 0 and "ostree-n-content-written" not in given
    touched.unlink()
    digest = given["rpm-ostree-inputhash"]
    same = compose(*dry, f"--previous-commit={first}", f"--previous-inputhash={digest}")
    assert not same["changed"] and not touched.exists()
    assert compose(*dry, f"--previous-commit={first}")["changed"] and touched.exists()
    again = compose(*words)
    assert (again["commit"], again["changed"]) == (second, False)
    assert json.loads(told.read_text())["ostree-commit"] == second
    third = compose(*words, "--force-nocache", f"--parent={FAR}")
    assert third["changed"] and Repo.open(place).parent(third["commit"]) == FAR


def test_an_install_prints_the_treefile_and_makes_nothing(world, tmp_path):
    words = ("install", world.treefile, tmp_path / "dest", "--force-nocache", "--print-only")
    assert compose(*words)["treefile"]["ref"] == REF
    assert list(tmp_path.iterdir()) == []


# --- what is refused


def test_special_files_and_files_of_nobody_are_not_committed(world, tmp_path):
    root = world.copy("odd", world.finished)
    os.mkfifo(root / "usr/share/pipe")
    error = compose("commit", world.treefile, root, f"--repo={tmp_path}/repo", code=3)
    assert error["details"] == ["/usr/share/pipe is a named pipe"]
    (root / "usr/share/pipe").unlink()
    os.chown(root / "usr/bin/ssh", 4711, 0)
    error = compose("commit", world.treefile, root, f"--repo={tmp_path}/repo", code=3)
    assert error["details"] == ["/usr/bin/ssh belongs to 4711:0"]
    assert not (tmp_path / "repo").exists()


def test_a_mount_point_is_not_postprocessed(world, disk):
    (disk / "root/usr").mkdir(parents=True)
    mounts.mount("none", disk / "root", "tmpfs")
    (disk / "root/usr").mkdir()
    assert "mounted" in compose("postprocess", disk / "root", code=3)["message"]
    mounts.umount(disk / "root")


@pytest.mark.extended
def test_ids_of_the_last_commit_are_kept_or_it_is_refused(world, tmp_path):
    (tmp_path / "ids").write_text("g _ssh 777\n")
    (tmp_path / "motd").touch()
    own = tmp_path / "os.yaml"
    own.write_text(f"{TREEFILE}\naccount-ids: ids\n")
    repo = f"--repo={tmp_path}/repo"
    compose("tree", own, repo, world.cache)
    error = compose("commit", world.treefile, world.finished, repo, code=3)
    assert any("group _ssh: 777 before" in line for line in error["details"])
    compose("install", world.treefile, tmp_path / "dest", repo, "--postprocess", world.cache)
    compose("commit", world.treefile, tmp_path / "dest/rootfs", repo)


# --- faults


@pytest.mark.variants
@pytest.mark.parametrize(
    "point",
    [
        "compose.root-made=kill",
        "compose.root-made=error",
        "compose.rootfs-installed=kill",
        "compose.rootfs-placed=kill",
    ],
)
def test_an_install_that_fails_leaves_nothing_or_all(world, tmp_path, point):
    dest = tmp_path / "dest"
    compose("install", world.treefile, dest, world.cache, failpoint=point, code=1)
    if point.endswith("error"):
        assert not dest.exists()
    elif "placed" in point:
        assert (dest / "rootfs" / rootfs_record.NAME).exists()
        return
    else:
        assert not (dest / "rootfs").exists()
    compose("install", world.treefile, dest, world.cache)
    assert [path.name for path in dest.iterdir()] == ["rootfs"]


@pytest.mark.variants
@pytest.mark.parametrize(
    "point",
    [
        "compose.left-to-machines=kill",
        "compose.treefile-applied=error",
        "compose.tree-made=kill",
        "compose.rootfs-postprocessed=error",
        "compose.rootfs-postprocessed=kill",
        "compose.rootfs-exchanged=kill",
    ],
)
def test_a_postprocess_that_fails_leaves_the_old_or_the_new(world, point):
    (world.place / "faults").mkdir(exist_ok=True)
    root = world.copy("faults/rootfs")
    before = rootstate.fingerprint(root)
    compose("postprocess", root, world.treefile, failpoint=point, code=1)
    if "exchanged" in point:
        compose("postprocess", root, world.treefile, code=3)
    else:
        assert rootstate.fingerprint(root) == before
        if point == "compose.rootfs-postprocessed=kill":
            compose("postprocess", root, world.treefile)
        if point.endswith("error") or "postprocessed" in point:
            assert leftovers(root.parent) == []


@pytest.mark.variants
@pytest.mark.parametrize(
    "point", ["compose.commit=kill", "commit.objects-written=kill", "repo.before-commit=error"]
)
def test_a_commit_that_fails_leaves_the_ref_and_the_root_filesystem(world, tmp_path, point):
    repo = f"--repo={tmp_path}/repo"
    compose("commit", world.treefile, world.finished, repo, failpoint=point, code=1)
    assert compose("commit", world.treefile, world.finished, repo)["commit"] == world.commit


# --- caches


@pytest.mark.extended
def test_a_machine_without_a_network_composes_from_the_cache(world, tmp_path):
    repo, cache = f"--repo={tmp_path}/repo", f"--cachedir={tmp_path}/cache"
    error = compose("tree", world.treefile, repo, cache, "--cache-only", network=False, code=3)
    assert "package lists" in error["message"] and "trixie" in error["details"][0]
    result = compose("tree", world.treefile, repo, cache, "--download-only")
    assert result["changed"] and not (tmp_path / "repo").exists()
    archives = sorted((tmp_path / "cache/archives").iterdir())
    assert len(archives) == len(result["packages"])
    assert not (tmp_path / "cache/roots").exists()

    archives[0].unlink()
    error = compose("tree", world.treefile, repo, cache, "--cache-only", network=False, code=3)
    (line,) = error["details"]
    assert line in {f"{name} {version}" for name, version, _architecture in result["packages"]}
    compose("install", world.treefile, tmp_path / "dest", cache, "--download-only-rpms")
    assert sorted((tmp_path / "cache/archives").iterdir()) == archives
    made = compose("tree", world.treefile, repo, cache, "--cache-only", network=False)
    assert made["commit"] == world.commit
    compose("install", world.treefile, tmp_path / "dest", cache, "--cache-only", network=False)
    assert (tmp_path / "dest/rootfs/usr/bin/ssh").exists()


def test_a_download_that_is_killed_leaves_a_cache_that_works(world, tmp_path):
    words = ("tree", world.treefile, f"--repo={tmp_path}/repo", f"--cachedir={tmp_path}/cache")
    compose(*words, "--download-only", failpoint="compose.packages-downloaded=kill", code=1)
    result = compose(*words, "--download-only")
    cache = tmp_path / "cache"
    assert len(list((cache / "archives").iterdir())) == len(result["packages"])
    assert {path.name for path in cache.iterdir()} == {"CACHEDIR.TAG", "archives", "lists", "plans"}


def roots(world: World) -> list[Path]:
    return sorted((world.place / "cache/roots").iterdir())


@pytest.mark.extended
def test_a_damaged_cache_is_not_used(world, tmp_path):
    (kept,) = roots(world)
    with kept.open("r+b") as stream:
        stream.seek(1_000_000)
        stream.write(b"damage")
    result = compose("tree", world.treefile, f"--repo={tmp_path}/repo", world.cache)
    assert result["commit"] == world.commit
    (kept,) = roots(world)
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == kept.name.rpartition(".")[2]


@pytest.mark.extended
def test_two_composes_share_a_cache(world, tmp_path):
    processes = [start("install", world.treefile, tmp_path / name, world.cache) for name in ("a", "b")]
    assert [process.wait() for process in processes] == [0, 0]
    names = [sorted(path.name for path in (tmp_path / name / "rootfs").iterdir()) for name in ("a", "b")]
    assert names[0] == names[1]


def test_a_cache_that_is_full_or_read_only_is_named(world, disk, tmp_path):
    (disk / "cache").mkdir()
    mounts.mount("none", disk / "cache", "tmpfs", data="size=1m,mode=700")
    error = compose("install", world.treefile, tmp_path / "dest", f"--cachedir={disk}/cache", code=1)
    assert f"the cache directory {disk}/cache cannot be used" in error["message"]
    assert "No space left" in str((error["message"], error["details"]))
    mounts.mount("none", disk / "cache", flags=mounts.MS_REMOUNT | mounts.MS_RDONLY)
    error = compose("install", world.treefile, tmp_path / "dest", f"--cachedir={disk}/cache", code=1)
    assert "Read-only file system" in error["message"]
    mounts.umount(disk / "cache")
    assert not (tmp_path / "dest").exists()


def test_a_cache_in_the_repository_is_refused(world):
    words = (f"--repo={world.place}/repo", f"--cachedir={world.place}/repo/cache")
    assert "lie in each other" in compose("tree", world.treefile, *words, code=2)["message"]


# --- extensions


def extensions(world: World, text: str, *words, code=0, failpoint=None) -> dict:
    (world.place / "extensions.yaml").write_text(text)
    words = (world.treefile, world.place / "extensions.yaml", *words, world.cache)
    return compose("extensions", *words, code=code, failpoint=failpoint)


def test_extensions_fit_the_base_and_can_be_checked(world, tmp_path):
    words = (f"--repo={world.place}/repo", f"--base-rev={world.commit}", f"--output-dir={tmp_path}/out")
    result = extensions(world, EXTENSIONS, "--unified-core", *words)
    names = {row["name"] for row in result["packages"]}
    assert {"strace", "libsystemd-dev"} <= names and "libc6" not in names
    assert result["base"] == world.commit
    listed = json.loads((tmp_path / "out/extensions.json").read_text())
    assert listed["packages"] == result["packages"]
    assert set(listed["extensions"]) == {"tracers", "sources"}
    for row in result["packages"]:
        assert hashlib.sha256((tmp_path / "out" / row["file"]).read_bytes()).hexdigest() == row["sha256"]
    assert extensions(world, EXTENSIONS, *words)["changed"] is False
    (tmp_path / "out" / result["packages"][0]["file"]).write_bytes(b"damaged")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    extensions(world, EXTENSIONS, *words, failpoint="compose.extensions-downloaded=kill", code=1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert extensions(world, EXTENSIONS, *words)["changed"] is True
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("packages", "reason"),
    [
        ("systemd", "systemd is in the base already"),
        ("systemd-standalone-tmpfiles", "systemd would be removed"),
        ("no-such-package", "Unable to locate package no-such-package"),
    ],
)
def test_extensions_that_do_not_fit_the_base_are_refused(world, tmp_path, packages, reason):
    text = f"extensions: {{bad: {{packages: [{packages}]}}}}"
    words = (f"--rootfs={world.finished}", f"--output-dir={tmp_path}/out")
    error = extensions(world, text, *words, code=3)
    assert reason in "\n".join(error["details"])
    assert list(tmp_path.iterdir()) == []
