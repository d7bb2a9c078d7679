"""Last item: the items whose texts are most like that of the last item in the history."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from langptune_rs.baselines.item_texts import ItemTextMethod
from langptune_rs.data import Sessions


class LastItem(ItemTextMethod):
    """A session's vector is the embedding of the newest item in its history."""

    name = "Last item"
    group = "Simple"
    uses_seed = False

    def session_vectors(self, sessions: Sessions) -> NDArray[np.float32]:
        """See `VectorMethod.session_vectors`; unit rows."""
        vectors: NDArray[np.float32] = self.item_vectors[sessions.histories[:, -1]]
        return vectors
