"""InfoNCE and the contrastive step against brute force in float64."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.experiments.tiny import make_models
from tests.processes import start_ranks

from langptune_rs.config.contrastive import ContrastiveConfig
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.config.engine import EngineConfig
from langptune_rs.distributed.collectives import gather_shares, rank, shard
from langptune_rs.distributed.group import end_process
from langptune_rs.distributed.start import start_distributed
from langptune_rs.models.embedder import Embedder
from langptune_rs.training.contrastive_step import ContrastiveBatch, accumulate_gradients, contrastive_step, info_nce
from langptune_rs.training.engines import make_engine


def unit_rows(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = rng.normal(size=(n, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.02])
def test_info_nce_is_equation_7(temperature: float) -> None:
    rng = np.random.default_rng(0)
    profiles, items = unit_rows(rng, 9, 5), unit_rows(rng, 9, 5)
    scores = np.exp(profiles @ items.T / temperature)
    expected = np.mean([-np.log(scores[b, b] / scores[b].sum()) for b in range(9)])
    loss = info_nce(torch.from_numpy(profiles), torch.from_numpy(items), torch.arange(9), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_equal_targets_are_no_negatives() -> None:
    rng = np.random.default_rng(1)
    profiles, items = unit_rows(rng, 4, 6), unit_rows(rng, 4, 6)
    targets = torch.tensor([7, 3, 7, 5])
    scores = np.exp(profiles @ items.T / 0.1)
    scores[0, 2] = scores[2, 0] = 0
    expected = np.mean([-np.log(scores[b, b] / scores[b].sum()) for b in range(4)])
    loss = info_nce(torch.from_numpy(profiles), torch.from_numpy(items), targets, 0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_popular_items_weigh_less_as_negatives() -> None:
    rng = np.random.default_rng(3)
    profiles, items = unit_rows(rng, 5, 4), unit_rows(rng, 5, 4)
    shares = np.array([0.5, 0.2, 0.1, 0.1, 0.1])
    weights = np.exp(profiles @ items.T / 0.2) / shares
    expected = np.mean([-np.log(weights[b, b] / weights[b].sum()) for b in range(5)])
    inputs = (torch.from_numpy(profiles), torch.from_numpy(items), torch.arange(5), 0.2)
    assert info_nce(*inputs, torch.from_numpy(np.log(shares))).item() == pytest.approx(expected, rel=1e-12)
    even = torch.full((5,), -2.0, dtype=torch.float64)
    assert info_nce(*inputs, even).item() == pytest.approx(info_nce(*inputs).item(), rel=1e-12)


def test_gradient_at_the_embeddings() -> None:
    rng = np.random.default_rng(2)
    profiles = torch.from_numpy(unit_rows(rng, 3, 4)).requires_grad_()
    items = torch.from_numpy(unit_rows(rng, 3, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, i: info_nce(p, i, torch.tensor([0, 1, 0]), 0.3), (profiles, items))


@pytest.fixture(scope="module")
def embedder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))[1]


def one_batch(num_pairs: int = 12) -> tuple[list[str], list[str], torch.Tensor]:
    """Profiles of very different lengths, item texts of which some are equal, and their targets."""
    rng = np.random.default_rng(4)
    words = ["dragons", "trains", "kitchens", "cats", "likes", "slow", "red"]
    profiles = [" ".join(rng.choice(words, rng.integers(1, 25))) for _ in range(num_pairs)]
    targets = torch.from_numpy(rng.integers(0, 8, num_pairs))
    return profiles, [f"Story {item} {'of kitchens ' * int(item)}" for item in targets], targets


def double(folder: Path) -> Embedder:
    embedder = Embedder.load(EmbedderConfig(model=str(folder)))
    embedder.model.double()
    return embedder


def brute_force(
    embedder: Embedder, profiles: list[str], items: list[str], targets: torch.Tensor, prompts=(None, None), **kwargs
):
    """Loss and gradients by one graph over all texts, padded by sentence-transformers, with its own attention."""
    embedder.model[0].model.set_attn_implementation("eager")
    sides = [
        torch.nn.functional.normalize(
            embedder.model(embedder.model.preprocess(texts, prompt=prompt))["sentence_embedding"]
        )
        for texts, prompt in zip((profiles, items), prompts, strict=True)
    ]
    loss = info_nce(*sides, targets, 0.1, **kwargs)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in embedder.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("micro_batch_tokens", [1, 100, 700, 10**6])
@pytest.mark.parametrize("corrected", [False, True])
def test_gradients_are_those_of_one_graph_however_it_is_cut(
    embedder_folder: Path, micro_batch_tokens: int, corrected: bool
) -> None:
    profiles, items, targets = one_batch()
    log_share = torch.linspace(-3, -1, len(targets), dtype=torch.float64) if corrected else None
    expected_loss, expected = brute_force(double(embedder_folder), profiles, items, targets, log_share_B=log_share)
    embedder = double(embedder_folder)
    start_distributed()
    engine = make_engine(embedder.model, 1e-3, 0.0, EngineConfig(precision="fp32"))
    embedder.model.double()
    config = ContrastiveConfig(micro_batch_tokens=micro_batch_tokens)
    loss, _ = accumulate_gradients(engine, embedder, ContrastiveBatch(profiles, items, targets, log_share), config)
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    actual = {name: p.grad for name, p in embedder.model.named_parameters() if p.grad is not None}
    assert actual.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(actual[name], grad, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("micro_batch_tokens", [300, 10**6])
def test_prompts_are_trained_with(embedder_folder: Path, micro_batch_tokens: int, include_prompt: bool) -> None:
    """Items that read like profiles are other texts, since another prompt stands before them."""
    profiles, items, targets = one_batch()
    profiles[:2] = items[:2]
    prompts = ("query: ", "This is an item: ")

    def made() -> Embedder:
        config = EmbedderConfig(model=str(embedder_folder), query_prompt=prompts[0], item_prompt=prompts[1])
        embedder = Embedder.load(config)
        embedder.model.set_pooling_include_prompt(include_prompt)
        return Embedder(embedder.model.double(), config)

    expected_loss, expected = brute_force(made(), profiles, items, targets, prompts)
    embedder = made()
    start_distributed()
    engine = make_engine(embedder.model, 1e-3, 0.0, EngineConfig(precision="fp32"))
    embedder.model.double()
    config = ContrastiveConfig(micro_batch_tokens=micro_batch_tokens)
    loss, _ = accumulate_gradients(engine, embedder, ContrastiveBatch(profiles, items, targets), config)
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    for name, grad in expected.items():
        torch.testing.assert_close(dict(embedder.model.named_parameters())[name].grad, grad, rtol=1e-7, atol=1e-10)


def step_of_two(model: Path, values: Path, zero_stage: int, micro_batch_tokens: int) -> None:
    """What each of two ranks does: a step, whose logged values rank 0 saves, and a gathering of unequal shares."""
    start_distributed()
    embedder = Embedder.load(EmbedderConfig(model=str(model)))
    engine = make_engine(embedder.model, 1e-3, 0.0, EngineConfig(precision="fp32", zero_stage=zero_stage))
    config = ContrastiveConfig(micro_batch_tokens=micro_batch_tokens)
    logged = contrastive_step(engine, embedder, ContrastiveBatch(*one_batch()), config, 0.0)
    rows = torch.arange(7 * 3).view(7, 3)
    assert torch.equal(gather_shares(rows[shard(rows)], 7), rows)
    if rank() == 0:
        torch.save(logged, values)
    end_process(0)


@pytest.mark.parametrize(("zero_stage", "micro_batch_tokens"), [(0, 300), (2, 1), (3, 300)])
def test_two_processes_take_the_step_of_one(
    embedder_folder: Path, tmp_path: Path, zero_stage: int, micro_batch_tokens: int
) -> None:
    """With texts so unequally shared that one has more micro-batches than the other of its own."""
    profiles, items, targets = one_batch()
    embedder = Embedder.load(EmbedderConfig(model=str(embedder_folder)))
    loss, grads = brute_force(embedder, profiles, items, targets)
    norm = torch.stack([grad.norm() for grad in grads.values()]).norm().item()
    work = partial(step_of_two, embedder_folder, tmp_path / "values.pt", zero_stage, micro_batch_tokens)
    log = tmp_path / "log"
    assert [process.wait(120) for process in start_ranks(work, log, 2)] == [0, 0], log.read_text()
    values = torch.load(tmp_path / "values.pt")
    assert values["contrastive/loss"] == pytest.approx(loss, rel=1e-6)
    assert values["contrastive/grad_norm"] == pytest.approx(norm, rel=1e-5)
