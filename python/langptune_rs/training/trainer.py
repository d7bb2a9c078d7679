"""LangPTune, Algorithm 1: K iterations of J contrastive steps for the embedder and T RLSO steps for the policy."""

from __future__ import annotations

import math
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from langptune_rs.config import RunConfig
from langptune_rs.data import Sessions, resolve_config
from langptune_rs.distributed.collectives import (
    after_first_rank,
    any_rank,
    barrier,
    gather_objects,
    gather_rows,
    gather_shares,
    on_first_rank,
    rank,
    shard,
    world_size,
)
from langptune_rs.distributed.failures import CONTRASTIVE, LOADING, RANKING, RLSO, WRITING, during, explained
from langptune_rs.distributed.start import start_distributed
from langptune_rs.errors import ConfigError, RunError, TrainingError
from langptune_rs.files import flush, write_text
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.memory import free_memory, keep_freed_memory
from langptune_rs.models.policy import Policy
from langptune_rs.models.precision import COMPUTE_DTYPES
from langptune_rs.progress import progress
from langptune_rs.rollout.copying import copied_share
from langptune_rs.rollout.kept_profiles import KeptProfiles, read_texts, save_texts
from langptune_rs.rollout.prompts import encode_prompts
from langptune_rs.rollout.reward import Recommender, recommender_reward
from langptune_rs.rollout.sampling import Profiles, check_context, write_profiles
from langptune_rs.runs.folder import CHECKPOINTS, TRAINED, has_config, open_dataset, opened_run, read_config
from langptune_rs.runs.metrics_log import MetricsLog, read_metrics
from langptune_rs.runs.saving import not_written
from langptune_rs.training.checkpoints import (
    Position,
    last_checkpoint,
    load_engines,
    newest_checkpoint,
    save_checkpoint,
)
from langptune_rs.training.contrastive_step import ContrastiveBatch, contrastive_step
from langptune_rs.training.engines import gathered, make_engine
from langptune_rs.training.policy_step import (
    ProfileScorer,
    ReferenceWeights,
    penalize,
    rlso_step,
    score,
    standardize,
)
from langptune_rs.training.rollout_batches import RolloutBatch, pack_rollout
from langptune_rs.training.schedules import batch_rows, linear_decay


@contextmanager
def started_run(config: RunConfig, output: Path, *, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
    """Join the other processes and hold the folder `output` for a run of `config` inside the block.

    Raises `RunError` on every rank when `output` is in use or holds something else, and `ConfigError` when the recipe
    does not fit a prepared data set.
    """
    keep_freed_memory()
    start_distributed()
    config = config.model_copy(update={"data": resolve_config(config.data)})
    with ExitStack() as stack:
        on_first_rank(lambda: stack.enter_context(opened_run(output, config, resume=resume, overwrite=overwrite)))
        if unseen := [host for host in gather_objects(None if has_config(output) else socket.gethostname()) if host]:
            raise RunError(
                f"{output.absolute()}, which rank 0 has made, is not there on {', '.join(sorted(set(unseen)))}. All "
                "machines of a run need one file system: choose an --output on it."
            )
        yield


def train(output: Path) -> None:
    """Train as the recipe in `output` says and save both models there; a run that is trained already is left as it is.

    Raises `ConfigError` when the recipe does not fit the data or the number of processes, `TrainingError` when a loss
    is not a number, `RunError` when something cannot be saved, `Stopped` after saving on Ctrl-C.
    """
    if not gather_objects((output / TRAINED).is_file())[0]:
        config = read_config(output)
        with explained(LOADING, config):
            trainer = Trainer(config, output)
        trainer.run()
        del trainer
        free_memory()


class Stopped(KeyboardInterrupt):
    """Ctrl-C was pressed, and every rank has saved: none waits for another."""


class Interrupted(Exception):
    """Ctrl-C was pressed: raised on every rank, at a place that a resumed run goes on from."""


class Trainer:
    """Both models, their engines and the place in the schedule."""

    def __init__(self, config: RunConfig, output: Path):
        self.config, self.output = config, output
        self.dataset = after_first_rank(lambda: open_dataset(config, output))
        self.train_sessions = self.dataset.sessions.select("train").sample(config.data.max_sessions, config.seed)
        shares = target_shares(self.dataset.sessions.select("train").targets, len(self.dataset.catalog))
        self.log_shares = torch.from_numpy(np.log(shares)).float() if config.contrastive.popularity_correction else None
        validation = self.dataset.sessions.select("validation")
        self.validation_sessions = validation.sample(config.evaluation.validation_sessions, config.data.seed)
        self._check_sizes()
        dtype = COMPUTE_DTYPES[config.engine.precision]
        torch.manual_seed(config.seed)
        self.policy = Policy.load(config.policy, dtype)
        self.embedder = Embedder.load(config.embedder, dtype)
        self.engines = {}
        if config.trains_embedder:
            self.engines["embedder"] = make_engine(
                self.embedder.model, config.contrastive.learning_rate, config.contrastive.weight_decay, config.engine
            )
        if config.trains_policy:
            self.scorer = ProfileScorer(
                self.policy, config.profile.temperature, checkpointing=config.rlso.gradient_checkpointing
            )
            self.engines["policy"] = make_engine(
                self.scorer, config.rlso.learning_rate, config.rlso.weight_decay, config.engine
            )
            if config.rlso.kl_penalty:
                with self._gathered("policy"):
                    self.reference = ReferenceWeights(self.scorer)
        self._check_context()
        self.position = Position()
        if checkpoint := newest_checkpoint(output / CHECKPOINTS):
            self.position = checkpoint.position
            load_engines(checkpoint, self.engines)
        self._saved = self.position
        self._warned_of_overlong = False
        self._kept_recommender: Recommender | None = None
        self.log = None
        if rank() == 0:
            if not checkpoint and read_metrics(output):
                print(
                    f"There is no checkpoint in {output} yet: the training starts from the beginning.", file=sys.stderr
                )
            self.log = MetricsLog(output, config.logging, self.position.step, config.model_dump())

    def _check_sizes(self) -> None:
        sessions, processes = len(self.train_sessions), world_size()
        limit, there = self.config.data.max_sessions, self.dataset.sessions.splits.count("train")
        cause = f" (data.max_sessions = {limit} of {there})" if sessions < there else ""
        more = "raise data.max_sessions" if cause else "prepare more data"
        if processes > sessions:
            raise ConfigError(
                f"There are {processes} processes, but only {sessions} training sessions{cause}. "
                f"Start at most {sessions}, or {more}."
            )
        for section, active in (("contrastive", self.config.trains_embedder), ("rlso", self.config.trains_policy)):
            batch_size = getattr(self.config, section).batch_size
            if active and batch_size > sessions:
                raise ConfigError(
                    f"{section}.batch_size = {batch_size}, but there are only {sessions} training sessions{cause}. "
                    f"Set it to at most {sessions}, or {more}."
                )
            if active and batch_size % processes:
                raise ConfigError(
                    f"{section}.batch_size = {batch_size} cannot be shared equally by {processes} processes. "
                    f"Choose a multiple of {processes}."
                )

    def _check_context(self) -> None:
        """Refuse a profile limit that does not fit behind the longest prompt of the run before any work is done."""
        test = self.dataset.sessions.select("test").sample(self.config.evaluation.max_sessions, self.config.data.seed)
        for sessions in (self.train_sessions, self.validation_sessions, test):
            check_context(self.policy, self._prompts(sessions), self.config.profile.max_tokens)

    def run(self) -> None:
        """The loop of Algorithm 1 from the current position to the end, then both models to disk."""
        try:
            with _interruption() as self._interrupted:
                self._iterate()
            self._save_models()
        finally:
            if self.log:
                self.log.close()

    def _iterate(self) -> None:
        try:
            if self.position == Position():
                self._validate(0)
            for k in range(self.position.iteration, self.config.iterations):
                if self.config.trains_embedder and self.position.phase == "contrastive":
                    self.contrastive_phase(k)
                self._move_to(k, "rlso")
                if self.config.trains_policy:
                    self.rlso_phase(k)
                self._move_to(k + 1, "contrastive")
        except Interrupted:
            if self.position != self._saved:
                self._save_checkpoint()
            raise Stopped from None

    @during(CONTRASTIVE)
    def contrastive_phase(self, k: int) -> None:
        """J steps of Eq. 7 on profiles that the current policy writes for the sessions of this phase."""
        config = self.config.contrastive
        seed = _seed(self.config.seed, "contrastive", k)
        batches = [batch_rows(len(self.train_sessions), config.batch_size, j, seed) for j in range(config.steps)]
        needed = np.unique(np.concatenate(batches))
        profiles = dict(zip(needed.tolist(), self._phase_profiles(k, needed), strict=True))
        total_steps = self.config.iterations * config.steps
        self._kept_recommender = None
        with progress(config.steps, f"iteration {k + 1}: contrastive", self.position.phase_step) as advance:
            for j in range(self.position.phase_step, config.steps):
                started = time.monotonic()
                rows = batches[j]
                items = self.train_sessions.targets[rows]
                targets = torch.from_numpy(items).long()
                batch = ContrastiveBatch(
                    [profiles[row] for row in rows.tolist()],
                    [self.dataset.catalog.texts[item] for item in items],
                    targets,
                    None if self.log_shares is None else self.log_shares[targets],
                )
                learning_rate = linear_decay(config.learning_rate, k * config.steps + j, total_steps)
                values = contrastive_step(self.engines["embedder"], self.embedder, batch, config, learning_rate)
                self._finish_step(k, "contrastive", values, values["contrastive/loss"], started)
                advance(note=f"loss {values['contrastive/loss']:.4f}")
                self._checkpoint_if_due()
        self._validate(k)

    @during(RLSO)
    def rlso_phase(self, k: int) -> None:
        """T steps of Eq. 6; every `epochs` of them share a rollout batch rewarded by the embedder as it is now."""
        config = self.config.rlso
        recommender = self._recommender()
        if config.kl_penalty and config.kl_reference == "iteration":
            self._refresh_reference(k)
        total_steps = self.config.iterations * config.steps
        with progress(config.steps, f"iteration {k + 1}: RLSO", self.position.phase_step) as advance:
            for t in range(self.position.phase_step, config.steps, config.epochs):
                started = time.monotonic()
                rows = batch_rows(
                    len(self.train_sessions), config.batch_size, t // config.epochs, _seed(self.config.seed, "rlso", k)
                )
                batches, rewards, old_logps, stats = self._rollout(recommender, rows, k, t)
                for epoch in range(config.epochs):
                    learning_rate = linear_decay(config.learning_rate, k * config.steps + t + epoch, total_steps)
                    old_logps, values = rlso_step(
                        self.engines["policy"], batches, rewards, old_logps, config, learning_rate
                    )
                    self._finish_step(k, "rlso", {**values, **stats}, values["rlso/loss"], started)
                    started, stats = time.monotonic(), {}
                    advance(note=f"loss {values['rlso/loss']:.4f}")
                self._checkpoint_if_due(width=config.epochs)
        self._validate(k)

    def _refresh_reference(self, k: int) -> None:
        """Take the policy at the start of iteration k as the reference; kept on disk for a phase that is resumed."""
        path = self._reference_path(k)
        with self._gathered("policy"):
            if self.position.phase_step == 0:
                self.reference = ReferenceWeights(self.scorer)
                on_first_rank(lambda: self.reference.save(path))
            else:
                self.reference.load(path)

    def _reference_path(self, k: int) -> Path:
        return self.output / CHECKPOINTS / f"reference-{k}.safetensors"

    def _rollout(self, recommender: Recommender, rows: np.ndarray, k: int, t: int):
        """Sample, reward, penalise, standardise: one rollout batch, this rank's share of it.

        Returns its micro-batches, the rewards (sessions, profiles), the old log-probabilities if the rewards needed
        them, and what to log.
        """
        config = self.config.rlso
        own = self.train_sessions.take(rows[shard(rows)])
        prompts = self._prompts(own)
        seeds = [_seed(self.config.seed, "sample", k, t, int(session)) for session in own.session_ids]
        with self._gathered("policy"):
            profiles = self._write(prompts, seeds, num_samples=config.num_profiles, keep_states=True)
            batches = self._packed(prompts, profiles)
            old_logps = None
            if config.kl_penalty:
                old_logps = score(self.scorer, batches)
                with self.reference.in_place():
                    reference_logps = score(self.scorer, batches)
        ranks = self._ranks(recommender, profiles, own, config.num_profiles)
        raw = recommender_reward(ranks, profiles.finished, metric=config.reward, overlong_reward=config.overlong_reward)
        raw_BG = torch.from_numpy(raw).view(-1, config.num_profiles)
        rewards_BG = raw_BG
        stats = {}
        if config.kl_penalty:
            rewards_BG = penalize(raw_BG, old_logps.cpu(), reference_logps.cpu(), config.kl_penalty)
            stats["kl/reference"] = gather_rows(old_logps - reference_logps).mean().item()
        everyone = standardize(gather_rows(rewards_BG))
        rewards = everyone[shard(rows)].to(self.policy.model.device)
        stats |= self._rollout_stats(gather_rows(raw_BG), profiles, own)
        return batches, rewards, old_logps, stats

    def _packed(self, prompts: list[list[int]], profiles: Profiles) -> list[RolloutBatch]:
        """Micro-batches of this rank's sessions, as many as on every other rank."""
        num_profiles, capacity = self.config.rlso.num_profiles, self.config.rlso.micro_batch_tokens
        batches = pack_rollout(self.policy, prompts, profiles, num_profiles, capacity)
        most = max(gather_objects(len(batches)))
        if len(batches) < most:
            batches = pack_rollout(self.policy, prompts, profiles, num_profiles, capacity, num_batches=most)
        return batches

    def _rollout_stats(self, raw_BG: torch.Tensor, profiles: Profiles, own: Sessions) -> dict[str, float]:
        config = self.config.rlso
        each = np.repeat(np.arange(len(own)), config.num_profiles)
        local = torch.tensor(
            [
                [len(tokens), not finished, copied_share(text, self._history_titles(own, i))]
                for tokens, finished, text, i in zip(
                    profiles.tokens, profiles.finished, profiles.texts, each, strict=True
                )
            ],
            dtype=torch.float64,
        )
        tokens, overlong, copied = gather_rows(local).mean(0).tolist()
        if overlong == 1 and rank() == 0 and not self._warned_of_overlong:
            self._warned_of_overlong = True
            print(
                f"No profile of this batch ended within profile.max_tokens = {self.config.profile.max_tokens}: all get "
                "rlso.overlong_reward, from which the policy learns nothing. Raise profile.max_tokens, or ask for "
                "shorter profiles in profile.instruction or profile.closing.",
                file=sys.stderr,
            )
        return {
            "reward/mean": raw_BG.mean().item(),
            "reward/std": raw_BG.std(unbiased=False).item(),
            "reward/pair_gap": (raw_BG.amax(1) - raw_BG.amin(1)).mean().item(),
            "profile/tokens": tokens,
            "profile/overlong_rate": overlong,
            "profile/copied_share": copied,
        }

    def _phase_profiles(self, k: int, rows: np.ndarray) -> list[str]:
        """One sampled profile for each session of a contrastive phase, kept on disk for a resumed one.

        A phase that is resumed while they are written goes on with the same batches, which decide how sums are rounded.
        """
        path = self.output / CHECKPOINTS / f"profiles-{k}.json"
        texts = read_texts(path)
        if any_rank(texts is None):
            own = self.train_sessions.take(rows[shard(rows)])
            seeds = [_seed(self.config.seed, "contrastive-sample", k, int(session)) for session in own.session_ids]
            kept = KeptProfiles(path.with_name(f"{path.stem}-{rank()}-of-{world_size()}.jsonl"))
            bar = progress(len(own), f"iteration {k + 1}: profiles", kept.num_profiles)
            with self._gathered("policy"), bar as advance:
                written = self._write(self._prompts(own), seeds, on_progress=advance, kept=kept).texts
            texts = [text for part in gather_objects(written) for text in part]
            if rank() == 0:
                save_texts(path, texts)
            barrier()
            kept.remove()
        return texts

    @during(WRITING)
    def _validate(self, k: int) -> None:
        """Greedy profiles on the validation split, scored by the current embedder; not a second time after a step."""
        sessions = self.validation_sessions
        if not len(sessions) or any_rank(self.log is not None and self.log.has_validation(self.position.step)):
            return
        recommender = self._recommender()
        own = sessions.take(np.arange(len(sessions))[shard(sessions.targets)])
        with self._gathered("policy"), progress(len(own), f"iteration {k + 1}: validation") as advance:
            profiles = self._write(self._prompts(own), None, on_progress=advance)
        ranks = self._ranks(recommender, profiles, own)
        copied = [copied_share(text, self._history_titles(own, i)) for i, text in enumerate(profiles.texts)]
        ranks, copied = (np.concatenate(parts) for parts in zip(*gather_objects((ranks, copied)), strict=True))
        k_cut = self.config.evaluation.k
        values = {
            f"validation/ndcg@{k_cut}": float(
                recommender_reward(ranks, np.ones(len(ranks), bool), metric=f"ndcg@{k_cut}", overlong_reward=0.0).mean()
            ),
            "validation/ndcg": float(
                recommender_reward(ranks, np.ones(len(ranks), bool), metric="ndcg", overlong_reward=0.0).mean()
            ),
            "validation/copied_share": float(copied.mean()),
        }
        if self.log:
            self.log.write(self.position.step, k, "validation", values)

    @during(WRITING)
    def _write(
        self, prompts, seeds, *, num_samples: int = 1, keep_states=False, on_progress=None, kept=None
    ) -> Profiles:
        """Profiles of this rank's prompts. Raises `Interrupted` on every rank once Ctrl-C was pressed on one."""
        profile = self.config.profile

        def on_batch(written: list[list[int]]) -> None:
            if kept:
                kept.add(written)
            if on_progress:
                on_progress(len(written))
            if self._interrupted():
                raise Interrupted

        profiles = None
        with suppress(Interrupted):
            profiles = write_profiles(
                self.policy,
                prompts,
                max_tokens=profile.max_tokens,
                temperatures=[0.0 if seeds is None else profile.temperature] * num_samples,
                seeds=seeds,
                token_budget=profile.token_budget,
                keep_states=keep_states,
                kept=kept.batches if kept else (),
                on_batch=on_batch,
            )
        if any_rank(profiles is None):
            raise Interrupted
        return profiles

    def _prompts(self, sessions: Sessions) -> list[list[int]]:
        return encode_prompts(self.policy, self.dataset, sessions, self.config.profile)

    def _history_titles(self, sessions: Sessions, i: int) -> str:
        return "\n".join(self.dataset.catalog.titles[item] for item in sessions.histories[i])

    def _gathered(self, model: str) -> AbstractContextManager[None]:
        """Whole weights of "policy" or "embedder" inside the block, whether it trains or not."""
        return gathered(self.engines[model]) if model in self.engines else nullcontext()

    @during(RANKING)
    def _recommender(self) -> Recommender:
        """The recommender with the embedder as it is now: each rank embeds its share of the catalog, and no item is
        embedded again before the embedder trains."""
        if self._kept_recommender is None:
            texts = self.dataset.catalog.texts
            with self._gathered("embedder"):
                own = torch.from_numpy(self.embedder.encode_items(texts[shard(texts)])).to(self.embedder.model.device)
            self._kept_recommender = Recommender(self.embedder, gather_shares(own, len(texts)).cpu().numpy())
        return self._kept_recommender

    @during(RANKING)
    def _ranks(self, recommender: Recommender, profiles: Profiles, sessions: Sessions, each: int = 1) -> np.ndarray:
        """Ranks of the targets of `sessions` by their profiles, `each` of them a session."""
        targets, histories = (np.repeat(x, each, axis=0) for x in (sessions.targets, sessions.histories))
        with self._gathered("embedder"):
            return recommender.ranks(profiles.texts, targets, histories)

    def _finish_step(self, k: int, phase: str, values: dict[str, float], loss: float, started: float) -> None:
        """Check and log one optimizer step and move past it."""
        p = self.position
        norm = values[f"{phase}/grad_norm"]
        if not (math.isfinite(loss) and math.isfinite(norm) and norm >= 0):
            raise TrainingError(
                f"The {phase} loss is {loss} and its gradient norm {norm} at step {p.step + 1} (iteration {k + 1}). "
                f"{last_checkpoint(self.output / CHECKPOINTS)} Lower {phase}.learning_rate or set "
                'engine.precision = "fp32".'
            )
        self.position = replace(p, iteration=k, phase=phase, phase_step=p.phase_step + 1, step=p.step + 1)
        if self.log:
            self.log.write(p.step + 1, k, phase, {**values, "time/seconds": time.monotonic() - started})

    def _checkpoint_if_due(self, width: int = 1) -> None:
        """Save every N steps, at the first place where no rollout batch is in hand."""
        if self.position.step % self.config.checkpoint.every < width:
            self._save_checkpoint()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if any_rank(self._interrupted()):
            raise Interrupted

    def _move_to(self, k: int, phase: str) -> None:
        """Enter the next phase, with a checkpoint at the border."""
        if (self.position.iteration, self.position.phase) != (k, phase):
            self.position = replace(self.position, iteration=k, phase=phase, phase_step=0)
            self._save_checkpoint()
            self._stop_if_asked()

    def _save_checkpoint(self) -> None:
        p = self.position
        within = p.phase == "rlso" and p.phase_step > 0 and self.config.rlso.kl_reference == "iteration"
        beside = [self._reference_path(p.iteration)] if within else []
        if self.log:
            self.log.flush()
        save_checkpoint(self.output / CHECKPOINTS, self.engines, p, self.config.checkpoint.keep, beside)
        self._saved = p

    def _save_models(self) -> None:
        """Both models in their libraries' own formats, each complete before it gets its name."""
        for name, model in (("policy", self.policy), ("embedder", self.embedder)):
            with self._gathered(name):
                on_first_rank(lambda name=name, model=model: save_model(model, self.output / name))
        if rank() == 0:
            write_text(self.output / TRAINED, "")
        barrier()


def save_model(model: Policy | Embedder, final: Path) -> None:
    """Write a trained model into the folder `final`, which is whole or not there.

    Raises `RunError` when the disk does not take it; what the run saved before stays.
    """
    temporary = final.with_name(f".{final.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        model.save(temporary)
        flush(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise not_written(final, error, last_checkpoint(final.with_name(CHECKPOINTS))) from error


def target_shares(targets: np.ndarray, num_items: int) -> np.ndarray:
    """Each item's share of all training targets, float64 (num_items,); an item that is none counts as half of one."""
    counts = np.maximum(np.bincount(targets, minlength=num_items), 0.5)
    return counts / len(targets)


def _seed(*parts: int | str) -> int:
    """One integer seed from the run's seed and the place where it is used."""
    words = [int.from_bytes(p.encode(), "little") if isinstance(p, str) else p for p in parts]
    return int(np.random.SeedSequence(words).generate_state(2, np.uint64)[0])


@contextmanager
def _interruption():
    """Yield a function that says whether Ctrl-C was pressed or SIGTERM sent, as job schedulers do before they kill.

    A second signal of the same kind stops at once. One of each may come together, from a launcher and its user.
    """
    asked: set[int] = set()

    def on_signal(signum: int, frame) -> None:
        if signum in asked:
            raise KeyboardInterrupt
        is_first = not asked
        asked.add(signum)
        if is_first and rank() == 0:
            with suppress(OSError, RuntimeError):  # what reads it was stopped as well, or a line is being written
                print(
                    "Stopping after this step or batch of profiles, with a checkpoint; "
                    "press Ctrl-C again to stop at once.",
                    file=sys.stderr,
                )

    before = {signum: signal.signal(signum, on_signal) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
