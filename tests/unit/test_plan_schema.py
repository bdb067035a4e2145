"""docs/live-plan.schema.json says what the classes of model/plan.py become as JSON, no more and no less."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model import events
from apt_ostree.model.history import Entry
from apt_ostree.model.package import Package, PackageChange, PackageDiff
from apt_ostree.model.plan import (
    EtcAction,
    EtcStep,
    Impact,
    LivePlan,
    RestartPolicy,
    UnitAction,
    UnitStep,
)
from apt_ostree.model.treediff import Kind
from apt_ostree.model.triggers import Trigger, TriggerStep

Json = dict[str, Any]
SCHEMA: Json = json.loads((Path(__file__).parents[2] / "docs/live-plan.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
OLD, NEW = "0" * 64, "f" * 64

#: What a plan has as JSON besides the fields of the class, and where the classes leave the keys open.
COMPUTED: Mapping[str, type] = {"impact": Impact}
FILES_KEYS = set(Kind)


def as_json(value: Any) -> Any:
    """Return what a reader of the JSON gets: lists for tuples, texts for enums."""
    return json.loads(json.dumps(value))


# --- the schema and the classes


def resolve(node: Json) -> Json:
    prefix = "#/$defs/"
    return SCHEMA["$defs"][node["$ref"].removeprefix(prefix)] if "$ref" in node else node


def compare(hint: Any, node: Json, where: str) -> None:
    """Compare a type of the code with the part of the schema that describes it."""
    node = resolve(node)
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        wanted: Json = {field.name: hints[field.name] for field in fields(hint)}
        wanted |= COMPUTED if hint is LivePlan else {}
        compare_object(node, set(wanted), where)
        for name, inner in wanted.items():
            compare(inner, node["properties"][name], f"{where}.{name}")
    elif isinstance(hint, type) and issubclass(hint, StrEnum):
        assert node["type"] == "string", where
        assert node["enum"] == [str(member) for member in hint], where
    elif typing.get_origin(hint) is tuple:
        inner, dots = typing.get_args(hint)
        assert dots is Ellipsis, where
        assert node["type"] == "array", where
        compare(inner, node["items"], f"{where}[]")
    elif typing.get_origin(hint) is Mapping:
        _, inner = typing.get_args(hint)
        assert where == "LivePlan.files", f"{where}: say here which keys it has"
        compare_object(node, FILES_KEYS, where)
        for name in FILES_KEYS:
            compare(inner, node["properties"][name], f"{where}.{name}")
    else:
        assert node["type"] == {str: "string", bool: "boolean", int: "integer"}[hint], where
        assert "enum" not in node, where


def compare_object(node: Json, names: set[str], where: str) -> None:
    assert node["type"] == "object", where
    assert set(node["properties"]) == names, where
    assert set(node["required"]) == names, where
    assert node["additionalProperties"] is False, where


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_it_has_the_fields_and_enums_of_the_code():
    compare(LivePlan, SCHEMA, "LivePlan")


def test_every_definition_is_used_and_every_property_described():
    text = json.dumps(SCHEMA)
    assert not [name for name in SCHEMA["$defs"] if f'"#/$defs/{name}"' not in text]
    objects = [SCHEMA, SCHEMA["properties"]["files"], *SCHEMA["$defs"].values()]
    named = [pair for node in objects for pair in node.get("properties", {}).items()]
    assert not [name for name, node in named if not node.get("description")]
    assert not [name for name, node in SCHEMA["$defs"].items() if not node.get("description")]


# --- plans and the schema

texts = st.text(min_size=1)
paths = st.text().map(lambda text: f"/{text}")
relative = st.text(min_size=1).filter(lambda text: not text.startswith("/"))
commits = st.text("0123456789abcdef", min_size=64, max_size=64)
packages = st.builds(Package)
diffs = st.builds(
    PackageDiff,
    st.lists(packages, max_size=2).map(tuple),
    st.lists(packages, max_size=2).map(tuple),
    st.lists(st.builds(PackageChange), max_size=2).map(tuple),
)
etc_steps = st.builds(EtcStep, relative, st.sampled_from(EtcAction), texts)
unit_steps = st.builds(
    UnitStep,
    unit=texts,
    action=st.sampled_from(UnitAction),
    reason=texts,
    evidence=st.lists(paths, max_size=2).map(tuple),
    processes=st.builds("{} {}".format, st.integers(min_value=1), st.text()).map(lambda label: (label,)),
    acts=st.booleans(),
    clients=st.integers(min_value=0),
)
trigger_steps = st.builds(
    TriggerStep,
    trigger=st.sampled_from(Trigger),
    reason=texts,
    files=st.lists(paths, max_size=2).map(tuple),
    names=st.lists(st.text(), max_size=2).map(tuple),
    gone=st.lists(st.text(), max_size=2).map(tuple),
)
plans = st.builds(
    LivePlan,
    source=commits,
    target=commits,
    packages=diffs,
    files=st.fixed_dictionaries({str(kind): st.integers(min_value=0) for kind in Kind}),
    etc=st.lists(etc_steps, max_size=3).map(tuple),
    units=st.lists(unit_steps, max_size=3).map(tuple),
    deferred=st.lists(texts, max_size=2).map(tuple),
    refusals=st.lists(texts, max_size=2).map(tuple),
    restart_services=st.sampled_from(RestartPolicy),
    health_checks=st.lists(paths, max_size=2).map(tuple),
    overlays=st.lists(st.text(), max_size=2).map(tuple),
    triggers=st.lists(trigger_steps, max_size=2).map(tuple),
)


@given(plans)
def test_any_plan_follows_it(plan: LivePlan):
    VALIDATOR.validate(as_json(plan.to_json()))


NOTHING = LivePlan(OLD, OLD, PackageDiff(), dict.fromkeys(map(str, Kind), 0), (), ())
UPGRADE = LivePlan(
    source=OLD,
    target=NEW,
    packages=PackageDiff(changed=(PackageChange("nginx", "amd64", "1.0-1", "1.0-2"),)),
    files={"added": 0, "removed": 1, "changed": 3},
    etc=(EtcStep("nginx/nginx.conf", EtcAction.KEEP, "the administrator edited it"),),
    units=(
        UnitStep(
            unit="nginx.service",
            action=UnitAction.RESTART,
            reason="it runs code that the change replaces",
            evidence=("/usr/sbin/nginx",),
            processes=("42 nginx", "43 nginx"),
            acts=False,
            clients=2,
        ),
    ),
    deferred=("kernel 6.12 waits for the reboot",),
    refusals=("packages would be changed: 1 (nginx)",),
    restart_services=RestartPolicy.NEEDED,
    health_checks=("/etc/apt-ostree/health.d/web",),
    overlays=("overlay system/web is not shown: its condition is not met",),
    triggers=(
        TriggerStep(Trigger.SYSCTL, "sets vm.swappiness", ("/etc/sysctl.d/vm.conf",), ("vm/swappiness",)),
    ),
)


@pytest.mark.parametrize("plan", [NOTHING, UPGRADE])
def test_wherever_a_plan_is_found(plan: LivePlan):
    shown = events.to_wire(events.PlanShown("live", plan.to_json()))
    recorded = Entry(1, "boot", "apply-live", "root", 0.0, plan.source, plan.target, plan.to_json())
    VALIDATOR.validate(as_json(shown["plan"]))
    VALIDATOR.validate(as_json(recorded.to_json()["plan"]))


@pytest.mark.parametrize("change", [
    {"more": 1},
    {"impact": "huge"},
    {"restart_services": True},
    {"source": "main"},
    {"refusals": [""]},
    {"health_checks": ["check"]},
    {"files": {"added": 0, "removed": 0}},
    {"etc": [{"path": "/etc/motd", "action": "write", "reason": "new"}]},
    {"units": [{"unit": "a.service", "action": "restart", "reason": "r", "evidence": [], "processes": []}]},
])  # fmt: skip
def test_what_is_no_plan_does_not_follow_it(change: Json):
    assert not VALIDATOR.is_valid(as_json(UPGRADE.to_json() | change))
