"""What only transactions need is loaded when something of it is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from apt_ostree.daemon import deferred

SOURCE = Path(deferred.__file__).parents[2]


def test_a_module_that_is_loaded_is_itself():
    assert deferred._module("apt_ostree.errors") is sys.modules["apt_ostree.errors"]


def test_a_module_that_does_not_exist():
    with pytest.raises(ModuleNotFoundError, match="no module"):
        deferred._module("apt_ostree.model.nothing")


def test_the_service_starts_without_what_requests_need():
    script = (
        "import sys\nimport apt_ostree.daemon.service\n"
        "from apt_ostree.daemon.sysroot import calls\nfrom apt_ostree import model\n"
        "assert 'apt_ostree.model.requests.packages' not in sys.modules\n"
        "assert calls.upgrade({}).verb == 'upgrade' and model.calls is calls\n"
        "from apt_ostree.model.calls import upgrade\nassert upgrade is calls.upgrade\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(SOURCE)})
