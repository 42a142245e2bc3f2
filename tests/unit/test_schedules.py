"""Linear schedules and the counted rhythm of updates."""

from __future__ import annotations

import pytest

from components.schedules import UpdateSchedule, linear


@pytest.mark.parametrize(("fraction", "value"), [(-1.0, 1.0), (0.0, 1.0), (0.25, 0.8), (1.0, 0.2), (7.0, 0.2)])
def test_linear_is_constant_outside(fraction: float, value: float) -> None:
    assert linear(1.0, 0.2, fraction) == pytest.approx(value)


@pytest.mark.parametrize("per_call", [1, 3, 8, 17, 100])
@pytest.mark.parametrize("per_update", [0.5, 1.0, 3.0, 7.3, 40.0])
def test_updates_per_experience_do_not_depend_on_the_number_of_environments(per_call: int, per_update: float) -> None:
    schedule = UpdateSchedule(per_update)
    done = 0
    for call in range(1, 501):
        done += schedule.due(call * per_call, ready=True)
        assert done == int(call * per_call / per_update + 1e-6)


@pytest.mark.parametrize("per_call", [1, 8, 50])
def test_no_burst_after_warm_up(per_call: int) -> None:
    schedule = UpdateSchedule(10.0)
    count, most = 0, -(-per_call // 10)
    for _ in range(100):
        count += per_call
        assert schedule.due(count, ready=False) == 0
    for _ in range(20):
        count += per_call
        assert schedule.due(count, ready=True) <= most


def test_a_call_without_new_experience_earns_nothing() -> None:
    schedule = UpdateSchedule(4)
    assert schedule.due(8, ready=True) == 2
    assert schedule.due(8, ready=True) == 0


def test_a_restored_schedule_goes_on_alike() -> None:
    schedule, other = UpdateSchedule(7.0), UpdateSchedule(7.0)
    schedule.due(5, ready=False)
    schedule.due(16, ready=True)
    other.load_state_dict(schedule.state_dict())
    assert [other.due(n, ready=True) for n in range(17, 60, 3)] == [
        schedule.due(n, ready=True) for n in range(17, 60, 3)
    ]
