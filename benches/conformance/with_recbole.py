"""RecBole's models on exchanged data. Run in an environment of requirements-recbole.txt, see exchange.answer_with."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from conformance.exchange import BestEpoch, Exchange, Score, answer_with, by_messages, numbers_of, validation_ndcg
from numpy.typing import NDArray
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.utils import create_samplers, get_dataloader
from recbole.model.general_recommender.itemknn import ItemKNN
from recbole.model.general_recommender.lightgcn import LightGCN
from recbole.utils import init_seed
from scipy.sparse import csr_matrix


def loaded(model: str, data: Exchange, seed: int, options: dict[str, Any]) -> tuple[Any, Any, NDArray[np.int64]]:
    """RecBole's loader of batches of all choices, its data set, and our number of each of its items but the first.

    The first is the padding, which stands for no item.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "exchange" / "exchange.inter"
        path.parent.mkdir()
        lines = ["user_id:token\titem_id:token", *(f"{user}\t{item}" for user, item in data.pairs.tolist())]
        path.write_text("\n".join(lines) + "\n")
        config = Config(
            model=model,
            dataset="exchange",
            config_dict={
                "data_path": folder,
                "load_col": {"inter": ["user_id", "item_id"]},
                "eval_args": {"split": {"RS": [1, 0, 0]}, "group_by": None, "order": "RO", "mode": "full"},
                "use_gpu": False,
                "state": "ERROR",
                "seed": seed,
                **options,
            },
        )
        init_seed(seed, reproducibility=True)
        dataset = create_dataset(config)
        parts = dataset.build()
        sampler = create_samplers(config, dataset, parts)[0]
        loader = get_dataloader(config, "train")(config, parts[0], sampler, shuffle=True)
    tokens = dataset.field2id_token["item_id"][1:]
    return config, loader, np.array([int(token) for token in tokens])


def fit_item_knn(data: Exchange, settings: dict[str, Any], seed: int) -> tuple[Score, dict[str, Any]]:
    """ItemKNN by cosine with shrinkage. RecBole keeps the k nearest of the item that is scored."""
    options = {"k": settings["neighbours"], "shrink": settings["shrinkage"], "train_neg_sample_args": None}
    config, loader, items = loaded("ItemKNN", data, seed, options)
    matrix = csr_matrix(ItemKNN(config, loader.dataset).w)[1:, 1:]
    of_item = numbers_of(items, data.num_items)

    def score(users: NDArray[np.int64], histories: NDArray[np.int64]) -> NDArray[np.floating]:
        columns = of_item[histories]
        rows = np.nonzero(columns >= 0)[0]
        chosen = csr_matrix((np.ones(len(rows)), (rows, columns[columns >= 0])), shape=(len(users), len(items)))
        scores = np.zeros((len(users), data.num_items))
        scores[:, items] = (chosen @ matrix).toarray()
        return scores

    return score, {}


def fit_lightgcn(data: Exchange, settings: dict[str, Any], seed: int) -> tuple[Score, dict[str, Any]]:
    """RecBole's network, loss, samples and batches of LightGCN, in the loop of its trainer.

    RecBole's weight of the squared norms counts half of them.
    """
    options = {
        "embedding_size": settings["dim"],
        "n_layers": settings["num_layers"],
        "reg_weight": 2 * settings["weight_decay"],
        "require_pow": True,
        "train_batch_size": settings["batch_size"],
    }
    config, loader, items = loaded("LightGCN", data, seed, options)
    network = LightGCN(config, loader.dataset)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings["learning_rate"])
    degrees = np.asarray(network.interaction_matrix.sum(axis=0)).ravel()[1:]

    def score_now() -> Score:
        with torch.no_grad():
            layers = [network.get_ego_embeddings()]
            for _ in range(network.n_layers):
                layers.append(torch.sparse.mm(network.norm_adj_matrix, layers[-1]))
            item_vectors = network.forward()[1][1:].numpy()
            below = torch.stack(layers[:-1]).sum(dim=0)[network.n_users + 1 :].numpy() / len(layers)
        return by_messages(below / np.sqrt(degrees)[:, None], item_vectors, items, data.num_items)

    epochs = BestEpoch(settings["patience"])
    while epochs.epoch < settings["max_epochs"] and not epochs.is_over:
        network.train()
        for batch in loader:
            optimizer.zero_grad()
            network.calculate_loss(batch).backward()
            optimizer.step()
        epochs.see(validation_ndcg(score_now(), data), network.state_dict())
    network.load_state_dict(epochs.weights)
    return score_now(), epochs.about


MODELS = {"ItemKNN": fit_item_knn, "LightGCN": fit_lightgcn}

if __name__ == "__main__":
    answer_with(MODELS, ("recbole", "torch", "numpy", "scipy"))
