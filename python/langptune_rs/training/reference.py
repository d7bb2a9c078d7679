"""The reference policy of the KL penalty (Eq. 8)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from langptune_rs.files import write_atomically
from langptune_rs.runs.saving import not_written
from langptune_rs.training.checkpoints import last_checkpoint


class ReferenceWeights:
    """The trainable weights of an earlier policy, kept so that its log-probabilities can be computed at any time."""

    def __init__(self, module: nn.Module):
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self.weights = [p.detach().clone() for p in self._parameters]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the module compute with the reference weights inside the block. They are swapped in, not copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def save(self, path: Path) -> None:
        """Write the weights as safetensors, numbered in the module's order. Raises `RunError` when that fails."""
        weights = {str(i): weight.contiguous() for i, weight in enumerate(self.weights)}
        try:
            write_atomically(path, lambda temporary: save_file(weights, temporary))
        except (OSError, SafetensorError) as error:
            raise not_written(path, error, last_checkpoint(path.parent)) from error

    def load(self, path: Path) -> None:
        """Replace the weights by those that `save` wrote."""
        saved = load_file(path)
        self.weights = [saved[str(i)].to(weight.device) for i, weight in enumerate(self.weights)]

    def _swap(self) -> None:
        for i, parameter in enumerate(self._parameters):
            parameter.data, self.weights[i] = self.weights[i], parameter.data
