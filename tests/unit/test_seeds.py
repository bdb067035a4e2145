"""Seeds: what a tree gives to /var once, and what follows the tree afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apt_ostree.core.state import account_files
from apt_ostree.core.state import seeds as giving
from apt_ostree.errors import AptOstreeError, ExternalFailure
from apt_ostree.model import events, layout, seeds
from apt_ostree.model.seeds import Seed
from apt_ostree.system import var_state
from tests.unit.repos import System, fail_at, write_files

NAMES = st.sampled_from(["", "a", "b", "c/d", "c/e"])
DIGESTS = st.sampled_from(["1", "2", "3"])
FILES = st.dictionaries(NAMES, DIGESTS, max_size=4)
SEED = st.builds(
    lambda files, shipped: Seed("/var/lib/x", files, shipped & files.keys()), FILES, st.frozensets(NAMES)
)
TREES = st.dictionaries(st.sampled_from(["one", "two", "three"]), SEED, max_size=3)


# --- the rules


@pytest.mark.parametrize(
    ("path", "top"),
    [
        ("var/lib/db/16/main/base", "var/lib/db"),
        ("var/lib/other/new", "var/lib/other/new"),  # the directory was there before
        ("var/lib/old/deep/new", "var/lib/old"),  # an earlier seed
        ("var/lib/systemd/x/state", "var/lib/systemd/x"),
        ("var/roothome/.profile", "var/roothome/.profile"),
        ("var/www/html/index.html", "var/www/html"),
        ("var/new", "var/new"),
    ],
)
def test_top_of_a_seed(path: str, top: str):
    before = {"var", "var/lib", "var/lib/other", "var/lib/old"}
    assert seeds.tops([path], before, {"id": Seed("/var/lib/old")}) == {path: top}


@given(TREES)
def test_a_manifest_is_read_as_it_was_written(tree):
    assert seeds.parse(seeds.format_seeds(tree)) == tree


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": {}}', '{"a": {"top": 1, "files": 2, "shipped": 3}}'])
def test_a_manifest_with_an_error(text: str):
    with pytest.raises(AptOstreeError, match="manifest"):
        seeds.parse(text)


@given(TREES, TREES)
def test_giving_again_gives_nothing(tree, before):
    record = seeds.give(tree, before).record
    again = seeds.give(tree, record)
    assert (again.place, again.write, again.remove, again.record) == ((), {}, {}, record)


@given(TREES, TREES)
def test_a_seed_is_given_once(tree, other):
    record = seeds.give(tree, {}).record
    record = seeds.give(other, record).record  # a tree without it, or with other files in it
    assert not set(seeds.give(tree, record).place) & set(tree)


@given(TREES, TREES)
def test_scripts_files_do_not_come_back_with_their_package(tree, other):
    """A database may have removed any of its files since."""
    without = {name: seed for name, seed in other.items() if name not in tree}
    record = seeds.give(without, seeds.give(tree, {}).record).record
    written = seeds.give(tree, record).write
    assert set(written) <= {seed.path(file) for seed in tree.values() for file in seed.shipped}


@given(TREES)
def test_state_outlives_its_package_and_shipped_files_do_not(tree):
    removed = seeds.give({}, seeds.give(tree, {}).record).remove
    assert set(removed) == {seed.path(file) for seed in tree.values() for file in seed.shipped}


# --- a machine


class Machine:
    """A root directory with a tree's seeds and the record of what it was given."""

    def __init__(self, place: Path, monkeypatch, *, state: Path | None = None) -> None:
        self.place = place
        self.said: list[events.Event] = []
        monkeypatch.setattr(giving, "_ROOT", place)
        monkeypatch.setattr(giving.statedb, "DIRECTORY", state or place / "state")
        monkeypatch.setattr(giving.mounts, "in_namespace_of", lambda _pid: open("/dev/null"))  # noqa: SIM115

    def ship(self, name: str, files: dict[str, str], *, shipped: tuple[str, ...] = ()) -> None:
        """Make the tree hold one seed at /app, with these files."""
        top = self.place / "app"
        factory = self.place / layout.FACTORY / str(top).lstrip("/")
        var_state.discard_leftovers(factory)
        for path in sorted(factory.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        write_files(factory, files)
        seed = Seed(str(top), var_state.files_below(factory), frozenset(shipped))
        write_files(self.place, {layout.SEEDS: seeds.format_seeds({name: seed})})

    def give(self) -> bool:
        return giving.give(self.said.append)

    def beside(self) -> set[str]:
        """Return the names of what is beside the seed."""
        return {path.name for path in self.place.iterdir()} - {"state"}

    def files(self) -> dict[str, str]:
        top = self.place / "app"
        return {str(p.relative_to(top)): p.read_text() for p in top.rglob("*") if p.is_file()}


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_machine_gets_a_seed_whole_and_once(machine: Machine):
    machine.ship("id", {"db/one": "1", "two": "2"})
    (machine.place / "app").mkdir()  # as systemd-tmpfiles may have made it
    assert machine.give()
    assert machine.files() == {"db/one": "1", "two": "2"}
    (machine.place / "app/two").unlink()
    (machine.place / "app/db/one").write_text("mine")
    assert not machine.give()
    assert machine.files() == {"db/one": "mine"}
    assert [p.name for p in machine.place.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("point", ["seeds.copied", ""])
def test_a_copy_that_fails_leaves_nothing(machine: Machine, monkeypatch, point: str):
    """point: the failpoint that fails; empty: the copy itself fails half-way."""

    def half(command: list[str], *, what: str) -> None:
        write_files(Path(command[-1]), {"one": "1"})
        raise ExternalFailure(f"cannot {what}: the disk is full")

    machine.ship("id", {"one": "1", "two": "2"})
    before = machine.beside()
    with monkeypatch.context() as patch:
        fail_at(patch, point) if point else patch.setattr(var_state.process, "run", half)
        with pytest.raises((ExternalFailure, OSError)):
            machine.give()
    assert machine.beside() == before
    assert machine.give()
    assert machine.files() == {"one": "1", "two": "2"}


def _cut_short(machine: Machine, monkeypatch) -> Path:
    """Have a seed's copy cut short; return what is left of it."""
    machine.ship("id", {"one": "1"})
    with monkeypatch.context() as patch:
        fail_at(patch, "seeds.before-copy")
        with pytest.raises(OSError):
            machine.give()
    left = var_state._temporary(machine.place / "app")
    write_files(left, {"one": ""})
    return left


def test_a_copy_that_was_cut_short_goes_though_the_tree_is_gone(machine: Machine, monkeypatch):
    left = _cut_short(machine, monkeypatch)
    write_files(machine.place, {layout.SEEDS: "{}", "app/mine": "mine"})
    machine.give()
    assert not left.exists()
    assert machine.files() == {"mine": "mine"}


def test_a_copy_that_was_cut_short_is_tidied_up(system: System, tmp_path, monkeypatch):
    machine = Machine(tmp_path, monkeypatch, state=system.state)
    left = _cut_short(machine, monkeypatch)
    write_files(tmp_path, {"app/mine": "mine", f"{left.name}-not": "mine"})
    with system.transaction() as tx:
        tx.tidy_at_end()
    assert not left.exists()
    assert machine.files() == {"mine": "mine"}
    assert (tmp_path / f"{left.name}-not").exists()


def test_what_is_there_is_the_machines(machine: Machine):
    machine.ship("id", {"one": "1"})
    write_files(machine.place, {"app/mine": "mine"})
    assert machine.give()
    assert machine.files() == {"mine": "mine"}


def test_what_packages_ship_is_unpacked_again(machine: Machine):
    """The package was removed and its state stayed, or somebody was there before."""
    write_files(machine.place, {"app/mine": "mine", "app/edited": "mine", "app/file": "mine"})
    shipped = ("edited", "index", "sub/deep/page", "file/page")
    machine.ship("id", dict.fromkeys((*shipped, "key", "sub/key", "empty/key"), "1"), shipped=shipped)
    factory = machine.place / layout.FACTORY / str(machine.place / "app").lstrip("/")
    (factory / "sub").chmod(0o750)
    assert machine.give()
    mine = dict.fromkeys(("mine", "edited", "file"), "mine")
    assert machine.files() == {"index": "1", "sub/deep/page": "1", **mine}
    assert not (machine.place / "app/empty").exists()
    assert (machine.place / "app/sub").stat().st_mode & 0o777 == 0o750
    (machine.place / "app/index").unlink()
    assert not machine.give()
    assert "index" not in machine.files()


def test_files_follow_while_nobody_changed_them(machine: Machine):
    machine.ship("id", {"index": "1", "edited": "1", "removed": "1", "dropped": "1", "dropped-edited": "1"})
    machine.give()
    for name in ("edited", "dropped-edited"):
        (machine.place / "app" / name).write_text("mine")
    (machine.place / "app/removed").unlink()
    (machine.place / "app/index").chmod(0o600)
    machine.ship("id", {"index": "2", "edited": "2", "removed": "2", "new": "2"})
    assert machine.give()
    assert machine.files() == {"index": "2", "edited": "mine", "dropped-edited": "mine", "new": "2"}
    assert (machine.place / "app/index").stat().st_mode & 0o777 == 0o600


def test_files_of_another_seed_are_not_mixed_in(machine: Machine):
    """A package that was installed anew has made another database."""
    machine.ship("first", {"base": "1", "map": "1"})
    machine.give()
    machine.ship("second", {"base": "2", "map": "2", "log": "2"})
    machine.give()
    assert machine.files() == {"base": "1", "map": "1"}


def test_what_a_package_shipped_goes_with_it(machine: Machine):
    machine.ship(
        "id", {"web/index": "1", "web/edited": "1", "state": "1"}, shipped=("web/index", "web/edited")
    )
    machine.give()
    (machine.place / "app/web/edited").write_text("mine")
    write_files(machine.place, {layout.SEEDS: "{}"})
    machine.give()
    assert machine.files() == {"web/edited": "mine", "state": "1"}


def test_a_record_that_cannot_be_read(machine: Machine):
    machine.ship("id", {"one": "1"})
    machine.give()
    (machine.place / "app/one").write_text("mine")
    (machine.place / "state" / giving.RECORD).write_text("{")
    assert machine.give()
    assert machine.files() == {"one": "mine"}
    assert [e.level for e in machine.said if isinstance(e, events.Message)] == ["info", "warning"]


@settings(deadline=None)
@given(st.dictionaries(NAMES.filter(bool), DIGESTS, min_size=1))
def test_only_files_make_a_place_occupied(tmp_path_factory, files):
    top = tmp_path_factory.mktemp("top")
    write_files(top, files)
    assert not var_state.is_vacant(top)
    for file in files:
        (top / file).unlink()
    assert var_state.is_vacant(top)
    assert var_state.is_vacant(top / "absent")
    (top / "link").symlink_to("nowhere")
    assert not var_state.is_vacant(top)


def test_accounts_agree_after_a_merge_of_single_files(tmp_path, monkeypatch):
    monkeypatch.setattr(account_files, "_ETC", tmp_path)
    monkeypatch.setattr(account_files.mounts, "in_namespace_of", lambda _pid: open("/dev/null"))  # noqa: SIM115
    write_files(
        tmp_path, {"passwd": "root:x:0:0::/:/bin/sh\nnew:x:9:9::/:/bin/sh\n", "shadow": "root:hash::::::"}
    )
    (tmp_path / "shadow").chmod(0o640)
    assert account_files.agree()
    assert (tmp_path / "shadow").read_text() == "root:hash::::::\nnew:!*:::::::\n"
    assert (tmp_path / "shadow").stat().st_mode & 0o777 == 0o640
    assert not account_files.agree()


def test_what_scripts_added_to_the_machines_own_file_is_given_back(machine: Machine):
    machine.ship("id", {"config.dat": "tree"})
    machine.give()
    answers = machine.place / "app/config.dat"
    answers.write_text("answered")
    taken = var_state.digest(answers) or ""
    machine.ship("id", {"config.dat": "answered, and of the new package"})
    top = str(machine.place / "app")
    seed = seeds.parse((machine.place / layout.SEEDS).read_text())["id"]
    manifest = {"id": Seed(top, seed.files, seed.shipped, {"config.dat": taken})}
    write_files(machine.place, {layout.SEEDS: seeds.format_seeds(manifest)})
    assert machine.give()
    assert answers.read_text() == "answered, and of the new package"


def test_a_link_of_an_older_version_gives_way(machine: Machine):
    machine.ship("id", {"config.dat": "tree"})
    (machine.place / "app").symlink_to(f"../{layout.SYSIMAGE}/debconf")
    assert machine.give()
    assert machine.files() == {"config.dat": "tree"}
