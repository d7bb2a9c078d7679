"""How a run is validated and tested."""

from pydantic import NonNegativeInt, PositiveInt

from langptune_rs.config.section import Section


class EvaluationConfig(Section):
    """The comparison at the end of a run."""

    max_sessions: PositiveInt | None = None
    """Evaluate at most this many sessions of a split. Unset: all."""
    validation_sessions: NonNegativeInt = 200
    """Validation sessions scored after every phase; 0 scores none."""
    k: PositiveInt = 20
    samples: NonNegativeInt = 1
    """Sampled profiles for each test session, scored beside the greedy one."""
