import sys

import pytest
import torch

import compat
from compat import tensorboard_logger as shim
from components.errors import UserError


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(shim, "_writer", None)
    monkeypatch.delitem(sys.modules, "tensorboard_logger", raising=False)


def scalars(folder, name):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_pymarls_two_calls_write_events(tmp_path):
    shim.configure(str(tmp_path / "a"))
    shim.log_value("loss", 0.5, 10)
    shim.log_value("loss", torch.tensor(0.25), 20)
    shim.configure(str(tmp_path / "b"), flush_secs=0.5)
    shim.log_value("loss", 1.0)
    shim._writer.close()
    assert scalars(tmp_path / "a", "loss") == [(10, 0.5), (20, 0.25)]
    assert scalars(tmp_path / "b", "loss") == [(0, 1.0)]


def test_a_value_before_configure_is_refused():
    with pytest.raises(ValueError, match="configure"):
        shim.log_value("loss", 0.5, 10)


def test_missing_tensorboard_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        shim.configure(str(tmp_path))


def test_install_replaces_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard_logger", None)  # as if it were not installed
    assert compat.install()
    import tensorboard_logger

    assert tensorboard_logger.configure is shim.configure
    assert compat.install()


def test_install_replaces_a_broken_package_and_keeps_a_working_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "tensorboard_logger.py"
    package.write_text("raise TypeError('Descriptors cannot be created directly.')")
    assert compat.install()
    del sys.modules["tensorboard_logger"]
    package.write_text("def configure(logdir): pass  # works")
    assert not compat.install()
