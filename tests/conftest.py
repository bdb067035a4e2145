"""Reports, after a run, how long each kind of test took."""

from collections import Counter
from pathlib import Path


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
