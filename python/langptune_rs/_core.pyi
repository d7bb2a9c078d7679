from collections.abc import Sequence
from typing import TypeVar, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ItemIndex",
    "KvCache",
    "PackedMatrix",
    "add_and_normalize",
    "balance",
    "bootstrap_intervals",
    "check_ids",
    "choose",
    "collate",
    "gate",
    "holm",
    "mean",
    "merge_candidates",
    "pack_sequences",
    "paired_permutation_test",
    "paired_t_test",
    "per_user",
    "split_sequences",
]

_Rows = tuple[NDArray[np.int64], NDArray[np.int64]]
_Found = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]
_Token = TypeVar("_Token", bound=np.integer)

_Floats = NDArray[np.float32]

@final
class PackedMatrix:
    def __new__(cls, weights: NDArray[np.float32] | NDArray[np.uint16]) -> PackedMatrix: ...
    def product(self, rows: _Floats, out: _Floats) -> None: ...

@final
class KvCache:
    def __new__(
        cls,
        num_layers: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        capacities: Sequence[int],
        parents: Sequence[int | None],
        half: bool,
    ) -> KvCache: ...
    def attend(
        self,
        layer: int,
        rows: _Floats,
        segments: NDArray[np.int64],
        cosines: _Floats,
        sines: _Floats,
        norms: tuple[_Floats, _Floats, float] | None,
        read: NDArray[np.int64],
        scale: float,
        out: _Floats,
    ) -> None: ...

@final
class ItemIndex:
    def __new__(cls, item_embeddings: NDArray[np.float32], first_item: int, keep_rounded: bool) -> ItemIndex: ...
    @property
    def first_item(self) -> int: ...
    @property
    def item_embeddings(self) -> NDArray[np.float32]: ...
    @staticmethod
    def kernels() -> list[str]: ...
    @property
    def kernel(self) -> str: ...
    @property
    def rescored_share(self) -> float: ...
    def rank(
        self, user_embeddings: NDArray[np.float32], targets: _Rows, exclude: _Rows | None, ties: str
    ) -> NDArray[np.float64]: ...
    def score(self, user_embeddings: NDArray[np.float32], targets: _Rows) -> NDArray[np.float32]: ...
    def count_above(
        self,
        user_embeddings: NDArray[np.float32],
        targets: _Rows,
        scores: NDArray[np.float32],
        exclude: _Rows | None,
        ties: str,
    ) -> NDArray[np.float64]: ...
    def score_targets(
        self, user_embeddings: NDArray[np.float32], targets: _Rows, exclude: _Rows | None, temperature: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    def search(self, user_embeddings: NDArray[np.float32], k: int, exclude: _Rows | None) -> _Found: ...
    def candidates(self, user_embeddings: NDArray[np.float32], k: int, exclude: _Rows | None) -> _Found: ...

def check_ids(targets: _Rows | None, exclude: _Rows | None, num_items: int) -> None: ...
def merge_candidates(of_shards: Sequence[_Found], k: int) -> _Found: ...
def per_user(
    metrics: Sequence[tuple[str, int | None]], offsets: NDArray[np.int64] | None, ranks: NDArray[np.float64]
) -> NDArray[np.float64]: ...
def mean(scores: NDArray[np.float64]) -> float: ...
def bootstrap_intervals(
    samples: Sequence[NDArray[np.float64]],
    sizes: NDArray[np.float64] | None,
    method: str,
    level: float,
    num_resamples: int,
    seed: int,
) -> list[tuple[float, float]]: ...
def paired_permutation_test(
    a: NDArray[np.float64], b: NDArray[np.float64], num_permutations: int, seed: int
) -> float: ...
def paired_t_test(a: NDArray[np.float64], b: NDArray[np.float64]) -> float: ...
def holm(p_values: list[float]) -> list[float]: ...
def pack_sequences(
    lengths: NDArray[np.int64],
    capacity: int,
    groups: NDArray[np.int64] | None,
    prefixes: NDArray[np.int64] | None,
) -> _Rows: ...
def split_sequences(lengths: NDArray[np.int64], capacity: int) -> _Rows: ...
def balance(
    bins: _Rows,
    num_sequences: int,
    groups: NDArray[np.int64] | None,
    prefixes: NDArray[np.int64] | None,
    costs: NDArray[np.float64],
    num_ranks: int,
) -> _Rows: ...
def collate(
    bins: _Rows, lengths: NDArray[np.int64], prefixes: NDArray[np.int64] | None, tokens: NDArray[_Token]
) -> tuple[NDArray[_Token], NDArray[_Token], NDArray[np.int64], NDArray[np.int32]]: ...
def add_and_normalize(
    residual: _Floats, delta: _Floats | None, weights: _Floats, epsilon: float, out: _Floats
) -> None: ...
def gate(function: str, rows: _Floats, out: _Floats) -> None: ...
def choose(
    logits: _Floats, temperatures: _Floats, keys: NDArray[np.uint64], step: int, out: NDArray[np.int64]
) -> None: ...
