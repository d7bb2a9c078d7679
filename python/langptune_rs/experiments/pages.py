"""Pages of experiments: one HTML file each that loads nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """The page that a template of this room makes of values, such as compare/page.html.j2.

    Texts among the values are escaped. `base.html.j2` has the style and the frame of all pages.
    """
    environment = Environment(
        loader=PackageLoader("langptune_rs.experiments", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(**values)
