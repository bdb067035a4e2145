"""Each query: read strictly from JSON, every mistake named; and each has a function that answers it."""

from __future__ import annotations

import inspect
import json
import random
from typing import get_type_hints

import pytest
from hypothesis import given, settings

from apt_ostree.core import queries
from apt_ostree.errors import UsageError
from apt_ostree.model.queries import QUERIES, read_query
from apt_ostree.model.requests import VERBS
from tests.unit import request_cases


@pytest.mark.parametrize("name", QUERIES)
def test_each_mistake_is_named_by_query_and_field(name):
    for label, value in request_cases.malformed(QUERIES[name]):
        with pytest.raises(UsageError) as caught:
            queries.answer_json(name, value)
        assert caught.value.message.startswith(f"{name}: "), value
        assert label in caught.value.message, value


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_is_an_object(name):
    for value in (None, True, 0, 1.5, "text", []):
        with pytest.raises(UsageError, match=f"^{name}: expected an object, got "):
            queries.answer_json(name, value)


@pytest.mark.parametrize("name", [None, "", "no-such-query", "install", 1, ["status"], {"status": 1}])
def test_a_query_that_is_none_is_named(name):
    with pytest.raises(UsageError) as caught:
        queries.answer_json(name, {})
    assert caught.value.message == f"there is no query {name!r}"
    assert "status" in str(caught.value.hint)


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_survives_the_wire(name):
    @settings(max_examples=15)
    @given(request_cases.instances(QUERIES[name]))
    def survives(query):
        assert read_query(name, json.loads(json.dumps(query.to_json()))) == query
        assert query.title == name

    survives()


def test_anything_at_all_is_a_query_or_a_usage_error():
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for number in range(2000):
        name = rng.choice([*QUERIES, *request_cases.NAMES])
        value = request_cases.anything(rng)
        if isinstance(name, str) and name in QUERIES and number % 2:
            value = request_cases.spoiled(rng, request_cases.smallest(QUERIES[name]))
        try:
            assert isinstance(read_query(name, value), QUERIES[name])
        except UsageError:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}: {name!r} {value!r}") from error


def test_no_name_is_a_verb_and_a_query():
    assert not QUERIES.keys() & VERBS.keys()


def test_each_query_has_an_answer():
    assert queries.QUERIES.keys() == QUERIES.keys()


@pytest.mark.parametrize("name", QUERIES)
def test_a_function_takes_the_query_that_it_answers(name):
    function = queries.function_of(name)
    (parameter,) = inspect.signature(function).parameters
    assert get_type_hints(function)[parameter] is QUERIES[name]


class _Row:
    def to_json(self):
        return {"a": 1}


@pytest.mark.parametrize(
    ("value", "told"),
    [({"a": 1}, {"a": 1}), (_Row(), {"a": 1}), ((_Row(), _Row()), [{"a": 1}, {"a": 1}]), (["x"], ["x"])],
)
def test_an_answer_is_given_as_json(monkeypatch, value, told):
    from apt_ostree.core import archives

    asked = []
    monkeypatch.setattr(archives, "search", lambda query: asked.append(query) or value)
    assert queries.answer_json("search", {"terms": ["x"]}) == told
    assert asked == [read_query("search", {"terms": ["x"]})]


def test_another_system_is_for_the_command_line_only():
    with pytest.raises(UsageError, match="status: only the command line"):
        queries.answer_json("status", {"sysroot": "/srv/other"})
