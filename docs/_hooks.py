"""Hooks of the site: formulas become MathML, so that they are read without scripts, and all can be reached by keyboard.

Sources hold LaTeX between dollars, which code hosts show as formulas too.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_TABLE = re.compile(r"<table>(.*?)</table>", re.DOTALL)
_BAR = "<mo>&#x0007C;</mo>"
_TIGHT_BAR = '<mo stretchy="false" lspace="0.08em" rspace="0.08em">|</mo>'  # no gap as around an operator
_SEARCH = 'data-md-component="search" role="dialog"'


def on_page_content(content: str, **_: Any) -> str:
    """Replace each formula of a page; give wide tables a box that scrolls."""
    return _TABLE.sub(r'<div class="wide" tabindex="0"><table>\1</table></div>', _FORMULA.sub(_mathml, content))


def on_post_page(output: str, **_: Any) -> str:
    """Give the search dialog a name."""
    return output.replace(_SEARCH, f'{_SEARCH} aria-label="Search"')


def _mathml(found: re.Match[str]) -> str:
    tag, bracket, latex = found.groups()
    display = "block" if bracket == "[" else "inline"
    formula = convert(html.unescape(latex).strip(), display=display).replace(_BAR, _TIGHT_BAR)
    focus = ' tabindex="0"' if bracket == "[" else ""  # wide ones scroll
    return f'<{tag} class="formula"{focus}>{formula}</{tag}>'
