"""Events survive the wire between the worker and its caller."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model import events

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=3)
any_event = st.one_of(
    st.builds(events.TaskBegin, st.text()),
    st.builds(events.TaskEnd, st.text(), st.text()),
    st.builds(events.Progress, st.text(), st.integers(min_value=0), st.integers(min_value=0)),
    st.builds(events.Message, st.text(), st.sampled_from(["info", "warning"])),
    st.builds(
        events.PlanShown, st.text(), st.dictionaries(st.text(), json_values, max_size=3), st.booleans()
    ),
)


@given(any_event)
def test_round_trip(event):
    line = json.dumps(events.to_wire(event))
    assert "\n" not in line
    assert events.from_wire(json.loads(line)) == event


def test_a_name_that_is_no_event():
    assert events.from_wire({"event": "end", "ok": True}) is None
    assert events.from_wire({}) is None


def test_task_announces_its_end_only_when_it_succeeds():
    seen = []
    with events.task(seen.append, "one"):
        pass
    with pytest.raises(OSError), events.task(seen.append, "two"):
        raise OSError
    assert seen == [events.TaskBegin("one"), events.TaskEnd("one"), events.TaskBegin("two")]
