"""How the embedder is trained."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from langptune_rs.config.section import Section


class ContrastiveStepConfig(Section):
    """A step of contrastive training (section 3.2, Eq. 7), whatever text stands for a user."""

    batch_size: PositiveInt = 256
    """Profiles in the global batch. The targets of the other profiles are the negatives."""
    micro_batch_tokens: PositiveInt = 8192
    """Tokens of texts in one forward pass, or one text's if it is longer. It changes memory and time, not the result:
    what fits into one micro-batch on each process is embedded once, the rest a second time for its gradients."""
    learning_rate: PositiveFloat = 1e-5
    temperature: float = Field(default=0.1, ge=1e-3, le=1e3)
    """Divides the similarities; 1.0 is Eq. 7 to the letter."""
    popularity_correction: bool = False
    """Correct for popular items being negatives more often than others. The paper does not."""
    weight_decay: NonNegativeFloat = 1e-6


class ContrastiveConfig(ContrastiveStepConfig):
    """Contrastive training of the embedder (section 3.2, Eq. 7)."""

    history_steps: NonNegativeInt = 0
    """Steps before the first iteration that read the titles of a history instead of a profile, over all train sessions.
    They cost no writing. The paper has none."""
    steps: NonNegativeInt = 800
    """J: optimizer steps in each iteration."""
