"""Where the numbers of a run go."""

from langptune_rs.config.section import Section


class LoggingConfig(Section):
    """Where metrics go beside metrics.jsonl."""

    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = "langptune"
