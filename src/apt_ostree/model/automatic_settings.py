"""The settings of automatic updates; `model.automatic` decides by them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from apt_ostree.model.plan import RestartPolicy

#: The setting of the policy; section and key are those of rpm-ostreed.conf(5).
POLICY_KEY = "AutomaticUpdatePolicy"


class Policy(StrEnum):
    """What is done without a request, each with all of the ones before."""

    NONE = "none"
    CHECK = "check"  # look for an update, and note it
    STAGE = "stage"  # make the next deployment of it
    APPLY = "apply"  # reboot into it
    LIVE = "live"  # or else apply it to the running system


@dataclass(frozen=True, slots=True)
class AutomaticSettings:
    """The settings [Automatic] of apt-ostree.conf(5). Spans are in seconds; 0 is none or no limit.

    restart_services: what a live change does with affected units.
    max_load: load of each processor, averaged over a minute.
    reboot_with_users, live_with_users: whether that is done while users are logged in.
    reboot_interval: least time between two boots.
    before_reboot, after_reboot, notify: command lines.
    max_defer: time after which an update that waits is not deferred any more.
    attempts, retry_pause: how often a failing update is tried, and how long the first pause is.
    phases: shares of all machines, from 0 to 1, each for phase_length.
    halt: URL of the file that halts updates.
    """

    on_metered: bool = False
    on_battery: bool = False
    max_load: float = 0.0
    restart_services: RestartPolicy = RestartPolicy.NEEDED
    reboot_with_users: bool = False
    live_with_users: bool = True
    reboot_interval: float = 0.0
    before_reboot: tuple[str, ...] = ()
    after_reboot: tuple[str, ...] = ()
    notify: tuple[str, ...] = ()
    motd: bool = True
    max_defer: float = 0.0
    attempts: int = 3
    retry_pause: float = 3600.0
    phases: tuple[float, ...] = ()
    phase_length: float = 86400.0
    halt: str = ""
