"""What an experiment set may say, which runs it means, and which runs on disk are already theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

import main as main_module
from commands import experiments
from commands.experiments import listing, main
from components.command_line import parse
from components.config import load_config
from components.errors import UserError
from launchers.experiment_set import SETS, find_set, list_sets, read_set
from launchers.jobs import Job, make_jobs, result_key
from launchers.tasks import Task, make_tasks
from reports.run_records import find_runs
from utils.run_lock import RunLock
from utils.run_record import redact

SET = """
    description: a set
    algorithms: [qmix, vdn]
    environments: [two_step_game]
    seeds: 2
"""
SMOKE = SET + "    overrides: {t_max: 200, test_interval: 200, test_nepisode: 4, final_nepisode: 4, log_interval: 100}"
WriteSet = Callable[..., Path]


@pytest.fixture
def write_set(tmp_path: Path) -> WriteSet:
    """Writes a set's file; ``change`` replaces one part of the small set's text by another."""

    def write(text: str = SET, change: tuple[str, str] = ("", "")) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(dedent(text).strip().replace(*change) + "\n")
        return path

    return write


def jobs_of(path: Path, results: Path, *overrides: str) -> list[Job]:
    return make_jobs(read_set(path), results, overrides)


def faults_of(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        jobs_of(path, path.parent / "results", *overrides)
    return str(caught.value).replace(path.as_posix(), "small.yaml").splitlines()


def record(job: Job, number: int, status: str = "COMPLETED", **changed: object) -> Path:
    """What a run of this job would have left."""
    folder = job.folder / str(number)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(redact(job.values | changed)))
    (folder / "run.json").write_text(json.dumps({"status": status, "result": 7}))
    (folder / "run.lock").write_text(json.dumps({"pid": 1, "host": os.uname().nodename}))
    return folder


def tasks_of(jobs: list[Job], results: Path) -> list[Task]:
    return make_tasks(jobs, results, find_runs(results))


# The format.


def test_a_set_is_algorithms_times_environments_times_seeds(write_set: WriteSet, tmp_path: Path) -> None:
    jobs = jobs_of(write_set(), tmp_path)
    assert [job.name for job in jobs] == [
        *("qmix_two_step_game_seed1", "vdn_two_step_game_seed1"),
        *("qmix_two_step_game_seed2", "vdn_two_step_game_seed2"),
    ]
    assert jobs_of(write_set(change=("seeds: 2", "seeds: [5, 0]")), tmp_path)[0].seed == 5


def test_named_algorithms_and_environments_override_options(write_set: WriteSet, tmp_path: Path) -> None:
    text = """
        algorithms:
          qmix: {config: qmix}
          qmix_wide:
            config: qmix
            overrides: {rnn_hidden_dim: 128, t_max: 3000, optimizer: adam}
        environments:
          small: {config: constrained_navigation, env_args: {n_agents: 4, capacities: [1, 1, 2]}}
          crowded:
            config: constrained_navigation
            overrides: {env_args: {agent_radius: 0.15}, test_nepisode: 7, t_max: 2000}
        seeds: 1
        overrides: {t_max: 1e3, test_nepisode: 5, env_args: {rewards: dense}}
    """
    jobs = {(job.algorithm, job.environment): job for job in jobs_of(write_set(text), tmp_path)}
    wide, plain = jobs["qmix_wide", "crowded"].values, jobs["qmix", "small"].values
    assert (wide["rnn_hidden_dim"], wide["t_max"], wide["test_nepisode"], wide["optimizer"]) == (128, 3000, 7, "adam")
    assert (plain["rnn_hidden_dim"], plain["t_max"], plain["test_nepisode"]) == (64, 1000, 5)
    assert (wide["env_args"]["agent_radius"], wide["env_args"]["rewards"]) == (0.15, "dense")
    assert (plain["env_args"]["n_agents"], plain["env_args"]["capacities"]) == (4, [1, 1, 2])
    # The labels keep the two apart in folders and tables; a plain algorithm needs none.
    assert (wide["label"], plain["label"]) == ("qmix_wide", "")
    assert jobs["qmix_wide", "crowded"].folder.name == "qmix_qmix_wide"


def test_a_grid_is_every_combination_of_its_values_and_names_them(write_set: WriteSet, tmp_path: Path) -> None:
    text = """
        algorithms:
          vdn: {config: vdn}
          qmix: {config: qmix, overrides: {gamma: 0.9}, grid: {lr: [5e-4, 1e-3], optimizer: [adam, rmsprop]}}
        environments: [two_step_game]
        seeds: 1
    """
    jobs = {job.algorithm: job.values for job in jobs_of(write_set(text), tmp_path)}
    assert list(jobs) == [
        "vdn",
        "qmix-lr_0.0005-optimizer_adam",
        "qmix-lr_0.0005-optimizer_rmsprop",
        "qmix-lr_0.001-optimizer_adam",
        "qmix-lr_0.001-optimizer_rmsprop",
    ]
    last = jobs["qmix-lr_0.001-optimizer_rmsprop"]
    assert (last["lr"], last["optimizer"], last["gamma"]) == (0.001, "rmsprop", 0.9)


def test_the_command_of_a_job_gives_the_configuration_that_is_expected(write_set: WriteSet, tmp_path: Path) -> None:
    text = """
        algorithms: {tuned: {config: qmix, overrides: {lr: 1e-5, gamma: 0.5, agent: "mlp", td_lambda: 0}}}
        environments: {game: {config: matrix_game, env_args: {payoff: [[1, 2.5], [-3, 0]]}}}
        seeds: [3]
        overrides: {checkpoint_path: "a b", use_tensorboard: true}
    """
    job = jobs_of(write_set(text), tmp_path / "my results", "batch_size=16", "checkpoint_path=c")[0]
    command = parse(job.arguments)
    assert load_config(command.config, command.env_config, command.overrides).values == job.values
    assert job.values["local_results_path"] == str(tmp_path / "my results")
    assert (job.values["seed"], job.values["batch_size"], job.values["checkpoint_path"]) == (3, 16, "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds: 2", "sedes: 2"), "small.yaml:4: unknown key 'sedes'; did you mean 'seeds'?"),
        (("seeds: 2", "sedes: 2"), "small.yaml: the key 'seeds' is missing"),
        (("seeds: 2", "seeds: 0"), "small.yaml:4: seeds: expected how many"),
        (("seeds: 2", "seeds: [1, true]"), "small.yaml:4: seeds: expected how many"),
        (("seeds: 2", "seeds: [1, 1]"), "small.yaml:4: seeds: names a seed twice"),
        (("seeds: 2", "seeds: 2\nseeds: 3"), "small.yaml:5: duplicate key 'seeds', already on line 4"),
        (("seeds: 2", "seeds: 2\njobs: 0"), "small.yaml:5: jobs: expected how many runs"),
        (("seeds: 2", "seeds: 2\noverrides: 3"), "small.yaml:5: overrides: expected a mapping"),
        (("seeds: 2", "seeds: 2\noverrides: {seed: 3}"), "small.yaml:5: overrides.seed: does not belong here: the key"),
        (("seeds: 2", "seeds: 2\nreport: {metrik: x}"), "small.yaml:5: unknown key 'report.metrik'; did you mean 'met"),
        (
            ("seeds: 2", "seeds: 2\nreport: {baseline: qmx}"),
            "baseline: 'qmx' is not among the algorithms; did you mean",
        ),
        (
            ("seeds: 2", "seeds: 2\nreport: {statistic: median}"),
            "small.yaml:5: report.statistic: unknown statistic 'med",
        ),
        (("[qmix, vdn]", "[qmix, qmix]"), "small.yaml:2: algorithms: names one twice"),
        (("[qmix, vdn]", "[]"), "small.yaml:2: algorithms: expected a list of names"),
        (
            ("[qmix, vdn]", "[qmix, vnd]"),
            "vnd on two_step_game: --config: unknown algorithm 'vnd'; did you mean 'vdn'?",
        ),
        (("[qmix, vdn]", "{a: {confg: qmix}}"), ":2: unknown key 'algorithms.a.confg'; did you mean 'config'?"),
        (("[qmix, vdn]", "{a/b: {config: qmix}}"), "small.yaml:2: algorithms.a/b: names folders"),
        (
            ("[qmix, vdn]", "{a: {confg: qmix}}"),
            "small.yaml:2: algorithms.a: expected a mapping such as {config: NAME}",
        ),
        (
            ("[qmix, vdn]", "{a: {config: qmix, env_args: {n: 1}}}"),
            "small.yaml:2: unknown key 'algorithms.a.env_args'. Known: config, grid, overrides",
        ),
        (
            ("[qmix, vdn]", "{a: {config: qmix, grid: {lr: 1e-3}}}"),
            "small.yaml:2: algorithms.a.grid: expected lists of different values, such as {lr: [5e-4, 1e-3]}",
        ),
        (("[qmix, vdn]", "{a: {config: qmix, grid: {lr: [1e-3, 1e-3]}}}"), "algorithms.a.grid: expected lists of diff"),
        (
            ("[qmix, vdn]", "{a: {config: qmix, overrides: {lr: 1}, grid:\n  {lr: [1e-3]}}}"),
            "small.yaml:3: algorithms.a.grid.lr: stands in overrides too",
        ),
        (("[qmix, vdn]", "{a: {config: qmix, grid: {agent: [a/b]}}}"), "'a-agent_a/b' is to name a folder: use short"),
        (
            ("[qmix, vdn]", "{a: {config: qmix, grid: {lr: [fast, 1e-3]}}}"),
            "a-lr_fast on two_step_game: lr = 'fast' (small.yaml:2): expected a number > 0, not a text",
        ),
        (
            ("[two_step_game]", "\n  m3: {config: navigation,\n       env_args: {n_agnts: 3}}"),
            "qmix on m3 and 1 more: env_args.n_agnts (small.yaml:5): unknown key; did you mean 'env_args.n_agents'?",
        ),
        (
            (
                "[two_step_game]",
                "{m: {config: navigation, env_args: {n_agents: 3}, overrides: {env_args: {n_agents: 4}}}}",
            ),
            "small.yaml:3: env_args.n_agents stands in overrides too",
        ),
        (
            ("seeds: 2", "seeds: 2\noverrides:\n  lr: fast"),
            "qmix on two_step_game and 1 more: lr = 'fast' (small.yaml:6): expected a number > 0, not a text",
        ),
        (
            ("seeds: 2", "seeds: 2\noverrides: {mixing_embed_dim: 8}"),
            "vdn on two_step_game: mixing_embed_dim (small.yaml:5) is not used: it belongs to mixer 'qmix'",
        ),
        (
            ("[qmix, vdn]", "{a: {config: qmix}, b: {config: qmix}}"),
            "small.yaml: a_two_step_game_seed1 and b_two_step_game_seed1 are the same run",
        ),
        (
            ("[two_step_game]", "{a: {config: two_step_game}, b: {config: two_step_game, overrides: {t_max: 9}}}"),
            "small.yaml: qmix_a_seed1 and qmix_b_seed1 (and 1 more pair) would stand in one cell of the tables",
        ),
    ],
)
def test_a_fault_is_told_with_its_line(write_set: WriteSet, change: tuple[str, str], message: str) -> None:
    assert any(message in line for line in faults_of(write_set(change=change)))


def test_all_faults_are_told_at_once_and_each_once(write_set: WriteSet) -> None:
    found = faults_of(write_set(change=("seeds: 2", "seeds: 9\noverrides: {lr: -1, batch_size: 0}")), "seed=3")
    assert len(found) == 3
    assert sum("lr = -1" in line for line in found) == sum("batch_size = 0" in line for line in found) == 1
    assert "'seed=3' (command line): the key 'seeds' of the set gives the seeds" in found


@pytest.mark.parametrize("second", ["{config: two_step_game, overrides: {t_max: 9}}", "{config: two_step_game}"])
def test_pairs_that_cannot_be_told_apart_are_one_line_whatever_their_number(write_set: WriteSet, second: str) -> None:
    path = write_set(change=("[two_step_game]", f"{{a: {{config: two_step_game}}, b: {second}}}"))
    assert len(faults_of(path)) == 1


def test_the_shipped_sets_are_valid(tmp_path: Path) -> None:
    sets = {path.stem: jobs_of(path, tmp_path) for path in SETS.glob("*.yaml")}
    assert {"smoke", "first_day"} <= sets.keys()
    first_day = sets["first_day"]
    assert {job.algorithm for job in first_day} == {"lpmarl", "qmix", "vdn"}
    assert {job.t_max for job in first_day} == {200_000}
    assert {(env["n_landmarks"], env["n_agents"]) for env in (job.values["env_args"] for job in first_day)} == {(3, 5)}
    assert len(first_day) == 9


def test_a_set_is_found_by_path_or_name_and_an_unknown_one_lists_those_there(
    write_set: WriteSet, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_set()
    assert find_set(str(path)) == path
    assert find_set("smoke") == find_set("smoke.yaml") == SETS / "smoke.yaml"
    with pytest.raises(UserError, match=r"no experiment set 'smok'; did you mean 'smoke'\?(.|\n)*first_day  +LPMARL"):
        find_set("smok")
    main([])
    assert capsys.readouterr().out.strip() == list_sets()
    assert list_sets(path.parent).splitlines() == [f"experiment sets in {path.parent.name}/:", f"  {'small':<16} a set"]


# Which runs are already there.


def test_a_finished_run_is_never_run_again(write_set: WriteSet, tmp_path: Path) -> None:
    jobs = jobs_of(write_set(), tmp_path / "results")
    record(jobs[0], 1, "INTERRUPTED")
    done = record(jobs[0], 2)
    record(jobs[0], 3, "FAILED")
    first, *others = tasks_of(jobs, tmp_path / "results")
    assert (first.planned, first.run) == ("done", done)
    assert {task.planned for task in others} == {"new"}


@pytest.mark.parametrize(
    "changed",
    [{"lr": 0.1}, {"t_max": 7}, {"seed": 9}, {"env_args": {"n": 1}}, {"test_interval": 1}, {"save_model": False}],
)
def test_a_changed_setting_means_a_new_run(write_set: WriteSet, tmp_path: Path, changed: dict[str, object]) -> None:
    jobs = jobs_of(write_set(), tmp_path)[:1]
    record(jobs[0], 1, **changed)
    assert tasks_of(jobs, tmp_path)[0].planned == "new"


@pytest.mark.parametrize(("option", "planned"), [("double_q", "new"), ("optim_alpha", "done")])
def test_an_option_that_came_later_counts_as_its_default_unless_a_file_sets_it(
    write_set: WriteSet, tmp_path: Path, option: str, planned: str
) -> None:
    jobs = jobs_of(write_set(), tmp_path)[:1]
    config = record(jobs[0], 1) / "config.json"
    values = json.loads(config.read_text())
    del values[option]
    config.write_text(json.dumps(values))
    assert tasks_of(jobs, tmp_path)[0].planned == planned


@pytest.mark.parametrize(("option", "planned"), [("n_agents", "new"), ("min_agents", "done")])
def test_the_same_holds_for_options_of_environments(
    write_set: WriteSet, tmp_path: Path, option: str, planned: str
) -> None:
    jobs = jobs_of(write_set(change=("[two_step_game]", "[navigation]")), tmp_path)[:1]
    config = record(jobs[0], 1) / "config.json"
    values = json.loads(config.read_text())
    del values["env_args"][option]
    config.write_text(json.dumps(values))
    assert tasks_of(jobs, tmp_path)[0].planned == planned


def test_places_and_names_change_no_result(write_set: WriteSet, tmp_path: Path) -> None:
    jobs = jobs_of(write_set(), tmp_path)[:1]
    ignored = {"local_results_path": "x", "label": "old", "use_tensorboard": True, "checkpoint_minutes": 3.0}
    record(jobs[0], 1, **ignored, replay_nepisode=9, use_cuda=True)
    assert tasks_of(jobs, tmp_path)[0].planned == "done"


def test_secrets_are_compared_as_they_are_recorded() -> None:
    values = {"seed": 1, "env_args": {"password": "x", "url": "http://me:key@host"}}
    assert result_key(values) == result_key(redact(values))
    assert "key@" not in result_key(values)


@pytest.mark.parametrize("status", ["INTERRUPTED", "FAILED", "RUNNING"])
def test_an_unfinished_run_is_resumed(write_set: WriteSet, tmp_path: Path, status: str) -> None:
    jobs = jobs_of(write_set(), tmp_path)[:1]
    folder = record(jobs[0], 1, status)  # RUNNING without a holder of its lock: dead
    task = tasks_of(jobs, tmp_path)[0]
    assert task.planned == "resume"
    assert task.arguments == ["resume", str(folder)]
    assert f"src/main.py resume {folder}" in listing([task], 2)


def test_of_two_unfinished_runs_the_further_one_is_resumed(write_set: WriteSet, tmp_path: Path) -> None:
    jobs = jobs_of(write_set(), tmp_path)[:1]
    for number, steps in ((1, 50), (2, 300), (3, 100)):
        folder = record(jobs[0], number, "INTERRUPTED")
        (folder / "run.json").write_text(json.dumps({"status": "INTERRUPTED", "result": steps}))
    assert tasks_of(jobs, tmp_path)[0].run == jobs[0].folder / "2"


def test_a_run_that_goes_on_is_adopted(write_set: WriteSet, tmp_path: Path) -> None:
    jobs = jobs_of(write_set(), tmp_path)[:1]
    record(jobs[0], 1, "INTERRUPTED")
    running = record(jobs[0], 2, "RUNNING")
    with RunLock(running):
        task = tasks_of(jobs, tmp_path)[0]
        assert (task.planned, task.run) == ("adopted", running)


def test_a_broken_folder_is_not_matched(write_set: WriteSet, tmp_path: Path) -> None:
    jobs = jobs_of(write_set(), tmp_path)[:1]
    (record(jobs[0], 1) / "run.json").unlink()
    task = tasks_of(jobs, tmp_path)[0]
    assert (task.planned, task.run) == ("new", None)


# The command.


def test_the_dry_run_lists_states_and_commands_and_writes_nothing(
    write_set: WriteSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, results = write_set(), tmp_path / "results"
    record(jobs_of(path, results, "lr=0.01")[1], 1)
    before = sorted(results.rglob("*"))
    main([str(path), "--dry-run", "--results", str(results), "--jobs", "3", "with", "lr=0.01"])
    out = capsys.readouterr().out
    assert "done     vdn_two_step_game_seed1" in out
    assert "src/main.py --config=qmix --env-config=two_step_game with seed=2" in out
    assert out.count(" lr=0.01") == 3
    assert out.splitlines()[-1] == "4 runs, 3 to be done, 3 at a time"
    assert sorted(results.rglob("*")) == before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--jobs", "0"], "--jobs >= 1"),
        (["--retries", "-1"], "--retries must be >= 0"),
        (["--job", "2"], "unrecognized arguments: --job"),
        (["with", "label=x"], "'label=x' .command line.: the names of the algorithms"),
        (["with", "lrr=1"], "qmix on two_step_game and 1 more: lrr .command line.: unknown key; did you mean 'lr'?"),
    ],
)
def test_wrong_arguments_are_refused(write_set: WriteSet, argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main([str(write_set()), *argv])


def test_runs_that_failed_are_told_beside_a_report_that_failed(
    write_set: WriteSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(write_set(), tmp_path)
    record(jobs[0], 1)
    tasks = tasks_of(jobs, tmp_path)
    tasks[1].state, tasks[1].note = "failed", "exit code 137\nout of memory"
    tasks[2].state = tasks[3].state = "stopped"
    monkeypatch.setattr(experiments, "run_missing", lambda *given: tasks)
    with pytest.raises(UserError) as caught:  # the finished run has no summary
        main([str(write_set()), "--results", str(tmp_path)])
    text = str(caught.value)
    assert "nothing to report" in text
    assert "1 of 4 runs failed, 2 were stopped; the same command goes on" in text
    assert f"vdn_two_step_game_seed1 failed, log {tmp_path / 'logs' / 'vdn_two_step_game_seed1.log'}" in text
    assert "    out of memory" in text


@pytest.mark.slow
def test_the_smoke_set_runs_from_nothing_to_its_report_and_then_has_nothing_to_do(
    tmp_path: Path, write_set: WriteSet
) -> None:
    results = tmp_path / "results"
    command = [sys.executable, main_module.__file__, "experiments", "smoke", "--results", str(results), "--jobs", "2"]
    command += ["with", "t_max=200", "test_nepisode=4", "final_nepisode=4", "replay_nepisode=0"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert first.returncode == 0, first.stderr
    assert [run.status for run in find_runs(results)] == ["COMPLETED"] * 4
    for name in ("qmix", "vdn", "runs.html"):
        assert name in first.stdout
    assert (results / "runs.html").is_file()
    written = {path: path.stat().st_mtime_ns for path in results.rglob("metrics.jsonl")}
    main(command[3:])
    assert {path: path.stat().st_mtime_ns for path in results.rglob("metrics.jsonl")} == written
    # Runs that are no longer the set's are not in its table; new names are shown for old runs.
    text = SMOKE.replace("[qmix, vdn]", "{renamed: {config: qmix}}")
    text = text.replace("[two_step_game]", "{tiny: {config: two_step_game}}")
    main([str(write_set(text)), "--report-only", "--results", str(results)])
    table = (results / "report" / "table.md").read_text()
    assert "| algorithm | tiny |" in table
    assert "qmix_renamed" in table
    assert "vdn" not in table
