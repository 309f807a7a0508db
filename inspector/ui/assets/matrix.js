// A heat map, subjects × steps, drawn on one canvas: 60 × 600 cells take about a millisecond.

import { abbreviated, number, quantity, stepTick } from "./format.js"
import { alpha, rgb } from "./theme.js"

const VIRIDIS = ["#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884",
  "#44bf70", "#7ad151", "#bddf26", "#fde725"]
const COLD = ["#0b3c7a", "#2f6db5", "#8fbbe3"], WARM = ["#f2b48a", "#d2691e", "#7f2704"]
const NONFINITE = "#ff00c8"
const LEVELS = 256
const AXIS = 22, GAP = 8, ROW = 18, MOST = 560

export class MatrixChart {
  constructor(spec, points, board, host) {
    this.spec = spec
    this.points = points[0]
    this.board = board
    this.canvas = document.createElement("canvas")
    this.canvas.className = "matrix"
    this.canvas.tabIndex = 0
    this.canvas.setAttribute("role", "application")
    this.canvas.setAttribute("aria-label", `${spec.title}: arrow keys choose, Enter opens the row`)
    host.append(this.canvas)
    this.host = host
    this.cells = document.createElement("canvas")
    this.selected = null
    this.pointer = null
    this.canvas.addEventListener("pointermove", (event) => this.#point(event))
    this.canvas.addEventListener("pointerleave", () => this.#leave())
    this.canvas.addEventListener("click", () => this.#click())
    this.canvas.addEventListener("dblclick", () => board.setZoom(null))
    this.canvas.addEventListener("keydown", (event) => this.#key(event))
    this.canvas.addEventListener("blur", () => this.#leave())
  }

  get empty() {
    return !this.points.size || !this.points.subjects.length
  }

  get rows() {
    return this.points.subjects.length
  }

  destroy() {
    this.canvas.remove()
  }

  rebuild() {
    this.paint()
  }

  rescale() {
    this.paint()
  }

  resize() {
    this.paint()
  }

  paint() {
    if (this.empty || !this.host.clientWidth) return
    this.domain = this.#domain()
    this.#fillCells()
    this.#draw()
  }

  /** Lowest and highest value of the colour bar, and whether non-finite cells exist. */
  get bar() {
    return this.domain && { ...this.domain, nonfinite: NONFINITE, stops: this.#stops() }
  }

  // The range of colours grows in half decades, so that a new point does not recolour everything.
  #domain() {
    const { points, rows } = this
    let [low, high, bad, negative] = [Infinity, -Infinity, false, false]
    const log = this.spec.log
    for (let row = 0; row < rows; row++) {
      const values = points.planes[row], counts = points.planes[rows + row]
      for (let i = 0; i < points.size; i++) {
        if (counts[i] > 0) bad = true
        const value = values[i]
        if (!Number.isFinite(value) || (log && value <= 0)) continue
        if (value < low) low = value
        if (value > high) high = value
        if (value < 0) negative = true
      }
    }
    if (low > high) [low, high] = log ? [0.1, 1] : [0, 1]
    if (log) {
      high = 10 ** (Math.ceil(2 * Math.log10(high)) / 2)
      low = Math.max(10 ** (Math.floor(2 * Math.log10(low)) / 2), high / 1e12)
      if (low >= high) low = high / 10
    } else if (/zeros|saturated/.test(this.spec.quantity)) {
      [low, high] = [0, 1]
    } else if (negative) {
      high = nice(Math.max(-low, high))
      low = -high
    } else {
      [low, high] = [0, nice(high)]
    }
    return { low, high, bad, log, diverging: negative && !log }
  }

  #stops() {
    if (!this.domain.diverging) return VIRIDIS
    return [...COLD, this.board.theme.dark ? "#2b3542" : "#f4f5f7", ...WARM]
  }

  #table() {
    const stops = this.#stops().map(rgb)
    return Array.from({ length: LEVELS }, (_, level) => {
      const place = (level / (LEVELS - 1)) * (stops.length - 1)
      const at = Math.min(Math.floor(place), stops.length - 2)
      return stops[at].map((part, i) => part + (stops[at + 1][i] - part) * (place - at))
    })
  }

  #fillCells() {
    const { points, rows, cells } = this
    const width = points.size
    if (cells.width !== width || cells.height !== rows) {
      cells.width = width
      cells.height = rows
    }
    const context = cells.getContext("2d")
    const image = context.createImageData(width, rows)
    const pixels = new Uint32Array(image.data.buffer)
    const pack = ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r
    const table = Uint32Array.from(this.#table(), (colour) => pack(colour.map(Math.round)))
    const bad = pack(rgb(NONFINITE))
    const { low, high, log } = this.domain
    const [from, to] = log ? [Math.log(low), Math.log(high)] : [low, high]
    const scale = (LEVELS - 1) / (to - from)
    for (let row = 0; row < rows; row++) {
      const values = points.planes[row], counts = points.planes[rows + row]
      const base = row * width
      for (let i = 0; i < width; i++) {
        if (counts[i] > 0) { pixels[base + i] = bad; continue }
        const value = values[i]
        if (!Number.isFinite(value)) continue
        const place = log ? Math.log(Math.max(value, low)) : value
        pixels[base + i] = table[Math.max(0, Math.min(LEVELS - 1, Math.round((place - from) * scale)))]
      }
    }
    context.putImageData(image, 0, 0)
  }

  #layout() {
    const width = this.host.clientWidth
    const context = this.canvas.getContext("2d")
    const ratio = devicePixelRatio
    const { scale } = this.board.theme
    const natural = Math.min(Math.max(this.rows * ROW * scale, 90), MOST * scale)
    const axis = AXIS * scale
    const height = (this.spec.height || natural) + axis
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio)
      this.canvas.height = Math.round(height * ratio)
      this.canvas.style.width = `${width}px`
      this.canvas.style.height = `${height}px`
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0)
    context.font = `${12 * scale}px ${this.board.theme.font}`
    const longest = Math.max(...this.points.subjects.map((name) => context.measureText(label(name)).width))
    const gutter = Math.min(Math.max(longest, context.measureText("step").width) + GAP, width * 0.3, 240 * scale)
    const plot = { left: gutter, top: 0, width: width - gutter - 2, height: height - axis }
    return { context, width, height, plot, rowHeight: plot.height / this.rows }
  }

  // Where columns begin; the last place is where the last one ends. What was measured holds until
  // the next measurement or the present, never before it: no column may show a NaN too early.
  // A column of several measurements (folded) ends at its step instead.
  #edges() {
    const { steps, size, folded } = this.points
    const known = Array.from(steps.subarray(0, size))
    if (folded) return [Math.max(0, 2 * known[0] - (known[1] ?? known[0])), ...known]
    return [...known, Math.max(known[size - 1], this.board.state?.step ?? 0) + 1]
  }

  #draw() {
    const layout = this.#layout()
    const { context, width, height, plot, rowHeight } = layout
    const { theme } = this.board
    const [min, max] = this.#range()
    const toX = (step) => plot.left + ((step - min) / (max - min)) * plot.width
    this.layout = { ...layout, min, max, toX }
    context.clearRect(0, 0, width, height)
    context.save()
    context.beginPath()
    context.rect(plot.left, plot.top, plot.width, plot.height)
    context.clip()
    context.imageSmoothingEnabled = false
    const edges = this.#edges()
    for (let i = 0; i < this.points.size; i++) {
      const [from, to] = [toX(edges[i]), toX(edges[i + 1])]
      if (to < plot.left || from > plot.left + plot.width) continue
      const x = Math.floor(from)
      context.drawImage(this.cells, i, 0, 1, this.rows, x, plot.top, Math.max(1, Math.ceil(to) - x), plot.height)
    }
    this.#drawMarkers(context, toX, plot)
    context.restore()
    this.#drawAxes(context, layout, min, max, toX)
    this.#drawHighlights(context, plot, rowHeight, theme)
  }

  #range() {
    if (this.board.zoom) return this.board.zoom
    const edges = this.#edges()
    return [edges[0], edges.at(-1)]
  }

  #drawMarkers(context, toX, plot) {
    const levels = { critical: "danger", warning: "warning", note: "text" }
    for (const marker of this.board.markers) {
      if (marker.kind === "checkpoint_saved") continue // came by itself; the line charts have a tick
      const x = Math.round(toX(marker.step)) + 0.5
      if (x < plot.left || x > plot.left + plot.width) continue
      context.strokeStyle = alpha(this.board.theme[levels[marker.level]], 0.8)
      context.setLineDash([4, 3])
      context.beginPath()
      context.moveTo(x, plot.top)
      context.lineTo(x, plot.top + plot.height)
      context.stroke()
    }
    context.setLineDash([])
  }

  #drawAxes(context, { plot, rowHeight }, min, max, toX) {
    const { theme } = this.board
    context.fillStyle = theme.text
    context.textBaseline = "middle"
    context.textAlign = "right"
    const every = Math.max(1, Math.ceil((13 * theme.scale) / rowHeight))
    for (let row = Math.floor(every / 2); row < this.rows; row += every) {
      const text = fit(context, label(this.points.subjects[row]), plot.left - GAP)
      context.fillText(text, plot.left - GAP, plot.top + (row + 0.5) * rowHeight)
    }
    this.#drawMeasured(context, plot, toX)
    context.fillStyle = theme.muted
    context.textBaseline = "top"
    context.fillText("step", plot.left - GAP, plot.top + plot.height + 6)
    const step = nice((max - min) / Math.max(2, Math.floor(plot.width / (90 * theme.scale))))
    for (let value = Math.ceil(min / step) * step; value <= max; value += step) {
      if (value < 0 || value !== Math.round(value)) continue
      const x = toX(value)
      context.textAlign = x > plot.left + plot.width - 24 ? "right" : "center"
      context.fillText(stepTick(value), Math.max(x, plot.left + 4), plot.top + plot.height + 6)
    }
  }

  // Ticks at the foot where something was measured, since colours hold on between.
  #drawMeasured(context, plot, toX) {
    const { steps, size, folded } = this.points
    if (folded || size > plot.width / 4 || steps[size - 1] - steps[0] < size) return
    for (let i = 0; i < size; i++) {
      const x = toX(steps[i])
      if (x >= plot.left && x < plot.left + plot.width) context.fillRect(x, plot.top + plot.height, 1.5, 5)
    }
  }

  #drawHighlights(context, plot, rowHeight, theme) {
    const outline = (row, colour, thick) => {
      context.strokeStyle = colour
      context.lineWidth = thick
      context.strokeRect(plot.left, plot.top + row * rowHeight, plot.width, Math.max(rowHeight, 2))
      context.lineWidth = 1
    }
    const chosen = this.points.subjects.indexOf(this.selected)
    if (chosen >= 0) outline(chosen, theme.primary, 2.5)
    if (this.pointer) outline(this.pointer.row, theme.text, 1)
  }

  #locate(event) {
    if (!this.layout) return null
    const { plot, rowHeight, min, max } = this.layout
    const box = this.canvas.getBoundingClientRect()
    const [x, y] = [event.clientX - box.left, event.clientY - box.top]
    const row = Math.floor((y - plot.top) / rowHeight)
    if (row < 0 || row >= this.rows || y > plot.top + plot.height) return null
    if (x < plot.left) return { row, column: -1 }
    const step = min + ((x - plot.left) / plot.width) * (max - min)
    const edges = this.#edges()
    let column = 0
    while (column < this.points.size && edges[column + 1] <= step) column++
    const inside = step >= edges[0] && column < this.points.size
    return { row, column: inside ? column : -1, step: Math.floor(step) }
  }

  // The keyboard goes from row to row and from measurement to measurement.
  #key(event) {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key]
    if (this.empty || !this.layout || (!move && event.key !== "Enter")) return
    event.preventDefault()
    const last = this.points.size - 1
    const from = this.pointer ?? { row: Math.max(0, this.points.subjects.indexOf(this.selected)), column: last }
    if (!move) {
      this.pointer = from
      return this.#click()
    }
    const [rows, columns] = this.pointer ? move : [0, 0] // the first key shows where one is
    const column = Math.max(0, Math.min(last, (from.column < 0 ? last : from.column) + columns))
    const row = Math.max(0, Math.min(this.rows - 1, from.row + rows))
    this.pointer = { row, column, step: this.points.steps[column] }
    this.#draw()
    const lines = this.#lines(this.pointer)
    const { plot, rowHeight, toX } = this.layout
    const box = this.canvas.getBoundingClientRect()
    this.board.tooltip(lines, { clientX: box.left + toX(this.pointer.step), clientY: box.top + plot.top + row * rowHeight })
    this.canvas.setAttribute("aria-label", `${this.spec.title}: ${lines.map(({ text }) => text).join(", ")}`)
  }

  #point(event) {
    this.pointer = this.empty ? null : this.#locate(event)
    this.canvas.style.cursor = this.pointer ? "pointer" : "default"
    if (!this.empty && this.layout) this.#draw()
    if (!this.pointer) return this.board.tooltip(null)
    this.board.tooltip(this.#lines(this.pointer), event)
  }

  #lines({ row, column, step }) {
    const name = label(this.points.subjects[row])
    if (column < 0) return [{ text: name, strong: true }]
    const value = this.points.planes[row][column]
    const bad = this.points.planes[this.rows + row][column]
    const lines = [{ text: name, strong: true }, { text: this.#when(column, step) }]
    if (Number.isFinite(value)) lines.push({ text: quantity(value, this.spec.unit), note: this.spec.unit === "L2" ? "L2 norm" : "" })
    else if (!bad) lines.push({ text: "not measured" })
    if (bad) lines.push({ text: `${number(bad)} non-finite`, colour: this.board.theme.danger })
    return lines
  }

  #when(column, step) {
    const measured = this.points.steps[column]
    if (!this.points.folded) return step > measured ? `measured at step ${measured}` : `step ${measured}`
    const from = Math.floor(this.#edges()[column]) + (column ? 1 : 0)
    return from < measured ? `steps ${from}–${measured}` : `step ${measured}`
  }

  #leave() {
    this.pointer = null
    this.board.tooltip(null)
    if (!this.empty && this.layout) this.#draw()
  }

  #click() {
    if (!this.pointer) return
    const { row, column } = this.pointer
    this.selected = this.points.subjects[row]
    this.#draw()
    this.board.select({
      chart: this.spec.id,
      quantity: this.spec.quantity,
      subject: this.selected,
      step: column >= 0 ? this.points.steps[column] : null,
    })
  }
}

/** The root module's path is empty; a row must still have a name. */
function label(subject) {
  return subject === "" ? "(model)" : subject
}

// The end of a module path says most: the beginning is shortened, then cut.
function fit(context, text, width) {
  const fits = (candidate) => context.measureText(candidate).width <= width
  let cut = abbreviated(text, fits)
  if (fits(cut)) return cut
  while (cut.length > 3 && !fits(`…${cut}`)) cut = cut.slice(1)
  return `…${cut}`
}

function nice(value) {
  if (!(value > 0)) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 2.5, 5, 10].map((m) => m * power).find((candidate) => candidate >= value)
}
