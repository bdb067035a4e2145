"""Files that a client opens: what is opened is what is used, whatever becomes of its path."""

from __future__ import annotations

import os
import socket

import pytest

from apt_ostree.errors import UsageError
from apt_ostree.model.filestate import FileState
from apt_ostree.model.openfile import OpenFile
from apt_ostree.system import openfiles


def states(file: OpenFile) -> dict[str, FileState]:
    return {path: read() for path, read in openfiles.walk(file)}


def test_a_file_is_what_was_opened(tmp_path):
    path = tmp_path / "file"
    path.write_text("one")
    path.chmod(0o640)
    with openfiles.opened(path) as file:
        path.unlink()
        path.write_text("another one, put there later")
        found = states(file)
        assert file.name == str(path)
        assert openfiles.is_file(file)
        assert not openfiles.is_directory(file)
        assert not openfiles.is_same(file, path)
    (state,) = found.values()
    assert (state.type, state.mode, state.content, state.uid) == ("file", 0o640, b"one", os.getuid())


def test_a_directory_is_read_with_all_that_is_below_it(tmp_path):
    top = tmp_path / "top"
    (top / "below/empty").mkdir(parents=True)
    (top / "below/file").write_text("x")
    (top / "link").symlink_to("/nowhere")
    os.mkfifo(top / "pipe")
    with openfiles.opened(top) as file:
        top.rename(tmp_path / "moved")
        found = states(file)
        assert openfiles.is_directory(file)
        assert openfiles.is_same(file, tmp_path / "moved")
    assert {path: state.type for path, state in found.items()} == {
        "": "directory",
        "/below": "directory",
        "/below/empty": "directory",
        "/below/file": "file",
        "/link": "symlink",
        "/pipe": "other",
    }
    assert found["/link"].content == b"/nowhere"


def test_a_link_is_taken_as_itself(tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "link").symlink_to("secret")
    with openfiles.opened(tmp_path / "link") as file:
        (state,) = states(file).values()
        assert not openfiles.is_file(file)
    assert (state.type, state.content) == ("symlink", b"secret")


def test_a_link_to_a_directory_is_no_directory(tmp_path):
    (tmp_path / "link").symlink_to("/usr")
    with openfiles.opened(tmp_path / "link") as file:
        assert [*states(file)] == [""]


def test_a_pipe_a_socket_and_a_device_are_not_touched(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for somebody to write
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", "/dev/null"):
            with openfiles.opened(path) as file:
                (state,) = states(file).values()
            assert state.type == "other"


@pytest.mark.parametrize("name", ["nothing", "file/below", "x" * 300])
def test_what_cannot_be_opened_is_the_clients_mistake(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"^{tmp_path / name}: "), openfiles.opened(tmp_path / name):
        pass


def test_a_descriptor_lives_as_long_as_the_block_and_is_no_childs(tmp_path):
    with openfiles.opened(tmp_path) as file:
        assert not os.get_inheritable(file.fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.fd)


@pytest.mark.parametrize("use", [openfiles.mode_of, openfiles.is_file, openfiles.is_directory, states])
def test_a_descriptor_that_is_not_open_was_not_passed(use):
    with pytest.raises(UsageError, match=r"^lost\.deb was not passed as an open file \(descriptor 987654\)"):
        use(OpenFile(987654, "lost.deb"))


def test_is_same_needs_no_path(tmp_path):
    with openfiles.opened(tmp_path) as file:
        assert openfiles.is_same(file, tmp_path / "sub/..") is False
        assert openfiles.is_same(file, tmp_path)


# --- a file that is made


def test_a_new_file_is_not_there_until_it_is_put(tmp_path):
    path = tmp_path / "backup"
    with openfiles.created(path) as file:
        os.write(file.fd, b"half")
        assert not path.exists()
        assert not os.get_inheritable(file.fd)
        os.write(file.fd, b" and half")
        openfiles.put(file)
    assert path.read_text() == "half and half"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [*tmp_path.iterdir()] == [path]


def test_a_new_file_that_is_not_put_is_gone(tmp_path):
    with pytest.raises(KeyError), openfiles.created(tmp_path / "backup") as file:
        os.write(file.fd, b"half")
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_new_file_takes_the_place_of_the_old_one_and_of_what_a_killed_call_left(tmp_path):
    path = tmp_path / "backup"
    path.write_text("old")
    (tmp_path / ".backup.new").write_text("left over")
    with openfiles.created(path) as file:
        os.write(file.fd, b"new")
        openfiles.put(file)
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]
