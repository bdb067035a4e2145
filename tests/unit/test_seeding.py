"""The host's accounts in a build: there while it runs, gone afterwards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model import accounts, seeding

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
