"""When a run saves itself."""

from pydantic import PositiveInt

from langptune_rs.config.section import Section


class CheckpointConfig(Section):
    """When the state of a run is saved, beside the end of every phase."""

    every: PositiveInt = 50
    """Optimizer steps between checkpoints."""
    keep: PositiveInt = 2
    """Newest checkpoints kept."""
