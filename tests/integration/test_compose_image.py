"""Container images of a small tree and of a composed one: read by skopeo, and back to the same commit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fixtures import image_tree
from tests.fixtures.image_tree import REF, Image

from apt_ostree.system import mounts
from apt_ostree.system.ostree.repo import Repo

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SOURCE = Path(__file__).resolve().parents[2] / "src"
TREEFILE = """
ref: test/image
version: "1"
suite: trixie
archives: [{suite: trixie}]
packages: [systemd, openssh-client]
documentation: false
metadata: {org.opencontainers.image.source: "https://example.org/os"}
"""
NEW = {"usr/lib/libc.so.6": "newer" * 1000}


def environment(failpoint: str = "") -> dict[str, str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])}
    return env | {"SOURCE_DATE_EPOCH": "1763900000", "APT_OSTREE_FAILPOINT": failpoint}


def command_of(*words) -> list[str]:
    return [sys.executable, "-m", "apt_ostree", "compose", *map(str, words), "--json"]


def start(*words, failpoint: str = "") -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command_of(*words), env=environment(failpoint), **pipes)


def compose(*words, failpoint: str = "", code: int = 0) -> dict:
    process = start(*words, failpoint=failpoint)
    out, err = process.communicate()
    assert process.returncode == code, err
    return json.loads(out) if out.strip() else {}


def skopeo(*words: object) -> str:
    return subprocess.run(["skopeo", *map(str, words)], check=True, capture_output=True, text=True).stdout


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


class World:
    """A repository with a commit of the small tree, and the words that name it."""

    def __init__(self, place: Path) -> None:
        self.place, self.repo = place, place / "repo"
        self.commit = self.write()

    def write(self, changed: dict[str, str | None] | None = None) -> str:
        return image_tree.write(self.repo, self.place / "tree", changed)

    @property
    def words(self) -> list[str]:
        return [f"--repo={self.repo}", f"--ref={REF}"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "source").mkdir()
    return World(tmp_path / "source")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


# --- what others read


def test_skopeo_reads_it_and_takes_it_further(world: World, out: Path):
    result = compose("image", *world.words, "-o", out / "image", "--label=a=b", "--max-layers=10")
    shown = json.loads(skopeo("inspect", f"oci:{out}/image"))
    assert shown["Digest"] == result["manifest"]
    assert shown["Layers"] == [row["digest"] for row in result["layers"]]
    assert (shown["Architecture"], shown["Os"], shown["Labels"]["a"]) == ("amd64", "linux", "b")
    assert shown["Labels"]["ostree.linux"] == image_tree.KERNEL

    skopeo("copy", "--insecure-policy", f"oci:{out}/image", f"oci:{out}/copy")
    assert Image(out / "copy").digest == result["manifest"]
    archive = compose(
        "image", *world.words, "-i", "--format=ociarchive", "--max-layers=10", "-l", "a=b", "-o", out / "a"
    )
    assert (
        json.loads(skopeo("inspect", f"oci-archive:{out}/a"))["Digest"]
        == archive["manifest"]
        == result["manifest"]
    )


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_the_same_commit_comes_back(world: World, out: Path, compression: str):
    compose("image", *world.words, f"--compression={compression}", "-o", out / "image")
    skopeo("copy", "--insecure-policy", "--preserve-digests", f"oci:{out}/image", f"oci:{out}/copy")
    (out / "repo").mkdir()
    assert image_tree.restore(Image(out / "copy"), Repo.create(out / "repo")) == world.commit
    subprocess.run(["ostree", "fsck", f"--repo={out}/repo"], check=True, capture_output=True)


def test_rpm_ostrees_name_makes_the_same_image(world: World, out: Path):
    one = compose("image", *world.words, "-o", out / "one", "--initialize")
    words = ["--repo", world.repo, REF]
    two = compose(
        "container-encapsulate", *words, f"oci:{out}/two", f"--previous-build-manifest={out}/one",
        "--copymeta=version", "--copymeta-opt=none", "--label=k=v", "--max-layers=64",
    )  # fmt: skip
    assert [row["digest"] for row in one["layers"]] == [row["digest"] for row in two["layers"]]
    labels = Image(out / "two").config["config"]["Labels"]
    assert (labels["version"], labels["k"]) == ("13.1", "v")
    compose("container-encapsulate", *words, f"oci-archive:{out}/three", "-l", "a=b")
    assert json.loads(skopeo("inspect", f"oci-archive:{out}/three"))["Labels"]["a"] == "b"
    compose("container-encapsulate", *words, "docker://example.org/x", code=2)


# --- one after another


@pytest.mark.parametrize("name", ["image", "image.ociarchive"])
def test_an_update_keeps_the_layers_and_replaces_the_image(world: World, out: Path, name: str):
    touched = out / "touched"
    words = [*world.words, "-o", out / name, f"--touch-if-changed={touched}", "--max-layers=12"]
    first = compose("image", *words)
    touched.unlink()
    again = compose("image", *words)
    assert (again["changed"], again["manifest"], touched.exists()) == (False, first["manifest"], False)

    world.write(NEW)
    plan = compose("image", *words, "--dry-run")
    assert (
        compose("image", *words[:2], "-o", out / "other", "--max-layers=12")["manifest"] != first["manifest"]
    )
    second = compose("image", *words)
    assert [row["name"] for row in plan["layers"]] == [row["name"] for row in second["layers"]]
    assert {row["name"] for row in second["layers"] if not row["reused"]} == {"source glibc", "sbom"}
    assert touched.exists()
    assert names(out) == {name, "touched", "other"}


def test_the_same_commit_gives_the_same_bytes(world: World, out: Path):
    subprocess.run(["ostree", "init", f"--repo={out}/archive", "--mode=archive"], check=True)
    subprocess.run(["ostree", "pull-local", f"--repo={out}/archive", world.repo, REF], check=True)
    for name, repo in (("one", world.repo), ("two", world.repo), ("three", out / "archive")):
        compose("image", f"--repo={repo}", f"--ref={REF}", "-o", out / name)
    for name in ("two", "three"):
        subprocess.run(["diff", "--recursive", out / "one", out / name], check=True)


@pytest.mark.parametrize("name", ["image", "image.tar"])
def test_an_image_is_made_twice_to_verify_it(world: World, out: Path, name: str):
    words = [*world.words, "-o", out / name, "--verify-reproducible"]
    result = compose("image", *words)
    assert result["verified"] == result["manifest"]
    world.write(NEW)
    again = compose("image", *words)
    assert again["verified"] == again["manifest"] != result["manifest"]
    assert names(out) == {name}


def test_an_image_by_rpm_ostrees_name_is_verified_too(world: World, out: Path):
    words = [f"--repo={world.repo}", REF, f"oci:{out}/image", "--verify-reproducible", "--label=a=b"]
    assert compose("container-encapsulate", *words)["verified"] == Image(out / "image").digest
    compose("container-encapsulate", *words, "--dry-run", code=2)


# --- what is interrupted


@pytest.mark.parametrize("name", ["image", "image.tar"])
@pytest.mark.parametrize("point", ["image.blob-written", "image.blob-written:11", "image.written"])
def test_what_fails_or_is_killed_leaves_the_old_image(world: World, out: Path, name: str, point: str):
    words = [*world.words, "-o", out / name]
    first = compose("image", *words)
    world.write(NEW)
    point, _, nth = point.partition(":")
    compose("image", *words, failpoint=f"{point}=error:{nth or 1}", code=1)
    assert names(out) == {name}
    compose("image", *words, failpoint=f"{point}=kill:{nth or 1}", code=1)
    assert len(names(out)) == 2
    assert compose("image", *words, "--dry-run")["layers"][0]["fate"] == "unchanged"
    transport = "oci" if name == "image" else "oci-archive"
    assert json.loads(skopeo("inspect", f"{transport}:{out}/{name}"))["Digest"] == first["manifest"]
    assert compose("image", *words)["manifest"] != first["manifest"]
    assert names(out) == {name}


@pytest.mark.parametrize("name", ["image", "image.tar"])
def test_what_is_killed_at_the_end_leaves_the_new_image(world: World, out: Path, name: str):
    words = [*world.words, "-o", out / name]
    compose("image", *words)
    world.write(NEW)
    compose("image", *words, failpoint="image.placed=kill", code=1)
    assert not compose("image", *words)["changed"]
    assert names(out) == {name}


def test_a_full_disk_leaves_the_old_image(world: World, disk: Path):
    small = disk / "small"
    small.mkdir()
    mounts.mount("none", small, "tmpfs", data="size=3m")
    words = [*world.words, "--compression=none", "-o", small / "image"]
    first = compose("image", *words)
    world.write({"usr/lib/libc.so.6": "x" * 4_000_000})
    assert "does not fit" in compose("image", *words, code=1)["message"]
    assert Image(small / "image").digest == first["manifest"]
    assert names(small) == {"image"}


def test_a_cancel_leaves_the_old_image(world: World, out: Path):
    first = compose("image", *world.words, "-o", out / "image")
    world.write(NEW)
    process = start("image", *world.words, "-o", out / "image", failpoint="image.blob-written=stop")
    wait_until(lambda: [pid for pid in children(process.pid) if shown(pid, "State").startswith("T")])
    (worker,) = children(process.pid)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: int(shown(worker, "ShdPnd"), 16))
    os.kill(worker, signal.SIGCONT)
    process.communicate()
    assert process.returncode == 130
    assert Image(out / "image").digest == first["manifest"]
    assert names(out) == {"image"}


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def shown(pid: int, name: str) -> str:
    """Return a row of proc_pid_status(5)."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(row.partition(":")[2].strip() for row in rows if row.startswith(f"{name}:"))


# --- size


def test_large_files_pass_through_little_memory(world: World, out: Path):
    world.write({"usr/lib/libc.so.6": "large" * 30_000_000})
    # A process begins with what its parent has, which is why a small one starts it (getrusage(2)).
    measure = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", measure, *command_of("image", *world.words, "-o", out / "image")]
    done = subprocess.run(command, env=environment(), check=True, capture_output=True, text=True)
    assert int(done.stdout) < 100_000  # kilobytes, of the worker, too; the file has 150 MB


# --- a composed tree


@pytest.fixture(scope="module")
def composed(tmp_path_factory) -> tuple[Path, dict]:
    """An image of real packages, made of a treefile in one step."""
    place = tmp_path_factory.mktemp("composed")
    (place / "os.yaml").write_text(TREEFILE)
    result = compose(
        "image", "--force-nocache", f"--cachedir={place}/cache", f"--repo={place}/repo", place / "os.yaml",
        place / "image",
    )  # fmt: skip
    return place, result


def test_a_composed_tree_comes_back_as_the_same_commit(composed: tuple[Path, dict], tmp_path: Path):
    place, result = composed
    repo = Repo.create(tmp_path)
    assert image_tree.restore(Image(place / "image"), repo) == result["commit"]
    assert repo.packages(result["commit"]) == Repo.open(place / "repo").packages(result["commit"])
    subprocess.run(["ostree", "fsck", f"--repo={tmp_path}"], check=True, capture_output=True)


def test_its_layers_follow_the_sources_of_its_packages(composed: tuple[Path, dict]):
    place, result = composed
    image = Image(place / "image")
    assert {"source systemd", "source glibc", "etc", "dpkg", "generated", "sbom"} <= set(image.layers)
    assert "usr/bin/ssh" in image.files("source openssh")
    assert len(result["layers"]) <= 64
    rest = next(row for row in result["layers"] if row["name"] == "generated")
    assert rest["bytes"] < result["bytes"] / 10
    labels = image.config["config"]["Labels"]
    assert labels["org.opencontainers.image.source"] == "https://example.org/os"
    assert labels["org.opencontainers.image.version"] == "1"
    every = [name for layer in image.layers for name in image.files(layer)]
    assert len(every) == len(set(every))


def test_the_next_image_of_a_treefile_is_the_same(composed: tuple[Path, dict]):
    place, result = composed
    words = [f"--cachedir={place}/cache", f"--repo={place}/repo", place / "os.yaml", place / "image"]
    again = compose("image", *words)
    assert (again["changed"], again["manifest"]) == (False, result["manifest"])


def test_an_image_of_a_treefile_needs_no_repository_that_stays(composed: tuple[Path, dict], tmp_path: Path):
    place, result = composed
    lockfile = place / "lock.json"
    compose("tree", place / "os.yaml", f"--repo={place}/repo", f"--write-lockfile-to={lockfile}")
    alone = compose("image", f"--lockfile={lockfile}", place / "os.yaml", "-o", tmp_path / "image")
    of_sources = [
        {row["name"]: row["diff_id"] for row in one["layers"] if row["name"].startswith("source ")}
        for one in (alone, result)
    ]
    assert of_sources[0] == of_sources[1]
    assert names(tmp_path) == {"image"}
