"""A profile as one vector: the embedding of its text, moved by the weights of its sentences and by requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from langptune_rs.errors import InputError
from langptune_rs.recommending.edits import Profile
from langptune_rs.recommending.sentences import Part, parts_of, without


class ProfileEncoder(Protocol):
    """What makes embeddings of profiles: an embedder, or what shares one among threads."""

    @property
    def dim(self) -> int:
        """How many numbers an embedding has."""

    def encode_profiles(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit-length embeddings of profiles, float32 (len(texts), dim)."""

    def unread_profile(self, text: str) -> str:
        """The end of a profile that is too long to be read; empty where all of it is read."""


def unread_of(embedder: ProfileEncoder, profile: Profile) -> str:
    """What the embedder does not read of a profile's text and of its requests, a line for each; empty for nothing."""
    texts = (embedder.unread_profile(text) for text in (profile.text, *profile.requests))
    return "\n".join(text for text in texts if text)


def profile_vectors(embedder: ProfileEncoder, profiles: Sequence[Profile]) -> NDArray[np.float32]:
    """Unit-length vectors of profiles, float32 (len(profiles), dim), with one batch of all texts that they need.

    The vector of a profile whose text has the embedding e, and e_i without sentence i, is the direction of
    `e + sum_i (w_i - 1) (e - e_i) + sum_r w_r e_r`, where w_i are the weights of sentences and r the requests. So a
    weight scales what leaving the sentence out takes away: 0 is the vector without it, and 1 that of the text.

    Raises `InputError` when weights and requests leave no direction.
    """
    weighed = [[part for part in parts_of(p.text) if part.text in p.weights] if p.weights else [] for p in profiles]
    needed = [
        [p.text, *(without(p.text, [part]) for part in parts), *p.requests]
        for p, parts in zip(profiles, weighed, strict=True)
    ]
    places = {text: place for place, text in enumerate(dict.fromkeys(text for texts in needed for text in texts))}
    embeddings = embedder.encode_profiles(list(places))
    vectors = np.empty((len(profiles), embedder.dim), dtype=np.float32)
    for row, (profile, parts, texts) in enumerate(zip(profiles, weighed, needed, strict=True)):
        own = embeddings[[places[text] for text in texts]]
        vectors[row] = own[0] if len(texts) == 1 else _moved(profile, parts, own.astype(np.float64))
    return vectors


def _moved(profile: Profile, parts: Sequence[Part], embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    text, left, requests = np.split(embeddings, [1, 1 + len(parts)])
    weights = np.array([profile.weights[part.text] - 1 for part in parts])
    vector: NDArray[np.float64] = (
        text[0] + weights @ (text - left) + np.array(list(profile.requests.values())) @ requests
    )
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise InputError("the weights and requests cancel the profile, so no item is nearer than another: change one")
    vector /= length
    return vector
