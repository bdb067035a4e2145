"""Files that save work: found by a key, never used when damaged, pruned, and shared by several programs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.system import filestore
from apt_ostree.system.filestore import FileStore

KEY, OTHER = "0" * 64, "1" * 64


@pytest.fixture
def store(tmp_path) -> FileStore:
    return filestore.open_store(tmp_path / "cache", apart_from={})


def keep(store: FileStore, text: str, key: str = KEY, kind: str = "roots") -> None:
    with store.writing(kind, key) as new:
        new.write_text(text)


def found(store: FileStore, key: str = KEY, kind: str = "roots") -> str | None:
    with store.opened(kind, key) as stream:
        return stream.read().decode() if stream else None


def entries(store: FileStore, kind: str = "roots") -> list[Path]:
    return sorted((store.path / kind).iterdir())


def test_what_is_kept_is_found_by_kind_and_key(store):
    keep(store, "one")
    assert (found(store), found(store, OTHER), found(store, kind="plans")) == ("one", None, None)
    keep(store, "two")
    assert found(store) == "two"
    assert len(entries(store)) == 1


@pytest.mark.parametrize("damage", [b"", b"on", b"oNe", b"one and more"])
def test_what_is_damaged_is_not_used_and_goes(store, damage):
    keep(store, "one")
    entries(store)[0].write_bytes(damage)
    assert found(store) is None
    assert entries(store) == []
    keep(store, "one")
    assert found(store) == "one"


def test_a_failure_keeps_what_was_there(store):
    keep(store, "one")
    with pytest.raises(RuntimeError), store.writing("roots", KEY) as new:
        new.write_text("half")
        raise RuntimeError
    assert found(store) == "one"
    assert {path.name for path in store.path.iterdir()} == {"CACHEDIR.TAG", "roots"}


@pytest.mark.parametrize("point", ["cache.written", "cache.placed"])
def test_an_error_leaves_the_old_or_the_new(store, monkeypatch, point):
    keep(store, "one")
    monkeypatch.setenv("APT_OSTREE_FAILPOINT", f"{point}=error")
    with pytest.raises(ExternalFailure, match="cannot be used") as caught:
        keep(store, "two")
    assert "--cachedir" in str(caught.value.hint)
    assert found(store) in ("one", "two")


def test_an_open_file_outlives_what_another_program_prunes(store):
    keep(store, "one")
    with store.opened("roots", KEY) as stream:
        FileStore(store.path).prune({"roots": 0}, days=1)
        assert stream is not None and stream.read() == b"one"
    assert found(store) is None


def test_the_oldest_and_the_unused_are_pruned(store):
    now = time.time()
    for number, age in enumerate((0, 1, 2, 40)):
        keep(store, str(number), key=str(number) * 64)
        os.utime(entries(store)[-1], (now - age * 86400,) * 2)
    store.prune({"roots": 10}, days=30)
    assert [path.name[0] for path in entries(store)] == ["0", "1", "2"]
    assert found(store, "2" * 64) == "2"  # now it is the last used one
    store.prune({"roots": 2}, days=30)
    assert [path.name[0] for path in entries(store)] == ["0", "2"]


# --- the directory


def test_a_directory_is_made_marked_and_used_again(tmp_path):
    for _ in range(2):
        store = filestore.open_store(tmp_path / "cache", apart_from={})
        assert (
            (store.path / "CACHEDIR.TAG")
            .read_text()
            .startswith("Signature: 8a477f597d28d172789f06886806bc55")
        )


def test_a_directory_of_others_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    with pytest.raises(UsageError, match="is not a cache directory"):
        filestore.open_store(tmp_path / "mine", apart_from={})
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]
    with pytest.raises(UsageError, match="is not a directory"):
        filestore.open_store(tmp_path / "mine/file", apart_from={})
    with pytest.raises(ExternalFailure, match="No such file"):
        filestore.open_store(tmp_path / "no/parent", apart_from={})


def test_a_directory_that_others_may_write_to_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(Refused, match="could change the cache directory"):
        filestore.open_store(tmp_path / "open", apart_from={})


@pytest.mark.parametrize("place", ["repo", "repo/cache", ".", "link"])
def test_a_directory_in_or_around_another_one_is_refused(tmp_path, place):
    (tmp_path / "repo").mkdir()
    (tmp_path / "link").symlink_to("repo")
    with pytest.raises(UsageError, match="lie in each other"):
        filestore.open_store(tmp_path / place, apart_from={"the repository": tmp_path / "repo"})
    assert list((tmp_path / "repo").iterdir()) == []
