"""Ctrl-C and SIGTERM: every rank stops at the next place that a resumed run can go on from."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Unpack

from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset
from langptune_rs.distributed.collectives import any_rank, rank
from langptune_rs.distributed.failures import WRITING, explained
from langptune_rs.distributed.signals import handling
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.sampling import OnBatch, Profiles
from langptune_rs.rollout.writer import ProfileWriter, WriteOptions


class Stopped(KeyboardInterrupt):
    """Ctrl-C was pressed and every rank has saved, so that none waits for another."""


class Interrupted(Exception):
    """Ctrl-C was pressed. Every rank raises this at a place that a resumed run can go on from."""


class Interruption:
    """Whether this process was asked to stop. It takes note of signals only inside `listening`."""

    def __init__(self) -> None:
        self._signals: set[int] = set()

    @property
    def is_asked(self) -> bool:
        """Whether Ctrl-C was pressed or SIGTERM sent, as job schedulers do before they kill."""
        return bool(self._signals)

    def raise_if_asked(self) -> None:
        """Raise `Interrupted` on every rank once one of them was asked. Every rank calls this at the same place."""
        if any_rank(self.is_asked):
            raise Interrupted

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take note of Ctrl-C and SIGTERM inside the block, instead of ending the process.

        A second signal of the same kind ends it at once. One of each is no second: launcher and user may both send one.
        """
        with handling((signal.SIGINT, signal.SIGTERM), self._note):
            yield

    def _note(self, signum: int, frame: object) -> None:
        if signum in self._signals:
            raise KeyboardInterrupt
        is_first = not self._signals
        self._signals.add(signum)
        if is_first and rank() == 0:
            with suppress(OSError, RuntimeError):  # stderr is closed, or a line is being written to it
                print(
                    "Stopping after this step or batch of profiles, with a checkpoint; "
                    "press Ctrl-C again to stop at once.",
                    file=sys.stderr,
                )


class InterruptibleWriter(ProfileWriter):
    """A writer that stops on every rank after the current batch, once one rank is asked to stop."""

    def __init__(self, policy: Policy, dataset: Dataset, config: RunConfig, interruption: Interruption):
        super().__init__(policy, dataset, config.profile)
        self._run_config, self._interruption = config, interruption

    def write(
        self, prompts: Sequence[Sequence[int]], *, on_batch: OnBatch | None = None, **options: Unpack[WriteOptions]
    ) -> Profiles:
        """What `ProfileWriter.write` returns. Every rank calls it together. Raises `Interrupted` on every rank."""

        def on_batch_done(written: list[list[int]]) -> None:
            if on_batch:
                on_batch(written)
            if self._interruption.is_asked:
                raise Interrupted

        profiles = None
        with explained(WRITING, self._run_config):
            with suppress(Interrupted):
                profiles = super().write(prompts, on_batch=on_batch_done, **options)
            if any_rank(profiles is None) or profiles is None:
                raise Interrupted
        return profiles
