class UserError(Exception):
    """A mistake in what the user gave (configuration, file, argument), worded for the user.

    ``main`` prints the message without a traceback and exits with code 2.
    """
