"""The rules of a live change: three-way decisions about /etc, units, kernels, refusals, differences."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model import accounts, plan, seeding, treediff
from apt_ostree.model.filestate import ABSENT, FileState, three_way
from apt_ostree.model.origin import LocalPackage, Origin, format_origin, parse_origin
from apt_ostree.model.package import Package, PackageChange, PackageDiff, diff_packages
from apt_ostree.model.plan import EtcAction
from apt_ostree.model.treediff import DirDiff, FileDiff, Kind, PathChange
from apt_ostree.system import mountinfo

ONE, TWO, MINE = (FileState("file", 0o644, content=text) for text in (b"1", b"2", b"mine"))
DIRECTORY, LINK = FileState("directory", 0o755), FileState("symlink", 0o777, content=b"x")
STATES = (ABSENT, ONE, TWO, MINE, DIRECTORY, LINK)


@pytest.mark.parametrize(("old", "new", "current"), list(itertools.product(STATES, repeat=3)))
def test_three_way(old: FileState, new: FileState, current: FileState):
    decision = three_way(old, new, current)
    if current == new or (old == new and current != old):
        assert decision is None
    elif current == old:
        assert decision is not None
        assert decision[0] is (EtcAction.REMOVE if new is ABSENT else EtcAction.WRITE)
    else:
        assert decision is not None
        assert decision[0] is EtcAction.KEEP  # what the administrator made of it always wins
    assert decision is None or decision[1]


@pytest.mark.parametrize("changed", [
    FileState("file", 0o600, content=b"1"), FileState("file", 0o644, 1, content=b"1"),
    FileState("file", 0o644, 0, 1, content=b"1"), FileState("file", 0o644, 0, 0, b"1", (("user.x", b"y"),)),
])  # fmt: skip
def test_metadata_is_an_edit_too(changed: FileState):
    decision = three_way(ONE, TWO, changed)
    assert decision and decision[0] is EtcAction.KEEP


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("lib/systemd/system/a.service", "a.service"),
        ("etc/systemd/system/a.socket", "a.socket"),
        ("lib/systemd/system/a.service.d/x.conf", "a.service"),
        ("lib/systemd/system/a@.service", "a@.service"),
        ("lib/systemd/system/a@b.service.d/x.conf", "a@b.service"),
        ("lib/systemd/system/x.target.wants/a.service", None),
        ("lib/systemd/system/x.target.requires/a.service", None),
        ("lib/systemd/system/service.d/x.conf", None),
        ("lib/systemd/system/readme", None),
        ("lib/systemd/user/a.service", None),
        ("share/systemd/system/a.service", None),
        ("lib/systemd/system", None),
    ],
)
def test_unit_of(path: str, unit: str | None):
    assert plan.unit_of(path) == unit


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("etc/systemd/system/multi-user.target.wants/a.service", ("multi-user.target", "a.service")),
        ("lib/systemd/system/sockets.target.wants/a.socket", ("sockets.target", "a.socket")),
        ("etc/systemd/system/a.service.requires/b.service", ("a.service", "b.service")),
        ("etc/systemd/system/getty.target.wants/getty@tty1.service", ("getty.target", "getty@tty1.service")),
        ("etc/systemd/system/multi-user.target.wants", None),
        ("etc/systemd/system/multi-user.target.wants/", None),
        ("etc/systemd/system/multi-user.target.wants/a/b", None),
        ("etc/systemd/system/a.service.d/b.conf", None),
        ("etc/systemd/system/a.service", None),
        ("etc/systemd/user/default.target.wants/a.service", None),
    ],
)
def test_enabled_unit(path: str, link: tuple[str, str] | None):
    assert plan.enabled_unit(path) == link


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("lib/modules/6.1/vmlinuz", Kind.ADDED, {"6.1", "kernel"}),
        ("lib/modules/6.1/vmlinuz", Kind.CHANGED, {"6.1", "kernel"}),
        ("lib/modules/6.1/vmlinuz", Kind.REMOVED, {"6.1", "kernel", "visible"}),
        ("lib/modules/6.0/vmlinuz", Kind.REMOVED, {"6.0", "kernel"}),
        ("lib/modules/6.1/initramfs.img", Kind.CHANGED, {"6.1", "initramfs"}),
        ("lib/modules/6.1/initramfs.img", Kind.REMOVED, None),
        ("lib/modules/6.1/kernel/x.ko", Kind.CHANGED, None),
        ("lib/modules/6.1/deep/vmlinuz", Kind.ADDED, None),
        ("share/vmlinuz", Kind.ADDED, None),
    ],
)
def test_kernel_notes(path: str, kind: Kind, words: set[str] | None):
    notes = plan.kernel_notes([PathChange(path, kind, False)], "6.1")
    assert bool(notes) == (words is not None)
    assert all(word in notes[0] for word in words or ())
    if words and "visible" not in words:
        assert "visible" not in notes[0]


@pytest.mark.parametrize(
    ("difference", "counts"),
    [
        (PackageDiff(), []),
        (PackageDiff(added=(Package("a", "1", "all"),)), []),
        (PackageDiff(removed=(Package("a", "1", "all"), Package("b", "1", "all"))), [("2", "a", "b")]),
        (PackageDiff(changed=(PackageChange("c", "all", "1", "2"),)), [("1", "c")]),
        (
            PackageDiff((), (Package("a", "1", "all"),), (PackageChange("c", "all", "1", "2"),)),
            [("1", "a"), ("1", "c")],
        ),
    ],
)
def test_replacement_refusals(difference: PackageDiff, counts: list[tuple[str, ...]]):
    reasons = plan.replacement_refusals(difference)
    assert len(reasons) == len(counts)
    assert all(word in reason for reason, words in zip(reasons, counts, strict=True) for word in words)


packages = st.builds(
    Package, st.sampled_from("abcd"), st.sampled_from("12"), st.sampled_from(["all", "amd64"])
)
package_sets = st.lists(packages, unique_by=lambda p: (p.name, p.architecture)).map(frozenset)


@given(package_sets, package_sets)
def test_a_package_difference_leads_from_one_set_to_the_other(
    old: frozenset[Package], new: frozenset[Package]
):
    diff = diff_packages(old, new)
    changed = {(c.name, c.architecture): c for c in diff.changed}
    result = {p for p in old - set(diff.removed) if (p.name, p.architecture) not in changed}
    result |= {Package(c.name, c.new, c.architecture) for c in diff.changed} | set(diff.added)
    assert result == new
    assert bool(diff) == (old != new)


# --- differences of trees, against a model that lists paths

_letters = st.sampled_from("abc")
#: A tree: a directory is a pair of its metadata and its entries, a file a text.
_trees = st.recursive(
    st.sampled_from(["f1", "f2"]),
    lambda child: st.tuples(st.sampled_from(["m1", "m2"]), st.dictionaries(_letters, child, max_size=3)),
    max_leaves=8,
)
_roots = st.tuples(st.just("m1"), st.dictionaries(_letters, _trees, max_size=3))


def _diff(name: str, old, new) -> DirDiff:
    """Compare as system.ostree.diff does: files and directories of one name are entries of their own."""

    def split(side):
        entries = side[1] if side else {}
        files = {n: e for n, e in entries.items() if isinstance(e, str)}
        return files, {n: e for n, e in entries.items() if not isinstance(e, str)}

    (old_files, old_dirs), (new_files, new_dirs) = split(old), split(new)
    return DirDiff(
        name,
        (repr(old[1]), old[0]) if old else None,
        (repr(new[1]), new[0]) if new else None,
        tuple(
            FileDiff(n, old_files.get(n, ""), new_files.get(n, ""))
            for n in sorted(old_files.keys() | new_files.keys())
            if old_files.get(n) != new_files.get(n)
        ),
        tuple(
            _diff(n, old_dirs.get(n), new_dirs.get(n))
            for n in sorted(old_dirs.keys() | new_dirs.keys())
            if old_dirs.get(n) != new_dirs.get(n)
        ),
    )


def _paths(tree, prefix: str = "") -> dict[tuple[str, bool], str]:
    found = {}
    for name, entry in tree[1].items():
        if isinstance(entry, str):
            found[f"{prefix}{name}", False] = entry
        else:
            found[f"{prefix}{name}", True] = entry[0]
            found |= _paths(entry, f"{prefix}{name}/")
    return found


def _naive(old, new) -> set[tuple[str, Kind, bool]]:
    before, after = _paths(old), _paths(new)
    return {
        (path, Kind.ADDED if key not in before else Kind.CHANGED if key in after else Kind.REMOVED, is_dir)
        for key in before.keys() | after.keys()
        for path, is_dir in [key]
        if before.get(key) != after.get(key)
    }


@given(_roots, _roots)
def test_flatten_lists_what_differs(old, new):
    changes = list(treediff.flatten(_diff("", old, new)))
    assert {(c.path, c.kind, c.is_dir) for c in changes} == _naive(old, new)
    seen = set()
    for change in changes:
        parent = change.path.rpartition("/")[0]
        assert not change.is_dir or (change.path, True) not in seen
        if parent and (parent, True) in {(c.path, c.is_dir) for c in changes}:
            assert (parent, True) in seen  # parents come first
        seen.add((change.path, change.is_dir))


@given(
    _roots,
    _roots,
    st.sampled_from(["a", "a/b", "a/b/c"]),
    st.frozensets(st.sampled_from(list(Kind)), min_size=1),
)
def test_without_drops_kinds_below_a_path_alone(old, new, top: str, kinds: frozenset[Kind]):
    diff = _diff("", old, new)
    all_changes = _naive(old, new)

    def below(path: str) -> bool:
        return path == top or path.startswith(f"{top}/")

    dropped = {c for c in all_changes if below(c[0]) and c[1] in kinds and not (c[0] == top and not c[2])}
    left = {(c.path, c.kind, c.is_dir) for c in treediff.flatten(treediff.without(diff, top, kinds))}
    # A directory that was to go stays when something in it does.
    ways = {c for c in all_changes if c[1] is Kind.REMOVED and c[2] and top.startswith(f"{c[0]}/")}
    saved = {c for c in ways if any(d[1] is Kind.REMOVED for d in dropped)}
    assert left == all_changes - dropped - saved


def test_modules_survive_the_removal_of_all_modules():
    gone = _diff("", ("m", {"lib": ("m", {"modules": ("m", {"6.1": ("m", {"x": "f"}), "6.0": ("m", {})})})}),
                 ("m", {"lib": ("m", {"new": "f"})}))  # fmt: skip
    kept = treediff.without(gone, "lib/modules/6.1", frozenset({Kind.REMOVED, Kind.CHANGED}))
    paths = {(c.path, c.kind) for c in treediff.flatten(kept)}
    assert paths == {("lib/new", Kind.ADDED), ("lib/modules/6.0", Kind.REMOVED)}


# --- origins

_words = st.text("abz09.+-~:", min_size=1, max_size=8)
_locals = st.builds(
    LocalPackage, st.text("0123456789abcdef", min_size=64, max_size=64), _words, _words, _words
)
_values = st.text("ab Z09:/._-", max_size=12).map(str.strip)
_rest = st.dictionaries(
    st.sampled_from(["override", "overrides", "libostree-transient"]),
    st.dictionaries(st.text("abZ-", min_size=1, max_size=6), _values, max_size=3).map(
        lambda d: tuple(d.items())
    ),
).map(lambda d: tuple(d.items()))
_origins = st.builds(
    Origin,
    refspec=st.sampled_from(["", "debian/13", "origin:debian/13/amd64", "a:b/c"]),
    requested=st.lists(_words, unique=True).map(lambda w: tuple(sorted(w))),
    local=st.lists(_locals, max_size=2).map(tuple),
    upgraded=st.booleans(),
    rest=_rest,
)


@given(_origins)
def test_origin_round_trip(origin: Origin):
    text = format_origin(origin)
    assert parse_origin(text) == origin
    assert format_origin(parse_origin(text)) == text
    assert ("baserefspec" in text) == origin.layered


# --- mountinfo

_LINE = "{id} {parent} 254:0 /root {target} rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro"


def _mounts(*rows: tuple[int, int, str]) -> tuple[mountinfo.MountPoint, ...]:
    return mountinfo.parse("\n".join(_LINE.format(id=i, parent=p, target=t) for i, p, t in rows) + "\n")


def test_mountinfo_fields():
    text = (
        "36 35 98:0 /mnt1\\040x /mnt2\\011y rw,noatime master:1 - ext3 /dev/root\\134z rw,errors=continue\n"
        "37 35 0:1 / /a rw - tmpfs none rw\n"
    )
    first, second = mountinfo.parse(text)
    assert (first.mount_id, first.parent_id, first.root, first.target) == (36, 35, "/mnt1 x", "/mnt2\ty")
    assert (first.fstype, first.source, first.super_options) == ("ext3", "/dev/root\\z", "rw,errors=continue")
    assert (second.fstype, second.options, second.super_options) == ("tmpfs", "rw", "rw")


@given(
    st.permutations([(10, 1, "/usr"), (20, 10, "/usr"), (15, 20, "/usr"), (1, 0, "/"), (30, 1, "/usr/local")])
)
def test_a_stack_follows_parents_whatever_the_order(rows: list[tuple[int, int, str]]):
    stack = mountinfo.stack_at(_mounts(*rows), "/usr")
    assert [entry.mount_id for entry in stack] == [10, 20, 15]


def test_only_mounts_on_the_visible_usr_are_below_it():
    rows = ((1, 0, "/"), (10, 1, "/usr"), (11, 10, "/usr/covered"), (20, 10, "/usr"), (21, 20, "/usr/share"),
            (22, 21, "/usr/share/deep"), (23, 1, "/usrx"), (24, 21, "/usr/share"))  # fmt: skip
    assert [entry.mount_id for entry in mountinfo.below(_mounts(*rows), "/usr")] == [21]
    assert mountinfo.stack_at(_mounts(*rows), "/nothing") == ()
    assert mountinfo.below(_mounts(*rows), "/nothing") == ()


# --- accounts

_users = st.sampled_from(["root", "daemon", "joe", "jane", "fx", "sshd", "_apt"])
_files = st.dictionaries(_users, st.integers(0, 99999), max_size=6).map(
    lambda d: "".join(f"{name}:x:{number}:\n" for name, number in d.items())
)


def _names(text: str) -> set[str]:
    return {line.partition(":")[0] for line in text.splitlines()}


@given(st.sampled_from(accounts.FILES), _files, _files, _files)
def test_seed_and_harvest(name: str, tree: str, host: str, added: str):
    seeded = seeding.seed(name, tree, host)
    assert seeded.startswith(tree)
    assert _names(seeded) == _names(tree) | _names(host)
    fresh = "".join(
        line for line in added.splitlines(keepends=True) if line.partition(":")[0] not in _names(seeded)
    )
    result = seeding.harvest(tree, seeded, seeded + fresh)
    assert result == tree + fresh  # names of the host alone never survive, those of the tree always do
    if name in seeding.LOCKED:
        secrets = {line for line in host.splitlines() if line.partition(":")[0] not in _names(tree)}
        assert all(line.partition(":")[2] == seeding.LOCKED[name] for line in seeded.splitlines()
                   if line.partition(":")[0] in {s.partition(":")[0] for s in secrets})  # fmt: skip


@given(_files, _files, _files)
def test_undoing_added_accounts_keeps_all_others(before: str, change: str, own: str):
    known = _names(before)
    after = before + "".join(x for x in change.splitlines(keepends=True) if x.partition(":")[0] not in known)
    current = after + "".join(
        line for line in own.splitlines(keepends=True) if line.partition(":")[0] not in _names(after)
    )
    added = accounts.names(after) - accounts.names(before)
    left = accounts.without_names(current, added)
    assert left.startswith(before)
    assert _names(left) == _names(current) - (_names(after) - known)
    assert accounts.without_names(left, added) == left
    assert not accounts.changed_since(current, before, after)


def test_an_added_account_that_was_changed_since_is_known():
    before, after = "root:*:1::::::\n", "root:*:1::::::\nweb:!*:::::::\n"
    assert accounts.changed_since(after, before, after) == frozenset()
    assert accounts.changed_since(before, before, after) == frozenset()  # an undo was here before
    assert accounts.changed_since("root:$y$new:2::::::\nweb:!*:::::::\n", before, after) == frozenset()
    assert accounts.changed_since("root:*:1::::::\nweb:$y$hash:3::::::\n", before, after) == {"web"}
