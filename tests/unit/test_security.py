"""docs/security.md: the tests that it names exist, and services are as little exposed as it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`(\w+/\w+\.py)::(\w+)`", TEXT)))
EXPOSED = dict(re.findall(r"^\| `(apt-ostree[\w-]*\.service)` \| ([0-9.]+) \|", TEXT, re.MULTILINE))


def test_each_promise_has_a_test():
    section = TEXT.partition("## Promises\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| **")]
    assert len(rows) >= 12
    assert [row for row in rows if not re.search(r"`\w+/\w+\.py::\w+`", row)] == []


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_tests_exist(file: str, name: str):
    assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text()


def test_every_unit_is_in_the_table():
    units = {path.name for path in (ROOT / "data/systemd").glob("*.service")}
    table = TEXT.partition("## Services\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(apt-ostree[\w-]*\.service)`", table))
    named |= {f"apt-ostree{end}.service" for end in re.findall(r"`(-\w+)`", table)}
    assert units <= named


def test_exposure_of_services():
    assert float(EXPOSED["apt-ostreed.service"]) <= 4.0
    for unit, figure in EXPOSED.items():
        assert _is_below(unit, float(figure)), unit
        assert not _is_below(unit, 0.3), "systemd-analyze does not judge"


def _is_below(unit: str, figure: float) -> bool:
    threshold = f"--threshold={round(figure * 10)}"
    command = [
        "systemd-analyze",
        "security",
        "--offline=yes",
        "--no-pager",
        threshold,
        f"{ROOT}/data/systemd/{unit}",
    ]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
