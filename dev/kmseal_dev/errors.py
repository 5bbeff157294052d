"""The one error of this package.

Whoever runs the control plane by hand sees its message alone, without a traceback: so each message says what
failed and what to do about it, and carries the end of the log where there is one.
"""


class ControlPlaneError(Exception):
    """A binary could not be had, a process did not start, or a command failed; the message names the remedy."""
