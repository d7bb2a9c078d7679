"""How the processes of a run learn that one of them has ended.

A collective that waits for a process that is gone may wait for minutes. So every rank holds a connection to rank 0,
over which nothing is sent while all is well. The kernel closes it when its process ends, however it ends; a machine
that is lost is noticed by TCP's keep-alive within 20 seconds. Rank 0 tells the others, and all of them stop.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict, cast

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from langptune_rs.errors import TrainingError

TOLD_THE_USER, INTERRUPTED = 2, 130
"""Exit codes of a process that printed an error the user can mend, and of one that Ctrl-C or SIGTERM stopped."""
LOST_ANOTHER = 3
"""Exit code of a process that stops because another has failed."""
SECONDS_TO_FINISH = 2.0
"""How long a process may go on after another has failed, such as to print the same error in its own words."""
SECONDS_TO_WAIT = 5.0
"""How long rank 0 waits for the others at its end."""
SECONDS_TO_CONNECT = 60.0
PORT = "langptune/lifeline"
"""The key under which the store holds the port of rank 0."""


class Failure(TypedDict):
    """What a process sends about its end; the values are "?" for one that was lost before it said which it is."""

    rank: int | str
    host: str
    process: int | str
    error: str | None
    """What it raised; None for a process that ended without a word."""
    said: bool
    """Whether the user has been told already."""


class Lifeline:
    """This rank's connections: to rank 0, or from rank 0 to all others."""

    def __init__(self, rank: int, world_size: int, store: Store, address: str):
        """Connect all ranks; `store` is the group's key-value store, `address` that of rank 0.

        Raises `TrainingError` when they do not find each other within a minute.
        """
        self._rank, self._world_size = rank, world_size
        self._lock, self._ended = threading.Lock(), False
        self._failure: Failure | None = None
        try:
            self._connections = _accept(world_size - 1, store) if rank == 0 else [_connect(address, store)]
        except (OSError, dist.DistError) as error:
            raise TrainingError(
                f"Rank {rank} on {socket.gethostname()} found no connection to the other {world_size - 1} processes at "
                f"{address}: {error}. The machines must reach each other at any port: look at their firewall."
            ) from error
        self._place = {"rank": rank, "host": socket.gethostname(), "process": os.getpid()}
        self._send({"place": self._place})
        self._watchers = [threading.Thread(target=self._watch, args=(c,), daemon=True) for c in self._connections]
        for watcher in self._watchers:
            watcher.start()

    def fail(self, error: str, *, said: bool) -> None:
        """Tell the others why this process ends; `said`: the user has been told already."""
        self._ended = True
        self._send({"failure": {**self._place, "error": error, "said": said}})

    def end(self) -> None:
        """Tell the others that this process ends well."""
        self._ended = True
        self._send({"end": True})

    def await_others(self) -> None:
        """On rank 0, wait a while until the others say that they end: they may need its store until then."""
        deadline = time.monotonic() + SECONDS_TO_WAIT
        for watcher in self._watchers if self._rank == 0 else ():
            watcher.join(max(0.0, deadline - time.monotonic()))

    def await_failure(self, seconds: float) -> None:
        """Wait for news of another's failure, which ends this process; returns when there is none."""
        deadline = time.monotonic() + seconds
        while self._failure or time.monotonic() < deadline:
            time.sleep(0.05)

    def _send(self, message: Mapping[str, object]) -> None:
        for connection in self._connections:
            with suppress(OSError):
                connection.sendall(json.dumps(message).encode() + b"\n")

    def _watch(self, connection: socket.socket) -> None:
        place: dict[str, Any] = {"rank": "?", "host": "?", "process": "?"}
        with suppress(OSError):
            for line in connection.makefile(encoding="utf-8"):
                message = json.loads(line)
                if "end" in message:
                    return
                if "failure" in message:
                    self._stop(message["failure"])
                    return
                place = message["place"]
        self._stop(cast(Failure, {**place, "error": None, "said": False}))

    def _stop(self, failure: Failure) -> None:
        """Pass a failure on, print it on one rank, and end this process unless it is about to end by itself."""
        with self._lock:
            if self._failure or self._ended:
                return
            self._failure = failure
        if self._rank == 0:
            self._send({"failure": failure})
        if self._rank == (1 if failure["rank"] == 0 else 0) and not failure["said"]:
            print(f"error: {describe(failure, self._world_size)}", file=sys.stderr, flush=True)
        time.sleep(SECONDS_TO_FINISH)
        if not self._ended:
            os._exit(LOST_ANOTHER)


def end_with_parent() -> None:
    """End this process within a second of its parent, which may be killed before it can send a signal."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(LOST_ANOTHER)

    threading.Thread(target=watch, daemon=True).start()


AT_ONCE = "at once"


def interrupt_when(asked: Path) -> None:
    """Press Ctrl-C in this process once the file `asked` is there: no signal can come from another machine.

    When the file says `AT_ONCE`, the process ends whatever it is doing.
    """

    def watch() -> None:
        is_pressed = False
        while True:
            with suppress(OSError):  # no file yet, or a network file system that fails for a while
                if asked.read_text(encoding="utf-8") == AT_ONCE:
                    os._exit(INTERRUPTED)
                if not is_pressed:
                    os.kill(os.getpid(), signal.SIGINT)
                is_pressed = True
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()


def describe(failure: Failure, world_size: int) -> str:
    """A sentence for the user about another process's failure."""
    what = f"failed: {failure['error']}" if failure["error"] else "ended without a word, killed or with its machine."
    return (
        f"Rank {failure['rank']} of {world_size} on {failure['host']} (process {failure['process']}) {what} "
        "The others stop; run again with --resume to go on from the last checkpoint."
    )


@contextmanager
def lifeline(rank: int, world_size: int, store: Store, address: str) -> Iterator[Lifeline | None]:
    """Hold the connections inside the block, then tell the others how it ended. One process needs none: None."""
    if world_size == 1:
        yield None
        return
    held = Lifeline(rank, world_size, store, address)
    try:
        yield held
        if not held._ended:
            held.end()
    except BaseException as error:  # the others may wait for this process in vain
        if not held._ended:
            held.fail(type(error).__name__, said=isinstance(error, KeyboardInterrupt))
        raise
    finally:
        held.await_others()


def _accept(count: int, store: Store) -> list[socket.socket]:
    with socket.create_server(("", 0)) as server:
        server.settimeout(SECONDS_TO_CONNECT)
        store.set(PORT, str(server.getsockname()[1]))
        return [_kept_alive(server.accept()[0]) for _ in range(count)]


def _connect(address: str, store: Store) -> socket.socket:
    return _kept_alive(socket.create_connection((address, int(store.get(PORT))), timeout=SECONDS_TO_CONNECT))


def _kept_alive(connection: socket.socket) -> socket.socket:
    """Notice within 5 + 3 * 5 seconds that the other end's machine is gone."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection
