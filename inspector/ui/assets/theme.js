// Colours and fonts of Streamlit's theme, read from its --st-* variables wherever a board stands.

const NAMES = ["text-color", "background-color", "secondary-background-color", "primary-color",
  "border-color", "chart-categorical-colors", "font", "base-font-size"]
const FALLBACK = ["#3b5bdb", "#d9480f", "#2b8a3e", "#9c36b5", "#0c8599", "#c2255c", "#e67700", "#495057"]

/** The theme around an element; `key` changes when anything of it does. */
export function readTheme(element) {
  const style = getComputedStyle(element)
  const value = (name) => style.getPropertyValue(`--st-${name}`).trim()
  const text = value("text-color") || style.color
  const background = value("background-color") || "#ffffff"
  // Presenter mode enlarges the root's type; what is drawn on a canvas follows.
  const root = parseFloat(getComputedStyle(document.documentElement).fontSize) || 16
  const palette = value("chart-categorical-colors").match(/#[0-9a-f]{3,8}|rgba?\([^)]*\)/gi)
  return {
    key: `${NAMES.map(value).join("|")}|${root}`,
    scale: root / 16,
    text,
    background,
    panel: value("secondary-background-color") || "#f3f5f9",
    border: value("border-color") || "#d5dbe5",
    primary: value("primary-color") || FALLBACK[0],
    palette: palette ?? FALLBACK,
    muted: mix(text, background, root > 16 ? 0.85 : 0.62),
    grid: mix(text, background, 0.1),
    font: value("font") || "sans-serif",
    dark: luminance(background) < 0.4,
    danger: luminance(background) < 0.4 ? "#ff6b6b" : "#e03131",
    warning: luminance(background) < 0.4 ? "#ffd43b" : "#e67700",
    good: luminance(background) < 0.4 ? "#51cf66" : "#2b8a3e",
  }
}

/** `share` of the first colour over the second, as rgb(). */
export function mix(over, under, share) {
  const [a, b] = [rgb(over), rgb(under)]
  return `rgb(${a.map((part, i) => Math.round(part * share + b[i] * (1 - share))).join(",")})`
}

export function alpha(colour, opacity) {
  return `rgba(${rgb(colour).join(",")},${opacity})`
}

const known = new Map()
const probe = document.createElement("canvas").getContext("2d")

export function rgb(colour) {
  let parts = known.get(colour)
  if (!parts) {
    probe.fillStyle = "#000"
    probe.fillStyle = colour
    const hex = probe.fillStyle
    parts = hex.startsWith("#")
      ? [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16))
      : hex.match(/[\d.]+/g).slice(0, 3).map(Number)
    known.set(colour, parts)
  }
  return parts
}

function luminance(colour) {
  const [r, g, b] = rgb(colour)
  return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255
}
