"""What all pages are made with: templates filled in safely, and one look for light and dark, style.css.

A template begins its style with `{% include "style.css" %}`; what it says after it wins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def fill(template: Path, **facts: Any) -> str:
    """The HTML template `template` with `facts`, all of them escaped; a fact that it wants and lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([template.parent, Path(__file__).parent])
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return pages.get_template(template.name).render(facts)
