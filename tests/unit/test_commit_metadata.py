"""Metadata of a commit that a file of JSON gives: what is taken, and what is refused by its place."""

from __future__ import annotations

import json

import pytest

from apt_ostree.errors import UsageError
from apt_ostree.model import commit_metadata

#: That of rpm-ostree's own test.
GIVEN = """
{
  "exampleos.gitrepo": {
     "rev": "97ec21c614689e533d294cdae464df607b526ab9",
     "src": "https://gitlab.com/exampleos/custom-atomic-host"
  },
  "exampleos.tests": ["smoketested", "e2e"],
  "exampleos.number": -9223372036854775808, "exampleos.half": 0.5, "exampleos.yes": true,
  "version": "1", "empty": {}
}
"""


def test_an_object_is_taken_as_it_is():
    assert commit_metadata.parse(GIVEN, name="x") == json.loads(GIVEN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x is not JSON"),
        ("{'a': 1}", "x is not JSON"),
        ('["a"]', "x: expected an object"),
        ('{"a": null}', "x: a: null has no type"),
        ('{"a": [1, {"b": null}]}', r"x: a\[1\]\.b: null has no type"),
        ('{"a": 9223372036854775808}', "x: a: expected a whole number"),
        ('{"a": {"b": [-9223372036854775809]}}', r"x: a\.b\[0\]: expected a whole number"),
        ('{"a": NaN}', "x: a: expected a number that is finite"),
        ('{"a": 1e999}', "x: a: expected a number that is finite"),
        ('{"a": "\\u0000"}', "x: a: expected a text"),
        ('{"a": "\\ud800"}', "x: a: expected a text"),
        ('{"a\\u0000": 1}', "x: a.*: expected a text"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}", "values may be nested 32 deep"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "x is not JSON"),
        ('{"apt-ostree.inputs": "x"}', r"apt-ostree\.inputs: keys that begin with"),
        ('{"version": 5}', "x: version: expected a string"),
    ],
)
def test_what_no_commit_can_hold_is_refused_by_its_place(text, message):
    with pytest.raises(UsageError, match=message):
        commit_metadata.parse(text, name="x")
