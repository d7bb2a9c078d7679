"""How descriptions of items are written and rewarded. Imports no model library."""

from typing import Literal

from pydantic import PositiveInt

from langptune_rs.config.section import Section

Writes = Literal["profiles", "descriptions"]
"""What a policy may be set to write."""
COMMANDS: dict[Writes, str] = {"profiles": "train", "descriptions": "describe"}
"""The command that trains a policy to write each of them."""


class DescriptionConfig(Section):
    """Descriptions of items, which `langptune describe` lets the policy write from reviews in place of profiles.

    How they are written is in `profile`: its instruction, closing, length and temperature are those of descriptions.
    `profile.history_text` says whether the policy also reads the item's whole text or its one line.
    """

    max_reviews: PositiveInt = 8
    """Reviews of an item that the policy reads, drawn with `data.seed` from those of train sessions."""
    review_words: PositiveInt = 40
    """A longer review is cut to so many words."""
    max_users: PositiveInt = 16
    """The reward of a description averages over so many users who chose the item in a train session, drawn with
    `data.seed`. An item that fewer have chosen has fewer."""
    users_of: str | None = None
    """The folder of a run whose profiles of users rank the items. Unset: the titles of their histories do."""
