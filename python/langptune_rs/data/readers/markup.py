"""HTML in text: which entities, tags and comments a text has, and the text without them.

A text is no page, and signs of mathematics, types, addresses and made-up tags stay as they are: only what HTML knows is
markup.
"""

from __future__ import annotations

import html
import re
from html.entities import html5

_NAMED = re.compile(r"&(?:#(?:[xX][0-9a-fA-F]+|[0-9]+)|[a-zA-Z][a-zA-Z0-9]*);?")
_MAX_DIGITS = 8
"""Digits of a numeric entity, behind its zeros: no character has more."""
_MAX_ADDRESS = 256
"""Characters before an entity that are looked at."""
_BEFORE_IN_ADDRESS = re.compile(r"=|://|^\?|/[^?]*\?")
"""What the word before an entity has in an address: there `&copy` is the name of a value."""
_BEHIND_IN_ADDRESS = re.compile(r"(?:&[\w.-]{1,64}){0,3}=")

_VOID = "area base basefont bgsound br col embed frame hr img image input isindex link meta param source track wbr"
_END_IS_OPTIONAL = "body colgroup dd dt head html li p rb rp rt rtc tbody td tfoot th thead tr"
_WITH_END = (
    "a abbr acronym address applet article aside audio b bdi bdo big blink blockquote button canvas caption "
    "center cite code data datalist del details dfn dialog dir div dl em fieldset figcaption figure font footer "
    "form frameset h1 h2 h3 h4 h5 h6 header hgroup i iframe ins kbd keygen label legend listing main map mark "
    "marquee math menu menuitem meter multicol nav nobr noembed noframes noscript object ol optgroup option "
    "output picture plaintext pre progress q ruby s samp script search section select slot small spacer span "
    "strike strong style sub summary sup svg table template textarea time title tt u ul var video xmp"
)
_UNPAIRED = frozenset(f"{_VOID} {_END_IS_OPTIONAL}".split())
_ELEMENTS = _UNPAIRED | frozenset(_WITH_END.split())
"""The elements of HTML, those of its earlier versions too."""

_FLAGS = (
    "allowfullscreen|async|autofocus|autoplay|border|checked|clear|compact|controls|declare|default|defer|disabled|hidden|ismap"
    "|itemscope|loop|multiple|muted|nohref|noresize|noshade|novalidate|nowrap|open|playsinline|readonly|required"
    "|reversed|selected"
)
_ATTRIBUTES = re.compile(
    rf"[\s/\\\"'.;]*|[\s/]+(?:[a-z_:@][\w:.-]*\s*=.*|(?:{_FLAGS})\b.*)", re.IGNORECASE | re.ASCII | re.DOTALL
)
"""What may follow the name of a tag: nothing, an attribute with a value, or one that HTML knows without."""
_GLOBAL = (
    r"(?:align|aria-[a-z]+|cite|class|data-[\w-]+|dir|href|id|item[a-z]+|lang|name|on[a-z]+|rel|style|target|title"
    r"|type)"
)
_LETTER_ATTRIBUTES = re.compile(rf"[\s/\\\"'.;]*|[\s/]+{_GLOBAL}\s*=.*", re.IGNORECASE | re.ASCII | re.DOTALL)
"""As `_ATTRIBUTES`, for an element of one letter: `a <b c=1> d` is mathematics."""

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
_CUT_TAG = re.compile(
    rf"</?(?:[abipqsu]\s+{_GLOBAL}\s*=.*"
    r"|(?:br|hr|h[1-6]|em|li|ol|ul|dl|dt|dd|td|th|tr|tt|img|div|span|sub|sup|tbody|thead|blockquote|iframe)"
    r"(?:\s+[a-z-]*|\s*/)?"
    r"|[a-z][a-z0-9]+\s+[a-z_:-]+\s*=.*)",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
"""A tag that was cut before its ">". A single letter and a word of English are a tag only with an attribute:
"a <b" and "less <code" are text."""


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
    cut = _CUT_TAG.fullmatch(text, last) if last >= 0 else None
    return text[:last] if cut and _name_at(text, last) in _ELEMENTS else text


def _is_tag(found: re.Match[str], ended: set[str]) -> bool:
    """Whether HTML knows a tag of this name with these attributes. `ended` are the names of the text's end tags."""
    slash, name, attributes = found.groups()
    element = name.lower()
    if element not in _ELEMENTS:
        return False
    pattern = _ATTRIBUTES if len(element) > 1 else _LETTER_ATTRIBUTES
    if not pattern.fullmatch(attributes):
        return False
    return bool(slash) or element in _UNPAIRED or element in ended or not _is_within_word(found)


def _is_within_word(found: re.Match[str]) -> bool:
    """Whether a start tag without an end is a type or mathematics: `List<Object>`, `a<b>c`."""
    name, before, behind = (
        found[2],
        found.string[found.start() - 1 : found.start()],
        found.string[found.end() : found.end() + 1],
    )
    is_type = name[0].isupper() and (len(name) == 1 or not name.isupper())
    is_term = len(name) == 1 and behind.isalnum()
    return (is_type or is_term) and (before.isalnum() or before == "_") and not found[3].strip()


def _name_at(text: str, place: int) -> str:
    """The name of the tag that starts at `place`, in lower case."""
    return re.split(r"[^A-Za-z0-9]", text[place:].lstrip("</"), maxsplit=1)[0].lower()
