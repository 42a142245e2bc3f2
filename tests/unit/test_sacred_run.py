import gc
import json
import logging
import os
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import UserError
from utils import sacred_run
from utils.logging import Logger
from utils.run_record import REDACTED, git_commit, redact, run_folder, safe_name
from utils.sacred_run import start_run

UNKNOWN_COMMIT = {"commit": "unknown", "dirty": None, "env_commit": "unknown", "env_dirty": None}
SOURCE = Path(sacred_run.__file__).parents[1]
CONFIG = {"seed": 3, "name": "qmix", "env": "navigation", "env_args": {"n_agents": 3}, "lr": 5e-4, "sizes": [1, 2]}


def start(folder, main, config=CONFIG, **options):
    return start_run(config, folder, main, root=folder, **options)


def read(path):
    return json.loads(path.read_text())


def test_a_run_has_pymarls_files(tmp_path, capsys):
    folder = run_folder(tmp_path, "navigation", "qmix")

    def main(run, path):
        logging.getLogger("x").warning("not ours")
        print("product")
        logger = Logger(logging.getLogger("x"), path, run.info)
        logger.log_stat("return_mean", 0.5, 10)
        logger.close()
        return 42

    assert start(folder, main) == 42
    assert capsys.readouterr().out == "product\n"
    path = tmp_path / "sacred" / "navigation" / "qmix" / "1"
    names = {"config.json", "run.json", "cout.txt", "info.json", "metrics.json", "metrics.jsonl", "run.lock"}
    assert {entry.name for entry in path.iterdir()} == names
    assert {entry.name for entry in folder.iterdir()} == {"1"}
    assert read(path / "config.json") == CONFIG
    assert read(path / "info.json") == {"return_mean": [0.5], "return_mean_T": [10]}
    assert "product" in (path / "cout.txt").read_text()
    record = read(path / "run.json")
    assert record["status"] == "COMPLETED"
    assert record["experiment"]["repositories"] == [UNKNOWN_COMMIT]
    assert any(part.startswith("sacred==") for part in record["experiment"]["dependencies"])
    assert start(folder, lambda run, path: path.name) == "2"


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("boom"), "FAILED"), (SystemExit(1), "FAILED"), (KeyboardInterrupt(), "INTERRUPTED")],
)
def test_errors_reach_the_caller_and_the_record(tmp_path, error, status):
    def main(run, path):
        run.info["seen"] = [1]
        print("last words")
        raise error

    with pytest.raises(type(error)) as caught:
        start(tmp_path, main)
    assert caught.value is error
    assert read(tmp_path / "1" / "run.json")["status"] == status
    assert read(tmp_path / "1" / "info.json") == {"seen": [1]}
    assert "last words" in (tmp_path / "1" / "cout.txt").read_text()


def test_a_second_interrupt_during_shutdown_is_not_left_running(tmp_path, monkeypatch):
    def interrupted(run):
        raise KeyboardInterrupt

    monkeypatch.setattr(sacred_run.Run, "_stop_heartbeat", interrupted)
    runs = []
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, lambda run, path: runs.append(run))
    assert read(tmp_path / "1" / "run.json")["status"] == "INTERRUPTED"
    runs[0]._heartbeat.join(5)
    assert not runs[0]._heartbeat.is_alive()


def refuse_info(monkeypatch, times):
    """The disk refuses ``info.json``, once it holds something, so many times; returns the refusals so far."""
    real, refusals = sacred_run.write_text_atomic, []

    def write(path, text):
        text = "".join(text)
        if path.name == "info.json" and text != "{}\n" and len(refusals) < times:
            refusals.append(path)
            raise OSError(28, "No space left on device")
        real(path, text)

    monkeypatch.setattr(sacred_run, "write_text_atomic", write)
    return refusals


def test_a_full_disk_at_the_end_is_never_completed(tmp_path, monkeypatch):
    refuse_info(monkeypatch, times=100)
    with pytest.raises(UserError, match=r"incomplete.*No space left"):
        start(tmp_path, lambda run, path: run.info.update(a=[1]))
    record = read(tmp_path / "1" / "run.json")
    assert record["status"] == "FAILED"
    assert "No space left" in record["fail_trace"][0]


def test_info_that_was_refused_once_is_written_later(tmp_path, monkeypatch):
    refusals = refuse_info(monkeypatch, times=1)

    def main(run, path):
        run.info["a"] = [1]
        run._emit_heartbeat()

    start(tmp_path, main)
    assert refusals
    assert read(tmp_path / "1" / "info.json") == {"a": [1]}


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "loss"]), st.lists(st.floats(allow_nan=False) | st.integers()), min_size=1
    )
)
def test_info_in_pieces_is_the_same_json(curves):
    info = curves | {f"{key}_T": list(range(len(v))) for key, v in curves.items()}
    assert json.loads("".join(sacred_run.json_pieces(info | {"note": {"x": None}}))) == info | {"note": {"x": None}}


def test_info_that_grows_while_it_is_written_stays_paired():
    info = {"loss_T": list(range(2500)), "loss": [0.5] * 2500}
    pieces = []
    for piece in sacred_run.json_pieces(info):
        pieces.append(piece)
        info["loss_T"].append(0)
        info["loss"].append(0.1)
        info["new"] = [1]
    found = json.loads("".join(pieces))
    assert len(found["loss"]) == len(found["loss_T"]) == 2500


def test_a_resumed_run_keeps_its_folder_and_lists_its_sessions(tmp_path):
    with pytest.raises(ValueError, match="boom"):
        start(tmp_path, lambda run, path: (print("one"), boom()))
    first = read(tmp_path / "1" / "run.json")
    assert start(tmp_path, lambda run, path: (print("two"), path.name)[1], resume="1") == "1"
    record = read(tmp_path / "1" / "run.json")
    assert record["status"] == "COMPLETED"
    assert "fail_trace" not in record
    assert record["start_time"] == first["start_time"] < record["sessions"][1]["start_time"]
    assert [len(entry["sessions"]) for entry in (first, record)] == [1, 2]
    assert (tmp_path / "1" / "cout.txt").read_text().split() == ["one", "two"]


def boom():
    raise ValueError("boom")


def test_a_run_that_goes_on_cannot_be_resumed_beside_itself(tmp_path):
    def main(run, path):
        with pytest.raises(UserError, match=rf"being written by process {os.getpid()}"):
            start(tmp_path, lambda run, path: None, resume="1")
        return read(path / "run.json")["status"]

    assert start(tmp_path, main) == "RUNNING"


def test_a_results_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot record a run in"):
        start(tmp_path / "file", lambda run, path: None)


def test_a_config_that_sacred_refuses_is_told(tmp_path):
    with pytest.raises(UserError, match=r"Sacred cannot record this configuration.*a\.b"):
        start(tmp_path, lambda run, path: None, {"seed": 1, "env_args": {"a.b": 1}})


def test_what_a_run_was_made_of_is_freed_after_it(tmp_path):
    class Parts:
        def main(self, run, path):
            pass

    parts = Parts()
    alive = weakref.ref(parts)
    start(tmp_path, parts.main)
    del parts
    gc.collect()
    assert alive() is None


def test_rare_values_in_info_do_not_stop_the_run(tmp_path):
    start(tmp_path, lambda run, path: run.info.update(array=np.float64(1.5), folder=Path("x")))
    assert "array" in read(tmp_path / "1" / "info.json")


def test_beats_write_info_while_the_run_goes_on(tmp_path):
    def main(run, path):
        run.info["a"] = list(range(10))
        for _ in range(400):
            sacred_run.time.sleep(0.01)
            if read(path / "info.json"):
                return read(path / "run.json")["heartbeat"]
        return None

    assert start(tmp_path, main, beat_seconds=0.05) is not None


CONCURRENT = """
import sys, time
from pathlib import Path
from utils.sacred_run import start_run
folder = Path(sys.argv[1])
while not (folder.parent / "go").exists():
    time.sleep(0.005)
print(start_run({"seed": 1}, folder, lambda run, path: path.name, folder))
"""


def test_six_runs_at_once_get_six_folders(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", CONCURRENT, tmp_path / "runs"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(6)]
    sacred_run.time.sleep(1.5)
    (tmp_path / "go").touch()
    ids = sorted(int(run.communicate(timeout=60)[0]) for run in runs)
    assert ids == [1, 2, 3, 4, 5, 6]
    for number in ids:
        assert read(tmp_path / "runs" / str(number) / "run.json")["status"] == "COMPLETED"


def test_import_hides_only_the_warning_about_pkg_resources():
    code = "import warnings; warnings.simplefilter('error', UserWarning); import utils.sacred_run"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", UserWarning, stacklevel=1)


# --- secrets, names, commit --------------------------------------------------------------------------------------


def test_secrets_are_not_recorded(tmp_path):
    config = {
        "seed": 1,
        "wandb": {"API_KEY": "s3cret", "apikey": ["s3cret"], "Password": 1234, "project": "mine"},
        "auth_token": {"value": "s3cret"},
        "remote": "https://user:s3cret@example.org/repo.git",
        "remotes": ["ssh://s3cret@example.org/x", "http://example.org/a@b"],
        "token_dim": 5,
        "client_secret": None,
        "use_token": True,
    }
    start(tmp_path, lambda run, path: None, config)
    recorded = read(tmp_path / "1" / "config.json")
    everything = "".join(entry.read_text() for entry in (tmp_path / "1").iterdir())
    assert "s3cret" not in everything
    assert "1234" not in json.dumps(recorded)
    assert recorded["wandb"] == {"API_KEY": REDACTED, "apikey": [REDACTED], "Password": REDACTED, "project": "mine"}
    assert recorded["auth_token"] == {"value": REDACTED}
    assert recorded["remote"] == f"https://{REDACTED}@example.org/repo.git"
    assert recorded["remotes"][1] == "http://example.org/a@b"
    assert (recorded["token_dim"], recorded["client_secret"], recorded["use_token"]) == (5, None, True)


def test_redaction_leaves_the_callers_config_alone():
    config = {"login": {"password": "x"}, "pair": ("a", 1)}
    assert redact(config) == {"login": {"password": REDACTED}, "pair": ("a", 1)}
    assert config["login"] == {"password": "x"}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(), st.text())
def test_all_names_stay_below_the_results(env, algorithm):
    results = Path("/results")
    try:
        folder = run_folder(results, env, algorithm)
    except UserError:
        return
    assert folder.parent.parent == results / "sacred"
    assert os.path.normpath(folder) == str(folder)
    assert all(len(part) <= 100 for part in folder.parts)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("qmix", "qmix"),
        ("lbforaging:Foraging-8x8-v3", "lbforaging_Foraging-8x8-v3"),
        ("../../etc/x", "_.._etc_x"),
        ("a b\0c", "a_b_c"),
        (".hidden", "hidden"),
    ],
)
def test_names_are_cleaned(name, safe):
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["", "..", "...", "/", "日本"])
def test_names_of_nothing_are_refused(name):
    with pytest.raises(UserError, match="cannot name a folder"):
        safe_name(name)


def git(folder, *arguments):
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *name, *arguments], check=True, capture_output=True)


def test_commit_and_dirty_flag(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    unknown = UNKNOWN_COMMIT
    assert git_commit(tmp_path) == unknown
    assert git_commit(tmp_path / "missing") == unknown
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    assert git_commit(tmp_path) == unknown
    git(tmp_path, "commit", "-q", "-m", "one")
    facts = git_commit(tmp_path)
    assert len(facts["commit"]) == 40
    assert facts["dirty"] is False
    (tmp_path / "file").write_text("2")
    changed = {"commit": facts["commit"], "dirty": True, "env_commit": "unknown", "env_dirty": False}
    assert git_commit(tmp_path) == changed
    (tmp_path / "installed").mkdir()
    assert git_commit(tmp_path / "installed") == unknown


def test_the_commit_of_the_environments_is_the_last_that_touched_them(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    (tmp_path / "src/envs").mkdir(parents=True)
    commits = []
    git(tmp_path, "init", "-q")
    for name in ("src/envs/game.py", "src/learner.py"):
        (tmp_path / name).write_text("1")
        git(tmp_path, "add", name)
        git(tmp_path, "commit", "-q", "-m", name)
        commits.append(git_commit(tmp_path)["commit"])
    (tmp_path / "src/learner.py").write_text("2")
    facts = {"commit": commits[1], "dirty": True, "env_commit": commits[0]}
    assert git_commit(tmp_path) == facts | {"env_dirty": False}
    (tmp_path / "src/envs/game.py").write_text("2")
    assert git_commit(tmp_path) == facts | {"env_dirty": True}
