"""Mean of history: the items whose texts are most like those of the history on average."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from langptune_rs.baselines.item_texts import ItemTextMethod
from langptune_rs.data import Sessions


class MeanHistory(ItemTextMethod):
    """A session's vector is the mean of the embeddings in its history, brought to unit length.

    The order of the history does not count.
    """

    name = "Mean of history"
    group = "Simple"
    uses_seed = False

    def session_vectors(self, sessions: Sessions) -> NDArray[np.float32]:
        """See `VectorMethod.session_vectors`; unit rows, or a row of zeros where a history's embeddings cancel out.

        Sums are in float64.
        """
        sums = np.zeros((len(sessions), self.item_vectors.shape[1]))
        for items in np.sort(sessions.histories, axis=1).T:
            sums += self.item_vectors[items]
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        vectors: NDArray[np.float64] = np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)
        return vectors.astype(np.float32)
