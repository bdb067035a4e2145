"""Tells of a failure at once, and at the end how long each file took; Hypothesis has no time limits."""

import gc
import os
from collections import Counter
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings

# The machine's other work is no failure of ours; pytest's own limit ends what hangs.
settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("unhurried")


def pytest_collection_finish():
    gc.freeze()  # what was imported stays, so that no collection of garbage needs to look at it


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol():
    with mock.patch.dict(os.environ):  # verbs set variables for all that a worker starts from then on
        yield


class AtOnce:
    """Prints failures when they happen: a run that is ended from outside has no summary."""

    def __init__(self, terminal):
        self._terminal = terminal

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self._terminal.write_line(f"\n{report.nodeid} failed ({report.when}, {report.duration:.0f} s)")
            self._terminal.write_line(report.longreprtext)


def pytest_itemcollected(item):
    if item.get_closest_marker("variants") and any(item.callspec.indices.values()):
        item.add_marker("extended")


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if terminal := config.pluginmanager.get_plugin("terminalreporter"):
        config.pluginmanager.register(AtOnce(terminal))


def pytest_terminal_summary(terminalreporter):
    seconds, counts = Counter(), Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if (duration := getattr(report, "duration", None)) is not None:
                path = report.nodeid.partition("::")[0]
                seconds[path] += duration
                counts[path] += report.when == "call"
    if seconds:
        terminalreporter.section("time")
    for path, total in seconds.most_common(40):
        terminalreporter.write_line(f"{total:7.1f} s {counts[path]:5d} tests  {path}")
