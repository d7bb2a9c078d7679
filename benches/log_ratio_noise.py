"""How exactly log-ratios are computed in each way, beside what a step changes them by.

    python benches/log_ratio_noise.py
    python benches/log_ratio_noise.py --train lora

The policy and the prompts are those of the quickstart. The policy, in bfloat16, writes one rollout batch. Every way of
computing the trained part scores the same profiles from the same states, with the same weights: those before a step and
those after it, the step being one in float32 at each learning rate. Columns, in nats, root mean squares all:

- error: of a profile's log-probability, against float64;
- pair error: of the difference of two profiles of a session;
- step: what the step changes that difference by, in float64;
- noise: the error of this change as the way computes it;
- seen: the part of the step that the way sees, no root mean square but the slope of its change over the true one;
- rounding: what a run logs as `rlso/log_ratio_noise`, which needs no float64.

Weights of a public model are numbers in bfloat16. With `--off-grid` they are each moved within their rounding first, as
by a long training.

The losses are those of `--updates` steps of Eq. 6 over the rollout batch by the ways of `--updated`. Times are not
those of the hardware that a way is for: its products are simulated in float32.

benches/peers/log_ratio_plot.py draws what `--json` prints. With `--trl` TRL's RLOO trainer scores the same profiles,
with the same weights, in its default precision, with a model in bfloat16, and in float32; TRL comes with
benches/peers/requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from peers.rlso_ours import write
from peers.rlso_work import Settings, Work
from peers.rounded_products import Parts, RoundedProducts, bf16, fp16, tf32, tf32_cut, two_bf16
from torch import Tensor, nn

from langptune_rs.config import load_config
from langptune_rs.config.engine import EngineConfig
from langptune_rs.config.policy import PolicyConfig
from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.distributed.start import start_distributed
from langptune_rs.evaluation import from_ranks
from langptune_rs.models import log_probs
from langptune_rs.models.log_probs import ROWS, TokenLogps
from langptune_rs.models.memory import keep_freed_memory
from langptune_rs.models.mixed import MixedLinear
from langptune_rs.models.policy import Policy, output_matrix
from langptune_rs.rollout.reward import standardize, with_overlong
from langptune_rs.rollout.sampling import Profiles, States
from langptune_rs.training.engines import make_engine
from langptune_rs.training.log_ratios import LogRatioCheck, pair_spread
from langptune_rs.training.policy_step import policy_step
from langptune_rs.training.rollout_batches import RolloutBatch, pack_rollout
from langptune_rs.training.scorer import ProfileScorer, in_session_order, score

MICRO_BATCH_TOKENS = 4096
COLUMNS = ("error", "pair error", "step", "noise", "noise / step", "seen", "rounding")
FLOAT64 = "fp64 behind a bf16 trunk"
"""The row for what the states' own rounding does; its truth is float64 in all layers."""

Weights = list[Tensor]
"""What trains, in the order of the model's parameters, in float32."""


@dataclass(frozen=True)
class Way:
    """One way of computing what trains.

    Weights, norms, softmax and the residual stream are in `dtype`, and the head in `head`, by default the same. The
    inputs of products are rounded to `parts`, if given, except in a head in float32. The products of gradients are in
    `gradients`, by default in the precision of what they are of.
    """

    dtype: torch.dtype = torch.float32
    parts: Parts | None = None
    head: torch.dtype | None = None
    gradients: torch.dtype | None = None


WAYS = {
    "bf16": Way(torch.bfloat16),
    "bf16, head fp32": Way(torch.bfloat16, head=torch.float32),
    "fp32, products bf16": Way(parts=bf16),
    "fp32, products bf16, head fp32": Way(parts=bf16, head=torch.float32),
    "fp32, products fp16": Way(parts=fp16),
    "fp32, products tf32": Way(parts=tf32),
    "fp32, products tf32, cut": Way(parts=tf32_cut),
    "fp32, products 2 x bf16": Way(parts=two_bf16),
    "fp32, gradients bf16": Way(gradients=torch.bfloat16),
    "fp32": Way(),
}
"""The first and the last are `rlso.precision`; the last but one is "fp32" with `engine.precision = "bf16"`."""
DEFAULT = "fp32"


@dataclass(frozen=True)
class Batch:
    """One rollout batch, whatever it is scored in."""

    prompts: list[list[int]]
    profiles: Profiles
    rewards_BG: Tensor
    temperature: float

    @property
    def num_profiles(self) -> int:
        return self.rewards_BG.shape[1]

    def packed(self, policy: Policy) -> list[RolloutBatch]:
        """The batch for a policy with the states that were kept while it was written."""
        return pack_rollout(policy, self.prompts, self.profiles, self.num_profiles, MICRO_BATCH_TOKENS)

    def with_ids(self) -> Batch:
        """The batch with token ids, (tokens, 1), where the states are."""
        prompts, profiles = ([torch.tensor(row)[:, None] for row in rows] for rows in self._rows())
        return replace(self, profiles=replace(self.profiles, states=States(prompts, profiles)))

    def _rows(self) -> tuple[list[list[int]], list[list[int]]]:
        return self.prompts, [tokens[:-1] for tokens in self.profiles.tokens]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="ml-100k", help="logs as `langptune data prepare jsonl` reads them")
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--profiles", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--train", choices=("last-layers", "lora"), default="last-layers")
    parser.add_argument("--last-layers", type=int, default=6)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-6, 1e-5])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--updated", nargs="*", choices=WAYS, default=["bf16", DEFAULT])
    parser.add_argument("--off-grid", action="store_true", help="start from weights that bfloat16 does not hold")
    parser.add_argument("--trl", action="store_true", help="TRL's RLOO trainer too")
    parser.add_argument("--json", action="store_true", help="print only the numbers, as JSON")
    log_probs.OUTPUTS = sys.maxsize  # so that the output matrix is known by its size
    options = parser.parse_args()
    keep_freed_memory()
    start_distributed()
    config = PolicyConfig(train=options.train, last_layers=options.last_layers)
    batch = written(options, config)
    rows = measured(options, config, batch)
    print(json.dumps(rows, indent=2) if options.json else table(rows))


def written(options: argparse.Namespace, config: PolicyConfig) -> Batch:
    """The rollout batch, by the prompts and the temperature of the quickstart."""
    say("writing")
    profile = load_config("quickstart").profile.model_copy(update={"max_tokens": options.max_tokens})
    sizes = (options.source, options.sessions, options.profiles, options.max_tokens, options.last_layers)
    settings = Settings(*sizes, epochs=1, profile=profile)
    policy = opened(config, torch.bfloat16)
    work = Work(settings, policy)
    profiles = write(policy, work, settings)
    raw = with_overlong(from_ranks(work.ranks(profiles.texts), "ndcg"), profiles.finished, reward=0.0, penalty=None)
    rewards_BG = standardize(torch.from_numpy(raw).view(-1, options.profiles))
    if not rewards_BG.any():
        sys.exit("All profiles have the same reward, so a step changes nothing: raise --sessions or --max-tokens.")
    return Batch(work.prompts, profiles, rewards_BG, profile.temperature)


def measured(options: argparse.Namespace, config: PolicyConfig, batch: Batch) -> list[dict[str, Any]]:
    """The rows of the table, one for each way and learning rate."""
    before = weights_of(opened(config, torch.float32))
    if options.off_grid:
        generator = torch.Generator().manual_seed(0)
        before = [w * (1 + (torch.rand(w.shape, generator=generator) - 0.5) * 2**-8) for w in before]
    steps = {rate: after_one_step(config, batch, before, rate) for rate in options.learning_rates}
    exact = whole = Exact(config, batch)
    rows = []
    if options.train == "last-layers":  # LoRA has only the embedding before its layers
        say(FLOAT64)
        whole = Exact(config, batch, own_states=True)
        rows += rows_of(FLOAT64, exact.logps, whole, before, steps)
    for name in options.ways:
        say(name)
        num_updates = options.updates if name in options.updated else 0
        rows += rows_of_way(name, config, batch, exact, before, steps, num_updates)
    if options.trl:
        from peers.log_ratios_trl import scorers

        for name, logps in scorers(config, batch.prompts, batch.profiles.tokens, batch.temperature):
            say(name)
            rows += rows_of(name, logps, whole, before, steps)
    return rows


def rows_of_way(
    name: str,
    config: PolicyConfig,
    batch: Batch,
    exact: Exact,
    before: Weights,
    steps: Mapping[float, Weights],
    num_updates: int,
) -> list[dict[str, Any]]:
    """The rows of one way of this package."""
    way = WAYS[name]
    scorer = WayScorer(opened(config, way.dtype), way, batch.temperature)
    batches = batch.packed(scorer.policy)
    rows = rows_of(name, lambda weights: score(with_weights(scorer, weights), batches), exact, before, steps)
    rounding = LogRatioCheck(with_weights(scorer, before), batches[0], 0).noise
    for row in rows:
        row["rounding"] = rounding
        if num_updates:
            row |= updates(config, batch, before, way, row["learning rate"], num_updates)
            say(json.dumps(row))
    return rows


def rows_of(
    name: str, logps: Callable[[Weights], Tensor], exact: Exact, before: Weights, steps: Mapping[float, Weights]
) -> list[dict[str, Any]]:
    """One row for each learning rate; `logps` scores the batch with the weights that it is given."""
    own_BG, exact_BG = logps(before), exact.logps(before)
    error_BG = own_BG - exact_BG
    rows = []
    for rate, after in steps.items():
        step_BG, change_BG = exact.logps(after) - exact_BG, logps(after) - own_BG
        step, noise = pair_spread(step_BG), pair_spread(change_BG - step_BG)
        rows.append(
            {
                "way": name,
                "learning rate": rate,
                "error": error_BG.square().mean().sqrt().item(),
                "pair error": pair_spread(error_BG),
                "step": step,
                "noise": noise,
                "noise / step": noise / step,
                "seen": slope(change_BG, step_BG),
            }
        )
        say(json.dumps(rows[-1]))
    return rows


def slope(values_BG: Tensor, of_BG: Tensor) -> float:
    """The slope of a regression over all pairs of profiles of a session."""
    values_BG, of_BG = (x - x.mean(1, keepdim=True) for x in (values_BG, of_BG))
    return ((values_BG * of_BG).sum() / of_BG.square().sum()).item()


class Exact:
    """Log-probabilities in float64, norms and log-sum-exp too, with the rotary angles in float32."""

    def __init__(self, config: PolicyConfig, batch: Batch, *, own_states: bool = False):
        """With `own_states` the frozen layers are in float64 as well; else their states are those in bfloat16."""
        self._policy = opened(config, torch.float64)
        for parameter in self._policy.model.parameters():
            parameter.data = parameter.data.double()
        for module in self._policy.model.modules():
            if hasattr(module, "variance_epsilon"):
                module.forward = partial(_exact_norm, module)
        self._temperature = batch.temperature
        self._batches = batch.packed(self._policy)
        if own_states:
            ids = batch.with_ids().packed(self._policy)
            self._batches = [replace(b, states=self._states(b)) for b in ids]
        self._known: dict[int, Tensor] = {}

    @torch.no_grad()
    def logps(self, weights: Weights) -> Tensor:
        """Log-probabilities (sessions, profiles) with these weights."""
        if id(weights) not in self._known:
            put(self._policy, weights)
            scored = [self._scored(batch) for batch in self._batches]
            self._known[id(weights)] = in_session_order(self._batches, scored)
        return self._known[id(weights)]

    def _scored(self, batch: RolloutBatch) -> Tensor:
        hidden = self._policy.hidden(batch.states, batch.position_ids, batch.layout, batch.predictors)
        token_logps = []
        for rows, tokens in zip(torch.split(hidden, ROWS), torch.split(batch.tokens, ROWS), strict=True):
            logps = (self._policy.logits(rows) / self._temperature).log_softmax(-1)
            token_logps.append(logps.gather(-1, tokens[:, None])[:, 0])
        sums = hidden.new_zeros(len(batch.sessions) * batch.num_profiles)
        return sums.index_add(0, batch.owners, torch.cat(token_logps)).view(-1, batch.num_profiles)

    @torch.no_grad()
    def _states(self, ids: RolloutBatch) -> Tensor:
        return self._policy.states(ids.states[..., 0], ids.position_ids, ids.layout)


def _exact_norm(norm: Any, hidden: Tensor) -> Tensor:
    variance = hidden.square().mean(-1, keepdim=True)
    normed: Tensor = norm.weight * hidden * torch.rsqrt(variance + norm.variance_epsilon)
    return normed


class WayScorer(ProfileScorer):
    """Log-probabilities computed in one way."""

    def __init__(self, policy: Policy, way: Way, temperature: float):
        super().__init__(policy, temperature)
        self.policy = policy
        self.token_logps = Head(
            output_matrix(policy.model), policy.final_softcap, temperature, way.head or way.dtype, way.gradients
        )
        for module in policy.model.modules():
            if isinstance(module, MixedLinear):
                module.gradient_dtype = way.gradients
        exact_rows = len(output_matrix(policy.model).get_parameter("weight")) if way.head else None
        self._products = RoundedProducts(way.parts, exact_rows) if way.parts else nullcontext()

    def forward(self, batch: RolloutBatch) -> Tensor:
        """Log-probabilities, float64 (sessions, profiles per session)."""
        with self._products:
            return super().forward(batch)


class Head(TokenLogps):
    """The output matrix in a precision of its own."""

    def __init__(
        self,
        output: nn.Module,
        softcap: float | None,
        temperature: float,
        dtype: torch.dtype,
        gradients: torch.dtype | None,
    ):
        super().__init__(output, softcap, temperature, gradients)
        self._dtype = dtype

    def forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability of each token, float32 (n,), from hidden (n, width)."""
        return super().forward(hidden.to(self._dtype), tokens)


def after_one_step(config: PolicyConfig, batch: Batch, before: Weights, learning_rate: float) -> Weights:
    """The weights after one step of the default way."""
    say(f"a step of {learning_rate:g}")
    scorer, step = stepping(config, batch, before, WAYS[DEFAULT], learning_rate)
    step()
    return weights_of(scorer.policy)


def updates(
    config: PolicyConfig, batch: Batch, before: Weights, way: Way, learning_rate: float, num_updates: int
) -> dict[str, Any]:
    """Losses of steps over the rollout batch, and the median of their seconds."""
    _, step = stepping(config, batch, before, way, learning_rate)
    losses, seconds = [], []
    for _ in range(num_updates):
        started = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - started)
    return {"losses": losses, "seconds": statistics.median(seconds)}


def stepping(
    config: PolicyConfig, batch: Batch, before: Weights, way: Way, learning_rate: float
) -> tuple[WayScorer, Callable[[], float]]:
    """A policy, and what takes its next step over the rollout batch and returns the loss before that step."""
    scorer = with_weights(WayScorer(opened(config, way.dtype), way, batch.temperature), before)
    engine = make_engine(scorer, learning_rate, 0.0, EngineConfig(), "bf16" if way.dtype == torch.bfloat16 else "fp32")
    rlso = RlsoConfig(batch_size=len(batch.rewards_BG), num_profiles=batch.num_profiles)
    batches = batch.packed(scorer.policy)
    old_BG: Tensor | None = None

    def step() -> float:
        nonlocal old_BG
        old_BG, values = policy_step(engine, batches, batch.rewards_BG, old_BG, rlso, learning_rate)
        return values["rlso/loss"]

    return scorer, step


def opened(config: PolicyConfig, trained_dtype: torch.dtype) -> Policy:
    """The policy in bfloat16 but for what trains, with LoRA's random weights the same each time."""
    torch.manual_seed(0)
    return Policy.load(config, torch.bfloat16, trained_dtype)


def weights_of(policy: Policy) -> Weights:
    """A copy of what trains."""
    return [p.detach().float().clone() for p in policy.model.parameters() if p.requires_grad]


def with_weights(scorer: WayScorer, weights: Weights) -> WayScorer:
    """The scorer, with these weights rounded to its precision."""
    put(scorer.policy, weights)
    return scorer


def put(policy: Policy, weights: Weights) -> None:
    trained = [p for p in policy.model.parameters() if p.requires_grad]
    for parameter, weight in zip(trained, weights, strict=True):
        parameter.data.copy_(weight)


def say(what: str) -> None:
    print(f"{time.perf_counter():.0f}", what, file=sys.stderr, flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    heads = ("way", "learning rate", *COLUMNS, "seconds", "losses")
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 2) + "|---|"]
    for row in rows:
        numbers = [f"{row[column]:.2g}" if column in row else "" for column in COLUMNS]
        seconds = f"{row['seconds']:.1f}" if "seconds" in row else ""
        losses = ", ".join(f"{loss:.3f}" for loss in row.get("losses", ()))
        lines.append(f"| {row['way']} | {row['learning rate']:g} | " + " | ".join([*numbers, seconds, losses]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
