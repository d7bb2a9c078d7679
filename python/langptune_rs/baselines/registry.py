"""Every method by its name in the paper, in the order of the paper's tables."""

from __future__ import annotations

from langptune_rs.baselines.bert4rec import Bert4Rec
from langptune_rs.baselines.ease import Ease
from langptune_rs.baselines.emb_0 import Emb0
from langptune_rs.baselines.emb_cl import EmbCl
from langptune_rs.baselines.graph_walk import GraphWalk
from langptune_rs.baselines.item_knn import ItemKnn
from langptune_rs.baselines.langptune import LangPTune, LangPTune0, LangPTuneCl, LangPTuneRlso
from langptune_rs.baselines.last_item import LastItem
from langptune_rs.baselines.lightgcn import LightGCN
from langptune_rs.baselines.llm2bert4rec import Llm2Bert4Rec
from langptune_rs.baselines.mcl import MCL
from langptune_rs.baselines.mean_history import MeanHistory
from langptune_rs.baselines.method import Method
from langptune_rs.baselines.most_popular import MostPopular
from langptune_rs.baselines.nmf import Nmf
from langptune_rs.baselines.random import Random
from langptune_rs.baselines.sasrec import SasRec
from langptune_rs.config import RunConfig
from langptune_rs.errors import InputError, nearest

_ALL: tuple[type[Method], ...] = (
    Random,
    MostPopular,
    LastItem,
    MeanHistory,
    ItemKnn,
    Ease,
    GraphWalk,
    Nmf,
    LightGCN,
    MCL,
    SasRec,
    Bert4Rec,
    Llm2Bert4Rec,
    Emb0,
    EmbCl,
    LangPTune0,
    LangPTuneCl,
    LangPTuneRlso,
    LangPTune,
)
METHODS: dict[str, type[Method]] = {method.name: method for method in _ALL}


def find_method(name: str) -> type[Method]:
    """The method of that name. Raises `InputError` with the nearest name when there is none."""
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}.{nearest(name, METHODS)} Methods are {', '.join(METHODS)}")
    return METHODS[name]


def methods_of_run(config: RunConfig) -> list[type[Method]]:
    """The methods that the evaluation of a run compares: the run's own, and those that cost next to nothing."""
    return [method for method in METHODS.values() if method.accompanies(config)]


def parts_of_run(config: RunConfig) -> dict[str, type[Method]]:
    """The ablations within a run that trained both models, by the phase that each of them keeps."""
    if not (config.trains_policy and config.trains_embedder):
        return {}
    ablations = (method for method in METHODS.values() if issubclass(method, LangPTune))
    return {method.part: method for method in ablations if method.part}
