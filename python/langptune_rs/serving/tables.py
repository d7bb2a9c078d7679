"""Explanations and steerings for people and for programs: tables for the terminal, and JSON with ids and titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from langptune_rs.data import Catalog
from langptune_rs.recommending.edits import Profile
from langptune_rs.recommending.explaining import Explanation
from langptune_rs.recommending.sentences import parts_of
from langptune_rs.recommending.steering import Move, Steering


def print_items(items: Sequence[tuple[str, str, float]], unread: str) -> None:
    """Recommended items as `ProfileService.recommend` gives them, best first, and what was not read of the profile."""
    _print(*(f"{place:>3}  {score:.3f}  {title}  [{id_}]" for place, (id_, title, score) in enumerate(items, start=1)))
    _print_unread(unread)


def items_json(profile: str, items: Sequence[tuple[str, str, float]], unread: str) -> dict[str, Any]:
    """The same with the profile that they are near to."""
    named = [{"item_id": item_id, "title": title, "score": score} for item_id, title, score in items]
    return {"profile": profile, "items": named, "unread": unread}


def print_explanation(catalog: Catalog, found: Explanation) -> None:
    """What each part of the profile does to the item, and which items of the history are near to it."""
    title = catalog.titles[found.item]
    place = f"rank {found.rank} of {found.num_ranked}, score {found.score:.3f}"
    _print(f"{title}  [{catalog.item_ids[found.item]}]", place)
    table = _table("", ("effect", "right"), ("rank without it", "right"), ("similarity", "right"), ("part", "left"))
    for number, effect in enumerate(found.parts, start=1):
        cells = (f"{effect.effect:+.3f}", str(effect.rank_without), f"{effect.similarity:.3f}")
        table.add_row(str(number), *cells, Text(effect.part.text))
    _print(table)
    if len(found.parts) == 1 and " " in found.parts[0].part.text:
        _print("The profile is one sentence. --by word leaves out each of its words in turn.\n")
    if found.history:
        near = _table("similarity", ("in the history", "left"))
        for item, similarity in found.history:
            near.add_row(f"{similarity:.3f}", Text(catalog.titles[item]))
        _print(near)
    _print_unread(found.unread)


def print_steering(catalog: Catalog, found: Steering, k: int) -> None:
    """The profile after the edits, the first k items of its ranking with their moves, and what left the first k."""
    _print(profile_text(found.profile_after), "")
    table = _table("", ("", "right"), ("score", "right"), ("was", "right"), ("item", "left"))
    for place, move in enumerate(found.moves(k)):
        if place == min(k, len(found.after.items)):
            table.add_section()
        cells = (str(move.rank_after), arrow(move), f"{move.score_after:.3f}", f"{move.rank_before}")
        table.add_row(*cells, Text(f"{catalog.titles[move.item]}  [{catalog.item_ids[move.item]}]"))
    _print(table)
    _print_unread(found.unread)


def profile_text(profile: Profile) -> Text:
    """A profile with its sentences numbered where it has several, and with its weights and requests."""
    parts = parts_of(profile.text)
    lines = []
    for number, part in enumerate(parts, start=1):
        weight = profile.weights.get(part.text)
        mark = "" if weight is None else f"  (× {weight:g})"
        lines.append(f"{f'{number}. ' if len(parts) > 1 else ''}{part.text}{mark}")
    lines += [f"{'+' if weight > 0 else '-'} {abs(weight):g} × {text}" for text, weight in profile.requests.items()]
    return Text("\n".join(lines))


def arrow(move: Move) -> str:
    """How far an item moved: ▲ for up, ▼ for down, = for not at all."""
    return "=" if not move.rise else f"{'▲' if move.rise > 0 else '▼'} {abs(move.rise)}"


def explanation_json(catalog: Catalog, found: Explanation) -> dict[str, Any]:
    """An explanation with the item's id and title, and the history's."""
    return {
        **_named(catalog, found.item),
        "rank": found.rank,
        "num_ranked": found.num_ranked,
        "score": found.score,
        "parts": [
            {
                "text": effect.part.text,
                "start": effect.part.start,
                "end": effect.part.end,
                "effect": effect.effect,
                "rank_without": effect.rank_without,
                "similarity": effect.similarity,
            }
            for effect in found.parts
        ],
        "history": [{**_named(catalog, item), "similarity": similarity} for item, similarity in found.history],
        "unread": found.unread,
    }


def steering_json(catalog: Catalog, found: Steering, k: int) -> dict[str, Any]:
    """Both profiles, the first k items after the edits with their moves, and the items that left the first k."""
    moves = [
        {
            **_named(catalog, move.item),
            "rank": move.rank_after,
            "rank_before": move.rank_before,
            "score": move.score_after,
            "score_before": move.score_before,
        }
        for move in found.moves(k)
    ]
    shown = min(k, len(found.after.items))
    return {
        "before": _profile_json(found.profile_before),
        "after": _profile_json(found.profile_after),
        "items": moves[:shown],
        "left": moves[shown:],
        "unread": found.unread,
    }


def _profile_json(profile: Profile) -> dict[str, Any]:
    return {"text": profile.text, "weights": dict(profile.weights), "requests": dict(profile.requests)}


def _named(catalog: Catalog, item: int) -> dict[str, str]:
    return {"item_id": catalog.item_ids[item], "title": catalog.titles[item]}


def _table(first: str, *columns: tuple[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, justify="right")
    for name, side in columns:
        table.add_column(name, justify=side)
    return table


def _print(*lines: RenderableType) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(Text(line) if isinstance(line, str) else line)


def _print_unread(unread: str) -> None:
    if unread:
        _print(f"The embedder does not read what follows, the end of a text that is too long for it: {unread}")
