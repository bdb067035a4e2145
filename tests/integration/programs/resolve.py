"""Resolves the goal on stdin, a JSON object, in SCRATCH; prints the plan, or why it is refused, as JSON.

APT_CONFIG names the configuration of the world, see apt_world.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from functools import partial
from pathlib import Path

import apt_pkg

apt_pkg.init_config()
apt_pkg.init_system()

from apt_ostree.errors import Refused  # noqa: E402  # importing the resolver needs the configuration
from apt_ostree.model.package import Package  # noqa: E402
from apt_ostree.model.policy_rules import decide, judge_packages, refuses_version  # noqa: E402
from apt_ostree.model.policy_settings import read_policy  # noqa: E402
from apt_ostree.model.settings import parse_settings  # noqa: E402
from apt_ostree.system.apt import offers, status  # noqa: E402
from apt_ostree.system.apt.resolver import PackageGoal, Resolver  # noqa: E402
from apt_ostree.system.apt.unreachable import leave_out, out_of_reach  # noqa: E402

TYPES = {
    **dict.fromkeys(("install", "pinned", "drop", "remove", "protected"), tuple),
    **dict.fromkeys(("requested", "yielding", "needed"), frozenset),
}

scratch, goal = Path(sys.argv[1]), json.load(sys.stdin)
unreachable, in_use = goal.pop("unreachable"), goal.pop("in_use")
adds = goal.pop("adds_recommended", None)
settings = parse_settings([("world", f"[Policy]\n{goal.pop('policy')}")])
policy = read_policy(settings.policy).at(datetime.now().astimezone())
present = status.installed(Path(apt_pkg.config.find_file("Dir::State::status")).read_bytes())
for key, kind in TYPES.items():
    goal[key] = kind(goal.get(key, ()))
try:
    resolver = Resolver(scratch, recommends=adds)
    left_out = leave_out(resolver, unreachable)
    lost = [p.label for p in out_of_reach(resolver, unreachable, [Package(*row, "amd64") for row in in_use])]
    held = offers.hold_back(resolver, partial(refuses_version, policy)) if policy.holds_back else ()
    plan = resolver.resolve(PackageGoal(**goal))
    reasons = judge_packages(policy, offers.incoming(resolver, plan, present))
    decision = decide(policy, (*held, *reasons), "").to_json()
    answer = {**plan.to_json(), "left_out": left_out, "out_of_reach": lost, "policy": decision}
except Refused as error:
    answer = {"refused": error.message, "details": list(error.details)}
print(json.dumps(answer))
