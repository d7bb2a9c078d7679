"""Whether a policy can be run as this program runs it: checked whenever one is opened, before it writes or learns.

This program does not call a policy's own forward pass. It runs the layers over packed rows, with a cache of its own,
and computes the last layer only where something is read. A model that does more than that would write other profiles
without a word. So every way in which tokens are run is compared with the model's own forward pass on each text alone.

What the model does around its layers is compared in its own precision, where both sides compute the same. The layers
are compared in float32 whatever the model's precision, since a bfloat16 model's rounding, some percent at its output,
would hide as much of a real difference. For this the last layer, and one of each kind, are copied into a decoder of a
few layers, so that the check costs about as much for a large model as for a small one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from langptune_rs.models.attention import Layout, missing_tokens
from langptune_rs.models.decoder import Decoder, last_hidden, run_layers
from langptune_rs.models.fused import FusedDecoder, Tokens
from langptune_rs.models.profile_cache import ProfileCache
from langptune_rs.models.shared_prompts import SharedPrompts

TOLERANCE = 1024 * torch.finfo(torch.float32).eps
"""The largest error of a token's final hidden state in float32, as a share of the state. Rounding through a few layers
is some ten times `eps`; a residual that is scaled by 0.9 in one place is a thousand times more than this."""
NUM_TOKENS = 48
"""Tokens that the check draws."""
PREFIX = 3
PROMPTS = (2, 3, 5)
"""Tokens of each prompt behind the shared prefix, in ascending order as they are written."""
SAMPLES = 2
PROFILE = 3
"""Tokens of each profile."""


def what_differs(model: PreTrainedModel, decoder: Decoder, logits: Callable[[Tensor], Tensor]) -> str | None:
    """What the model does otherwise than its layers, run over packed rows; None if it does nothing otherwise.

    The answer completes the sentence "It ...". `logits` gives the policy's logits of final hidden states.
    """
    try:
        ids = _tokens_with_embeddings(model)
        return _around_the_layers(model, decoder, ids[:PREFIX], logits) or _within_the_layers(model, decoder, ids)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever an unknown architecture raises where it is run in another way than its own
        reason = next(iter(str(error).strip().splitlines()), "")
        return f"cannot be run over packed rows ({type(error).__name__}: {reason})"


@torch.no_grad()
def is_fusable(model: PreTrainedModel, decoder: Decoder) -> bool:
    """Whether `FusedDecoder` computes what the layers of a model do; if not, they can be run as they are."""
    parts, texts, is_own = _small(model, decoder, _tokens_with_embeddings(model))
    fused = FusedDecoder.of(parts, torch.float32)
    return fused is not None and all(is_own(ours, place) for ours, place in _fused_decoding(fused, texts))


def _fused_decoding(fused: FusedDecoder, texts: _Texts) -> Iterator[tuple[Tensor, _Place]]:
    """The prefix, the prompts behind it, then a token of each sample at a time, as `_prompts_and_decoding`."""
    prompts = range(len(PROMPTS))
    rows = [(i, sample) for i in prompts for sample in range(SAMPLES)]
    capacities = [PREFIX, *PROMPTS, *[PROFILE] * len(rows)]
    parents = [None, *[0 for _ in prompts], *[1 + i for i, _ in rows]]
    cache = fused.cache(capacities, parents)

    def run(embeddings: Tensor, positions: list[int], segments: list[int], read: NDArray[np.int64]) -> Tensor:
        tokens = Tokens(embeddings, torch.tensor(positions), np.array(segments), read)
        return fused.run(cache, tokens, 0)[1]

    run(texts.prefix, list(range(PREFIX)), [0] * PREFIX, np.array([0]))
    positions = [PREFIX + position for n in PROMPTS for position in range(n)]
    segments = [1 + i for i, n in enumerate(PROMPTS) for _ in range(n)]
    ends = np.cumsum(PROMPTS) - 1
    yield (
        run(torch.cat([texts.prompt(i) for i in prompts]), positions, segments, ends),
        [(i, 0, PREFIX + PROMPTS[i] - 1) for i in prompts],
    )
    for step in range(PROFILE):
        embeddings = torch.stack([texts.profile(i, sample)[step] for i, sample in rows])
        positions = [PREFIX + PROMPTS[i] + step for i, _ in rows]
        segments = [1 + len(PROMPTS) + number for number in range(len(rows))]
        place = [(i, sample, position) for (i, sample), position in zip(rows, positions, strict=True)]
        yield run(embeddings, positions, segments, np.arange(len(rows))), place


def _tokens_with_embeddings(model: PreTrainedModel) -> Tensor:
    """Token ids, int64 (`NUM_TOKENS`,), at random but always the same, whose embeddings are not zero as padding's."""
    weight = cast(Tensor, model.get_input_embeddings().weight)
    drawn = np.random.default_rng(0).permutation(len(weight))[: 16 * NUM_TOKENS]
    candidates = torch.from_numpy(drawn).to(weight.device)
    used = candidates[weight[candidates].abs().amax(1) > 0]
    used = used if len(used) else candidates
    return used.repeat(-(-NUM_TOKENS // len(used)))[:NUM_TOKENS]


@torch.no_grad()
def _around_the_layers(
    model: PreTrainedModel, decoder: Decoder, ids: Tensor, logits: Callable[[Tensor], Tensor]
) -> str | None:
    """What the model does before, between and after its layers, seen in its own forward pass over one text."""
    with _watched(model, decoder) as seen:
        own = model(ids[None], use_cache=False).logits[0]
    if not own.isfinite().all():
        return "gives logits that are not numbers; its weights are damaged, or too large for the precision"
    if len(seen.entering) != len(decoder.layers) or len(seen.leaving) != len(decoder.layers) or seen.final is None:
        return "does not run each of its layers once, and then its output matrix"
    error = torch.finfo(own.dtype).eps
    if not _near(model.get_input_embeddings()(ids), seen.entering[0][0], error):
        return "changes its embeddings before the first layer, such as by a factor or by positions that it adds"
    if not all(_near(a, b, error) for a, b in zip(seen.leaving, seen.entering[1:], strict=False)):
        return "changes hidden states between its layers"
    if not _near(decoder.norm(seen.leaving[-1]), seen.final, error):
        return "does more than normalise after its last layer"
    if not _near(logits(seen.final[0]), own, error):
        return "changes its logits, such as by a factor"
    return None


@torch.no_grad()
def _within_the_layers(model: PreTrainedModel, decoder: Decoder, ids: Tensor) -> str | None:
    """Where layers over packed rows give other hidden states than the decoder's own forward pass over each text."""
    parts, texts, is_own = _small(model, decoder, ids)
    last_layer = len(decoder.layers) - 1
    for ways in (_prompts_and_decoding, _packed_updates):
        for name, ours, place in ways(parts, texts, last_layer):
            if not is_own(ours, place):
                return f"gives other results for {name} than its own forward pass does for each text alone"
    return None


_Place = list[tuple[int, int, int]]
"""The prompt, sample and position of each row."""


def _small(
    model: PreTrainedModel, decoder: Decoder, ids: Tensor
) -> tuple[Decoder, _Texts, Callable[[Tensor, _Place], bool]]:
    """A copy of a few layers, texts for it, and what tells whether hidden states (rows, width) are its own ones."""
    small = _few_layers(model, decoder)
    parts = Decoder.of(small)
    assert parts is not None, "the copy has the parts of the decoder"
    texts = _Texts(model.get_input_embeddings()(ids).float())
    own = [
        [small(inputs_embeds=whole[None], use_cache=False).last_hidden_state[0] for whole in texts.whole(prompt)]
        for prompt in range(len(PROMPTS))
    ]

    def is_own(ours: Tensor, place: _Place) -> bool:
        expected = torch.stack([own[prompt][sample][position] for prompt, sample, position in place])
        return _near(ours, expected, TOLERANCE)

    return parts, texts, is_own


@dataclass(frozen=True)
class _Texts:
    """Embeddings of prompts, which begin alike, and of the profiles after each."""

    embeddings: Tensor
    """(`NUM_TOKENS`, width), float32."""

    @property
    def prefix(self) -> Tensor:
        return self.embeddings[:PREFIX]

    def prompt(self, i: int) -> Tensor:
        """What follows the prefix in prompt `i`."""
        start = PREFIX + sum(PROMPTS[:i])
        return self.embeddings[start : start + PROMPTS[i]]

    def profile(self, i: int, sample: int) -> Tensor:
        start = PREFIX + sum(PROMPTS) + (i * SAMPLES + sample) * PROFILE
        return self.embeddings[start : start + PROFILE]

    def whole(self, i: int) -> Iterator[Tensor]:
        """Prompt and profile, for each sample of prompt `i`."""
        for sample in range(SAMPLES):
            yield torch.cat([self.prefix, self.prompt(i), self.profile(i, sample)])


_Way = tuple[str, Tensor, _Place]
"""What is run, and its hidden states (rows, width) with the place of each row."""


def _prompts_and_decoding(decoder: Decoder, texts: _Texts, last_layer: int) -> Iterator[_Way]:
    """Writing: the shared prefix once, prompts packed behind it, then a token of each sample at a time."""
    prompts = range(len(PROMPTS))
    cache = ProfileCache([PREFIX + n for n in PROMPTS], SAMPLES, PROFILE, like=texts.embeddings)
    _run(decoder, texts.prefix, range(PREFIX), cache.reading_prefix(), [0])
    row = _filled(torch.cat([texts.prompt(i) for i in prompts]))
    positions = [PREFIX + position for n in PROMPTS for position in range(n)]
    ends = (np.cumsum(PROMPTS) - 1).tolist()
    read = _run(decoder, row, positions, cache.reading(prompts, PROMPTS, last_layer), ends)
    place = [(i, 0, PREFIX + PROMPTS[i] - 1) for i in prompts]
    yield "prompts packed into a row behind the prefix that they share", read, place

    rows = [(i, sample) for i in prompts for sample in range(SAMPLES)]
    for step in range(PROFILE):
        states = torch.stack([texts.profile(i, sample)[step] for i, sample in rows])
        positions = [PREFIX + PROMPTS[i] + step for i, _ in rows]
        read = _run(decoder, states, positions, cache.writing(step), range(len(rows)))
        place = [(i, sample, position) for (i, sample), position in zip(rows, positions, strict=True)]
        yield f"token {step + 1} of several samples that are decoded together", read, place
        unfinished = np.arange(len(rows)) != 1  # one sample ends at each step
        cache.keep(unfinished)
        rows = [row for row, goes_on in zip(rows, unfinished, strict=True) if goes_on]


def _packed_updates(decoder: Decoder, texts: _Texts, last_layer: int) -> Iterator[_Way]:
    """Learning: sessions packed into one row, in which profiles of unequal length share their prompt."""
    states: list[Tensor] = []
    positions: list[int] = []
    read: list[int] = []
    place: list[tuple[int, int, int]] = []
    sessions = []
    for i, own in enumerate(PROMPTS):
        prompt = PREFIX + own
        lengths = [max(0, PROFILE - i - sample) for sample in range(SAMPLES)]
        sessions.append((prompt, lengths))
        read.append(len(positions) + prompt - 1)
        place.append((i, 0, prompt - 1))
        states += [texts.prefix, texts.prompt(i)]
        positions += range(prompt)
        for sample, length in enumerate(lengths):
            read += range(len(positions), len(positions) + length)
            place += [(i, sample, prompt + t) for t in range(length)]
            states.append(texts.profile(i, sample)[:length])
            positions += range(prompt, prompt + length)
    layout = SharedPrompts(sessions, last_layer, texts.embeddings)
    row = _filled(torch.cat(states))
    yield "sessions packed into a row to learn from", _run(decoder, row, positions, layout, read), place


def _filled(row: Tensor) -> Tensor:
    """A row of embeddings (tokens, width) with the padding that the program puts behind packed texts."""
    return F.pad(row, (0, 0, 0, missing_tokens(len(row))))


def _run(decoder: Decoder, states: Tensor, positions: Sequence[int], layout: Layout, rows: Sequence[int]) -> Tensor:
    """Final hidden states (rows, width) of a row of embeddings (tokens, width); padding has no positions of its own."""
    padded = [*positions, *[0] * (len(states) - len(positions))]
    position_ids = torch.tensor([padded], device=states.device)
    before_last = run_layers(decoder, decoder.layers[:-1], states[None], position_ids, layout)
    read = torch.tensor(list(rows), device=states.device)
    return last_hidden(decoder, before_last, position_ids, layout, read, checkpointing=False)


def _few_layers(model: PreTrainedModel, decoder: Decoder) -> nn.Module:
    """A copy of the decoder in float32 with the last of its layers and the first of every kind."""
    module = cast(nn.Module, model.get_decoder())  # type: ignore[no-untyped-call]  # untyped in transformers
    embedding = model.get_input_embeddings()
    kinds = [_kind(layer) for layer in decoder.layers]
    kept = sorted({*(kinds.index(kind) for kind in dict.fromkeys(kinds)), len(kinds) - 1})
    memo: dict[int, Any] = {id(embedding): embedding}  # which is not copied: the copy is given embeddings
    memo[id(decoder.layers)] = nn.ModuleList(copy.deepcopy(decoder.layers[i], memo) for i in kept)
    small = copy.deepcopy(module, memo)
    for child in small.children():
        if child is not embedding:
            child.float()
    return small


def _kind(layer: nn.Module) -> tuple[Any, ...]:
    """What tells a layer from layers that compute otherwise: its modules and their settings, but not their weights."""
    return tuple(
        (name, type(module), tuple(sorted((key, str(x)) for key, x in vars(module).items() if _is_setting(key, x))))
        for name, module in layer.named_modules()
    )


def _is_setting(key: str, value: object) -> bool:
    return key == "forward" or (isinstance(value, (bool, int, float, str, type(None))) and key != "layer_idx")


def _near(ours: Tensor, own: Tensor, tolerance: float) -> bool:
    """Whether the vectors of both, (..., width), differ by no more than a share of the longest of the model's own."""
    if ours.shape != own.shape:
        return False
    difference = (ours.float() - own.float()).norm(dim=-1)
    return bool((difference <= tolerance * own.float().norm(dim=-1).amax()).all())


@dataclass
class _Seen:
    """What goes through a model in one forward pass."""

    entering: list[Tensor]
    """Hidden states before each layer."""
    leaving: list[Tensor]
    final: Tensor | None = None
    """What the output matrix reads."""


@contextmanager
def _watched(model: PreTrainedModel, decoder: Decoder) -> Iterator[_Seen]:
    """Inside the block, forward passes are written down."""
    seen = _Seen([], [])

    def enters(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.entering.append(args[0] if args else kwargs["hidden_states"])

    def leaves(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen.leaving.append(output[0] if isinstance(output, tuple) else output)

    def is_read(output: nn.Module, args: tuple[Any, ...]) -> None:
        seen.final = args[0]

    output = cast(nn.Module, model.get_output_embeddings())  # type: ignore[no-untyped-call]  # untyped in transformers
    hooks = [output.register_forward_pre_hook(is_read)]
    for layer in decoder.layers:
        hooks.append(layer.register_forward_pre_hook(enters, with_kwargs=True))
        hooks.append(layer.register_forward_hook(leaves))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
