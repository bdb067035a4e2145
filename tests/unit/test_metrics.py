"""The metrics: what they say of a system, and the rules of their text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from apt_ostree.cli import options
from apt_ostree.cli.commands.metrics import metrics as command
from apt_ostree.core import queries
from apt_ostree.model.history import Entry, Outcome
from apt_ostree.model.metrics import OUTCOMES, Metric, System, metrics_of, text_of
from apt_ostree.model.package import PackageChange, PackageDiff
from apt_ostree.model.status import AutomaticStatus, Live, Status
from apt_ostree.model.update import Update
from tests.unit import repos
from tests.unit.test_status import BASE, LAYERED, LIVE, booted, pending

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAME = "apt_ostree_[a-z_]*[a-z]"
LABEL = r'[a-z]+="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?[0-9.e+]+)")
DIFF = PackageDiff(changed=(PackageChange("dash", "amd64", "1", "2"),))
UPDATE = Update(
    against=BASE, osname="debian", origin="d:x", commit=LAYERED, version="2", timestamp=5, new_base=True,
    gpg_enabled=True, diff=DIFF,
)  # fmt: skip
AUTOMATIC = AutomaticStatus("apply", True, 100.5, "deferred", ("why",), 50.0, 2)
LIVELY = booted(live=Live(LIVE, 7, confirm_by=9.0, failed=("a.service",)))
FULL = Status((pending(), LIVELY), pending=True, update=UPDATE, automatic=AUTOMATIC)


def entry(number: int, outcome: Outcome) -> Entry:
    return Entry(number, "boot", "install", "root", 10.0 * number, BASE, LAYERED, outcome=outcome)


def samples(status: Status = FULL, **more) -> dict[str, float]:
    """Return the value of each sample by its name with labels."""
    text = text_of(metrics_of(System("1.2", status.to_json(), **more)))
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name.removeprefix("apt_ostree_"): float(value) for name, value in rows}


def test_what_a_busy_system_says():
    history = [entry(1, Outcome.FAILED), entry(2, Outcome.LIVE)]
    found = samples(lists_refreshed=77.25, history=history, overlays=[True, False, True])
    expected = {
        'info{version="1.2"}': 1,
        "deployments": 2,
        "deployments_failed": 0,
        "pending": 1,
        "live": 1,
        "live_generation": 7,
        "live_unconfirmed": 1,
        "live_failed_units": 1,
        "update_available": 1,
        'update_packages{change="upgraded"}': 1,
        'update_packages{change="added"}': 0,
        "package_lists_timestamp_seconds": 77.25,
        'automatic_info{policy="apply"}': 1,
        "automatic_timer_active": 1,
        "automatic_last_run_timestamp_seconds": 100.5,
        'automatic_outcome{outcome="deferred"}': 1,
        'automatic_outcome{outcome="failed"}': 0,
        "automatic_waiting_since_timestamp_seconds": 50,
        "automatic_failed_attempts": 2,
        'operations{outcome="failed"}': 1,
        'operations{outcome="live"}': 1,
        "last_operation_success": 1,
        "last_operation_timestamp_seconds": 20,
        'overlays{state="enabled"}': 2,
        'overlays{state="disabled"}': 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    states = [name for name in found if name.startswith("deployment_info")]
    assert len(states) == 2 and any(f'checksum="{LAYERED}"' in name for name in states)


def test_what_a_plain_system_says():
    found = samples(Status((booted(),)))
    assert (found["deployments"], found["pending"], found["live"], found["update_available"]) == (1, 0, 0, 0)
    assert found['automatic_info{policy="none"}'] == 1
    absent = ("automatic_timer", "operations", "overlays", "live_generation", "package_lists")
    assert not [name for name in found if name.startswith(absent)]


@pytest.mark.parametrize(
    ("outcome", "well"),
    [
        (Outcome.LIVE, 1), (Outcome.DONE, 1), (Outcome.ENDED, 1), (Outcome.FAILED, 0),
        (Outcome.INTERRUPTED, 0), (Outcome.UNCONFIRMED, 0), (Outcome.ROLLED_BACK, 0),
    ],
)  # fmt: skip
def test_the_last_operation(outcome, well):
    assert samples(history=[entry(1, Outcome.LIVE), entry(2, outcome)])["last_operation_success"] == well


def test_the_outcomes_are_those_of_a_run():
    run = (Path(repos.__file__).resolve().parents[2] / "src/apt_ostree/core/automatic.py").read_text()
    assert set(re.findall(r'outcome="([a-z]+)"', run)) | {"noted", "current"} == set(OUTCOMES)


def format_mistakes(text: str) -> list[str]:
    """Return the lines that break the rules of the format, and of its names (as promtool has them)."""
    wrong, declared, last = [], set(), ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# "):
            match = re.fullmatch(rf"# (HELP|TYPE) ({NAME}) (.+)", line)
            if not match or (match[1] == "HELP" and match[2] in declared):
                wrong.append(line)
                continue
            declared.add(match[2])
            last = match[2]
            continue
        match = SAMPLE.fullmatch(line)
        if not match or match[1] != last or re.search("_(total|count|sum|bucket)$", match[1]):
            wrong.append(line)
    return wrong


def test_the_text_keeps_the_rules_of_the_format():
    history = [entry(1, Outcome.FAILED)]
    text = text_of(metrics_of(System("1", FULL.to_json(), 1.5, history, [True])))
    assert format_mistakes(text) == []
    assert len(set(text.splitlines())) == len(text.splitlines())


@pytest.mark.parametrize(
    "text", ["a b\n", "# HELP apt_ostree_x text\napt_ostree_y 1\n", 'apt_ostree_x{a="\n"} 1\n']
)
def test_a_mistake_in_the_format_is_seen(text):
    assert format_mistakes(text)


def test_labels_and_help_are_escaped():
    metric = Metric("x", "one\ntwo \\", (({"a": 'q"\\\n'}, 0.5),))
    text = text_of([metric])
    assert text == (
        "# HELP apt_ostree_x one\\ntwo \\\\\n# TYPE apt_ostree_x gauge\n"
        'apt_ostree_x{a="q\\"\\\\\\n"} 0.5\n'
    )  # fmt: skip
    assert format_mistakes(text) == []


def test_a_metric_without_a_value_is_left_out():
    assert text_of([Metric("x", "text", ())]) == ""


# --- the command


def test_the_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(options, "as_a_whole", lambda _query: "apt_ostree_x 1\n")
    path = tmp_path / "apt-ostree.prom"
    path.write_text("older and longer than what comes\n")
    with path.open() as reader:
        assert CliRunner().invoke(command, ["--output", str(path)]).exit_code == 0
        assert reader.read().startswith("older")
    assert path.read_text() == "apt_ostree_x 1\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_printed_else(monkeypatch):
    monkeypatch.setattr(options, "as_a_whole", lambda _query: "apt_ostree_x 1\n")
    assert CliRunner().invoke(command, []).output == "apt_ostree_x 1\n"


def test_a_system_answers(system: repos.System):
    text = queries.answer_json("metrics", {})
    assert format_mistakes(text) == []
    assert "apt_ostree_deployments 1" in text.splitlines()


# --- the examples


def names_in(text: str) -> set[str]:
    return set(re.findall(r"apt_ostree_[a-z_]+[a-z]", text))


def all_names() -> set[str]:
    history = [entry(1, Outcome.FAILED)]
    uncompleted = replace(FULL, uncompleted=None)
    return names_in(text_of(metrics_of(System("1", uncompleted.to_json(), 1.5, history, [True]))))


@pytest.mark.parametrize("name", ["prometheus-alerts.yaml", "grafana-dashboard.json"])
def test_the_examples_use_metrics_that_there_are(name):
    used = names_in((EXAMPLES / "monitoring" / name).read_text())
    assert len(used) > 5
    assert used <= all_names()


def test_the_dashboard_is_one():
    dashboard = json.loads((EXAMPLES / "monitoring/grafana-dashboard.json").read_text())
    assert dashboard["title"] and dashboard["schemaVersion"] > 30
    assert all(panel["targets"][0]["expr"] for panel in dashboard["panels"])
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(set(places)) == len(places)
