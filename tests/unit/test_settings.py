"""The administrator's settings, and sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.errors import UsageError
from apt_ostree.model.automatic_settings import AutomaticSettings, Policy
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.settings import Settings, parse_settings
from apt_ostree.model.sizes import read_size, show_size
from apt_ostree.model.unitrules import Need
from apt_ostree.model.verdict import BootPolicy


def test_later_files_win_and_keys_are_kept_apart():
    first = "[Live]\nSettleSeconds=5\nKeepGenerations=3\n[Units]\na.service=skip\nb.service=defer\n"
    second = (
        "[Units]\na.service=restart\n"
        "[Overlays]\nQuota=1.5M\nAllow=setuid 'world-writable'\nScanner=scan --all\nSignKey=me@example.com\n"
    )
    assert parse_settings([("one", first), ("two", second)]) == Settings(
        settle=5.0,
        keep_generations=3,
        units={"a.service": Need.RESTART, "b.service": Need.DEFER},
        overlay_quota=1_500_000,
        overlay_allow=("setuid", "world-writable"),
        overlay_scanner=("scan", "--all"),
        overlay_sign_key="me@example.com",
    )


def test_only_tasks_are_limited_by_default():
    assert parse_settings([]).limits == {"TasksMax": 2048}
    assert parse_settings([("one", "[Limits]\nCPUWeight=20\n")]).limits == {"TasksMax": 2048, "CPUWeight": 20}


def test_limits_are_properties_of_a_unit():
    first = "[Limits]\nMemoryMax=500M\nCPUQuota=150%\nCPUWeight=20\n"
    second = "[Limits]\nMemoryMax=1G\nIOWeight=10000\nTasksMax=64\nMemoryHigh=400M\n"
    assert parse_settings([("one", first), ("two", second)]).limits == {
        "MemoryMax": 10**9,
        "MemoryHigh": 400 * 10**6,
        "CPUQuotaPerSecUSec": 1_500_000,
        "CPUWeight": 20,
        "IOWeight": 10_000,
        "TasksMax": 64,
    }


def test_how_long_a_registry_may_send_nothing():
    assert parse_settings([]).stall_timeout == 300
    assert parse_settings([("one", "[Images]\nStallTimeout=30\n")]).stall_timeout == 30
    with pytest.raises(UsageError, match="StallTimeout"):
        parse_settings([("one", "[Images]\nStallTimeout=0\n")])


@pytest.mark.parametrize(("text", "days"), [("90d", 90), ("2 weeks", 14), ("1month", 30.44), ("10y", 3652.5)])
def test_how_long_records_are_kept(text, days):
    settings = parse_settings([("one", f"[History]\nKeep={text}\nMaxRecords=500\n")])
    assert (settings.history_keep, settings.history_records) == (days * 86400, 500)


def test_what_undoes_itself():
    assert parse_settings([]).boot_policy is BootPolicy.TELL
    found = parse_settings([("one", "[Rollback]\nBoot=rollback\nBootTimeout=5m\nLiveWatch=1h\n")])
    assert (found.boot_policy, found.boot_timeout, found.live_watch) == (BootPolicy.ROLLBACK, 300.0, 3600.0)
    assert parse_settings([("one", "[Rollback]\nLiveWatch=0\n")]).live_watch == 0.0


def test_automatic_updates():
    first = "[Daemon]\nAutomaticUpdatePolicy=apply\n[Automatic]\nPhases=10% 25.5% 100%\nMaxDefer=7d\n"
    second = (
        "[Automatic]\nMaxDefer=0\nOnMetered=yes\nMaxLoad=1.5\nRetryPause=1h30m\nAttempts=2\n"
        "BeforeReboot=lock 'a b'\nRestartServices=all\n"
    )
    found = parse_settings([("one", first), ("two", second)])
    assert found.automatic_policy is Policy.APPLY
    assert found.automatic == AutomaticSettings(
        phases=(0.1, 0.255, 1.0),
        max_defer=0.0,
        on_metered=True,
        max_load=1.5,
        retry_pause=5400.0,
        attempts=2,
        before_reboot=("lock", "a b"),
        restart_services=RestartPolicy.ALL,
    )
    assert parse_settings([]).automatic_policy is Policy.NONE


@pytest.mark.parametrize(
    "text",
    [
        "[Daemon]\nAutomaticUpdatePolicy=off",
        "[Daemon]\nAutomatic=check",
        "[Automatic]\nPhases=50% 10%",
        "[Automatic]\nPhases=10 50",
        "[Automatic]\nPhases=110%",
        "[Automatic]\nMaxDefer=soon",
        "[Automatic]\nRetryPause=0",
        "[Automatic]\nAttempts=0",
        "[Automatic]\nMaxLoad=-1",
        "[Automatic]\nOnBattery=maybe",
        "[Rollback]\nBoot=always",
        "[Rollback]\nBootTimeout=0",
        "[Rollback]\nLiveWatch=soon",
        "[Limits]\nMemoryMax=0",
        "[Limits]\nMemory=1G",
        "[Limits]\nCPUQuota=50",
        "[Limits]\nCPUQuota=-5%",
        "[Limits]\nCPUWeight=0",
        "[Limits]\nIOWeight=10001",
        "[Limits]\nTasksMax=many",
        "[Live]\nSettleSeconds=soon",
        "[Live]\nSettleSeconds=0",
        "[Live]\nSettleSeconds=inf",
        "[Live]\nKeepGenerations=0",
        "[History]\nKeep=5",
        "[History]\nKeep=0d",
        "[History]\nKeep=1h",
        "[History]\nMaxRecords=0",
        "[Live]\nKeepGenerations=2.5",
        "[Live]\nsettleseconds=5",
        "[Nothing]\nKey=1",
        "[Overlays]\nQuota=much",
        "[Overlays]\nScanner='",
        "[Units]\na=skip",
        "[Units]\na.service=stop",
        "Key=1",
    ],
)
def test_mistakes_name_the_file(text: str):
    with pytest.raises(UsageError, match=r"drop-in\.conf"):
        parse_settings([("drop-in.conf", text)])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("500", 500),
        ("500k", 500_000),
        ("1.001K", 1001),
        ("4.1M", 4_100_000),
        ("2GB", 2 * 10**9),
        ("1" + "0" * 400, 10**400),
    ],
    ids=range(7),
)
def test_sizes(text: str, size: int):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1e3", "k", "1 k", "1kk", "0x10", "nan"])
def test_no_sizes(text: str):
    with pytest.raises(ValueError, match="is not a size"):
        read_size(text)


@given(st.integers(0, 10**15))
def test_what_is_shown_can_be_read(size: int):
    assert read_size(show_size(size).replace(" ", "")) == pytest.approx(size, rel=0.05, abs=0)
