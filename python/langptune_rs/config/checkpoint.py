"""When a run saves its state."""

from pydantic import PositiveInt

from langptune_rs.config.section import Section


class CheckpointConfig(Section):
    """When the state of a run is saved, in addition to the end of every phase."""

    every: PositiveInt = 50
    """Optimizer steps between checkpoints."""
    keep: PositiveInt = 2
    """How many of the newest checkpoints are kept."""
