"""Reports, after a run, how long each kind of test took; no example of Hypothesis has a time limit."""

import gc
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings

# The machine's other work is no failure of ours; pytest's own limit ends what hangs.
settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("unhurried")


def pytest_collection_finish():
    gc.freeze()  # what was imported stays, so that no collection of garbage needs to look at it


def pytest_terminal_summary(terminalreporter):
    tests_dir = Path(__file__).parent.name
    seconds, counts = Counter(), Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            path, duration = getattr(report, "nodeid", ""), getattr(report, "duration", None)
            parts = Path(path.partition("::")[0]).parts
            if duration is None or len(parts) < 2 or parts[0] != tests_dir:
                continue
            seconds[parts[1]] += duration
            counts[parts[1]] += report.when == "call"
    if seconds:
        terminalreporter.section("time")
    for kind, total in seconds.items():
        terminalreporter.write_line(f"{kind:12} {counts[kind]:5d} tests {total:8.1f} s")
