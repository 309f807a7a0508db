// Charts of several runs over each other. Their numbers come with a script run, which puts them on
// a common axis; zoom, smoothing and hovering are those of a live board.

import { Board } from "./board.js"
import { duration, number } from "./format.js"
import { readTheme } from "./theme.js"

// After Okabe and Ito (https://jfly.uni-koeln.de/color/): told apart with any colour vision;
// lightness adapted so that each stands out from its background. inspector/charts/parallel.py
// has the same.
const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#b5558f", "#b07900", "#3a9fd8", "#15202b", "#7d7d00"]
const DARK = ["#56b4e9", "#ff8c3b", "#2fd0a0", "#e79fc8", "#e6b422", "#8fa8ff", "#e8edf4", "#d9d945"]

export class CompareBoard extends Board {
  readTheme() {
    const theme = readTheme(this.root)
    return { ...theme, palette: theme.dark ? DARK : LIGHT }
  }

  place(x) {
    if (this.data.axis === "time") return `after ${duration(x)}`
    return `${this.data.axis} ${number(x)}`
  }

  update(data) {
    this.followTheme()
    const wanted = JSON.stringify(data.charts)
    const rebuilt = wanted !== this.wanted
    if (data.axis !== this.data?.axis) this.setZoom(null)
    this.data = data
    this.markers = data.markers.map(([step, text]) => ({ step, text, level: "note" }))
    if (rebuilt) {
      this.wanted = wanted
      this.build()
    }
    data.points.forEach((lines, chart) => {
      lines.forEach((line, place) => this.cards[chart].points[place].apply(unpacked(line)))
      this.cards[chart].dirty = true
    })
    this.moved = true
    requestAnimationFrame(() => this.paint())
  }
}

/** An update that replaces all points; least, greatest and non-finite are left out where plain. */
function unpacked({ x, value, low, high, bad }) {
  const steps = new Float64Array(bytes(x))
  const values = new Float32Array(bytes(value))
  const plane = (text, otherwise) => (text ? new Float32Array(bytes(text)) : otherwise)
  return { start: 0, steps, planes: [values, plane(low, values), plane(high, values), plane(bad, new Float32Array(values.length))] }
}

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer
}
