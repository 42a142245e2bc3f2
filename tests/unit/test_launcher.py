"""Runs are started, adopted, retried and stopped, shown with a program that behaves as a run does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from support import fake_runs
from support.fake_runs import events, make_job, write_run

from commands.experiments import run_missing
from launchers.display import TableDisplay, summary, table
from launchers.local import LocalLauncher, usable_cpus
from launchers.progress import RunProgress
from launchers.tasks import make_tasks, seconds_left
from reports.run_records import find_runs, read_run

LONG = {"t_max": 400}


def run_all(results: Path, *settings: dict, slots: int = 2, retries: int = 1) -> list:
    jobs = [make_job(results, seed, **one) for seed, one in enumerate(settings, start=1)]
    return run_missing(jobs, results, slots, retries, fake_runs.PROGRAM)


def named(results: Path, event: str) -> list[tuple[str, str]]:
    return [(seed, steps) for name, seed, steps in events(results) if name == event]


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@contextlib.contextmanager
def launcher(results: Path, slots: int, *settings: dict) -> Iterator[subprocess.Popen[str]]:
    """A launcher in a process of its own; whatever is left of it and its runs is killed at the end."""
    command = [sys.executable, fake_runs.__file__, "launch", str(results), str(slots), json.dumps(settings)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        for path in results.rglob("run.lock"):
            if read_run(path.parent).status == "RUNNING":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)


def finish(process: subprocess.Popen[str]) -> str:
    _, err = process.communicate(timeout=30)
    return err


def test_no_more_runs_than_slots_go_on_at_a_time(tmp_path: Path) -> None:
    tasks = run_all(tmp_path, *[{}] * 5, slots=2)
    assert [task.state for task in tasks] == ["done"] * 5
    running = most = 0
    for event, _, _ in events(tmp_path):
        running += {"start": 1, "end": -1}[event]
        most = max(most, running)
    assert most == 2


def test_finished_runs_are_not_repeated(tmp_path: Path) -> None:
    run_all(tmp_path, {}, {})
    tasks = run_all(tmp_path, {}, {}, {})
    assert [task.state for task in tasks] == ["done"] * 3
    assert sorted(named(tmp_path, "start")) == [("1", "0"), ("2", "0"), ("3", "0")]


def test_a_crashed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    tasks = run_all(tmp_path, {"behavior": "crashes_once"})
    assert [task.state for task in tasks] == ["done"]
    assert events(tmp_path) == [["start", "1", "0"], ["crash", "1", "2"], ["resume", "1", "2"], ["end", "1", "4"]]


def test_a_run_that_crashes_again_and_again_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    tasks = run_all(tmp_path, {"behavior": "crashes"}, {}, slots=1, retries=2)
    assert [task.state for task in tasks] == ["failed", "done"]
    assert len(named(tmp_path, "crash")) == 3
    assert tasks[0].note.startswith("exit code 1")
    assert "the reason of the crash" in tasks[0].note


def test_a_mistake_of_the_user_is_not_retried(tmp_path: Path) -> None:
    tasks = run_all(tmp_path, {"behavior": "misconfigured"}, {}, retries=5)
    assert [task.state for task in tasks] == ["failed", "done"]
    assert len(named(tmp_path, "refused")) == 1
    assert "expected a number" in tasks[0].note


def test_an_interrupted_run_goes_on_and_a_broken_one_is_left_alone(tmp_path: Path, capsys) -> None:
    interrupted = write_run(tmp_path, 1, "INTERRUPTED", seed=1)
    (interrupted / "saved.json").write_text("3")
    broken = write_run(tmp_path, 2, "RUNNING", seed=2)
    (broken / "config.json").write_text("{")
    tasks = run_all(tmp_path, {}, {})
    assert [task.state for task in tasks] == ["done", "done"]
    assert named(tmp_path, "resume") == [("1", "3")]
    assert named(tmp_path, "start") == [("2", "0")]
    assert (broken / "config.json").read_text() == "{"
    assert f"{broken} is left alone" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_saves_all_runs_and_the_next_start_goes_on(tmp_path: Path, number: int, code: int) -> None:
    with launcher(tmp_path, 2, LONG, LONG, LONG) as process:
        wait_for(lambda: len(named(tmp_path, "start")) == 2)
        process.send_signal(number)
        err = finish(process)
    assert process.returncode == code
    assert "the same command goes on" in err
    saved = dict(named(tmp_path, "saved"))
    assert sorted(saved) == ["1", "2"]
    assert {record.status for record in find_runs(tmp_path)} == {"INTERRUPTED"}

    for path in tmp_path.rglob("saved.json"):
        path.write_text("398")
    tasks = run_all(tmp_path, LONG, LONG, {}, slots=3)
    assert [task.state for task in tasks] == ["done"] * 3
    assert sorted(seed for seed, _ in named(tmp_path, "resume")) == ["1", "2"]


def test_the_second_signal_kills_runs_that_do_not_stop(tmp_path: Path) -> None:
    stubborn = LONG | {"behavior": "stubborn"}
    with launcher(tmp_path, 2, stubborn, stubborn) as process:
        wait_for(lambda: len(named(tmp_path, "start")) == 2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        finish(process)
    assert process.returncode == 130
    assert {record.status for record in find_runs(tmp_path)} == {"DEAD"}


def test_runs_of_a_killed_launcher_are_adopted_not_started_twice(tmp_path: Path) -> None:
    slow = {"t_max": 40}
    with launcher(tmp_path, 2, slow, slow) as process:
        wait_for(lambda: len(named(tmp_path, "start")) == 2)
        process.kill()
        process.wait()
        tasks = run_all(tmp_path, slow, slow, {}, slots=2)
    assert [task.state for task in tasks] == ["done"] * 3
    assert [seed for seed, _ in named(tmp_path, "start")][2:] == ["3"]
    assert named(tmp_path, "resume") == []
    order = [(event, seed) for event, seed, _ in events(tmp_path)]
    # The adopted runs fill both slots.
    assert order.index(("start", "3")) > min(order.index(("end", "1")), order.index(("end", "2")))


def test_an_adopted_run_is_stopped_with_the_others(tmp_path: Path) -> None:
    with launcher(tmp_path, 1, LONG) as first:
        wait_for(lambda: named(tmp_path, "start"))
        first.kill()
        first.wait()
        with launcher(tmp_path, 2, LONG) as second:
            assert second.stderr is not None
            wait_for(lambda: "adopted: another process runs" in second.stderr.readline())
            second.send_signal(signal.SIGTERM)
            finish(second)
    assert second.returncode == 143
    assert len(named(tmp_path, "saved")) == 1


def test_an_adopted_run_that_dies_goes_on(tmp_path: Path) -> None:
    with launcher(tmp_path, 1, {"t_max": 60}) as process:
        wait_for(lambda: named(tmp_path, "start"))
        process.kill()
        process.wait()
        pid = json.loads(next(tmp_path.rglob("run.lock")).read_text())["pid"]
        with launcher(tmp_path, 1, {"t_max": 60}) as second:
            time.sleep(1.0)
            os.kill(pid, signal.SIGKILL)
            out, _ = second.communicate(timeout=30)
    assert json.loads(out) == ["done"]
    assert len(named(tmp_path, "resume")) == 1
    assert int(named(tmp_path, "resume")[0][1]) > 0


def test_a_second_launcher_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with launcher(tmp_path, 1, LONG) as first:
        wait_for(lambda: named(tmp_path, "start"))
        with launcher(tmp_path, 1, LONG) as second:
            err = finish(second)
        assert second.returncode == 2
        assert f"another launcher is at work in {tmp_path}: process {first.pid} on" in err
        assert first.poll() is None
    assert len(named(tmp_path, "start")) == 1


def test_a_run_that_someone_else_stops_stays_stopped(tmp_path: Path) -> None:
    with launcher(tmp_path, 1, LONG, {}) as process:
        wait_for(lambda: named(tmp_path, "start"))
        os.kill(json.loads(next(tmp_path.rglob("run.lock")).read_text())["pid"], signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert json.loads(out) == ["stopped", "done"]


def test_the_local_launcher_gives_a_process_one_thread_and_tells_its_signal(tmp_path: Path) -> None:
    local = LocalLauncher(1)
    log = tmp_path / "logs" / "a.log"
    script = (
        "import os; print(os.environ['OMP_NUM_THREADS'], os.getsid(0) == os.getpid(), flush=True); "
        "os.kill(os.getpid(), 9)"
    )
    handle = local.start([sys.executable, "-c", script], log)
    wait_for(lambda: local.poll(handle) is not None)
    assert local.poll(handle) == 137
    assert log.read_text().split() == ["1", "True"]
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


def test_progress_reads_only_what_was_appended(tmp_path: Path) -> None:
    folder = write_run(tmp_path, 1, "RUNNING", seed=1)
    metrics = folder / "metrics.jsonl"
    line = '{"key": "test_return_mean", "t": 10, "value": -2.5}\n'
    metrics.write_text(line + '{"key": "test_succ')
    progress = RunProgress(folder)
    progress.refresh()
    assert progress.shown == "return -2.5"
    # What was read is not read again: spoiling it changes nothing.
    metrics.write_text("x" * len(line) + '{"key": "test_success_mean", "t": 20, "value": 0.25}\n')
    progress.refresh()
    assert progress.shown == "success 0.25"
    # A resumed run cuts its file back.
    metrics.write_text('{"key": "test_success_mean", "t": 5, "value": null}\n')
    progress.refresh()
    assert progress.shown == "success nan"


def test_the_rate_is_that_of_the_heartbeats(tmp_path: Path) -> None:
    folder = write_run(tmp_path, 1, "RUNNING", seed=1)
    progress = RunProgress(folder)
    now = time.time()
    for beat, steps in enumerate((100, 300, 500), start=1):
        fake_runs.write(folder / "run.json", {"status": "RUNNING", "result": steps})
        os.utime(folder / "run.json", (now + 10 * beat, now + 10 * beat))
        progress.refresh()
    assert progress.env_steps == 500
    assert progress.rate == pytest.approx(20)


def test_the_time_left_counts_slots_and_known_rates(tmp_path: Path) -> None:
    write_run(tmp_path, 1, "COMPLETED", seed=1)  # 20 steps/s
    jobs = [make_job(tmp_path, seed) for seed in range(1, 6)]
    tasks = make_tasks(jobs, tmp_path, find_runs(tmp_path))
    # Four runs of 4 steps are left, 0.2 s each.
    assert seconds_left(tasks, 1) == pytest.approx(0.8)
    assert seconds_left(tasks, 2) == pytest.approx(0.4)
    assert seconds_left(tasks, 100) == pytest.approx(0.2)
    assert seconds_left(tasks[1:], 1) is None
    assert seconds_left(tasks[:1], 1) == 0
    assert summary(tasks, 2).startswith("1 of 5 done, 4 waiting, 20 % of the env steps")


def test_the_table_shows_runs_and_groups_them_where_the_terminal_is_low(tmp_path: Path) -> None:
    write_run(tmp_path, 1, "COMPLETED", seed=1)
    tasks = make_tasks([make_job(tmp_path, seed) for seed in range(1, 31)], tmp_path, find_runs(tmp_path))

    def drawn(height: int) -> str:
        console = Console(width=150, height=height, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        console.print(table(tasks, 2, height))
        return console.export_text()

    assert len(drawn(60).splitlines()) > 30
    low = drawn(24)
    assert len(low.splitlines()) < 8
    assert "30 seeds" in low
    assert "1 done, 29 waiting" in low
    assert "4 / 120" in low


def test_the_live_table_tells_failures_above_it(tmp_path: Path) -> None:
    with (tmp_path / "screen").open("w+") as screen:
        console = Console(file=screen, force_terminal=True, width=150, height=30)
        tasks = make_tasks([make_job(tmp_path, 1)], tmp_path, [])
        with TableDisplay(console, 1) as display:
            display.refresh(tasks)
            tasks[0].state, tasks[0].note = "failed", "exit code 1\nout of memory [x]"
            display.changed(tasks[0])
            display.refresh(tasks)
        screen.seek(0)
        text = screen.read()
    assert "fake_game_seed1 failed: exit code 1" in text
    assert "out of memory [x]" in text
