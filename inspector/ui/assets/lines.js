// A line chart: raw line, smoothed line, min/max band, event markers, non-finite marks.

import uPlot from "./vendor/uPlot.esm.js"
import { stepTick, tick } from "./format.js"
import { alpha } from "./theme.js"

const VALUE = 0, LOW = 1, HIGH = 2, BAD = 3
const COLUMNS = 2 // of uPlot for every line: value, smoothed
const STEP_INCREMENTS = [1, 2, 5, 10, 20, 25, 50].concat(
  Array.from({ length: 8 }, (_, power) => [1, 2, 2.5, 5].map((m) => m * 10 ** (power + 2))).flat(),
)
const TWIN_DASH = [7, 5] // what lies under it is seen through it
const NAMES = 3 // that a legend has room for beside one line
const NARROW = 3.2 // ratio of the ends of a logarithmic axis up to which its ticks are even
const QUIET = "checkpoint_saved" // came by itself: a tick at the foot, no line through the curves
const MARKER_COLOURS = { critical: "danger", warning: "warning", note: "primary" }

export class LineChart {
  /** `board` gives theme, markers, range() and zoom; `points` has one Points per line. */
  constructor(spec, points, board, host) {
    this.spec = spec
    this.points = points
    this.board = board
    this.host = host
    this.log = board.remembered(spec.id, "log", spec.log)
    this.smooth = board.remembered(spec.id, "smooth", spec.smooth > 0)
    this.plot = null
  }

  get empty() {
    return this.points.every((points) => !points.size)
  }

  set(option, on) {
    this[option] = on
    this.board.remember(this.spec.id, option, on)
    this.rebuild()
  }

  rebuild() {
    this.plot?.destroy()
    this.plot = null
    this.paint()
  }

  destroy() {
    this.plot?.destroy()
    this.plot = null
  }

  paint() {
    if (this.empty) return
    this.drawn = this.#drawn()
    this.data = this.#data()
    if (!this.plot) this.plot = new uPlot(this.#options(), this.data, this.host)
    else this.plot.setData(this.data, false)
    this.rescale()
  }

  /** Applies the board's common range or zoom; the y axis follows what is inside. */
  rescale() {
    this.within = this.board.zoom ?? this.board.range()
    const [min, max] = this.within
    this.plot?.setScale("x", { min, max })
  }

  resize() {
    const width = Math.floor(this.host.clientWidth)
    if (this.plot && width > 0 && width !== this.plot.width) {
      this.plot.setSize({ width, height: this.spec.height })
    }
  }

  /** Values of all lines at the cursor's index, for the tooltip. */
  at(index) {
    const step = this.plot.data[0][index]
    return this.spec.lines.map((line, place) => {
      if (this.twin(place)) return null
      const points = this.points[place]
      const at = find(points, step, line.sparse || line.loose)
      if (at < 0 || (line.loose && step > points.last)) return null
      const [low, high] = [points.planes[LOW][at], points.planes[HIGH][at]]
      return {
        label: this.label(place),
        colour: this.#colour(place),
        value: points.planes[VALUE][at],
        span: low < high ? [low, high] : null,
        bad: points.planes[BAD][at],
      }
    })
  }

  /** Whether a line would only hide an earlier one, which is drawn for both. */
  twin(place) {
    return (this.drawn?.[place] ?? place) !== place
  }

  /** What a line is called: by the names of all that it is drawn for, or by some and a count. */
  label(place, most = NAMES) {
    const labels = this.spec.lines.filter((line, other) =>
      other === place || (line.shared && this.drawn?.[other] === place)).map((line) => line.label)
    if (labels.length > most) labels.splice(most - 1, Infinity, `${labels.length - most + 1} more`)
    const last = labels.pop()
    return labels.length ? `${labels.join(", ")} and ${last}` : last
  }

  // For every line the one that is drawn for it: itself, or an earlier one of the same numbers.
  #drawn() {
    const found = []
    this.spec.lines.forEach((line, place) => {
      const before = line.same ? [0] : line.shared ? new Set(found) : []
      found.push([...before].find((other) => this.#equal(place, other)) ?? place)
    })
    return found
  }

  // The same numbers wherever both were measured; a shared line must not be longer, either.
  #equal(place, other) {
    const [first, points] = [this.points[other], this.points[place]]
    if (!first.size || !points.size) return false
    if (this.spec.lines[place].shared && (points.steps[0] < first.steps[0] || points.last > first.last)) return false
    let common = false
    for (let i = 0; i < points.size; i++) {
      const at = find(first, points.steps[i])
      if (at < 0) continue
      if (!near(points.planes[VALUE][i], first.planes[VALUE][at]) || points.planes[BAD][i] !== first.planes[BAD][at]) return false
      common = true
    }
    return common
  }

  newest(place) {
    const points = this.points[place]
    return points.size ? points.planes[VALUE][points.size - 1] : undefined
  }

  colour(place) {
    return this.#colour(place)
  }

  #colour(place) {
    const palette = this.board.theme.palette
    return palette[(this.spec.lines[place].hue ?? place) % palette.length]
  }

  // uPlot's columns: x, then for every line value and smoothed.
  #data() {
    const same = this.points.every((points) => sameSteps(points, this.points[0]))
    const tables = this.points.map((points, place) => this.#columns(points, place))
    if (same) return [tables[0][0], ...tables.flatMap((table) => table.slice(1))]
    const filled = tables.filter((table) => table[0].length)
    const joined = uPlot.join(filled, filled.map((table) => table.map(() => 2)))
    // A line without points still needs its columns.
    const columns = joined.slice(1)
    const blank = () => new Array(joined[0].length).fill(null)
    return [joined[0], ...tables.flatMap((table) =>
      table.slice(1).map(() => (table[0].length ? columns.shift() : blank())))]
  }

  #columns(points, place) {
    const { size } = points
    const steps = Array.from(points.steps.subarray(0, size))
    if (!size) return [steps, [], []]
    if (this.twin(place)) return [steps, new Array(size).fill(null), new Array(size).fill(null)]
    const values = new Array(size)
    for (let i = 0; i < size; i++) {
      const value = points.planes[VALUE][i]
      values[i] = Number.isFinite(value) && (!this.log || value > 0) ? value : null
    }
    const smoothed = this.smooth && this.#canSmooth(place) ? average(values, this.spec.smooth) : new Array(size).fill(null)
    return [steps, values, smoothed]
  }

  #options() {
    const { board, spec } = this
    const { scale } = board.theme
    const font = `${12 * scale}px ${board.theme.font}`
    const axis = {
      font, stroke: () => board.theme.muted, size: 26 * scale,
      grid: { stroke: () => board.theme.grid, width: 1 },
      ticks: { show: false },
    }
    const series = [{}]
    spec.lines.forEach((line, place) => {
      const faded = () => this.smooth && this.#canSmooth(place)
      series.push(
        {
          label: line.label, width: 1.6, spanGaps: false,
          stroke: () => alpha(this.#colour(place), faded() ? 0.35 : 1),
          dash: line.dash ?? (line.same ? TWIN_DASH : undefined),
          points: { show: (u, i) => this.#sparse(u, i), size: 5 },
        },
        { label: "smooth", width: 2.2, stroke: () => this.#colour(place), dash: line.dash, points: { show: false } },
      )
    })
    return {
      width: Math.max(120, Math.floor(this.host.clientWidth)),
      height: spec.height,
      padding: [8, 10, 0, 0],
      legend: { show: false },
      series,
      scales: {
        x: { time: false },
        y: { distr: this.log ? 3 : 1, range: () => span(...this.#extent(), this.log) },
      },
      axes: [
        { ...axis, incrs: spec.axis ? undefined : STEP_INCREMENTS, space: 60 * scale, values: (u, ticks) => ticks.map(stepTick) },
        {
          ...axis,
          size: (u, labels) => 14 + 6.8 * scale * Math.max(3, ...(labels ?? []).map((text) => text.length)),
          space: 34 * scale,
          splits: this.log ? powerTicks : undefined,
          filter: this.log ? roundTicks : undefined,
          values: (u, ticks) => ticks.map((value) => tick(value, spec.unit)),
        },
      ],
      cursor: {
        sync: { key: board.id, scales: ["x", null], setSeries: false,
          filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
        drag: { x: true, y: false, setScale: false },
        y: false,
        points: { show: cursorPoint },
        bind: { dblclick: () => () => board.setZoom(null) },
      },
      hooks: {
        drawAxes: [(u) => this.#drawBands(u)],
        draw: [(u) => this.#drawMarks(u)],
        setSelect: [(u) => this.#selected(u)],
        setCursor: [(u) => board.hover(this, u)],
      },
    }
  }

  // Least and greatest number inside the range of steps, bands and smoothed lines included. uPlot
  // asks before it takes over a new range, and at its birth it has none.
  #extent() {
    const [from, to] = this.within ?? [-Infinity, Infinity]
    let [low, high] = [Infinity, -Infinity]
    const include = (steps, size, lows, highs) => {
      for (let i = 0; i < size; i++) {
        if (steps[i] < from || steps[i] > to) continue
        if (lows[i] < low && lows[i] > (this.log ? 0 : -Infinity)) low = lows[i]
        if (highs[i] > high && highs[i] < Infinity) high = highs[i]
      }
    }
    for (const { planes, size, steps } of this.points) include(steps, size, planes[LOW], planes[HIGH])
    const [steps, ...columns] = this.data
    columns.forEach((column, place) => {
      if (!(place % COLUMNS) || !this.smooth) return
      const values = column.map(known)
      include(steps, values.length, values, values)
    })
    return low <= high ? [low, high] : [null, null]
  }

  // One upright bar a pixel: a tenth of the cost of filling a polygon of thousands of corners.
  #drawBands(u) {
    const { left, top, width, height } = u.bbox
    this.points.forEach(({ planes, size, steps }, place) => {
      if (this.twin(place)) return
      const bars = new Map()
      for (let i = 0; i < size; i++) {
        const [low, high] = [planes[LOW][i], planes[HIGH][i]]
        if (!(low < high)) continue
        const x = Math.round(u.valToPos(steps[i], "x", true))
        if (x < left || x > left + width) continue
        const bar = bars.get(x)
        if (!bar) bars.set(x, [low, high])
        else {
          if (low < bar[0]) bar[0] = low
          if (high > bar[1]) bar[1] = high
        }
      }
      if (!bars.size) return
      const path = new Path2D()
      const step = Math.max(1, Math.ceil(width / Math.max(1, bars.size)))
      for (const [x, [low, high]] of bars) {
        const bottom = this.log && low <= 0 ? top + height : u.valToPos(low, "y", true)
        const above = Math.max(top, u.valToPos(high, "y", true))
        path.rect(x, above, Math.min(step, 3), Math.max(1, Math.min(bottom, top + height) - above))
      }
      u.ctx.fillStyle = alpha(this.#colour(place), 0.22)
      u.ctx.fill(path)
    })
  }

  #canSmooth(place) {
    return this.spec.smooth > 0 && !this.spec.lines[place].sparse && this.points[place].size > 8
  }

  // Dots only where points are few, such as one validation loss an epoch.
  #sparse(u, index) {
    const points = this.points[Math.floor((index - 1) / COLUMNS)]
    return (index - 1) % COLUMNS === 0 && points.size > 0 && points.size < 40
  }

  #selected(u) {
    if (u.select.width < 4) return
    const edges = [u.select.left, u.select.left + u.select.width].map((x) => u.posToVal(x, "x"))
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
    if (this.spec.axis || edges[1] - edges[0] >= 1) this.board.setZoom(edges, this)
  }

  #drawMarks(u) {
    const { ctx } = u
    const { left, top, width, height } = u.bbox
    const ratio = devicePixelRatio
    ctx.save()
    ctx.beginPath()
    ctx.rect(left - 6 * ratio, top - 6 * ratio, width + 12 * ratio, height + 12 * ratio)
    ctx.clip()
    for (const marker of this.board.markersShown(u)) {
      const x = Math.round(u.valToPos(marker.step, "x", true)) + 0.5
      ctx.strokeStyle = alpha(this.board.theme[MARKER_COLOURS[marker.level]], 0.75)
      ctx.lineWidth = ratio
      const quiet = marker.kind === QUIET
      ctx.setLineDash(quiet ? [] : [4 * ratio, 3 * ratio])
      ctx.beginPath()
      ctx.moveTo(x, quiet ? top + height - 7 * ratio : top)
      ctx.lineTo(x, top + height)
      ctx.stroke()
    }
    ctx.setLineDash([])
    this.#drawNonFinite(u)
    ctx.restore()
    ctx.fillStyle = this.board.theme.muted
    const { scale } = this.board.theme
    ctx.font = `${11 * ratio * scale}px ${this.board.theme.font}`
    ctx.textAlign = "right"
    ctx.fillText(this.spec.axis || "step", left - 8 * ratio, top + height + 15 * ratio * scale)
  }

  #drawNonFinite(u) {
    const { ctx } = u
    const { top, height } = u.bbox
    const size = 5 * devicePixelRatio
    ctx.fillStyle = this.board.theme.danger
    for (const points of this.points) {
      const bad = points.planes[BAD]
      let drawn = -Infinity
      for (let i = 0; i < points.size; i++) {
        if (!bad[i]) continue
        const x = Math.round(u.valToPos(points.steps[i], "x", true))
        if (x - drawn < size) continue
        drawn = x
        ctx.fillRect(x - devicePixelRatio / 2, top, devicePixelRatio, height)
        ctx.beginPath()
        ctx.moveTo(x - size, top + height)
        ctx.lineTo(x + size, top + height)
        ctx.lineTo(x, top + height - 1.8 * size)
        ctx.fill()
      }
    }
  }
}

function span(min, max, log) {
  if (min === null || max === null) return log ? [0.1, 1] : [0, 1]
  if (log) {
    if (min <= 0) min = max > 0 ? max / 1e6 : 0.1
    if (max <= min) max = min * 1.0001
    const room = Math.max((max / min) ** 0.06, 1.25)
    return [min / room, max * room]
  }
  if (min === max) return min === 0 ? [0, 1] : [min - Math.abs(min) * 0.1, max + Math.abs(max) * 0.1]
  const room = (max - min) * 0.06
  return [min >= 0 && min - room < 0 ? 0 : min - room, max + room]
}

// A range that holds few digits of a power of ten, such as that of a constant rate of 0.15.
function evenTicks(min, max) {
  const rough = (max - min) / 4
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((candidate) => candidate >= rough)
  const first = Math.ceil(min / step)
  return Array.from({ length: Math.floor(max / step) - first + 1 }, (_, i) => (first + i) * step)
}

// uPlot's own search for the ticks of a logarithmic axis has no end when it begins at zero.
function powerTicks(u, axis, min, max) {
  if (!(min > 0 && max < Infinity)) return []
  if (max / min <= NARROW) return evenTicks(min, max)
  const [first, last] = [Math.floor(Math.log10(min)), Math.floor(Math.log10(max))]
  const skip = Math.ceil((last - first) / 20) || 1
  const digits = last - first > 6 ? [1] : [1, 2, 3, 4, 5, 6, 7, 8, 9]
  const ticks = []
  for (let power = first; power <= last; power += skip) ticks.push(...digits.map((digit) => Number(`${digit}e${power}`)))
  return ticks.filter((value) => value >= min && value <= max)
}

// On a logarithmic axis only 1, 2 and 5 times a power of ten, or the powers alone, get a label.
function roundTicks(u, ticks) {
  const { min, max } = u.scales.y
  if (max / min <= NARROW) return ticks
  const kept = max / min > 1e3 ? [1] : max / min > 12 ? [1, 2, 5] : [1, 2, 3, 5, 7]
  return ticks.map((value) => {
    const mantissa = value / 10 ** Math.floor(Math.log10(value) + 1e-9)
    return kept.some((round) => Math.abs(mantissa - round) < 1e-6) ? value : null
  })
}

function average(values, weight) {
  let sum = 0, mass = 0
  return values.map((value) => {
    if (value === null) return null
    sum = weight * sum + (1 - weight) * value
    mass = weight * mass + (1 - weight)
    return sum / mass
  })
}

// A gap is no number: compared, null would be a zero.
function known(value) {
  return value ?? NaN
}

function near(a, b) {
  return a === b || Math.abs(a - b) <= 1e-5 * Math.abs(b) || (Number.isNaN(a) && Number.isNaN(b))
}

function sameSteps(a, b) {
  if (a === b) return true
  if (a.size !== b.size) return false
  for (let i = 0; i < a.size; i++) if (a.steps[i] !== b.steps[i]) return false
  return true
}

/** Index of a step, or -1; `before` takes the one before where there is none. */
function find(points, step, before) {
  let [low, high] = [0, points.size - 1]
  while (low <= high) {
    const middle = (low + high) >> 1
    if (points.steps[middle] === step) return middle
    if (points.steps[middle] < step) low = middle + 1
    else high = middle - 1
  }
  return before ? high : -1
}

// The dot on the line under the cursor; smoothed lines and bands have none.
function cursorPoint(u, index) {
  if ((index - 1) % COLUMNS) return null
  const dot = document.createElement("div")
  dot.className = "cursor-dot"
  return dot
}
