"""Handlers of signals stand for the time of a block."""

import os
import signal
from contextlib import suppress

import pytest

from langptune_rs.distributed.signals import handling

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.mark.parametrize("fails", [False, True])
def test_a_handler_is_called_inside_the_block_and_the_earlier_one_after_it(fails):
    """Also after an error."""
    outside, inside = [], []
    before = {signum: signal.signal(signum, lambda signum, _: outside.append(signum)) for signum in SIGNALS}
    try:
        with suppress(ZeroDivisionError), handling(SIGNALS, lambda signum, _: inside.append(signum)):
            for signum in SIGNALS:
                os.kill(os.getpid(), signum)
            if fails:
                raise ZeroDivisionError
        assert (inside, outside) == (list(SIGNALS), [])
        for signum in SIGNALS:
            os.kill(os.getpid(), signum)
        assert (inside, outside) == (list(SIGNALS), list(SIGNALS))
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
