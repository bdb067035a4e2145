"""The request of automatic updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from apt_ostree.model.automatic_settings import Policy
from apt_ostree.model.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomaticUpdate(Request):
    """Carry out the policy of automatic updates.

    policy: another one than the settings'; None is theirs.
    after_reboot: only run the administrator's command after a reboot that an automatic update has made.
    """

    verb: ClassVar[str] = "automatic-update"
    command: ClassVar[str] = "upgrade --trigger-automatic-update-policy"
    policy: Policy | None = None
    after_reboot: bool = False

    @property
    def is_for_users(self) -> bool:
        """A user can ask for it; after a reboot systemd does."""
        return not self.after_reboot
