"""Shows at boot what the last boot showed, by mounting the same directories again.

The shutdown prepares it (`overlays_at_boot.prepare`) where overlays alone make the difference to the booted
tree, and neither /etc nor systemd nor a cache has to learn of them. The boot waits for this, so that it does
without OSTree and without a plan. In all other cases `overlays_at_boot.show_overlays` does it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.errors import AptOstreeError
from apt_ostree.model.generation import Generation, Phase
from apt_ostree.model.history import Intent, Outcome
from apt_ostree.model.notes import Note
from apt_ostree.system import auditlog, mounts, statedb, usrview
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.running import boot_id
from apt_ostree.system.statedb import StateDb

_ROOT = Path("/")
#: Where a mount point can be made before the file systems are writable.
_SCRATCH = Path("/run")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the next boot can show.

    generation: the number of that which is shown now.
    lowers: the directories of its view, the topmost first; the last is the /usr of the booted deployment.
    """

    generation: int
    lowers: tuple[str, ...]

    def to_text(self) -> str:
        """Return it as the text of a note."""
        return json.dumps([self.generation, self.lowers])

    @classmethod
    def from_text(cls, text: str) -> Prepared:
        """Read the text of a note; ValueError or TypeError if it is none."""
        number, lowers = json.loads(text)
        return cls(int(number), tuple(map(str, lowers)))


def resumed() -> bool:
    """Show what the last boot showed, if it is prepared and nothing has changed since; return whether."""
    with statedb.opened(lambda: auditlog.highest_number() + 1) as records:
        text = records.note(Note.PREPARED)
        prepared = Prepared.from_text(text) if text else None
        shown = _shown(records, prepared) if prepared else None
        if not (prepared and shown):
            return False
        notes = {Note.TRYING: json.dumps({"boot": boot_id(), "failed": 0})}
        number = records.take_over(shown.id, Intent("boot", "root", shown.base, shown.target), notes)
        failpoint("resume.recorded")
        try:
            _show(number, prepared.lowers)
        except (AptOstreeError, OSError) as error:
            usrview.withdraw()
            records.end(number, Outcome.FAILED, str(error))
            records.remove(number)
            return False
        failpoint("resume.shown")
        prepared = Prepared(number, prepared.lowers)
        notes = {Note.BOOT: f"{number} {boot_id()}", Note.PREPARED: prepared.to_text()}
        records.keep_as_live(number, {}, notes)
        return True


def _shown(records: StateDb, prepared: Prepared) -> Generation | None:
    """Return the generation that was prepared, unless this boot begins differently."""
    if records.note(Note.TRYING) or records.removals():  # the last boot did not succeed, or /etc is to change
        return None
    generations = records.generations()
    if not generations or generations[-1].id != prepared.generation:
        return None
    # Changes of this boot: it is a soft reboot.
    if any(g.boot_id == boot_id() or g.phase is not Phase.LIVE for g in generations):
        return None
    if any(records.etc_records(g.id) or records.unit_records(g.id) for g in generations):
        return None
    return generations[-1] if _is_booted(prepared.lowers) else None


def _is_booted(lowers: Sequence[str]) -> bool:
    """Return whether the same deployment is booted, as OSTree finds out, and all directories are there."""
    deployment = Path(lowers[-1]).parent
    try:
        return os.path.samestat(deployment.stat(), _ROOT.stat()) and all(map(os.path.isdir, lowers))
    except OSError:
        return False


def _show(number: int, lowers: Sequence[str]) -> None:
    mounts.enter_private_namespace()
    scratch = _SCRATCH / f"apt-ostree-view-{number}"
    scratch.mkdir()
    try:
        usrview.show(number, tuple(map(Path, lowers)), scratch=scratch)
    finally:
        scratch.rmdir()
