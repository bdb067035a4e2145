"""Composing real trees: what they hold, that they can be repeated, and that a failure leaves no trace.

Needs root and a Debian mirror. The composes are slow (under a minute each): `-m "not slow"` leaves them out.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apt_ostree.errors import ExternalFailure, UsageError
from apt_ostree.model import layout
from apt_ostree.system.ostree import commit
from apt_ostree.system.ostree.repo import Repo, text

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SOURCE = Path(__file__).resolve().parents[2] / "src"
EPOCH = 1763900000
REF = "test/small"
TREEFILE = """
ref: test/small
version: 1.${date}
suite: trixie
archives: [{suite: trixie}]
packages: [systemd, systemd-sysv, dracut, ostree, ostree-boot, linux-image-cloud-amd64, openssh-server, zstd]
units: {mask: [apt-daily.timer]}
add-files:
  - {src: motd, dest: /etc/motd}
  - {src: motd, dest: /lib/test/secret, mode: "0600"}
postprocess: |
  echo done > /etc/postprocessed
  mkdir -p /opt/vendor
  echo content > /opt/vendor/file
  echo state > /var/lib/vendor
kernel-arguments: [rw, quiet]
dracut: {omit-modules: [nvdimm]}
metadata: {vendor: example}
"""
#: Without a kernel, it takes half a minute.
FEW = """
ref: test/small
suite: trixie
archives: [{{suite: trixie}}]
packages: [{packages}]
"""


def apt_ostree(*words, failpoint=None, epoch=EPOCH, **options):
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    if epoch is not None:
        env["SOURCE_DATE_EPOCH"] = str(epoch)
    if failpoint:
        env["APT_OSTREE_FAILPOINT"] = failpoint
    command = [sys.executable, "-m", "apt_ostree", "compose", "tree", *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, **options)


def ostree(*words) -> str:
    return subprocess.run(["ostree", *words], check=True, capture_output=True, text=True).stdout


def start(*words):
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "apt_ostree", "compose", "tree", *map(str, words)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def write_treefile(directory: Path, content: str = TREEFILE) -> Path:
    (directory / "motd").write_text("Hello\n")
    (directory / "os.yaml").write_text(content)
    return directory / "os.yaml"


def state_of(repo: Path) -> tuple[str, set[str]]:
    """Return the ref's commit and the names of all files in the repository but its empty lock."""
    head = (repo / "refs/heads" / REF).read_text()
    return head, {str(path) for path in repo.rglob("*") if path.name != ".lock" and "cache" not in path.parts}


def mounts_and_processes(needle: str) -> list[str]:
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if needle in line]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if needle in words and "pytest" not in words:
            found.append(words)
    return found


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """A repository with one composed commit, and the treefile."""
    base = tmp_path_factory.mktemp("compose", numbered=True)
    treefile = write_treefile(base)
    began = time.monotonic()
    done = apt_ostree(
        treefile, f"--repo={base}/repo", f"--cachedir={base}/cache", f"--write-commitid-to={base}/id"
    )
    assert done.returncode == 0, done.stderr
    (base / "seconds").write_text(str(time.monotonic() - began))
    return base


@pytest.fixture(scope="module")
def tree(composed):
    target = composed / "checkout"
    subprocess.run(["ostree", "checkout", f"--repo={composed}/repo", REF, target], check=True)
    return target


# --- what is refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("suite: trixie\n", "os.yaml: ref: expected"),
        ("ref: a\nsuite: trixie\npackages: nginx\n", "os.yaml:3: packages: expected a list of strings"),
        ("include: gone.yaml\n", "gone.yaml: No such file"),
        ("include: os.yaml\n", "includes itself"),
        (
            "ref: a\nsuite: trixie\nadd-files: [{src: gone, dest: /a}]\n",
            "add-files[0].src: expected an existing",
        ),
        ("ref: a\nsuite: trixie\narchives: [{suite: elsewhere}]\n", "archives[0].suite: expected one of"),
    ],
)
def test_a_bad_treefile_is_a_usage_error_and_touches_nothing(tmp_path, content, message):
    done = apt_ostree(write_treefile(tmp_path, content), f"--repo={tmp_path}/repo")
    assert done.returncode == 2
    assert message in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"motd", "os.yaml"}


def test_a_directory_that_is_no_repository_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious").touch()
    done = apt_ostree(write_treefile(tmp_path), f"--repo={tmp_path}/data")
    assert done.returncode == 2
    assert "not an OSTree repository" in done.stderr


def test_print_only_merges_includes(tmp_path):
    write_treefile(tmp_path)
    (tmp_path / "more.yaml").write_text("include: os.yaml\nref: test/more\npackages: [jq]\n")
    done = apt_ostree(tmp_path / "more.yaml", "--print-only")
    shown = json.loads(done.stdout)
    assert shown["ref"] == "test/more"
    assert {"jq", "dracut"} <= set(shown["packages"])
    assert shown["add-files"][1] == {"src": "motd", "dest": "/lib/test/secret", "mode": "0600"}


# --- committing a directory


def commit_files(repo, directory, **files):
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_text(content)
    return commit.commit_directory(
        repo, directory, REF, subject="x", timestamp=EPOCH, metadata={"version": text("1")}
    )


def test_equal_content_is_the_same_commit_and_other_content_a_child(tmp_path):
    repo = tmp_path / "repo"
    first = commit_files(repo, tmp_path / "a", file="one")
    again = commit_files(repo, tmp_path / "b", file="one")
    assert (again.checksum, again.changed) == (first.checksum, False)
    second = commit_files(repo, tmp_path / "c", file="two")
    assert second.changed
    shown = subprocess.run(
        ["ostree", "log", f"--repo={repo}", REF], capture_output=True, text=True, check=True
    ).stdout
    assert first.checksum in shown
    subprocess.run(["ostree", "fsck", "-q", f"--repo={repo}"], check=True)


def test_a_failure_while_committing_leaves_ref_and_no_new_repository(tmp_path, monkeypatch):
    repo = tmp_path / "repo"
    monkeypatch.setenv("APT_OSTREE_FAILPOINT", "commit.objects-written=error")
    with pytest.raises(OSError, match="failpoint"):
        commit_files(repo, tmp_path / "a", file="one")
    assert not repo.exists()
    monkeypatch.delenv("APT_OSTREE_FAILPOINT")
    first = commit_files(repo, tmp_path / "b", file="one")
    monkeypatch.setenv("APT_OSTREE_FAILPOINT", "repo.before-commit=error")
    with pytest.raises(OSError, match="failpoint"):
        commit_files(repo, tmp_path / "c", file="two")
    assert commit.head(repo, REF) == first.checksum
    subprocess.run(["ostree", "fsck", "-q", f"--repo={repo}"], check=True)


def test_head_without_repository_or_ref(tmp_path):
    assert commit.head(tmp_path / "none", REF) is None
    with pytest.raises(UsageError):
        commit.head(tmp_path / "no/parent", REF)
    (tmp_path / "fake/objects").mkdir(parents=True)
    (tmp_path / "fake/config").write_text("[core]\n")
    with pytest.raises(ExternalFailure):
        commit.head(tmp_path / "fake", REF)


# --- a real compose


def test_layout_of_the_tree(tree):
    assert {name: str((tree / name).readlink()) for name in layout.TOP_LINKS} == layout.TOP_LINKS
    for name in layout.TOP_DIRECTORIES:
        assert list((tree / name).iterdir()) == []
    assert not (tree / "etc").exists()
    modules = next((tree / layout.KERNEL_MODULES).iterdir())
    assert {"vmlinuz", "config", "System.map", "initramfs.img"} <= {path.name for path in modules.iterdir()}
    assert (tree / "usr/etc/machine-id").read_text() == ""
    assert not (tree / "usr/etc/hostname").exists()
    assert list((tree / "usr/etc/ssh").glob("ssh_host*")) == []
    assert "u sshd " in (tree / layout.SYSUSERS).read_text()
    assert "/var/lib/dpkg - - - - ../../usr/lib/sysimage/dpkg" in (tree / layout.TMPFILES_LAYOUT).read_text()


def test_the_treefile_was_applied(tree):
    assert (tree / "usr/etc/motd").read_text() == "Hello\n"
    assert (tree / "usr/lib/test/secret").stat().st_mode & 0o777 == 0o600
    assert (tree / "usr/etc/postprocessed").read_text() == "done\n"
    assert (tree / "usr/lib/opt/vendor/file").read_text() == "content\n"
    assert "L /var/opt/vendor - - - - ../../usr/lib/opt/vendor\n" in (tree / layout.TMPFILES_VAR).read_text()
    assert (tree / "usr/share/factory/var/lib/vendor").read_text() == "state\n"
    assert os.readlink(tree / "usr/etc/systemd/system/apt-daily.timer") == "/dev/null"
    assert (tree / layout.KERNEL_ARGUMENTS).read_text() == 'kargs = ["rw", "quiet"]\n'
    assert (tree / layout.DRACUT_ARGUMENTS).read_text() == "--omit\nnvdimm\n"


def test_metadata_of_the_commit(composed):
    repo = Repo.open(composed / "repo")
    checksum = repo.resolve(REF)
    found = repo.metadata(checksum)
    assert (composed / "id").read_text().strip() == checksum
    assert found["version"] == "1.20251123"
    assert found["vendor"] == "example"
    assert found["ostree.bootable"] is True
    assert found[layout.META_KERNEL_ARGUMENTS] == ["rw", "quiet"]
    assert json.loads(found[layout.META_TREEFILE])["suite"] == "trixie"
    assert [line.split()[:3] for line in found[layout.META_SOURCES]] == [["Debian", "trixie", "main"]]
    assert "systemd" in {package.name for package in repo.packages(checksum)}
    assert repo.timestamp(checksum) == EPOCH


def test_dpkg_verifies_the_tree(tree, tmp_path):
    inside = ["bwrap", "--bind", tree, "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/var"]
    inside += ["--symlink", "usr/etc", "/etc", "--cap-add", "ALL"]
    script = (
        "systemd-tmpfiles --create --prefix=/var; ln -sfn /run /var/run; mkdir -p /var/tmp; dpkg --verify"
    )
    done = subprocess.run(
        [*map(str, inside), "sh", "-c", script], capture_output=True, text=True, check=False
    )
    (tree / "etc").unlink(missing_ok=True)
    assert done.stdout.strip() == "", done.stderr


def test_nothing_to_do_is_said_and_done(composed):
    before = state_of(composed / "repo")
    done = apt_ostree(composed / "os.yaml", f"--repo={composed}/repo", "--unchanged-exit-77")
    assert done.returncode == 77
    assert "No change" in done.stderr
    assert state_of(composed / "repo") == before


def test_a_second_compose_gives_the_same_commit_at_any_time(composed):
    repo = composed / "repo"
    done = apt_ostree(composed / "os.yaml", f"--repo={repo}", "--force-nocache", "--json", epoch=None)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["commit"], result["changed"]) == ((composed / "id").read_text().strip(), False)
    subprocess.run(["ostree", "fsck", "-q", f"--repo={repo}"], check=True)


@pytest.mark.extended
def test_a_cache_gives_the_same_commit_sooner(composed, tmp_path):
    words = (f"--repo={tmp_path}/repo", f"--cachedir={composed}/cache", "--unchanged-exit-77")
    began = time.monotonic()
    done = apt_ostree(composed / "os.yaml", *words)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [REF, (composed / "id").read_text().strip()]
    assert "The initramfs is that of an earlier compose" in done.stderr
    assert took < 0.7 * float((composed / "seconds").read_text())  # a third, on a machine without other work

    image = next((composed / "cache/initramfs").iterdir())
    image.write_bytes(image.read_bytes()[:-1])
    done = apt_ostree(composed / "os.yaml", *words, "--force-nocache", epoch=None)
    assert done.returncode == 77, done.stderr
    assert "The initramfs is that of an earlier compose" not in done.stderr


def ids_of(repo: Path) -> dict[str, int]:
    """Return the ids of users and groups, by file and name."""
    rows = {}
    for name in ("passwd", "group"):
        text = ostree("cat", f"--repo={repo}", REF, f"/usr/etc/{name}")
        rows |= {(name, line.split(":")[0]): int(line.split(":")[2]) for line in text.splitlines()}
    return rows


@pytest.mark.extended
def test_accounts_and_their_files_keep_their_ids(tmp_path):
    repo, agent = tmp_path / "repo", "/usr/bin/ssh-agent"
    treefile = write_treefile(tmp_path, FEW.format(packages="openssh-client, munge"))
    assert apt_ostree(treefile, f"--repo={repo}").returncode == 0
    before, mode = ids_of(repo), ostree("ls", f"--repo={repo}", REF, agent)
    assert mode.split()[0] == "-02755" and int(mode.split()[2]) == before["group", "_ssh"]

    (tmp_path / "ids").write_text("u munge 456\n")
    packages = "openssh-client, munge, bind9, dbus, uuid-runtime"
    treefile = write_treefile(tmp_path, FEW.format(packages=packages) + "account-ids: ids")
    work, touched = tmp_path / "work", tmp_path / "touched"
    work.mkdir()
    places = (f"--workdir={work}", f"--touch-if-changed={touched}")
    done = apt_ostree(treefile, "-r", repo, *places, "--no-parent", "--add-metadata-string=fx.key=a value")
    assert done.returncode == 0, done.stderr
    assert touched.exists() and list(work.iterdir()) == []
    opened = Repo.open(repo)
    assert len(list(opened.ancestry(opened.resolve(REF)))) == 1  # the ref's former commit is not its parent
    assert opened.metadata(opened.resolve(REF))["fx.key"] == "a value"
    after = ids_of(repo)
    moved = {("passwd", "munge"): 456, ("group", "munge"): 456}
    assert {key: after[key] for key in before} == before | moved
    added = [(name, number) for (name, account), number in after.items() if (name, account) not in before]
    assert added and not set(added) & {(name, number) for (name, _account), number in before.items()}
    assert ostree("ls", f"--repo={repo}", REF, agent) == mode


@pytest.mark.variants
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_compose_leaves_nothing(composed, number):
    repo = composed / "repo"
    before = state_of(repo)
    process = start(composed / "os.yaml", f"--repo={repo}", "--force-nocache")
    deadline = time.monotonic() + 120
    while not list(repo.glob("tmp/.apt-ostree-compose-*/root/usr/bin/dpkg")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    assert state_of(repo) == before
    assert mounts_and_processes(str(repo)) == []


@pytest.mark.extended
def test_a_killed_compose_leaves_the_ref_and_the_next_one_cleans_up(composed):
    repo = composed / "repo"
    before = state_of(repo)
    (composed / "few.yaml").write_text(FEW.format(packages="munge"))
    done = apt_ostree(composed / "few.yaml", f"--repo={repo}", failpoint="compose.root-made=kill")
    assert done.returncode == 1
    assert state_of(repo)[0] == before[0]
    assert list(repo.glob("tmp/.apt-ostree-compose-*"))
    done = apt_ostree(composed / "few.yaml", f"--repo={repo}", failpoint="compose.root-made=error")
    assert done.returncode == 1
    assert state_of(repo) == before
    assert mounts_and_processes(str(repo)) == []


@pytest.mark.extended
def test_the_output_of_a_failed_compose_survives(tmp_path):
    content = f"ref: {REF}\nsuite: trixie\narchives: [{{suite: trixie}}]\npostprocess: seq 1000; exit 3\n"
    done = apt_ostree(write_treefile(tmp_path, content), f"--repo={tmp_path}/repo", "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)
    assert "exit code 3" in error["message"]
    assert "1000" in error["details"] and "1" not in error["details"]
    place = Path(error["hint"].rpartition("the whole output is in ")[2])
    lines = place.read_text().splitlines()
    assert place.name.endswith("-compose.log")
    assert {"I: installing essential packages...", "1", "1000"} <= set(lines)
    assert not list(tmp_path.rglob("*.log"))
    place.unlink()


@pytest.mark.extended
def test_a_lockfile_keeps_versions_that_the_archives_have_surpassed(tmp_path):
    """There are newer versions among the updates of the release, which the lockfile does not let in."""
    few = FEW.format(packages="openssh-client, munge")
    release, everything = write_treefile(tmp_path, few), tmp_path / "everything.yaml"
    everything.write_text(few.replace("archives: [{suite: trixie}]", ""))
    repo, lock = f"--repo={tmp_path / 'repo'}", tmp_path / "lock.json"
    done = apt_ostree(release, repo, "--dry-run", f"--ex-write-lockfile-to={lock}")
    assert done.returncode == 0, done.stderr
    assert apt_ostree(everything, repo, "--dry-run").stdout != done.stdout
    done = apt_ostree(
        everything, repo, f"--ex-lockfile={lock}", "--ex-lockfile-strict", f"--write-lockfile-to={lock}2"
    )
    assert done.returncode == 0, done.stderr
    locked = json.loads(lock.read_text())["packages"]
    assert json.loads(Path(f"{lock}2").read_text())["packages"] == locked
    opened = Repo.open(tmp_path / "repo")
    made = opened.packages(opened.resolve(REF))
    assert {package.name: f"{package.version}.{package.architecture}" for package in made} == {
        name: row["evra"] for name, row in locked.items()
    }
    assert "99mmdebstrap" not in ostree("ls", repo, REF, "/usr/etc/apt/apt.conf.d")

    locked["munge"]["evra"] = "0.1-1.amd64"
    lock.write_text(json.dumps({"packages": locked}))
    done = apt_ostree(everything, repo, "--dry-run", f"--lockfile={lock}")
    assert done.returncode == 3 and "munge 0.1-1 is locked" in done.stderr


# --- whether it is reproducible


#: Without an initramfs; scripts see the time of the commit.
REPRODUCIBLE = (
    FEW.format(packages="munge") + 'postprocess: "date --utc --date=@$SOURCE_DATE_EPOCH > /etc/built-at"\n'
)
#: A file of a package, a file of nobody, a name, a mode.
IRREPRODUCIBLE = (
    FEW.format(packages="munge")
    + """
postprocess: |
  cat /proc/sys/kernel/random/uuid >> /etc/issue.net
  date +%s.%N > /usr/share/built-at
  mktemp --directory /usr/share/made.XXXXXXXXXX
  touch /usr/share/good
"""
)


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """A directory with the repository and the cache of a tree that was composed twice, and the result."""
    base = tmp_path_factory.mktemp("verified")
    words = (f"--repo={base}/repo", f"--cachedir={base}/cache", "--verify-reproducible", "--json")
    done = apt_ostree(write_treefile(base, REPRODUCIBLE), *words)
    assert done.returncode == 0, done.stderr
    return base, json.loads(done.stdout)


def test_a_tree_that_is_reproducible_is_committed(verified):
    base, result = verified
    repo = Repo.open(base / "repo")
    assert repo.resolve(REF) == result["commit"] and result["changed"]
    assert repo.content_checksum(result["commit"]) == result["verified"]
    assert ostree("cat", f"--repo={base}/repo", REF, "/usr/etc/built-at").strip().endswith("2025")
    assert {path.name for path in base.iterdir()} == {"cache", "motd", "os.yaml", "repo"}
    assert not list((base / "repo/tmp").glob(".apt-ostree-*"))
    assert mounts_and_processes(str(base)) == []


@pytest.mark.extended
def test_what_differs_between_two_builds_is_named_and_not_committed(verified, tmp_path):
    base, result = verified
    before = state_of(base / "repo")
    words = (f"--repo={base}/repo", f"--cachedir={base}/cache", "--verify-reproducible")
    done = apt_ostree(write_treefile(tmp_path, IRREPRODUCIBLE), *words, "--json")
    assert done.returncode == 3, done.stderr
    error = json.loads(done.stdout)
    found = {row["path"]: (row["differs"], row["packages"]) for row in error["reasons"]}
    made = {path for path in found if path.startswith("/usr/share/made.")}
    assert {path: what for path, what in found.items() if path not in made} == {
        "/usr/etc/issue.net": (["content"], ["base-files"]),
        "/usr/share/built-at": (["content"], []),
    }
    assert len(made) == 2 and all(found[path] == (["absent"], []) for path in made)
    assert {"base-files:", "no package:"} <= {*error["details"]}
    assert REF in error["message"]
    assert (state_of(base / "repo"), before[0].strip()) == (before, result["commit"])


@pytest.mark.extended
def test_a_tree_with_a_kernel_is_reproducible_without_a_cache_and_a_repository(composed, tmp_path):
    done = apt_ostree(
        write_treefile(tmp_path), f"--repo={tmp_path}/repo", "--verify-reproducible", "--unchanged-exit-77"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [REF, (composed / "id").read_text().strip()]
    assert {path.name for path in tmp_path.iterdir()} == {"motd", "os.yaml", "repo"}


@pytest.mark.extended
def test_the_initramfs_is_the_same_when_nothing_in_it_has_changed(composed, tmp_path):
    """There is another package, another file of the treefile, and another year."""
    content = TREEFILE.replace("zstd]", "zstd, hello]").replace("echo done", "echo otherwise")
    done = apt_ostree(
        write_treefile(tmp_path, content), f"--repo={tmp_path}/repo", epoch=EPOCH + 2 * 365 * 86400
    )
    assert done.returncode == 0, done.stderr
    places = [f"--repo={place}/repo" for place in (composed, tmp_path)]
    assert ostree("rev-parse", places[0], REF) != ostree("rev-parse", places[1], REF)
    listed = [ostree("ls", "-R", "-C", place, REF, f"/{layout.KERNEL_MODULES}") for place in places]
    images = [[line for line in text.splitlines() if line.endswith("/initramfs.img")] for text in listed]
    assert images[0] == images[1] and len(images[0]) == 1


@pytest.mark.parametrize("other", ["--print-only", "--dry-run", "--download-only"])
def test_what_makes_nothing_cannot_be_verified(tmp_path, other):
    done = apt_ostree(write_treefile(tmp_path), f"--repo={tmp_path}/repo", "--verify-reproducible", other)
    assert done.returncode == 2 and other in done.stderr
