"""Meters of containers: what they add up, what a reader takes from two readings, and their bounds."""

from __future__ import annotations

import pytest

from galaxy.accounting.meters import ENDED_KEPT_S, ENDED_MAX, PEAK_S, USED_MAX, ContainerMeters, progress
from galaxy.model.messages.agent import Meter

S_NS = 1_000_000_000


def test_memory_is_integrated_between_samples_and_cpu_comes_from_the_kernel() -> None:
    meters = ContainerMeters()
    meters.sample("web.0_1", cpu_ns=1 * S_NS, memory_bytes=100, began_s=0.0, now_s=10.0)
    meters.sample("web.0_1", cpu_ns=6 * S_NS, memory_bytes=300, began_s=0.0, now_s=20.0)
    meter = meters.readings(20.0)["web.0_1"]
    assert meter.cpu_ms == 6000
    assert meter.memory_byte_s == 100 * 10 + 200 * 10
    assert (meter.measured_s, meter.peak_cpu_milli, meter.peak_memory_bytes) == (20.0, 500, 300)


def test_container_that_ends_is_counted_to_its_end_and_sent_for_a_while() -> None:
    meters = ContainerMeters()
    meters.sample("web.0_1", cpu_ns=S_NS, memory_bytes=100, began_s=0.0, now_s=10.0)
    meters.end("web.0_1", cpu_ns=3 * S_NS, now_s=15.0)
    meters.end("web.0_1", cpu_ns=9 * S_NS, now_s=99.0)
    meters.sample("web.0_1", cpu_ns=9 * S_NS, memory_bytes=7, began_s=0.0, now_s=16.0)
    meters.end("short.0_1", cpu_ns=2 * S_NS, now_s=15.0)
    readings = meters.readings(20.0)
    assert readings["web.0_1"].cpu_ms == 3000
    assert readings["web.0_1"].memory_byte_s == 100 * 15
    assert readings["short.0_1"].cpu_ms == 2000
    assert meters.readings(15.0 + ENDED_KEPT_S + 1.0) == {}


def test_meters_of_ended_containers_are_bounded_and_the_newest_stay() -> None:
    meters = ContainerMeters()
    for number in range(ENDED_MAX + 10):
        meters.end(f"job.{number}_1", cpu_ns=1, now_s=float(number) / 1000)
    readings = meters.readings(2.0)
    assert len(readings) == ENDED_MAX
    assert "job.0_1" not in readings
    meters.keep_only(set(), 2.0)
    meters.sample("web.0_1", cpu_ns=1, memory_bytes=1, began_s=0.0, now_s=3.0)
    meters.keep_only(set(), 4.0)
    assert "web.0_1" not in meters.readings(4.0 + ENDED_KEPT_S + 1.0)


def test_peak_is_forgotten_after_some_minutes() -> None:
    meters = ContainerMeters()
    at_s = 0.0
    for memory in (900, *[100] * 60):
        at_s += 10.0
        meters.sample("web.0_1", cpu_ns=0, memory_bytes=memory, began_s=0.0, now_s=at_s)
        peak = meters.readings(at_s)["web.0_1"].peak_memory_bytes
        assert peak == 900 if at_s < PEAK_S else peak in (100, 900)
    assert meters.readings(at_s)["web.0_1"].peak_memory_bytes == 100


def test_difference_of_two_readings_bridges_those_between_that_were_lost() -> None:
    first = Meter(cpu_ms=1000, memory_byte_s=50.0, measured_s=10.0)
    last = Meter(cpu_ms=9000, memory_byte_s=950.0, measured_s=100.0)
    assert progress(first, last, same_boot=True, elapsed_s=60.0) == (8000.0, 900.0, 90.0)
    assert progress(None, last, same_boot=False, elapsed_s=60.0) == (9000.0, 950.0, 100.0)


def test_after_a_restart_of_the_agent_the_time_that_nobody_measured_counts_at_the_mean() -> None:
    before = Meter(cpu_ms=9000, memory_byte_s=950.0, measured_s=100.0)
    now = Meter(cpu_ms=9500, memory_byte_s=200.0, measured_s=20.0)
    assert progress(before, now, same_boot=False, elapsed_s=50.0) == (500.0, 200.0 + 10.0 * 30.0, 50.0)
    assert progress(before, Meter(cpu_ms=9000), same_boot=False, elapsed_s=50.0) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "wrong", [Meter(cpu_ms=-5, memory_byte_s=-1.0), Meter(cpu_ms=10**40, memory_byte_s=1e300)]
)
def test_reading_that_is_impossible_is_limited(wrong: Meter) -> None:
    used = progress(Meter(cpu_ms=1, memory_byte_s=1.0), wrong, same_boot=True, elapsed_s=1.0)
    assert all(0.0 <= amount <= USED_MAX for amount in used)
