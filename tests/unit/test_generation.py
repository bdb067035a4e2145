"""The generation that a step back leads to."""

from __future__ import annotations

import pytest

from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.generation import target_generation


@pytest.mark.parametrize(
    ("first", "numbers", "asked", "target"),
    [
        (0, [4], None, 0),  # the one before the present is the booted tree
        (0, [4, 7], None, 4),
        (0, [4, 7], 4, 4),
        (0, [4, 7], 0, 0),
        (0, [4, 7], 7, 7),  # the present one is no step, but it is there
        (3, [3, 4], None, 3),  # the boot began with overlays
        (3, [3, 4, 9], 0, 3),
        (3, [3, 4, 9], 3, 3),
    ],
)
def test_target(first: int, numbers: list[int], asked: int | None, target: int):
    assert target_generation(first, numbers, asked) == target


@pytest.mark.parametrize(("first", "numbers"), [(0, []), (3, [3])])
@pytest.mark.parametrize("asked", [None, 0, 3])
def test_nothing_to_go_back_from(first: int, numbers: list[int], asked: int | None):
    with pytest.raises(Refused):
        target_generation(first, numbers, asked)


@pytest.mark.parametrize(("first", "numbers", "asked"), [(0, [4, 7], 5), (3, [3, 4], 2), (0, [4], -1)])
def test_no_such_generation(first: int, numbers: list[int], asked: int):
    with pytest.raises(UsageError) as caught:
        target_generation(first, numbers, asked)
    assert caught.value.hint and all(str(number) in caught.value.hint for number in numbers)
