"""policy: the settings of the policy. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from apt_ostree.core.policing import times_of
from apt_ostree.model.policy_settings import read_policy
from apt_ostree.model.queries import PolicySettings
from apt_ostree.model.reach import Reach
from apt_ostree.system import settings


def policy_settings(_query: PolicySettings) -> Mapping[str, Any]:
    """Return the settings in effect, each with its file, and when their windows are open.

    Raises UsageError for a mistake in a setting.
    """
    policy = read_policy(settings.load().policy).at(datetime.now().astimezone())
    windows = policy.windows_for(Reach(applies=True, reboots=True))
    return {
        "settings": [asdict(setting) for setting in policy.settings],
        "windows": {rule: asdict(times_of(row)) for rule, row in windows.items()},
    }
