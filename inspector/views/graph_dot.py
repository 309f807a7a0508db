"""A folded graph as DOT text for Graphviz: plain ids, escaped labels, colours."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from inspector.views.graph_boxes import Box, FoldedGraph, Frame
from inspector.views.graph_compare import CHANGED, ONLY_OTHER, ONLY_THIS
from inspector.views.graph_measures import number, words
from inspector.views.graph_paths import DrawnPath

VIRIDIS = (
    "#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884",
    "#44bf70", "#7ad151", "#bddf26", "#fde725",
)  # fmt: skip
BAD = "#d6006c"  # not on the scale, and apart from it for every kind of colour vision
TRACE = "#e8590c"
CHANGES = {ONLY_OTHER: "#f08c00", ONLY_THIS: "#1c7ed6", CHANGED: "#9c36b5"}
WIDEST = 44
MOST_USES = 4

_HEAD = """digraph autograd {
  bgcolor="transparent" nodesep=0.25 ranksep=0.35 compound=true
  node [shape=box style="filled,rounded" fontname="Helvetica" fontsize=13 margin="0.16,0.07" \
fillcolor="#e9ecf1" color="#8a93a3" fontcolor="#1b1f27"]
  edge [color="#7b8494" arrowsize=0.6 fontname="Helvetica" fontsize=11 fontcolor="#596273"]
"""
_SIGNS = {ONLY_OTHER: "−", ONLY_THIS: "+", CHANGED: "~"}


@dataclass(frozen=True, slots=True)
class Marked:
    """What is pointed out in the picture.

    Attributes:
        path: the way of a gradient, or None.
        steps: this step and the other one when two are compared, or None.
    """

    path: DrawnPath | None = None
    steps: tuple[int, int] | None = None
    on_path: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        boxes = frozenset(self.path.boxes) if self.path else frozenset[str]()
        object.__setattr__(self, "on_path", boxes)

    @property
    def ink(self) -> str:
        return BAD if self.path is not None and self.path.kind == "nonfinite" else TRACE


def to_dot(folded: FoldedGraph, *, direction: str = "TB", marked: Marked | None = None) -> str:
    """The graph as DOT; boxes have the ids ``n0``, ``n1``, …, frames ``c0``, ``c1``, ….

    Both sides are laid out alike; on the backward side the arrows point the other way.

    Args:
        direction: ``TB`` draws the forward pass downwards, ``LR`` to the right.
    """
    marked = marked or Marked()
    lines = [_HEAD, f"  rankdir={direction}\n"]
    if folded.side == "backward":
        lines.append("  edge [dir=back]\n")
    _contents(folded.children, "", folded, marked, lines, "  ")
    lines += _arrows(folded, marked)
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


def colour(value: float | None, low: float | None, high: float | None) -> str | None:
    """Place of a value on the logarithmic scale as ``#rrggbb``; None without a value."""
    if value is None or low is None or high is None:
        return None
    if value < low or high <= low:
        share = 0.0 if value < low else 1.0
    else:
        share = min(math.log(value / low) / math.log(high / low), 1.0)
    place = share * (len(VIRIDIS) - 1)
    start = min(int(place), len(VIRIDIS) - 2)
    pairs = zip(_rgb(VIRIDIS[start]), _rgb(VIRIDIS[start + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - start)):02x}" for a, b in pairs)


def on(background: str) -> str:
    """Black or white, whichever is easier to read on a colour."""
    red, green, blue = _rgb(background)
    return "#111111" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def _contents(
    items: tuple[Frame | Box, ...],
    path: str,
    folded: FoldedGraph,
    marked: Marked,
    lines: list[str],
    pad: str,
) -> None:
    for item in items:
        if isinstance(item, Box):
            lines.append(f"{pad}{item.id} [{_attributes(item, path, folded, marked)}]\n")
            continue
        inner = item.key.removeprefix("m:") if item.key.startswith("m:") else path
        title = escape(_cut(_within(item.title, path), WIDEST + 30))
        lines.append(
            f'{pad}subgraph cluster_{item.id} {{\n{pad}  id="{item.id}" label="− {title}" '
            'labeljust=l style="rounded,filled" fillcolor="#6b7a9014" color="#8a93a3" '
            'fontname="Helvetica" fontsize=13 fontcolor="#596273" margin=12\n'
        )
        _contents(item.children, inner, folded, marked, lines, pad + "  ")
        lines.append(f"{pad}}}\n")


def _arrows(folded: FoldedGraph, marked: Marked) -> list[str]:
    """The edges; of a parameter used by many boxes only the first, which says how many follow."""
    parameters = {box.id for box in folded.boxes() if box.kind == "parameter"}
    uses = Counter(start for start, _, _ in folded.edges)
    travelled = marked.path.links if marked.path else {}
    drawn: set[str] = set()
    lines = []
    for start, end, count in folded.edges:
        label = f"×{count}" if count > 1 else ""
        style = [f"penwidth={2 if count > 1 else 1}"]
        if (end, start) in travelled:
            factor = travelled[end, start]
            label = "" if factor is None else f"grad × {number(factor)}"
            style = [f'color="{marked.ink}" fontcolor="{marked.ink}" penwidth=4 class="path"']
        elif start in parameters and uses[start] > MOST_USES:
            if start in drawn:
                continue
            drawn.add(start)
            label = f"{label} and in {uses[start] - 1} more boxes".strip()
        elif (start, end) in folded.implied:
            style.append("style=dashed")
        if label:
            style.insert(0, f'label="  {label}"')
        shown = "" if style == ["penwidth=1"] else f" [{' '.join(style)}]"
        lines.append(f"  {start} -> {end}{shown}\n")
    return lines


def _attributes(box: Box, path: str, folded: FoldedGraph, marked: Marked) -> str:
    fill = _fill(box, folded, marked)
    label = "\\n".join(escape(line) for line in _label(box, path, folded, marked))
    classes = [box.kind, *([] if fill else ["plain"])]
    parts = [f'id="{box.id}"', f'class="{" ".join(classes)}"', f'label="{label}"']
    if box.kind == "parameter":
        parts.append("shape=ellipse margin=0.05")
    if box.kind != "op":
        parts.append('style="filled"')
    border = _border(box, marked)
    if border:
        parts.append(border)
    elif box.kind in ("fold", "module"):
        parts.append("penwidth=2")
    if fill:
        parts.append(f'fillcolor="{fill}" fontcolor="{on(fill)}"')
    return " ".join(parts)


def _label(box: Box, path: str, folded: FoldedGraph, marked: Marked) -> list[str]:
    title = _cut(_within(box.title, path))
    label = [f"+ {title}" if box.kind == "fold" else title]
    label += [_cut(text) for text in (box.subtitle, box.shapes) if text]
    facts = [f"{box.ops} node{'s' * (box.ops > 1)}"] if box.kind == "fold" else []
    if marked.steps is not None:
        facts += _changes(box, marked.steps)
    elif box.nonfinite and folded.measure == "gradient":
        facts.append(f"gradient is {'NaN' if box.nonfinite == 'nan' else '∞'}")
    else:
        facts.append(words(box.value, folded.measure))
    if box.born and marked.steps is None:
        facts.append("first non-finite leaves here")
    line = " · ".join(filter(None, facts))
    return [*label, line] if line else label


def _changes(box: Box, steps: tuple[int, int]) -> list[str]:
    counts = dict(box.changes)
    if counts.get(ONLY_OTHER) == box.ops:
        return [f"only in step {steps[1]:,}"]
    if counts.get(ONLY_THIS) == box.ops:
        return [f"only in step {steps[0]:,}"]
    if box.ops == 1 and counts:
        return ["changed"]
    return [" ".join(f"{_SIGNS[mark]}{count}" for mark, count in box.changes)]


def _fill(box: Box, folded: FoldedGraph, marked: Marked) -> str | None:
    if marked.steps is not None:
        whole = [mark for mark, count in box.changes if count == box.ops]
        return CHANGES[whole[0]] if whole else None
    if box.nonfinite and folded.measure == "gradient":
        return BAD
    return colour(box.value, folded.low, folded.high)


def _border(box: Box, marked: Marked) -> str:
    if marked.steps is not None:
        return f'color="{CHANGES[box.changes[0][0]]}" penwidth=4' if box.changes else ""
    if box.born:
        return f'color="{BAD}" penwidth=4'
    return f'color="{marked.ink}" penwidth=4' if box.id in marked.on_path else ""


def _within(title: str, path: str) -> str:
    return title.removeprefix(f"{path}.") if path else title


def _cut(text: str, widest: int = WIDEST) -> str:
    return text if len(text) <= widest else text[: widest - 1] + "…"


def _rgb(text: str) -> tuple[int, ...]:
    return tuple(int(text[at : at + 2], 16) for at in (1, 3, 5))
