"""What a verb did, as its JSON object."""

from __future__ import annotations

import json

import pytest

from apt_ostree.model.result import Result


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (Result(changed=True), {"changed": True}),
        (Result(changed=False, live=False), {"changed": False, "live": False}),
        (Result(changed=True, live=True), {"changed": True, "live": True}),
        (Result(changed=True, next_boot=True), {"changed": True}),  # the end of the wire says that
        (Result(changed=True, details={"commit": "abc"}), {"changed": True, "commit": "abc"}),
    ],
)
def test_live_is_told_by_verbs_on_the_running_system_alone(result, told):
    assert result.to_json() == told
    assert json.loads(json.dumps(result.to_json())) == told


def test_details_cannot_say_something_else():
    result = Result(changed=True, live=False, details={"changed": False, "live": True, "more": 1})
    assert result.to_json() == {"changed": True, "live": False, "more": 1}
