"""Where randomness comes from: every stream is a function of the run's seed and the place where it is used.

No generator state is ever saved, so a resumed run draws what an uninterrupted one draws.
"""

from __future__ import annotations

import numpy as np


def seed_sequence(*parts: int | str) -> np.random.SeedSequence:
    """The seed sequence of a place, such as `seed_sequence(run_seed, "sample", iteration, step, session)`.

    Integers must not be negative. A word counts as the integer that its UTF-8 bytes spell, least significant first.
    """
    return np.random.SeedSequence([int.from_bytes(p.encode(), "little") if isinstance(p, str) else p for p in parts])


def derive_seed(*parts: int | str) -> int:
    """The seed of a place as one integer from 0 to 2**64 - 1."""
    return int(seed_sequence(*parts).generate_state(2, np.uint64)[0])


def generator(*parts: int | str) -> np.random.Generator:
    """numpy's default generator for a place."""
    return np.random.default_rng(seed_sequence(*parts))


def evaluation_seed(seed: int, session: int) -> int:
    """The seed of a session's sampled profiles outside training, whichever policy writes them."""
    return derive_seed("evaluation", seed, session)
