"""What every page has to be: one file that needs no other, with words for every picture."""

from __future__ import annotations

import re


def alone(page: str) -> None:
    """Fails where a page reaches for something outside of itself, or shows a picture without words."""
    assert not re.search(r"""(src|href)=["']?(https?:|//|\w+\.(js|css|png))|url\(|<script|<link|@import""", page)
    pictures = re.findall(r"<img [^>]*>", page)
    assert all(re.search(r'alt="[^"]{10,}"', picture) for picture in pictures), pictures
    assert page.count("<table") == page.count("</table>")
    assert page.count("<details") == page.count("</details>")
