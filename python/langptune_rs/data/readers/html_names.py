"""The names that HTML knows: its elements and attributes, and which of them say what about a text."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELEMENTS = _words(
    "a abbr acronym address applet area article aside audio b base basefont bdi bdo bgsound big blink blockquote body "
    "br button canvas caption center cite code col colgroup data datalist dd del details dfn dialog dir div dl dt em "
    "embed fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html i "
    "iframe image img input ins isindex kbd keygen label legend li link listing main map mark marquee math menu "
    "menuitem meta meter multicol nav nobr noembed noframes noscript object ol optgroup option output p param picture "
    "plaintext pre progress q rb rp rt rtc ruby s samp script search section select slot small source spacer span "
    "strike strong style sub summary sup svg table tbody td template textarea tfoot th thead time title tr track tt u "
    "ul var video wbr xmp"
)
"""The elements of HTML, those of its earlier versions too."""
BREAKS = _words("br dd dt hr img li p rb rp rt rtc tbody td tfoot th thead tr wbr")
"""Elements that need no end and stand between words in any spelling: `word<BR>word`."""
SHAPES = _words(
    "a b big blockquote center div dl em font h1 h2 h3 h4 h5 h6 i nobr ol pre q s small span strike strong sub sup tt "
    "u ul"
)
"""Elements whose start, without an end or attributes and close to a word, is an author's: `word<em> more`. Any other is
a type there, as in `List<object>` and `vector<var>`."""
NO_WORDS = _words(
    "blockquote br dd div dl dt em h1 h2 h3 h4 h5 h6 hr iframe img li ol span sub sup tbody td th thead tr tt ul"
)
"""Elements that are no words of English: "cut <br" and "cut <div cla" are tags, "a <b" and "less <code" are text."""

FLAGS = _words(
    "allowfullscreen async autofocus autoplay border checked clear compact controls declare default defer disabled "
    "download hidden inert ismap itemscope loop multiple muted nohref noresize noshade novalidate nowrap open "
    "playsinline readonly required reversed selected"
)
"""Attributes without a value."""
LETTER_FLAGS = _words("autofocus download hidden inert itemscope nowrap")
"""Attributes without a value of an element of one letter."""
_OF_ALL = _words(
    "accesskey align autocapitalize charset cite class contenteditable dir download draggable enterkeyhint exportparts "
    "hidden href hreflang id inputmode lang media name nonce part ping popover referrerpolicy rel rev role shape slot "
    "spellcheck style tabindex target title translate type"
)
_OF_SOME = _words(
    "abbr accept action alink allow alt archive async autocomplete autoplay axis background behavior bgcolor border "
    "bordercolor cellpadding cellspacing char charoff checked classid clear code codebase codetype color cols colspan "
    "compact content controls coords crossorigin data datetime decoding direction disabled enctype face for form frame "
    "frameborder headers height high hspace http-equiv imagesizes imagesrcset integrity kind label language link list "
    "loading longdesc low marginheight marginwidth max maxlength method min minlength noshade nowrap object optimum "
    "pattern placeholder pluginspage poster preload profile property readonly rows rowspan rules sandbox scheme scope "
    "scrolling selected size sizes span src srcdoc srclang srcset standby start step summary text usemap valign value "
    "valuetype version vlink vspace width wmode wrap"
)
ATTRIBUTES = _OF_ALL | _OF_SOME | FLAGS
"""The attributes of HTML, those of its earlier versions too, without those of a family: `data-x`, `onclick`."""

_FAMILIES = r"aria-[a-z]+|data-[\w-]+|item[a-z]+|on[a-z]+|xml:[a-z]+|xmlns(?::[a-z]+)?"


def either(names: frozenset[str], *patterns: str) -> str:
    """A pattern for any of `names`, or of `patterns`."""
    return rf"(?:{'|'.join((*sorted(names), *patterns))})"


ATTRIBUTE = either(ATTRIBUTES, _FAMILIES)
"""A pattern for the name of any attribute."""
LETTER_ATTRIBUTE = either(_OF_ALL, _FAMILIES)
"""A pattern for the name of an attribute of an element of one letter, none of which is likely in mathematics."""
IS_ATTRIBUTE = re.compile(ATTRIBUTE, re.IGNORECASE | re.ASCII)
IS_LETTER_ATTRIBUTE = re.compile(LETTER_ATTRIBUTE, re.IGNORECASE | re.ASCII)
