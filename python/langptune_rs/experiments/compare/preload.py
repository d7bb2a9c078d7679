"""What the process imports from which those of a comparison are forked: seconds in which Ctrl-C is not for it."""

import signal

_before = signal.signal(signal.SIGINT, signal.SIG_IGN)
from langptune_rs.experiments.compare import task  # noqa: E402, F401

signal.signal(signal.SIGINT, _before)
