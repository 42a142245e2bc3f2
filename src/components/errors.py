class UserError(Exception):
    """A mistake in what the user gave (configuration, file, argument), worded for the user.

    ``main`` prints the message without a traceback and exits with code 2.
    """


class RunFailed(Exception):
    """A run that cannot go on, for a reason that is not in the command: told without a traceback, exit code 1."""
