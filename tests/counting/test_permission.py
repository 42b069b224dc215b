"""Permission to read counters, from the contents of the kernel's files."""

import pytest

from flopray.flops.executed.permission import admin_only, counter_permission, in_user_namespace, may_profile

PARAMS = "EnableMSI: 1\nRmProfilingAdminOnly: {}\nRmNvswitchSomething: 0\n"
MACHINE = "         0          0 4294967295\n"
ROOTLESS = "         0       1000          1\n         1     100000      65536\n"


def status(bits):
    return f"Name:\tpython\nCapInh:\t0000000000000000\nCapEff:\t{bits:016x}\nCapBnd:\t000001ffffffffff\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PARAMS.format(1), True),
        (PARAMS.format(0), False),
        ("EnableMSI: 1\n", True),
        ("", True),
        ("NotRmProfilingAdminOnly: 0\n", True),
    ],
)
def test_the_driver_says_who_may(text, expected):
    assert admin_only(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (status(0x1FFFFFFFFFF), True),
        (status(1 << 21), True),
        (status(1 << 38), True),
        (status(0), False),
        # What Docker gives to root without --cap-add.
        (status(0xA80425FB), False),
        ("Name:\tpython\n", False),
        ("", False),
    ],
)
def test_capabilities_make_an_administrator(text, expected):
    assert may_profile(text) is expected


def test_root_of_a_rootless_container_is_told_from_the_machines():
    assert not in_user_namespace(MACHINE)
    assert in_user_namespace(ROOTLESS)
    assert not in_user_namespace("")


@pytest.fixture
def ask(tmp_path):
    def permission(params, status_text, uid_map=MACHINE):
        for name, text in (("params", params), ("status", status_text), ("uid_map", uid_map)):
            (tmp_path / name).write_text(text)
        return counter_permission(tmp_path / "params", tmp_path / "status", tmp_path / "uid_map")

    return permission


def test_anyone_may_where_the_driver_is_open(ask):
    assert ask(PARAMS.format(0), status(0)) == (True, None)


def test_an_administrator_may(ask):
    assert ask(PARAMS.format(1), status(1 << 38)) == (True, None)


@pytest.mark.parametrize(
    ("bits", "uid_map", "words"), [(0, MACHINE, "only administrators"), (1 << 21, ROOTLESS, "rootless")]
)
def test_who_may_not_hears_the_two_ways(ask, bits, uid_map, words):
    allowed, reason = ask(PARAMS.format(1), status(bits), uid_map)
    assert not allowed
    assert words in reason
    assert "--cap-add SYS_ADMIN" in reason
    assert "options nvidia NVreg_RestrictProfilingToAdminUsers=0" in reason
    assert "\n" not in reason


def test_without_a_driver_nobody_may(tmp_path):
    allowed, reason = counter_permission(tmp_path / "absent")
    assert not allowed
    assert "NVIDIA driver" in reason


def test_this_machine_gets_an_answer():
    allowed, reason = counter_permission()
    assert allowed == (reason is None)
