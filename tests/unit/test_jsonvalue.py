"""JSON read into dataclasses: each type, strictly, and messages that lead to the place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import ClassVar

import pytest

from apt_ostree.errors import UsageError
from apt_ostree.model import jsonvalue


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    number: int
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.number == 13:
            raise ValueError("13 brings bad luck")


@dataclass(frozen=True)
class Outer:
    name: str
    flag: bool = False
    count: int = 0
    seconds: float = 1.0
    colour: Colour = Colour.RED
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    pair: tuple[int, str] = (0, "")
    rows: Mapping[str, int] = field(default_factory=dict)
    kind: ClassVar[str] = "not a field"


WHOLE = Outer(
    "x", True, 3, 2.5, Colour.BLUE, Inner(1, ("a",)), (Inner(2), Inner(3)), (4, "four"), {"five": 5}
)


def read(value: object) -> Outer:
    return jsonvalue.read(Outer, value, name="outer")


def test_every_type_is_read():
    assert read(asdict(WHOLE)) == WHOLE


def test_what_has_a_default_may_be_left_out():
    assert read({"name": "x"}) == Outer("x")
    assert read({"name": "x", "inner": None}).inner is None


def test_types_are_those_of_the_fields():
    found = read({"name": "x", "seconds": 2, "colour": "blue", "many": [{"number": 1}]})
    assert type(found.seconds) is float
    assert type(found.colour) is Colour
    assert type(found.many) is tuple
    assert type(found.many[0]) is Inner


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "outer: expected an object, got a list of 0"),
        (None, "outer: expected an object, got nothing"),
        ({}, "outer: the field 'name' is missing"),
        ({"name": "x", "kind": "y"}, "outer: unknown field 'kind'"),
        ({"name": "x", "b": 1, "a": 1}, "outer: unknown field 'a'"),
        ({"name": 1}, "outer: name: expected a string, got 1"),
        ({"name": "a\0b"}, "outer: name: expected a string, got 'a\\x00b'"),
        ({"name": "\udfff"}, "outer: name: expected a string, got '\\udfff'"),
        ({"name": "x", "flag": 0}, "outer: flag: expected true or false, got 0"),
        ({"name": "x", "count": True}, "outer: count: expected a whole number, got true"),
        ({"name": "x", "count": 1.0}, "outer: count: expected a whole number, got 1.0"),
        ({"name": "x", "seconds": False}, "outer: seconds: expected a number, got false"),
        ({"name": "x", "seconds": float("inf")}, "outer: seconds: expected a number, got inf"),
        ({"name": "x", "colour": "green"}, "outer: colour: expected one of red, blue, got 'green'"),
        ({"name": "x", "colour": ["red"]}, "outer: colour: expected one of red, blue, got a list of 1"),
        ({"name": "x", "inner": 1}, "outer: inner: expected an object, got 1"),
        ({"name": "x", "inner": {}}, "outer: inner: the field 'number' is missing"),
        ({"name": "x", "inner": {"number": 13}}, "outer: inner: 13 brings bad luck"),
        ({"name": "x", "many": {}}, "outer: many: expected a list, got an object"),
        ({"name": "x", "many": "ab"}, "outer: many: expected a list, got 'ab'"),
        (
            {"name": "x", "many": [{"number": 1}, {"number": "1"}]},
            "outer: many[1]: number: expected a whole number, got '1'",
        ),
        (
            {"name": "x", "inner": {"number": 1, "words": ["a", None]}},
            "outer: inner: words[1]: expected a string, got nothing",
        ),
        ({"name": "x", "pair": [1]}, "outer: pair: expected a list of 2, got a list of 1"),
        ({"name": "x", "pair": ["1", "2"]}, "outer: pair[0]: expected a whole number, got '1'"),
        ({"name": "x", "rows": [1]}, "outer: rows: expected an object, got a list of 1"),
        ({"name": "x", "rows": {"a b": None}}, "outer: rows['a b']: expected a whole number, got nothing"),
    ],
)
def test_a_message_leads_to_the_place(value, message):
    with pytest.raises(UsageError) as caught:
        read(value)
    assert caught.value.message == message


def test_an_unknown_field_gets_a_list_of_those_that_there_are():
    with pytest.raises(UsageError) as caught:
        read({"name": "x", "?": 1})
    assert caught.value.hint == (
        "fields: name, flag, count, seconds, colour, inner, many, pair, rows"
    )  # and not ClassVars


def test_a_long_value_is_cut():
    with pytest.raises(UsageError) as caught:
        read({"name": "x", "flag": "y" * 1000})
    assert len(caught.value.message) < 110
    assert caught.value.message.endswith("yyy...")


def test_a_list_of_another_size_than_expected_is_no_pair():
    with pytest.raises(UsageError, match="expected a list of 2, got a list of 3"):
        read({"name": "x", "pair": [1, "2", 3]})
