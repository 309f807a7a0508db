// Draws FIGURES with the colours of the page, again when those change, and for paper.
const dark = matchMedia("(prefers-color-scheme: dark)");
const PAPER_WIDTH = 690;

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function colors(forPaper) {
  document.documentElement.classList.toggle("paper", forPaper);
  return {
    text: color("--text"), muted: color("--muted"), line: color("--line"), back: color("--card"),
    palette: color("--palette").split(" "), scale: color("--scale").split(" "),
  };
}

function traced(trace, look) {
  const made = { ...trace };
  if ("_color" in trace) {
    const hue = look.palette[trace._color % look.palette.length];
    if (trace.fill) made.fillcolor = hue + "26";
    else {
      made.line = { ...trace.line, color: hue };
      made.marker = { ...trace.marker, color: hue };
    }
    delete made._color;
  }
  if (trace.type === "heatmap") {
    made.colorscale = look.scale.map((hue, at) => [at / (look.scale.length - 1), hue]);
    made.colorbar = { ...trace.colorbar, outlinewidth: 0, tickfont: { color: look.muted } };
  }
  return made;
}

function laid(layout, look, width) {
  const axis = {
    gridcolor: look.line, linecolor: look.line, zerolinecolor: look.line, automargin: true,
    tickfont: { color: look.muted, size: 11 }, title: { font: { color: look.muted, size: 12 } },
  };
  const merged = (own = {}) => ({
    ...axis, ...own, title: { ...axis.title, ...own.title },
  });
  const shapes = (layout.shapes || []).map((shape) => ({
    ...shape, line: { color: look.muted, width: 1, dash: "dot", ...shape.line },
  }));
  return {
    ...layout, shapes, xaxis: merged(layout.xaxis), yaxis: merged(layout.yaxis),
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "inherit", color: look.text, size: 12 },
    hoverlabel: { bgcolor: look.back, bordercolor: look.line, font: { color: look.text } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
    autosize: width === undefined, width,
  };
}

function draw(forPaper) {
  const look = colors(forPaper);
  for (const [id, figure] of Object.entries(FIGURES)) {
    const place = document.getElementById(id);
    const card = place.closest(".grid > .card");
    const half = card && getComputedStyle(card).gridColumnStart === "auto";
    const width = forPaper ? (half ? PAPER_WIDTH / 2 - 34 : PAPER_WIDTH - 44) : undefined;
    Plotly.react(
      place,
      figure.data.map((trace) => traced(trace, look)),
      laid(figure.layout, look, width),
      { displaylogo: false, responsive: !forPaper, displayModeBar: false },
    );
  }
}

if (Object.keys(FIGURES).length) {
  draw(false);
  dark.addEventListener("change", () => draw(false));
  addEventListener("beforeprint", () => draw(true));
  addEventListener("afterprint", () => draw(false));
}
document.documentElement.dataset.ready = "";
