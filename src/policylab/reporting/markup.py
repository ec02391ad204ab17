"""Pieces of a page as HTML: escaped text, tables, pictures within the page, headings over them."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Section:
    """A part of a page: its heading and, as HTML, what stands below it."""

    title: str
    body: str

    def __str__(self) -> str:
        return f"<h2>{text(self.title)}</h2>{self.body}" if self.title else self.body


def text(value: Any) -> str:
    """What a user or a library named, so that no letter of it is taken for HTML."""
    return html.escape(str(value))


def number(value: float) -> str:
    """Three significant digits, without an exponent where it can be helped."""
    if not np.isfinite(value):
        return "-"
    digits = 0 if value == 0 else int(np.clip(2 - np.floor(np.log10(abs(value))), 0, 6))
    return f"{value:.{digits}f}"


def paragraphs(words: str) -> str:
    """Text with empty lines between its paragraphs."""
    return "".join(f"<p>{text(part)}</p>" for part in words.split("\n\n"))


def soft(words: str) -> str:
    """A paragraph of what explains, not of what is found."""
    return f'<p class="soft">{text(words)}</p>' if words else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "", numbers: bool = True) -> str:
    """A table of plain texts; with `numbers` every column but the first is set as such and does not break."""
    kind = " class=number" if numbers else ""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    lines = [
        "".join(
            f'<td{kind if place else ""} data-label="{text(name)}">{text(cell)}</td>'
            for place, (name, cell) in enumerate(zip(header, row, strict=True))
        )
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'{soft(caption)}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        if rows
        else soft(caption)
    )


def pairs(facts: Mapping[str, str]) -> str:
    """Names with what they are."""
    lines = "".join(f"<tr><td>{text(name)}</td><td>{text(value)}</td></tr>" for name, value in facts.items())
    return f'<div class="scroll"><table class="facts"><tbody>{lines}</tbody></table></div>'


def folded(title: str, body: str) -> str:
    """What is shown when one asks for it."""
    return f"<details><summary>{text(title)}</summary>{body}</details>"


def code(lines: str) -> str:
    """Code, as it is to be typed."""
    return f"<pre class=wrap>{text(lines)}</pre>"


def items(sentences: Sequence[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{text(sentence)}</li>' for sentence in sentences)}</ul>" if sentences else ""


def image(content: bytes, kind: str, alternative: str, caption: str = "") -> str:
    """A picture within the page, with the words for those who cannot see it."""
    data = base64.b64encode(content).decode()
    shown = f'<img src="data:image/{kind};base64,{data}" alt="{text(alternative)}">'
    return f'<figure class="picture">{shown}<figcaption>{text(caption)}</figcaption></figure>'
