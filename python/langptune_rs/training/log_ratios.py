"""How exactly log-ratios are computed: their noise, beside what a step makes of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from langptune_rs.distributed.collectives import gather_rows, rank
from langptune_rs.training.rollout_batches import RolloutBatch
from langptune_rs.training.scorer import ProfileScorer, finite_logps

MOVED_SHARE = 1 / 2000
"""Share of the trained weights that rounding moves in a small step: in bfloat16 a step of 1e-6 moves about as many."""


class LogRatioCheck:
    """Compares the noise of log-ratios with the log-ratios that the next step makes, on one micro-batch of each rank.

    Every rank makes one before the step and asks it afterwards. Whoever calls it holds the whole weights.
    """

    def __init__(self, scorer: ProfileScorer, batch: RolloutBatch, seed: int):
        self._scorer, self._batch = scorer, batch
        with torch.no_grad():
            self._before_BG = finite_logps(scorer, batch)
            with rounded_differently(scorer, seed):
                self.noise = pair_spread(finite_logps(scorer, batch) - self._before_BG)

    def metrics(self) -> dict[str, float]:
        """What to log after the step: `rlso/log_ratio_noise` and `rlso/log_ratio_step`, both `pair_spread`s in nats."""
        with torch.no_grad():
            step = pair_spread(finite_logps(self._scorer, self._batch) - self._before_BG)
        if self.noise > step and rank() == 0:
            is_exact = next(p for p in self._scorer.parameters() if p.requires_grad).dtype == torch.float32
            print(
                f"Rounding moves a pair's difference of log-ratios by {self.noise:.2g} nats, a step only by "
                f"{step:.2g}: later steps over the same rollout and the KL penalty follow the rounding. "
                + ("Raise rlso.learning_rate." if is_exact else 'Set rlso.precision = "fp32".'),
                file=sys.stderr,
            )
        return {"rlso/log_ratio_noise": self.noise, "rlso/log_ratio_step": step}


def pair_spread(log_ratios_BG: Tensor) -> float:
    """Root mean square of the difference of two log-ratios, over all pairs of profiles of a session, on all ranks.

    Each rank gives its own sessions, any number of them. Log-ratios that are not finite are in no pair.
    """
    first, second = torch.triu_indices(log_ratios_BG.shape[1], log_ratios_BG.shape[1], offset=1)
    differences = (log_ratios_BG[:, first] - log_ratios_BG[:, second]).double()
    differences = differences[differences.isfinite()]
    of_ranks = gather_rows(torch.stack([differences.square().sum(), differences.new_tensor(len(differences))])[None])
    total, count = of_ranks.sum(0).tolist()
    return math.sqrt(total / max(count, 1))


@contextmanager
def rounded_differently(module: nn.Module, seed: int) -> Iterator[None]:
    """Inside the block `MOVED_SHARE` of the trained weights are one unit in the last place higher or lower."""
    generator = torch.Generator().manual_seed(seed)
    moved: list[tuple[Tensor, Tensor, Tensor]] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            weights = parameter.data.view(-1)
            count = math.ceil(weights.numel() * MOVED_SHARE)
            places = torch.unique(torch.randint(weights.numel(), (count,), generator=generator))
            ways = torch.randint(2, (len(places),), generator=generator) * 2 - 1
            places, ways = places.to(weights.device), ways.to(weights.device)
            before = weights[places]
            weights[places] = torch.nextafter(before, (ways * math.inf).to(before.dtype))
            moved.append((weights, places, before))
    try:
        yield
    finally:
        for weights, places, before in moved:
            weights[places] = before
