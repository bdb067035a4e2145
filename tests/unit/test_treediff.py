"""Differences of trees, against a model that lists paths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model import treediff
from apt_ostree.model.treediff import DirDiff, FileDiff, Kind

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
