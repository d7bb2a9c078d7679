"""What a DeepSpeed engine holds on this rank between two steps: bytes of all tensors alive, one JSON a rank."""

import gc
import json
import os
import time
from pathlib import Path

import torch
from torch import nn

from langptune_rs.config.engine import EngineConfig
from langptune_rs.distributed.group import end_process
from langptune_rs.distributed.start import start_distributed
from langptune_rs.models.precision import COMPUTE_DTYPES
from langptune_rs.training.engines import make_engine, optimizer_step

WIDTH, TRAINED, FROZEN = 512, 4, 2


def alive() -> int:
    tensors = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(storages.values())


class Layers(nn.Sequential):
    """Layers that may differ in precision."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        for layer in self:
            rows = layer(rows.to(layer.weight.dtype))
        return rows


def settled() -> int:
    """The least that is alive in half a second: threads that send tensors let go of them when they are scheduled."""
    readings = []
    for _ in range(10):
        time.sleep(0.05)
        gc.collect()
        readings.append(alive())
    return min(readings)


def measure_engine(folder: Path, stage: int, precision: str, trained_precision: str) -> None:
    """Write the bytes into `folder`, in a file named by the rank."""
    start_distributed()
    before = alive()
    dtypes = [COMPUTE_DTYPES[precision]] * FROZEN + [COMPUTE_DTYPES[trained_precision]] * TRAINED
    module = Layers(*(nn.Linear(WIDTH, WIDTH, bias=False, dtype=dtype) for dtype in dtypes))
    module[:FROZEN].requires_grad_(False)
    config = EngineConfig(zero_stage=stage, precision=precision)
    engine = make_engine(module, 1e-3, 0.0, config, trained_precision)
    for step in range(2):
        engine.backward(engine(torch.ones(1, WIDTH)).float().sum())
        if step == 0:
            optimizer_step(engine)
    gradients = [weight.grad for weight in module.parameters()]  # Python objects from here on, which gc knows
    gc.collect()
    assert len(gradients) == TRAINED + FROZEN
    (folder / os.environ["RANK"]).write_text(json.dumps(settled() - before))
    end_process(0)
