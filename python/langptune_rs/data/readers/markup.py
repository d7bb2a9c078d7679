"""HTML in text: which entities, tags and comments a text has, and the text without them.

A text is no page, and signs of mathematics, types, addresses and made-up tags stay as they are: only what HTML knows is
markup.
"""

from __future__ import annotations

import html
import re
from html.entities import html5

from langptune_rs.data.readers.html_names import (
    ATTRIBUTE,
    ATTRIBUTES,
    BREAKS,
    ELEMENTS,
    FLAGS,
    IS_ATTRIBUTE,
    IS_LETTER_ATTRIBUTE,
    LETTER_ATTRIBUTE,
    LETTER_FLAGS,
    NO_WORDS,
    SHAPES,
    either,
)

_NAMED = re.compile(r"&(?:#(?:[xX][0-9a-fA-F]+|[0-9]+)|[a-zA-Z][a-zA-Z0-9]*);?")
_MAX_DIGITS = 8
"""Digits of a numeric entity, behind its zeros: no character has more."""
_MAX_ADDRESS = 256
"""Characters before an entity that are looked at."""
_BEFORE_IN_ADDRESS = re.compile(r"=|://|^\?|/[^?]*\?")
"""What the word before an entity has in an address: there `&copy` is the name of a value."""
_BEHIND_IN_ADDRESS = re.compile(r"(?:&[\w.-]{1,64}){0,3}=")

_HOW = re.IGNORECASE | re.ASCII | re.DOTALL
_QUOTE = r"""\\?["'\u201c\u201d\u2018\u2019]"""
_NAME = r"[a-z_:@][\w:.-]*"
_END = r"[\s/\\\"'.;]*"
_MORE = rf"(?:[\s/]++(?:{either(FLAGS)}(?![\w:.-])|{_NAME}\s*=.*))*{_END}"
"""Attributes without a value up to one with a value, and whatever follows that."""
_ATTRIBUTES = re.compile(
    rf"{_END}|[\s/]+(?:{ATTRIBUTE}\s*=.*|{_NAME}\s*=\s*{_QUOTE}.*|{_NAME}=[^\s=]\S*+{_MORE}"
    rf"|{either(FLAGS)}(?![\w:.-]){_MORE})",
    _HOW,
)
"""What may follow the name of a tag: nothing, an attribute that HTML knows, one with its value in quotes, or any with a
value if no prose follows. `x <var y = 3 and z> 2` has none of these."""
_LETTER_ATTRIBUTES = re.compile(
    rf"{_END}|[\s/]+(?:{LETTER_ATTRIBUTE}\s*=.*|{_NAME}\s*=\s*{_QUOTE}.*|{either(LETTER_FLAGS)}(?![\w:.-]){_MORE})",
    _HOW,
)
"""As `_ATTRIBUTES`, for an element of one letter: `a <b c=1> d` is mathematics, and `<b c="1">` is a tag."""

_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)((?:[\s/\\\"'.;][^<>]*)?)>", re.IGNORECASE | re.ASCII)
_END_TAG = re.compile(r"</([a-z][a-z0-9]*)", re.IGNORECASE | re.ASCII)
_FOREIGN = re.compile(
    r"<!doctype\b[^<>]*>|<\?[a-z][^<>]*\?>|</?(?:[omvw]|st1):[a-z]+\b[^<>]*>", re.IGNORECASE | re.ASCII
)
"""Declarations, and the tags of office programs."""
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_UNSEEN = [
    (
        re.compile(rf".*</{tag}\b", re.IGNORECASE | re.ASCII | re.DOTALL),
        re.compile(rf"<{tag}(?=[\s/>])[^<>]*>.*?(?=</{tag}\b)", re.IGNORECASE | re.ASCII | re.DOTALL),
    )
    for tag in ("script", "style")
]
"""Two patterns for each tag whose content is never shown: everything up to the last end tag, and a tag with its
content."""
_CUT_NAME = re.compile(r"<(/?)([a-z][a-z0-9]*)(?![a-z0-9])", _HOW)
_CUT_ATTRIBUTE = re.compile(rf"""[\s/]+({_NAME})(?:=("[^"]*"?|'[^']*'?|[^\s"'<>]*))?""", _HOW)
_CUT_END = re.compile(r"[\s/]*")


def decode_entities(text: str) -> str:
    """`text` with the characters that its entities stand for.

    An entity of a name ends with ";", or is a whole word that a browser knows without, and no part of an address.
    """
    return _NAMED.sub(_decoded, text)


def _decoded(found: re.Match[str]) -> str:
    entity = found[0]
    is_number = entity[1] == "#"
    if is_number and len(entity.strip("&#xX;").lstrip("0")) > _MAX_DIGITS:
        return entity
    character = html.unescape(entity) if is_number else html5.get(entity[1:], entity)
    if entity.endswith(";"):
        return character
    is_shown = character.isprintable() or character.isspace()
    return character if character and is_shown and not _is_in_address(found) else entity


def _is_in_address(found: re.Match[str]) -> bool:
    """Whether the name that was found is that of a value in an address, as in `?a=1&copy=2`."""
    word = found.string[max(0, found.start() - _MAX_ADDRESS) : found.start()].rpartition(" ")[2]
    return bool(_BEHIND_IN_ADDRESS.match(found.string, found.end()) or _BEFORE_IN_ADDRESS.search(word))


def without_tags(text: str) -> str:
    """`text` with a space for every tag and comment. The time is proportional to its length for any text."""
    for until_last_end, content in _UNSEEN:
        if found := until_last_end.match(text):
            text = content.sub(" ", found[0]) + text[found.end() :]
    if "<!--" in text:
        last_end = text.rfind("-->") + 3
        text = (_COMMENT.sub(" ", text[:last_end]) + text[last_end:]).replace("<!--", " ")
    ended = {name.lower() for name in _END_TAG.findall(text)}
    text = _TAG.sub(lambda found: " " if _is_tag(found, ended) else found[0], _FOREIGN.sub(" ", text))
    last = text.rfind("<")
    return text[:last] if last >= 0 and _is_cut_tag(text[last:]) else text


def _is_tag(found: re.Match[str], ended: set[str]) -> bool:
    """Whether HTML knows a tag of this name with these attributes. `ended` are the names of the text's end tags."""
    slash, name, attributes = found.groups()
    element = name.lower()
    if element not in ELEMENTS:
        return False
    pattern = _ATTRIBUTES if len(element) > 1 else _LETTER_ATTRIBUTES
    if not pattern.fullmatch(attributes):
        return False
    return bool(slash) or element in ended or not _is_within_word(found)


def _is_within_word(found: re.Match[str]) -> bool:
    """Whether a start tag without an end is a type or mathematics: `List<Object>`, `vector<var>`, `a<b>c`."""
    name, before, behind = (
        found[2],
        found.string[found.start() - 1 : found.start()],
        found.string[found.end() : found.end() + 1],
    )
    if found[3].strip() or not (before.isalnum() or before == "_") or name.lower() in BREAKS:
        return False
    is_type = name[0].isupper() and (len(name) == 1 or not name.isupper())
    is_term = len(name) == 1 and behind.isalnum()
    return is_type or is_term or name.lower() not in SHAPES


def _is_cut_tag(rest: str) -> bool:
    """Whether the end of a text, from its last "<", is a tag that was cut before its ">", with nothing but attributes.

    A tag takes the end of its text with it. So an attribute needs a name that HTML knows or a whole value in quotes,
    and "=" without blanks: `5 <time t = 5 then more` is text. So is a single letter or a word of English alone.
    """
    found = _CUT_NAME.match(rest)
    if found is None or found[2].lower() not in ELEMENTS:
        return False
    element, place = found[2].lower(), found.end()
    is_known = IS_ATTRIBUTE.fullmatch if len(element) > 1 else IS_LETTER_ATTRIBUTE.fullmatch
    is_sure = bool(found[1]) or element in NO_WORDS
    while attribute := _CUT_ATTRIBUTE.match(rest, place):
        name, value, place = attribute[1].lower(), attribute[2], attribute.end()
        if value is None:
            is_cut = _CUT_END.fullmatch(rest, place) and any(known.startswith(name) for known in ATTRIBUTES)
            if not (is_sure and (name in FLAGS or is_cut)):
                return False
        elif not is_known(name) and not _is_in_quotes(value):
            return False
        is_sure = True
    return is_sure and _CUT_END.fullmatch(rest, place) is not None


def _is_in_quotes(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
