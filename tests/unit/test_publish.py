"""What is made of a composed commit: signatures by real keys, and static deltas."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from apt_ostree.core.compose import publish
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, UsageError
from apt_ostree.model import events
from apt_ostree.model.requests.compose import ComposeSign
from apt_ostree.model.result import Result
from apt_ostree.system.ostree import commit, deltas, signatures
from apt_ostree.system.ostree.gi_ostree import Gio, OSTree
from apt_ostree.system.ostree.repo import Repo
from tests.unit import repos
from tests.unit.vendor import Signer, signer

MAIL = "signer@example.com"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    with signer() as made:
        keyring = tmp_path_factory.mktemp("keys") / "signer.gpg"
        keyring.write_bytes(made.gpg("--export"))
        made.keyring = keyring.parent
        yield made


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "archive"
    path.mkdir()
    OSTree.Repo.new(Gio.File.new_for_path(str(path))).create(OSTree.RepoMode.ARCHIVE, None)
    return path


def write(path: Path, work: Path, content: str, **options) -> str:
    """Commit a directory with a large file and a small one to the ref `test`."""
    repos.write_files(work, {"usr/large": "line\n" * 100_000 + content, "usr/small": content})
    return commit.commit_directory(
        path, work, "test", subject="test", timestamp=1_700_000_000, metadata={}, **options
    ).checksum


def sign(path: Path, *revs: str, **options):
    told: list[events.Event] = []
    request = ComposeSign(repo=str(path), revs=revs, **{"keys": (MAIL,), **options})
    return publish.sign(Transaction(told.append, request.title), request)


def test_a_commit_is_signed_before_the_ref_names_it(archive: Path, tmp_path: Path, key: Signer):
    seen = []
    add = publish.signing([MAIL], str(key.home))
    assert add

    def sign_and_look(repo: Repo, checksum: str) -> None:
        add(repo, checksum)
        seen.append(Repo.open(archive).resolve_or_none("test"))

    checksum = write(archive, tmp_path / "tree", "one", sign=sign_and_look)
    assert seen == [None]
    assert signatures.is_signed(Repo.open(archive), checksum, key.keyring)


def test_a_tree_that_is_there_already_is_signed(archive: Path, tmp_path: Path, key: Signer):
    first = write(archive, tmp_path / "tree", "one")
    assert write(archive, tmp_path / "tree", "one", sign=publish.signing([MAIL], str(key.home))) == first
    assert signatures.is_signed(Repo.open(archive), first, key.keyring)


def test_without_the_key_nothing_is_committed(archive: Path, tmp_path: Path, key: Signer):
    with pytest.raises(ExternalFailure, match="the secret key nobody@"):
        write(archive, tmp_path / "tree", "one", sign=publish.signing(["nobody@example.com"], str(key.home)))
    assert Repo.open(archive).resolve_or_none("test") is None
    with pytest.raises(UsageError, match="is not the directory of a GnuPG keyring"):
        publish.signing([MAIL], str(tmp_path / "nothing"))


def test_commits_are_signed_once(archive: Path, tmp_path: Path, key: Signer):
    first, second = (write(archive, tmp_path / text, text) for text in ("one", "two"))
    repo = Repo.open(archive)
    assert not signatures.is_signed(repo, first, key.keyring)
    result = sign(archive, "test", first, gpg_homedir=str(key.home))
    assert result.changed and result.details == {"commits": [second, first]}
    assert all(signatures.is_signed(repo, one, key.keyring) for one in (first, second))
    assert not sign(archive, "test", gpg_homedir=str(key.home)).changed


def test_a_key_that_is_not_the_only_one_is_named_by_its_fingerprint(archive: Path, tmp_path: Path):
    """The change of a key: both have the same mail address."""
    checksum = write(archive, tmp_path / "tree", "one")
    with signer() as both:
        home = {"gpg_homedir": str(both.home)}
        assert sign(archive, "test", **home).changed
        both.gpg("--passphrase", "", "--yes", "--quick-generate-key", MAIL, "ed25519", "sign")
        with pytest.raises(UsageError, match="2 secret keys match signer@") as caught:
            sign(archive, "test", **home)
        changed = [sign(archive, "test", keys=(one,), **home).changed for one in caught.value.details]
        assert sorted(changed) == [False, True]
    signed = Repo.open(archive).handle.verify_commit_ext(checksum, None, None, None)
    assert signed.count_all() == 2


def test_what_cannot_be_signed(archive: Path, tmp_path: Path, key: Signer):
    with pytest.raises(UsageError, match="nosuch"):
        sign(archive, "nosuch", gpg_homedir=str(key.home))
    with pytest.raises(UsageError, match="is not an OSTree repository"):
        sign(tmp_path / "missing", "test")
    with pytest.raises(UsageError, match="nothing to sign"):
        sign(archive)


def test_a_static_delta_says_what_it_saves(archive: Path, tmp_path: Path):
    old, new = (write(archive, tmp_path / text, text) for text in ("one", "two"))
    told: list[events.Event] = []
    made = publish.static_delta(Transaction(told.append, "test"), archive, old, new)
    assert made["from"] == old and made["bytes"] > 0
    names = Repo.open(archive).handle.list_static_delta_names(None)[1]
    assert names == [f"{old}-{new}"]
    directory = next((archive / "deltas").glob("*/*"))
    assert made["bytes"] == sum(file.stat().st_size for file in directory.iterdir())
    files = {file: file.stat().st_size for file in (archive / "objects").glob("*/*")}
    first = commit_objects(archive, old)
    assert made["objects"] == sum(
        size for file, size in files.items() if file.name[:-1] and file not in first
    )


def test_a_static_delta_that_is_missing_is_made_without_a_change(archive: Path, tmp_path: Path):
    tx = Transaction(lambda _event: None, "test")
    old = write(archive, tmp_path / "one", "one")
    result = Result(changed=False, details={"commit": old})
    assert publish.with_static_delta(tx, archive, old, result) == result  # it has no parent
    new = write(archive, tmp_path / "two", "two")
    result = Result(changed=False, details={"commit": new})
    made = publish.with_static_delta(tx, archive, new, result)
    assert not made.changed and made.details["static-delta"]["from"] == old
    assert publish.with_static_delta(tx, archive, new, result) == result
    result = Result(changed=True, details={"commit": new})
    assert publish.with_static_delta(tx, archive, None, result) == result
    assert publish.with_static_delta(tx, archive, old, result).details == made.details


def test_a_static_delta_has_large_files(archive: Path, tmp_path: Path):
    """libostree would make of a new file above 4 MB an object beside the delta."""
    old = write(archive, tmp_path / "one", "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two/initrd").write_bytes(random.Random(1).randbytes(6_000_000))
    new = write(archive, tmp_path / "two", "two")
    made = deltas.make(Repo.open(archive), old, new)
    assert min(made.bytes, made.objects) > 6_000_000


def commit_objects(archive: Path, checksum: str) -> set[Path]:
    """Return the files of a commit's objects."""
    repo = Repo.open(archive).handle
    names = map(OSTree.object_name_deserialize, repo.traverse_commit(checksum, 0, None)[1])
    return {path for name, _kind in names for path in (archive / "objects" / name[:2]).glob(f"{name[2:]}.*")}


def test_static_deltas_are_for_archives(archive: Path, tmp_path: Path):
    publish.require_archive(archive)
    repos.make_repo(tmp_path / "bare")
    with pytest.raises(UsageError, match="of the mode archive"):
        publish.require_archive(tmp_path / "bare")
