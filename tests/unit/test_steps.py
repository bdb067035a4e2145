"""Steps: taken in their order, and taken back from the last one begun."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apt_ostree.core.steps import Step, take
from apt_ostree.errors import Cancelled, ExternalFailure, Incomplete, Refused


class Story:
    """Steps that remember what was done; some fail, and some cannot be taken back."""

    def __init__(self, failures: dict[str, BaseException], stuck: dict[str, Exception] | None = None) -> None:
        self.failures, self.stuck = failures, stuck or {}
        self.done: list[str] = []
        self.reasons: list[BaseException] = []

    def step(self, name: str) -> Step:
        def run() -> None:
            self.done.append(name)
            if name in self.failures:
                raise self.failures[name]

        def undo(failure: BaseException) -> None:
            self.done.append(f"-{name}")
            self.reasons.append(failure)
            if name in self.stuck:
                raise self.stuck[name]

        return Step(name, run, undo)

    def take(self, names: str) -> None:
        take(map(self.step, names))


def test_steps_are_taken_in_order():
    story = Story({})
    story.take("abc")
    assert story.done == [*"abc"]


def test_what_was_begun_is_taken_back_the_last_first():
    failure = Refused("no")
    story = Story({"b": failure})
    with pytest.raises(Refused) as caught:
        story.take("abc")
    assert caught.value is failure
    assert story.done == ["a", "b", "-b", "-a"]
    assert story.reasons == [failure, failure]


@pytest.mark.parametrize("failure", [Cancelled("stop"), KeyboardInterrupt(), SystemExit(3), KeyError("bug")])
def test_whatever_ends_a_step_is_raised_when_all_is_back(failure):
    story = Story({"c": failure})
    with pytest.raises(type(failure)) as caught:
        story.take("abc")
    assert caught.value is failure
    assert story.done[-1] == "-a"


def test_an_error_of_the_system_is_explained():
    story = Story({"b": OSError(errno.ENOSPC, "No space left on device", "/x")})
    with pytest.raises(ExternalFailure, match=r"^the change failed and was undone: No space left") as caught:
        story.take("ab")
    assert "/x" in caught.value.details[0]
    assert isinstance(caught.value.__cause__, OSError)


def test_one_that_cannot_be_taken_back_does_not_keep_the_others():
    failure = Refused("no")
    story = Story({"c": failure}, {"b": OSError(errno.EIO, "I/O error"), "a": KeyError("later")})
    with pytest.raises(Incomplete, match=r"could not be undone completely: .*I/O error") as caught:
        story.take("abc")
    assert story.done == ["a", "b", "c", "-c", "-b", "-a"]
    assert "(no)" in caught.value.message
    assert "apt-ostree recover" in str(caught.value.hint)
    assert caught.value.__cause__ is failure


def test_what_an_undo_says_is_left_is_told():
    trouble = Incomplete("two units do not run", details=["log"], hint="look", internals=["command"])
    story = Story({"b": Refused("no")}, {"a": trouble})
    with pytest.raises(Incomplete) as caught:
        story.take("ab")
    told = caught.value
    assert told.message == "the change failed (no); two units do not run"
    assert (told.details, told.hint, told.internals) == (("log",), "look", ("command",))


def test_a_step_needs_no_undo():
    story = Story({"b": Refused("no")})
    with pytest.raises(Refused):
        take([Step("first", lambda: story.done.append("first")), story.step("b")])
    assert story.done == ["first", "b", "-b"]


def test_steps_may_be_made_while_they_are_taken():
    story = Story({})

    def steps():
        yield story.step("a")
        assert story.done == ["a"]
        yield story.step("b")
        raise Refused("there is no third")

    with pytest.raises(Refused, match="no third"):
        take(steps())
    assert story.done == ["a", "b", "-b", "-a"]


@given(st.integers(0, 6), st.integers(0, 6), st.sets(st.integers(0, 6)))
@settings(max_examples=40)
def test_after_a_failure_each_step_that_was_begun_is_taken_back_once(count, failing, stuck):
    names = "abcdefg"[:count]
    story = Story({"abcdefg"[failing]: Refused("no")}, {"abcdefg"[i]: KeyError(i) for i in stuck})
    try:
        story.take(names)
    except (Refused, Incomplete) as error:
        begun = names[: failing + 1]
        assert story.done == [*begun, *(f"-{name}" for name in reversed(begun))]
        assert isinstance(error, Incomplete) == any(i <= failing for i in stuck)
    else:
        assert failing >= count
        assert story.done == [*names]
