"""A folded graph as DOT text for Graphviz: plain ids, escaped labels, gradient colours."""

from __future__ import annotations

import math
from collections import Counter

from inspector.views.graph import Box, FoldedGraph, Frame

VIRIDIS = (
    "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884",
    "#44bf70", "#7ad151", "#bddf26", "#fde725",
)  # fmt: skip
BAD = "#d6006c"  # not on the scale, and apart from it for every kind of colour vision
WIDEST = 44
MOST_USES = 4

_HEAD = """digraph autograd {
  bgcolor="transparent" nodesep=0.25 ranksep=0.35 compound=true
  node [shape=box style="filled,rounded" fontname="Helvetica" fontsize=13 margin="0.16,0.07" \
fillcolor="#e9ecf1" color="#8a93a3" fontcolor="#1b1f27"]
  edge [color="#7b8494" arrowsize=0.6 fontname="Helvetica" fontsize=11 fontcolor="#596273"]
"""


def to_dot(folded: FoldedGraph, *, direction: str = "TB") -> str:
    """The graph as DOT; boxes have the ids ``n0``, ``n1``, …, frames ``c0``, ``c1``, ….

    Args:
        direction: ``TB`` draws the forward pass downwards, ``LR`` to the right.
    """
    lines = [_HEAD, f"  rankdir={direction}\n"]
    _contents(folded.children, "", folded, lines, "  ")
    lines += _arrows(folded)
    lines.append("}\n")
    return "".join(lines)


def escape(text: str) -> str:
    """Text for a quoted DOT string that shows exactly these characters.

    Graphviz reads backslashes, HTML entities and line breaks; control characters are shown as
    their Unicode pictures.
    """
    visible = "".join(
        chr(0x2400 + ord(char)) if ord(char) < 32 else "␡" if ord(char) == 127 else char
        for char in text
    )
    # Lone surrogates, possible in names from files, are not UTF-8.
    visible = visible.encode("utf-8", "replace").decode("utf-8")
    return visible.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def colour(norm: float | None, low: float | None, high: float | None) -> str | None:
    """Place of a gradient norm on the logarithmic scale as ``#rrggbb``; None without a norm."""
    if norm is None or low is None or high is None:
        return None
    if norm < low or high <= low:
        share = 0.0 if norm < low else 1.0
    else:
        share = min(math.log(norm / low) / math.log(high / low), 1.0)
    place = share * (len(VIRIDIS) - 1)
    start = min(int(place), len(VIRIDIS) - 2)
    pairs = zip(_rgb(VIRIDIS[start]), _rgb(VIRIDIS[start + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - start)):02x}" for a, b in pairs)


def on(background: str) -> str:
    """Black or white, whichever is easier to read on a colour."""
    red, green, blue = _rgb(background)
    return "#111111" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def number(value: float) -> str:
    """A norm in three significant digits."""
    return f"{value:.3g}"


def _contents(
    items: tuple[Frame | Box, ...], path: str, folded: FoldedGraph, lines: list[str], pad: str
) -> None:
    for item in items:
        if isinstance(item, Box):
            lines.append(f"{pad}{item.id} [{_attributes(item, path, folded)}]\n")
            continue
        inner = item.key.removeprefix("m:") if item.key.startswith("m:") else path
        title = escape(_cut(_within(item.title, path)))
        lines.append(
            f'{pad}subgraph cluster_{item.id} {{\n{pad}  id="{item.id}" label="− {title}" '
            'labeljust=l style="rounded,filled" fillcolor="#6b7a9014" color="#8a93a3" '
            'fontname="Helvetica" fontsize=13 fontcolor="#596273" margin=12\n'
        )
        _contents(item.children, inner, folded, lines, pad + "  ")
        lines.append(f"{pad}}}\n")


def _arrows(folded: FoldedGraph) -> list[str]:
    """The edges; of a parameter used by many boxes only the first, which says how many follow."""
    parameters = {box.id for box in folded.boxes() if box.kind == "parameter"}
    uses = Counter(start for start, _, _ in folded.edges)
    drawn: set[str] = set()
    lines = []
    for start, end, count in folded.edges:
        label = f"×{count}" if count > 1 else ""
        if start in parameters and uses[start] > MOST_USES:
            if start in drawn:
                continue
            drawn.add(start)
            label = f"{label} and in {uses[start] - 1} more boxes".strip()
        style = f' [label="  {label}" penwidth={2 if count > 1 else 1}]' if label else ""
        lines.append(f"  {start} -> {end}{style}\n")
    return lines


def _attributes(box: Box, path: str, folded: FoldedGraph) -> str:
    title = _cut(_within(box.title, path))
    label = [f"+ {title}" if box.kind == "fold" else title]
    if box.subtitle:
        label.append(_cut(box.subtitle))
    facts = [f"{box.ops} node{'s' * (box.ops > 1)}"] if box.kind == "fold" else []
    fill = colour(box.norm, folded.low, folded.high)
    if box.nonfinite:
        fill = BAD
        name = "NaN" if box.nonfinite == "nan" else "∞"
        facts.append(f"gradient is {name}")
    elif box.norm is not None:
        facts.append(f"‖grad‖ {number(box.norm)}")
    if box.born:
        facts.append("first non-finite leaves here")
    if facts:
        label.append(" · ".join(facts))
    shape = {"parameter": "ellipse", "op": "box"}.get(box.kind, "box")
    style = "filled" if box.kind != "op" else "filled,rounded"
    parts = [
        f'id="{box.id}"', f'class="{box.kind}{"" if fill else " plain"}"',
        'label="' + "\\n".join(escape(line) for line in label) + '"',
    ]  # fmt: skip
    if shape != "box":
        parts.append(f"shape={shape} margin=0.05")
    if style != "filled,rounded":
        parts.append(f'style="{style}"')
    if box.kind == "fold":
        parts.append("penwidth=2")
    if box.born:
        parts.append(f'color="{BAD}" penwidth=4')
    if fill:
        parts.append(f'fillcolor="{fill}" fontcolor="{on(fill)}"')
    return " ".join(parts)


def _within(title: str, path: str) -> str:
    return title.removeprefix(f"{path}.") if path else title


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _rgb(text: str) -> tuple[int, ...]:
    return tuple(int(text[at : at + 2], 16) for at in (1, 3, 5))
