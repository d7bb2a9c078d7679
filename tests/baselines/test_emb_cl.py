"""EMB-CL against brute force, on sessions with structure and without."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from langptune_rs.baselines.emb_0 import Emb0
from langptune_rs.baselines.emb_cl import EmbCl, EmbClConfig
from langptune_rs.baselines.method import ScoredSessions
from langptune_rs.baselines.random import Random
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.data import Catalog, Dataset, Sessions
from langptune_rs.data.wording.templates import make_template
from langptune_rs.errors import DataError, TrainingError
from langptune_rs.evaluation.metrics import from_ranks
from langptune_rs.models import precision as precision_module
from langptune_rs.seeds import derive_seed
from langptune_rs.training.contrastive_step import target_shares
from langptune_rs.training.schedules import batch_rows

NUM_ITEMS, NUM_KINDS, HISTORY = 60, 5, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An encoder with random weights that reads a number of an item as one token."""
    folder = tmp_path_factory.mktemp("embedder")
    words = ["<pad>", "<unk>", "Title:", "Item", "Number:", ";", *map(str, range(NUM_ITEMS))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(";", "isolated")]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=64
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, pad_token_id=0, **sizes))
    for part in (bert, fast):
        part.save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert"), max_seq_length=64), Pooling(32)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def make_dataset(num_sessions: int = 300, seed: int = 0, splits=("train", "train", "train", "validation", "test")):
    """Sessions of items of one kind, which only their numbers tell: 0, 5, 10 and so on, or 1, 6, 11."""
    random = np.random.default_rng(seed)
    rows = np.stack(
        [
            random.choice(np.arange(kind, NUM_ITEMS, NUM_KINDS), HISTORY + 1, replace=False)
            for kind in random.integers(0, NUM_KINDS, num_sessions)
        ]
    ).astype(np.int32)
    sessions = Sessions(
        session_ids=np.arange(num_sessions, dtype=np.int64),
        user_ids=[f"u{i}" for i in range(num_sessions)],
        histories=rows[:, :HISTORY],
        ratings=np.full((num_sessions, HISTORY), np.nan, dtype=np.float32),
        reviews=[[None] * HISTORY for _ in range(num_sessions)],
        targets=rows[:, HISTORY],
        splits=[splits[i % len(splits)] for i in range(num_sessions)],
    )
    titles = [f"Item {i}" for i in range(NUM_ITEMS)]
    texts = [f"Title: {title} Number: {i}" for i, title in enumerate(titles)]
    catalog = Catalog([f"i{i}" for i in range(NUM_ITEMS)], titles, texts, titles)
    return Dataset(catalog, sessions, make_template("generic", has_ratings=False, has_reviews=False), {})


def with_columns(dataset: Dataset, **columns) -> Dataset:
    """The data set with other values in columns of its sessions."""
    sessions = dataset.sessions
    names = ("session_ids", "user_ids", "histories", "ratings", "reviews", "targets", "splits")
    values = {name: getattr(sessions, name) for name in names}
    for name in ("user_ids", "splits"):
        values[name] = list(values[name])
    values["reviews"] = [[None] * HISTORY for _ in range(len(sessions))]
    return replace(dataset, sessions=Sessions(**values | columns))


def fitted(dataset: Dataset, folder, seed: int = 0, checkpoint=None, **settings) -> EmbCl:
    """Trained for a moment in float32; a learning rate for weights that know nothing."""
    moment = {"iterations": 2, "steps": 20, "batch_size": 64, "learning_rate": 3e-3, "precision": "fp32"}
    config = EmbClConfig(embedder=EmbedderConfig(model=str(folder)), **moment | settings)
    method = EmbCl()
    method.fit(dataset, config, seed, checkpoint)
    return method


def weights(method: EmbCl) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in method.recommender.embedder.model.state_dict().items()}


def ranks(method, dataset: Dataset, split: str = "test") -> list[int]:
    return method.score_targets(dataset.sessions.select(split)).ranks[:, 0].tolist()


def ndcg(method, dataset: Dataset, split: str = "test") -> float:
    return float(from_ranks(np.array(ranks(method, dataset, split)), "ndcg@20").mean())


def random_ndcg(dataset: Dataset, split: str = "test") -> float:
    random = Random()
    random.fit(dataset, Random.Config(), seed=1)
    return ndcg(random, dataset, split)


def distance(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    assert some.keys() == others.keys()
    return sum((some[name] - others[name]).square().sum().item() for name in some) ** 0.5


def by_brute_force(
    dataset: Dataset, folder, config: EmbClConfig, seed: int, num_taken: int | None = None
) -> dict[str, torch.Tensor]:
    """The weights after the first or all steps, in float64: padded, with one graph for each step, by the definition."""
    train = dataset.sessions.select("train")
    model = SentenceTransformer(str(folder), device="cpu").double().eval()
    model[0].model.set_attn_implementation("eager")
    decay = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), eps=1e-6, **decay)
    shares = torch.from_numpy(target_shares(train.targets, NUM_ITEMS))
    num_steps = config.iterations * config.steps
    for step in range(num_taken or num_steps):
        rows = batch_rows(len(train), config.batch_size, step, derive_seed(seed, "EMB-CL"))
        targets = torch.from_numpy(train.targets[rows]).long()
        texts = (
            [dataset.session_text(train, row) for row in rows]
            if config.text == "full"
            else ["; ".join(f"Item {item}" for item in train.histories[row]) for row in rows]
        )
        histories, items = (
            torch.nn.functional.normalize(model(model.preprocess(side))["sentence_embedding"])
            for side in (texts, [dataset.catalog.texts[item] for item in targets])
        )
        scores = (histories @ items.T / config.temperature).exp()
        if config.popularity_correction:
            scores = scores / shares[targets]
        others = targets[:, None] != targets
        loss = -(scores.diag() / ((scores * others).sum(1) + scores.diag())).log().mean()
        optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - step / num_steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize(
    "settings",
    [
        {"text": "full"},
        {"text": "titles", "popularity_correction": True, "micro_batch_tokens": 200, "temperature": 0.5},
    ],
)
def test_it_takes_the_steps_of_equation_7_on_train_sessions(folder, settings):
    dataset = make_dataset()
    moment = {"iterations": 1, "steps": 6, "batch_size": 32, "learning_rate": 1e-3, "weight_decay": 0.1}
    method = fitted(dataset, folder, seed=3, **moment, **settings)
    config = EmbClConfig(embedder=EmbedderConfig(model=str(folder)), **moment, **settings)
    expected, initial = by_brute_force(dataset, folder, config, 3), SentenceTransformer(str(folder)).state_dict()
    moved = distance(initial, expected)
    assert moved > 0.1
    assert distance(weights(method), expected) < 5e-3 * moved  # small gradients count as much as large ones in Adam


@pytest.fixture(scope="module")
def trained(folder):
    """What several tests look at: a method and its data."""
    dataset = make_dataset()
    return fitted(dataset, folder), dataset


def test_it_learns_which_items_go_together(folder, trained):
    (method, dataset), untrained = trained, Emb0()
    untrained.fit(dataset, EmbedderConfig(model=str(folder)), seed=0)
    assert ndcg(method, dataset) > 1.5 * random_ndcg(dataset)
    assert ndcg(method, dataset) > 1.5 * ndcg(untrained, dataset)


def with_targets_by_chance(dataset: Dataset, *splits: str) -> Dataset:
    """The data set where any item outside of the history may be the target of the sessions of some splits."""
    random, sessions = np.random.default_rng(2), dataset.sessions
    targets = sessions.targets.copy()
    for i in np.flatnonzero([split in splits for split in sessions.splits]):
        targets[i] = random.choice(np.setdiff1d(np.arange(NUM_ITEMS), sessions.histories[i]))
    return with_columns(dataset, targets=targets)


def test_it_learns_50_sessions_by_heart(folder):
    """Of which nothing but the sessions themselves can be learned."""
    dataset = with_targets_by_chance(make_dataset(100, splits=("train",)), "train")
    halves = dataset.sessions
    targets, histories = (np.repeat(column[:50], 2, axis=0) for column in (halves.targets, halves.histories))
    # Each session is in validation too, so that the last weights are the best.
    dataset = with_columns(dataset, targets=targets, histories=histories, splits=["train", "validation"] * 50)
    method = fitted(dataset, folder, iterations=1, steps=100, batch_size=50)
    assert len(dataset.sessions.select("train")) == 50
    assert ndcg(method, dataset, "train") > 0.9


def test_targets_by_chance_teach_nothing(folder):
    dataset = with_targets_by_chance(make_dataset(600), "train", "validation")
    method = fitted(dataset, folder)
    found = from_ranks(np.array(ranks(method, dataset)), "ndcg@20")
    noise = found.std() / len(found) ** 0.5
    assert abs(found.mean() - random_ndcg(make_dataset(6000))) < 4 * noise


def test_it_ranks_by_its_embeddings_among_the_items_outside_the_history(trained):
    method, dataset = trained
    test, embedder = dataset.sessions.select("test"), method.recommender.embedder
    items = embedder.encode_items(dataset.catalog.texts).astype(np.float64)
    for i, rank in enumerate(ranks(method, dataset)):
        scores = items @ embedder.encode_profiles([dataset.session_text(test, i)])[0].astype(np.float64)
        scores[test.histories[i]] = -np.inf
        target = scores[test.targets[i]]
        assert 1 + (scores > target + 1e-6).sum() <= rank <= (scores > target - 1e-6).sum()


def test_bfloat16_learns_what_float32_does_where_it_is_faster(folder, monkeypatch, trained):
    (method, dataset), found = trained, {}
    for is_faster in (True, False):
        monkeypatch.setattr(precision_module, "is_faster_in_bf16", lambda is_faster=is_faster: is_faster)
        found[is_faster] = fitted(dataset, folder, precision="auto")
    assert distance(weights(method), weights(found[False])) == 0
    rounded = weights(found[True])
    assert all(weight.dtype == torch.float32 for weight in rounded.values() if weight.is_floating_point())
    assert all(
        torch.equal(weight, weight.bfloat16().float()) for weight in rounded.values() if weight.is_floating_point()
    )
    moved = distance(SentenceTransformer(str(folder)).state_dict(), weights(method))
    assert 0 < distance(weights(method), rounded) < 0.5 * moved
    assert ndcg(found[True], dataset) == pytest.approx(ndcg(method, dataset), rel=0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("text", ["full", "titles"])
def test_it_ranks_the_same_after_it_was_saved_and_opened(folder, tmp_path, text, precision):
    dataset = make_dataset()
    method = fitted(dataset, folder, text=text, iterations=1, steps=5, precision=precision)
    method.save(tmp_path)
    opened = EmbCl.open(tmp_path, dataset)
    test = dataset.sessions.select("test")
    assert [scored.tolist() for scored in opened.score_targets(test)] == [
        scored.tolist() for scored in method.score_targets(test)
    ]
    assert opened.texts(test) == method.texts(test)
    assert ("; " in opened.texts(test)[0]) == (text == "titles")
    assert not list(tmp_path.rglob("*.bin")), "nothing is pickled"


def test_a_seed_gives_the_same_bits_and_another_one_others(folder):
    dataset, brief = make_dataset(), {"iterations": 1, "steps": 5}
    first, again, other = (weights(fitted(dataset, folder, seed=seed, **brief)) for seed in (4, 4, 5))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_no_test_session_is_looked_at(folder, trained):
    method, dataset = trained
    is_test = dataset.sessions.splits.mask("test")
    targets, histories = dataset.sessions.targets.copy(), dataset.sessions.histories.copy()
    targets[is_test], histories[is_test] = histories[is_test, 0], targets[is_test, None]
    other = fitted(with_columns(dataset, targets=targets, histories=histories), folder)
    assert distance(weights(method), weights(other)) == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_stopped_goes_on_to_the_same_bits(folder, tmp_path, monkeypatch, precision):
    dataset, checkpoint = make_dataset(), tmp_path / "checkpoint.pt"
    brief = {"iterations": 4, "steps": 5, "precision": precision}
    whole = weights(fitted(dataset, folder, **brief))
    score, seen = EmbCl.score_targets, []

    def stopped(self, sessions):
        seen.append(len(sessions))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return score(self, sessions)

    with monkeypatch.context() as patch:
        patch.setattr(EmbCl, "score_targets", stopped)
        with pytest.raises(KeyboardInterrupt):
            fitted(dataset, folder, checkpoint=checkpoint, **brief)
        seen = [0] * 10
        resumed = weights(fitted(dataset, folder, checkpoint=checkpoint, **brief))
        assert len(seen) == 12, "two iterations are left"
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_was_trained_in_another_precision_does_not_go_on(folder, tmp_path):
    dataset, checkpoint = make_dataset(), tmp_path / "checkpoint.pt"
    fitted(dataset, folder, checkpoint=checkpoint, iterations=1, steps=2)
    with pytest.raises(TrainingError, match="trained in float32 so far, and would go on in bfloat16, as on another"):
        fitted(dataset, folder, checkpoint=checkpoint, iterations=1, steps=2, precision="bf16")


def test_the_weights_are_those_of_the_iteration_that_ranks_validation_best(folder, monkeypatch):
    """Which is made to look like the second of three, with the learning rate of all three."""
    dataset, seen = make_dataset(), []
    moment = {"iterations": 3, "steps": 3, "batch_size": 32, "learning_rate": 1e-3}

    def score_targets(self, sessions):
        seen.append(set(sessions.splits))
        return ScoredSessions(np.full((len(sessions), 1), [9, 2, 5][len(seen) - 1]))

    monkeypatch.setattr(EmbCl, "score_targets", score_targets)
    method = fitted(dataset, folder, **moment)
    config = EmbClConfig(embedder=EmbedderConfig(model=str(folder)), **moment)
    expected, last = (by_brute_force(dataset, folder, config, 0, num_taken) for num_taken in (6, 9))
    assert seen == [{"validation"}] * 3
    assert distance(weights(method), expected) < 1e-2 * distance(expected, last)


def test_what_cannot_be_trained_on_is_said(folder):
    dataset = make_dataset()
    with pytest.raises(DataError, match=r"EMB-CL.batch_size = 181, but .* 180 train sessions.* at most 180"):
        fitted(dataset, folder, batch_size=181)
    with pytest.raises(DataError, match="no sessions in the split 'validation'"):
        fitted(make_dataset(splits=("train", "test")), folder)
    with pytest.raises(TrainingError, match=r"The loss of EMB-CL is nan at step \d+ of 40.*learning_rate = 1e\+30"):
        fitted(dataset, folder, learning_rate=1e30)


def test_the_defaults_are_those_of_appendix_c():
    config = EmbClConfig()
    assert (config.learning_rate, config.batch_size, config.weight_decay) == (1e-5, 256, 1e-6)
    assert (config.iterations, config.steps, config.text) == (5, 800, "full")
