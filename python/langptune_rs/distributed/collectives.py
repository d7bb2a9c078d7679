"""What the processes of a run tell each other. A single process is a group of one and waits for nobody."""

from __future__ import annotations

from collections.abc import Callable, Sized
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from langptune_rs.errors import LangptuneError

T = TypeVar("T")


def rank() -> int:
    """This process's number, from 0; 0 outside of a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are; 1 outside of a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather_rows(local: torch.Tensor) -> torch.Tensor:
    """Rows of every rank in rank order, (world * n, ...), from equally many rows (n, ...) on each; no gradients.

    They come back on the device of `local`. NCCL sends only what is on a GPU.
    """
    if world_size() == 1:
        return local.detach()
    own = local.detach().to("cuda" if torch.cuda.is_available() else "cpu").contiguous()
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own)
    return torch.cat(parts).to(local.device)


def gather_shares(local: torch.Tensor, n: int) -> torch.Tensor:
    """All n rows, (n, ...), from each rank's `shard` of them; no gradients."""
    size = world_size()
    longest = -(-n // size)
    padded = local.new_zeros(longest, *local.shape[1:])
    padded[: len(local)] = local
    parts = torch.split(gather_rows(padded), longest)
    return torch.cat([part[: n * (r + 1) // size - n * r // size] for r, part in enumerate(parts)])


def gather_objects(local: T) -> list[T]:
    """One picklable object of every rank, in rank order."""
    if world_size() == 1:
        return [local]
    parts = [local] * world_size()
    dist.all_gather_object(parts, local)
    return parts


def shard(rows: Sized) -> slice:
    """This rank's contiguous share of `rows`; shares differ by one at most."""
    n, size, r = len(rows), world_size(), rank()
    return slice(n * r // size, n * (r + 1) // size)


def barrier() -> None:
    """Wait until every rank has come here."""
    if world_size() > 1:
        dist.barrier()


def on_first_rank(work: Callable[[], object]) -> None:
    """Do `work` on rank 0 while the others wait; a `LangptuneError` that it raises is raised on every rank."""
    error: LangptuneError | None = None
    if rank() == 0:
        try:
            work()
        except LangptuneError as raised:
            error = raised
    if error := gather_objects(error)[0]:
        raise error


def after_first_rank(work: Callable[[], T]) -> T:
    """What `work` returns. It runs on rank 0 first, then on every rank, so that the others find what it prepared."""
    made: list[T] = []
    on_first_rank(lambda: made.append(work()))
    return made[0] if made else work()


def first_rank_sees(path: Path) -> bool:
    """Whether rank 0 sees a file; its view decides for all ranks, whose file systems may lag behind."""
    return gather_objects(path.is_file())[0]


def group_store() -> Store:
    """The key-value store of the process group, which rank 0 keeps."""
    return dist.distributed_c10d._get_default_store()


def first_to_say(message: str) -> bool:
    """Whether no other process has said `message`. Also false once rank 0, which keeps the count, has ended."""
    if world_size() == 1:
        return True
    try:
        return bool(group_store().add(message, 1) == 1)
    except dist.DistError:
        return False


def any_rank(flag: bool) -> bool:
    """True on every rank when it is true on one."""
    return any(gather_objects(flag))
