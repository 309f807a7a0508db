"""A result as one HTML page that needs no server, no network and nothing beside it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inspector.server.assets import FOLDER

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:"
)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the page.

    Attributes:
        body: HTML; whatever a model or a person named is escaped in it.
        scripts: files whose text it needs, each included once.
    """

    body: str
    scripts: tuple[Path, ...] = ()


def page(title: str, parts: Sequence[Part]) -> str:
    """The page's text; its own policy forbids every request."""
    scripts = dict.fromkeys(script for part in parts for script in part.scripts)
    # A closing tag inside of a script would end it: none of the bundled files holds one.
    code = "".join(f"<script>{script.read_text('utf-8')}</script>\n" for script in scripts)
    body = "\n".join(part.body for part in parts)
    style = (FOLDER / "offline.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style>{code}</head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n"
        "<footer>Made with torch-inspector.</footer></body></html>\n"
    )


def text_part(title: str, text: str, *, code: bool = False) -> Part:
    """A heading and plain text, paragraph by paragraph, or as it is in a code box."""
    head = f"<h2>{html.escape(title)}</h2>" if title else ""
    if code:
        return Part(f"{head}<pre><code>{html.escape(text)}</code></pre>")
    paragraphs = (f"<p>{html.escape(part)}</p>" for part in text.split("\n\n") if part.strip())
    return Part(head + "".join(paragraphs))


def table_part(title: str, rows: Sequence[Mapping[str, object]]) -> Part:
    """Rows with the same keys as a table."""
    if not rows:
        return Part("")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row.values()) + "</tr>"
        for row in rows
    )
    return Part(
        f"<h2>{html.escape(title)}</h2><div class='wide'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def graph_part(dot: str, facts: Mapping[str, Sequence[str]], lines: Sequence[str]) -> Part:
    """A graph, laid out when the page is opened; a click on a box shows its facts.

    Args:
        facts: lines by id of the box, the first one as heading.
        lines: sentences above the picture.
    """
    data = json.dumps({"dot": dot, "facts": {key: list(value) for key, value in facts.items()}})
    data = data.replace("<", "\\u003c")  # a name must not end the script
    said = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return Part(
        f'{said}<section class="graph"><div class="bar"><button data-do="out">−</button>'
        '<button data-do="in">+</button><button data-do="fit">Width</button>'
        '<input type="search" placeholder="Search" aria-label="Search the graph"></div>'
        '<div class="split"><div class="view">Laying out …</div><aside>Click a box.</aside></div>'
        f'<script type="application/json">{data}</script></section>',
        (FOLDER / "vendor" / "viz-global.js", FOLDER / "offline-graph.js"),
    )
