"""The two calls of the package tensorboard_logger that PyMARL uses, on ``torch.utils.tensorboard``."""

from __future__ import annotations

from typing import Any

from components.errors import UserError

_writer: Any = None


def configure(logdir: str, flush_secs: float = 2) -> None:
    """Sends what :func:`log_value` gets to a folder; a second call moves on to another folder.

    Args:
        logdir: the folder of the event files; made when missing.
        flush_secs: seconds between two writings.

    Raises:
        UserError: TensorBoard is not installed.
    """
    global _writer
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("tensorboard_logger needs TensorBoard: pip install tensorboard") from error
    if _writer is not None:
        _writer.close()
    _writer = SummaryWriter(str(logdir), flush_secs=max(1, round(flush_secs)))


def log_value(name: str, value: Any, step: int | None = None) -> None:
    """Records one number.

    Args:
        name: the curve.
        value: a number or a tensor of one element.
        step: the position on the curve.

    Raises:
        ValueError: :func:`configure` was not called.
    """
    if _writer is None:
        raise ValueError("tensorboard_logger has no folder yet: call configure(logdir) first")
    _writer.add_scalar(name, value, step)
