"""Templates of pages: facts are escaped, and one that is missing is an error."""

from pathlib import Path

import jinja2
import pytest

from umt.pages import fill


def template(folder: Path) -> Path:
    file = folder / "page.html"
    file.write_text('<style>{% include "style.css" %}</style><p>{{ fact }}</p>')
    return file


def test_a_fact_is_text_whatever_is_in_it(tmp_path: Path) -> None:
    assert "<p>&lt;b&gt;</p>" in fill(template(tmp_path), fact="<b>")


def test_the_common_style_is_taken_as_it_is(tmp_path: Path) -> None:
    assert '"Segoe UI"' in fill(template(tmp_path), fact="")


def test_a_fact_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError):
        fill(template(tmp_path))
