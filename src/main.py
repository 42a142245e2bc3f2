"""The command: ``python src/main.py --config=lpmarl --env-config=constrained_navigation with seed=2``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from commands import COMMANDS, run_command
from components.command_line import format_config, help_text, parse, show
from components.config import load_config
from components.errors import RunFailed, UserError

_FAILED = 1
_USER_ERROR = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the arguments after the program's name; those of the process when absent.

    Returns:
        The exit code: 0 done, 1 the run failed, 2 the user's mistake, 130 interrupted by Ctrl-C, 143 by SIGTERM.
    """
    try:
        _execute(sys.argv[1:] if argv is None else argv)
    except (UserError, RunFailed) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return _USER_ERROR if isinstance(error, UserError) else _FAILED
    except KeyboardInterrupt as interrupt:
        print("interrupted", file=sys.stderr)
        # utils.signals.Stopped knows which signal it was.
        return getattr(interrupt, "exit_code", _INTERRUPTED)
    return 0


def _execute(argv: Sequence[str]) -> None:
    if argv and argv[0] in COMMANDS:
        run_command(argv[0], argv[1:])
        return
    command = parse(argv, COMMANDS)
    if command.action == "help":
        show(help_text(COMMANDS))
        return
    config = load_config(command.config, command.env_config, command.overrides)
    if command.action == "print_config":
        show(format_config(config))
        return
    for message in config.unused:
        print(f"note: {message}", file=sys.stderr)
    # Imported here: help and configuration faults need neither PyTorch nor an environment.
    from experiment import run_experiment

    print(run_experiment(config))


if __name__ == "__main__":
    sys.exit(main())
