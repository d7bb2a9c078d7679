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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch.distributed as dist

from langptune_rs.errors import TrainingError

TOLD_THE_USER, INTERRUPTED = 2, 130
"""Exit codes of a process that has said an error that the user can mend, and of one that Ctrl-C or SIGTERM stopped."""
LOST_ANOTHER = 3
"""Exit code of a process that stops because another has failed."""
SECONDS_TO_FINISH = 2.0
"""How long a process may go on by itself after another has failed, such as to say the same error in its own words."""
SECONDS_TO_WAIT = 5.0
"""How long rank 0 waits for the others at its end."""
SECONDS_TO_CONNECT = 60.0
PORT = "langptune/lifeline"


class Lifeline:
    """This rank's connections: to rank 0, or from rank 0 to all others."""

    def __init__(self, rank: int, world_size: int, store, address: str):
        """Connect all ranks; `store` is the group's key-value store, `address` that of rank 0.

        Raises `TrainingError` when they do not find each other within a minute.
        """
        self._rank, self._world_size = rank, world_size
        self._lock, self._failure, self._ended = threading.Lock(), None, False
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
        """Wait a while for the others to say that they end, where this is rank 0: they may ask its store before."""
        deadline = time.monotonic() + SECONDS_TO_WAIT
        for watcher in self._watchers if self._rank == 0 else ():
            watcher.join(max(0.0, deadline - time.monotonic()))

    def await_failure(self, seconds: float) -> None:
        """Wait for news of another's failure, which ends this process; returns when there is none."""
        deadline = time.monotonic() + seconds
        while self._failure or time.monotonic() < deadline:
            time.sleep(0.05)

    def _send(self, message: dict) -> None:
        for connection in self._connections:
            with suppress(OSError):
                connection.sendall(json.dumps(message).encode() + b"\n")

    def _watch(self, connection: socket.socket) -> None:
        place = {"rank": "?", "host": "?", "process": "?"}
        with suppress(OSError):
            for line in connection.makefile(encoding="utf-8"):
                message = json.loads(line)
                if "end" in message:
                    return
                if "failure" in message:
                    self._stop(message["failure"])
                    return
                place = message["place"]
        self._stop({**place, "error": None, "said": False})

    def _stop(self, failure: dict) -> None:
        """Pass a failure on, say it once, and end this process unless it is about to end by itself."""
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
    """Let this process end within a second of the one that started it, which may be killed before it can say so."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(LOST_ANOTHER)

    threading.Thread(target=watch, daemon=True).start()


AT_ONCE = "at once"


def interrupt_when(asked: Path) -> None:
    """Press Ctrl-C in this process once the file `asked` is there, where no signal comes from another machine.

    End the process when it says `AT_ONCE`, whatever it is doing.
    """

    def watch() -> None:
        is_pressed = False
        while True:
            with suppress(OSError):  # none yet; or a file system over a network, which may fail and come back
                if asked.read_text(encoding="utf-8") == AT_ONCE:
                    os._exit(INTERRUPTED)
                if not is_pressed:
                    os.kill(os.getpid(), signal.SIGINT)
                is_pressed = True
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()


def describe(failure: dict, world_size: int) -> str:
    """A failure in the user's words."""
    what = f"failed: {failure['error']}" if failure["error"] else "ended without a word, killed or with its machine."
    return (
        f"Rank {failure['rank']} of {world_size} on {failure['host']} (process {failure['process']}) {what} "
        "The others stop; run again with --resume to go on from the last checkpoint."
    )


@contextmanager
def lifeline(rank: int, world_size: int, store, address: str) -> Iterator[Lifeline | None]:
    """Hold the connections inside the block, and tell the others how it ended; none is needed for one process."""
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


def _accept(count: int, store) -> list[socket.socket]:
    with socket.create_server(("", 0)) as server:
        server.settimeout(SECONDS_TO_CONNECT)
        store.set(PORT, str(server.getsockname()[1]))
        return [_kept_alive(server.accept()[0]) for _ in range(count)]


def _connect(address: str, store) -> socket.socket:
    return _kept_alive(socket.create_connection((address, int(store.get(PORT))), timeout=SECONDS_TO_CONNECT))


def _kept_alive(connection: socket.socket) -> socket.socket:
    """Notice within 5 + 3 * 5 seconds that the other end's machine is gone."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection
