"""cornac's models on exchanged data. Run in an environment of requirements-cornac.txt, see exchange.answer_with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from conformance.exchange import (
    BestEpoch,
    Exchange,
    Score,
    answer_with,
    by_messages,
    numbers_of,
    validation_ndcg,
    with_others_behind,
)
from cornac.data import Dataset, SequentialDataset
from cornac.models import BPR, EASE, ItemKNN, SASRec
from cornac.models.lightgcn.lightgcn import Model, construct_graph
from cornac.models.sasrec import recom_sasrec
from numpy.typing import NDArray
from scipy.sparse import csr_array


def choices(data: Exchange, seed: int) -> tuple[Any, NDArray[np.int64]]:
    """The users' choices as cornac's data set, each with the rating 1, and our number of each of its items."""
    dataset = Dataset.build([(user, item, 1.0) for user, item in data.pairs.tolist()], seed=seed)
    return dataset, np.array(list(dataset.iid_map))


def by_matrix(matrix: Any, items: NDArray[np.int64], num_items: int) -> Score:
    """Scores that are a history's row times an item-item matrix, given for `items`. An item it lacks scores 0."""
    of_item = numbers_of(items, num_items)

    def score(users: NDArray[np.int64], histories: NDArray[np.int64]) -> NDArray[np.floating]:
        columns = of_item[histories]
        rows = np.nonzero(columns >= 0)[0]
        chosen = csr_array((np.ones(len(rows)), (rows, columns[columns >= 0])), shape=(len(users), len(items)))
        product = chosen @ matrix
        scores = np.zeros((len(users), num_items))
        scores[:, items] = product.toarray() if hasattr(product, "toarray") else product
        return scores

    return score


def fit_ease(data: Exchange, settings: dict[str, Any], seed: int) -> tuple[Score, dict[str, Any]]:
    """EASE with its negative weights, as Steck has it; cornac leaves them out unless told otherwise."""
    dataset, items = choices(data, seed)
    model = EASE(lamb=settings["l2"], posB=False, verbose=False).fit(dataset)
    return by_matrix(np.asarray(model.B), items, data.num_items), {}


def fit_item_knn(data: Exchange, settings: dict[str, Any], seed: int) -> tuple[Score, dict[str, Any]]:
    """The sum of cornac's similarities to the history. `similarities` are the least and the largest of them."""
    dataset, items = choices(data, seed)
    model = ItemKNN(k=settings["neighbours"], num_threads=1, verbose=False).fit(dataset)
    spread = [float(model.sim_mat.data.min()), float(model.sim_mat.data.max())]
    return by_matrix(csr_array(model.sim_mat), items, data.num_items), {"similarities": spread}


def fit_bpr(data: Exchange, settings: dict[str, Any], seed: int) -> tuple[Score, dict[str, Any]]:
    """Matrix factorization by BPR. It has no vectors for histories: a session is ranked by its user's own vector.

    That vector has learned from all sessions of the user, but for the held-out targets.
    """
    dataset, items = choices(data, seed)
    of_user = numbers_of(np.array(list(dataset.uid_map)), data.num_users)
    rates = {"learning_rate": settings["learning_rate"], "lambda_reg": settings["weight_decay"]}
    model = BPR(k=settings["dim"], max_iter=1, seed=seed, **rates)

    def score_by(weights: tuple[Any, Any, Any]) -> Score:
        user_vectors, item_vectors, biases = weights
        return lambda users, histories: with_others_behind(
            user_vectors[of_user[users]] @ item_vectors.T + biases, items, data.num_items
        )

    epochs = BestEpoch(settings["patience"])
    while epochs.epoch < settings["max_epochs"] and not epochs.is_over:
        model.fit(dataset)  # goes on from the factors that it has
        weights = model.u_factors, model.i_factors, model.i_biases
        epochs.see(validation_ndcg(score_by(weights), data), weights)
    return score_by(epochs.weights), epochs.about


def fit_lightgcn(data: Exchange, settings: dict[str, Any], seed: int) -> tuple[Score, dict[str, Any]]:
    """cornac's network, loss and samples of LightGCN, in the loop of its `fit`, which does not give away the layers.

    cornac's weight of the squared norms counts half of them.
    """
    torch.manual_seed(seed)
    dataset, items = choices(data, seed)
    roots = np.sqrt(np.bincount(dataset.uir_tuple[1], minlength=len(items)))[:, None]
    graph = construct_graph(dataset, dataset.num_users, dataset.num_items)
    network = Model(graph, settings["dim"], settings["num_layers"], 2 * settings["weight_decay"])
    optimizer = torch.optim.Adam(network.parameters(), lr=settings["learning_rate"])

    def score_now() -> Score:
        with torch.no_grad():
            layers = [dict(network.feature_dict)]
            for layer in network.layers:
                layers.append(layer(graph, layers[-1]))
            of_items = torch.stack([layer["item"] for layer in layers]).numpy() / len(layers)
        return by_messages(of_items[:-1].sum(axis=0) / roots, of_items.sum(axis=0), items, data.num_items)

    epochs = BestEpoch(settings["patience"])
    while epochs.epoch < settings["max_epochs"] and not epochs.is_over:
        for batch in dataset.uij_iter(batch_size=settings["batch_size"], shuffle=True):
            loss = network.loss_fn(*network(graph, *batch))[0]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        epochs.see(validation_ndcg(score_now(), data), network.state_dict())
    network.load_state_dict(epochs.weights)
    return score_now(), epochs.about


def fit_sasrec(data: Exchange, settings: dict[str, Any], seed: int) -> tuple[Score, dict[str, Any]]:
    """SASRec with cross-entropy. cornac's is over the batch's targets and sampled items, not the whole catalog.

    cornac makes an example of each prefix of a session, so that a batch of it is of as many sessions as ours when it
    has H times as many examples. It keeps the epoch that is best on validation, by our measure.
    """
    length = data.sequences.shape[1] - 1
    rows = [
        (int(user), session, int(item), place)
        for session, (user, items) in enumerate(zip(data.users, data.known_sequences, strict=True))
        for place, item in enumerate(items)
    ]
    dataset = SequentialDataset.build(rows, fmt="USIT", seed=seed)
    items = np.array(list(dataset.iid_map))
    of_item = numbers_of(items, data.num_items)
    model = SASRec(
        embedding_dim=settings["hidden"],
        loss="ce",
        batch_size=length * settings["batch_size"],
        learning_rate=settings["learning_rate"],
        n_sample=settings["num_sampled"],
        n_epochs=settings["max_epochs"],
        max_len=length,
        num_blocks=settings["num_blocks"],
        num_heads=settings["num_heads"],
        dropout=settings["dropout"],
        seed=seed,
        model_selection="best",
        val_eval_every=1,
    )

    def score(users: NDArray[np.int64], histories: NDArray[np.int64]) -> NDArray[np.floating]:
        numbers = of_item[histories]
        numbers[numbers < 0] = model.pad_idx
        model.model.eval()
        scores = model.model.predict(None, torch.from_numpy(numbers))
        return with_others_behind(scores, items, data.num_items)

    epochs = BestEpoch(settings["max_epochs"])

    def val_score(*arguments: object, **options: object) -> float:
        epochs.see(validation_ndcg(score, data), None)
        return epochs.last

    recom_sasrec.val_score = val_score  # its own masks what a user chose in training, which sessions here do not
    model.fit(dataset, dataset)
    return score, epochs.about


MODELS = {
    "EASE": fit_ease,
    "ItemKNN": fit_item_knn,
    "BPR": fit_bpr,
    "LightGCN": fit_lightgcn,
    "SASRec": fit_sasrec,
}

if __name__ == "__main__":
    answer_with(MODELS, ("cornac", "dgl", "torch", "numpy", "scipy"))
