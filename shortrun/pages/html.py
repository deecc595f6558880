"""Words and pictures as HTML that asks nothing of anybody: all words escaped, all pictures inside of it."""

import base64
import html
import re
from collections.abc import Iterable
from io import BytesIO

from PIL import Image

UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that no page may hold, and those that turn the direction in which others are read."""
PIXELS = "pixels"
"""The class of pictures of few pixels, which a browser is not to blur."""
STYLE = f"""
.shortrun {{ line-height: 1.5; overflow-wrap: anywhere; }}
.shortrun dl {{ display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .25rem 1rem; margin: 0; }}
.shortrun dt {{ color: GrayText; }}
.shortrun dd {{ margin: 0; }}
.shortrun .row {{ display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }}
.shortrun figure {{ margin: 0; max-width: 100%; }}
.shortrun .even > figure {{ flex: 1 1 18rem; max-width: 27rem; }}
.shortrun img {{ max-width: 100%; height: auto; background: white; display: block; }}
.shortrun img.{PIXELS} {{ width: 100%; image-rendering: pixelated; }}
.shortrun figcaption {{ font-size: .85rem; }}
.shortrun pre {{ overflow-x: auto; font-size: .8rem; overflow-wrap: normal; }}
.shortrun .note {{ border-left: 3px solid #d55e00; padding-left: .6rem; }}
@media (max-width: 480px) {{ .shortrun dl {{ display: block; }} .shortrun dd {{ margin-bottom: .5rem; }} }}
"""


def escaped(words: object) -> str:
    """Return words as text of a page, also within the quotes of an attribute.

    words: any; control characters, surrogates and turns of direction in them become a mark.

    >>> escaped('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(UNSHOWN.sub("\N{REPLACEMENT CHARACTER}", str(words)))


def data_uri(picture: Image.Image) -> str:
    """Return a picture as an address that holds the picture itself, as PNG.

    picture: any.
    """
    file = BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def figure(picture: Image.Image, caption: str, width: int | None = None) -> str:
    """Return a picture with its caption.

    picture: any; it is never wider than the page.
    caption: words beneath it.
    width: at which a picture of few pixels is shown, each of them as a square; None for the picture's own.
    """
    size, kind = ("", "") if width is None else (f' style="width: {width}px"', f' class="{PIXELS}"')
    words = escaped(caption)
    return f'<figure{size}><img src="{data_uri(picture)}" alt="{words}"{kind}><figcaption>{words}</figcaption></figure>'


def row(parts: Iterable[str], even: bool = False) -> str:
    """Return parts of a page side by side, as many as fit; nothing where there are none.

    parts: HTML.
    even: whether all become of one width.
    """
    whole = "".join(parts)
    return f'<div class="row{" even" if even else ""}">{whole}</div>' if whole else ""


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Return names with their words.

    rows: of a name and words each; the words of an empty name belong to the name before.
    """
    return f"<dl>{''.join(f'<dt>{escaped(name)}</dt><dd>{escaped(words)}</dd>' for name, words in rows)}</dl>"


def note(words: str) -> str:
    """Return words that are set apart: what is missing, and why.

    words: a sentence.
    """
    return f'<p class="note">{escaped(words)}</p>'
