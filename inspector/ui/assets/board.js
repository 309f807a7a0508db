// A board: many charts in one element, over one subscription.

import { connection, Points } from "./connection.js"
import { number, percent, quantity } from "./format.js"
import { LineChart } from "./lines.js"
import { MatrixChart } from "./matrix.js"
import { anyAbove, recentMean, samplesPerStep, secondsPerStep } from "./pace.js"
import { mix, readTheme } from "./theme.js"

const THEME_CHECK_MS = 400
const NEAR_PX = 6
const SHOWN = 100 // points that a card takes the mean of
const NAMELESS = new Set(["0/1", "share"]) // units that nobody says
export const LIVE = new Set(["running", "paused"])
const remembered = new Map() // viewer's toggles, kept over pages

let count = 0

export class Board {
  constructor(root) {
    this.root = root
    this.id = `inspector-${++count}`
    this.zoom = null
    this.markers = []
    this.state = null
    this.cards = []
    this.theme = this.readTheme()
    this.element = make("div", "board")
    this.top = make("div", "numbers")
    this.grid = make("div", "grid")
    this.reset = make("button", "reset", "Reset zoom")
    this.reset.onclick = () => this.setZoom(null)
    this.notice = make("div", "notice")
    this.notice.hidden = true
    this.tip = make("div", "tip")
    this.tip.hidden = true
    this.element.append(this.notice, this.top, this.grid, this.tip)
    root.append(this.element)
    this.observer = new ResizeObserver(() => this.#resize())
    this.observer.observe(this.element)
    // Charts that are scrolled away are painted when they come near.
    this.nearby = new IntersectionObserver((entries) => this.#scrolled(entries), { rootMargin: "120px" })
    this.timer = setInterval(() => this.followTheme(), THEME_CHECK_MS)
  }

  /** Called at every script run: charts keep their state unless the subscription changed. */
  update(data, setTriggerValue) {
    this.trigger = setTriggerValue
    this.followTheme()
    const wanted = JSON.stringify([data.run, data.rank, data.charts, data.max_points])
    if (wanted === this.wanted) return
    const sameRun = this.data?.run === data.run
    this.wanted = wanted
    this.data = data
    if (!sameRun) this.zoom = null
    this.markers = []
    this.state = null
    this.build()
    if (this.connected) connection.renew(this.connected)
    else this.connected = connection.add(this)
  }

  destroy() {
    clearInterval(this.timer)
    this.observer.disconnect()
    this.nearby.disconnect()
    if (this.connected) connection.remove(this.connected)
    for (const card of this.cards) card.chart?.destroy()
    this.element.remove()
  }

  // What the connection asks for and tells.

  subscription() {
    this.markers = []
    const { run, rank, charts, max_points } = this.data
    return { run, rank, charts, max_points }
  }

  news({ charts = [], state, markers }) {
    for (const [place, line, update] of charts) {
      const card = this.cards[place]
      card.points[line]?.apply(update)
      card.dirty = true
    }
    if (state) {
      this.state = state
      this.element.classList.toggle("ended", !LIVE.has(state.status))
    }
    if (markers) {
      this.markers = this.markers.concat(markers.map(([step, kind, level, text]) => ({ step, kind, level, text })))
    }
    if (state || markers) for (const card of this.cards) card.dirty = true
    if (charts.length) this.moved = true
    this.problem("")
  }

  offline(flag) {
    this.element.classList.toggle("offline", flag)
    this.#note(flag ? "The connection to the app is lost; trying again." : "")
  }

  problem(message) {
    this.#note(message)
  }

  /** Highest value of the newest point of each chart's first line, for measurements. */
  newest() {
    return Object.fromEntries(this.cards.map(({ spec, points: [points] }) =>
      [spec.id, points.size ? points.planes[Math.min(2, points.planes.length - 1)][points.size - 1] : null]))
  }

  paint() {
    // The common range of steps moves with every point, so all charts follow.
    for (const card of this.cards) {
      if (this.moved) card.dirty = true
      if (!card.dirty || card.away) continue
      card.dirty = false
      this.#paintCard(card)
    }
    this.moved = false
  }

  // What the charts ask for.

  readTheme() {
    return readTheme(this.root)
  }

  /** What a place on the x axis is called. */
  place(x) {
    return `step ${x}`
  }

  range() {
    let [min, max] = [Infinity, -Infinity]
    for (const { points } of this.cards) {
      for (const { size, steps } of points) {
        if (!size) continue
        min = Math.min(min, steps[0])
        max = Math.max(max, steps[size - 1])
      }
    }
    if (min > max) return [0, 1]
    max = Math.max(max, this.state?.step ?? max) // what is measured seldom ends before the run
    return min === max ? [min - 0.5, max + 0.5] : [min, max]
  }

  /** Shows a range of steps in all charts, or everything; `chart` is the one that was dragged over. */
  setZoom(zoom, chart) {
    this.zoom = zoom
    this.#offerReset(chart)
    for (const card of this.cards) card.chart?.rescale()
  }

  // The button stands in the row of the chart where the hand is: nothing moves, nothing is covered.
  #offerReset(chart) {
    const card = this.cards.find((one) => one.chart && one.chart === chart) ?? this.cards.find((one) => one.chart)
    if (this.zoom) card?.tools.prepend(this.reset)
    else this.reset.remove()
  }

  markersShown(plot) {
    const { min, max } = plot.scales.x
    return this.markers.filter((marker) => marker.step >= min && marker.step <= max)
  }

  remembered(chart, option, otherwise) {
    return remembered.get(`${chart}/${option}`) ?? otherwise
  }

  remember(chart, option, value) {
    remembered.set(`${chart}/${option}`, value)
  }

  select(value) {
    this.trigger?.("select", value)
  }

  hover(chart, plot) {
    const { left, top, idx } = plot.cursor
    // Charts that only follow the cursor show no tooltip of their own.
    if (!plot.over.matches(":hover") || left < 0 || idx === null || idx === undefined) {
      if (this.pointed === chart) this.tooltip(null)
      return
    }
    this.pointed = chart
    const lines = [{ text: this.place(plot.data[0][idx]), muted: true }]
    for (const point of chart.at(idx)) {
      if (!point) continue
      const spread = point.span ? `  (${number(point.span[0])} … ${number(point.span[1])})` : ""
      lines.push({ swatch: point.colour, text: point.label, value: quantity(point.value, chart.spec.unit) + spread })
      if (point.bad) lines.push({ text: `${number(point.bad)} non-finite`, colour: this.theme.danger })
    }
    for (const marker of this.markersShown(plot)) {
      if (Math.abs(plot.valToPos(marker.step, "x") - left) <= NEAR_PX) lines.push({ text: marker.text, marker: marker.level })
    }
    const box = plot.over.getBoundingClientRect()
    this.tooltip(lines, { clientX: box.left + left, clientY: box.top + top })
  }

  /** Shows lines of text beside a point of the window, or nothing. */
  tooltip(lines, at) {
    this.tip.hidden = !lines
    if (!lines) return
    this.tip.replaceChildren(...lines.slice(0, 14).map((line) => this.#tipLine(line)))
    const frame = this.element.getBoundingClientRect()
    const width = this.tip.offsetWidth
    const x = at.clientX - frame.left
    const y = at.clientY - frame.top + 14
    this.tip.style.left = `${Math.max(0, x + 16 + width > frame.width ? x - 16 - width : x + 16)}px`
    this.tip.style.top = `${Math.max(0, Math.min(y, frame.height - this.tip.offsetHeight))}px`
  }

  #tipLine({ text, value, swatch, colour, strong, muted, marker, note }) {
    const line = make("div", strong ? "strong" : muted ? "muted" : "")
    if (swatch) {
      const dot = make("i", "swatch")
      dot.style.background = swatch
      line.append(dot)
    }
    if (marker) line.classList.add("event", marker)
    line.append(make("span", "", text))
    if (value !== undefined) line.append(make("b", "", value))
    if (note) line.append(make("span", "muted", ` ${note}`))
    if (colour) line.style.color = colour
    return line
  }

  #scrolled(entries) {
    for (const { target, isIntersecting } of entries) {
      const card = this.cards.find(({ element }) => element === target)
      if (card) card.away = !isIntersecting
    }
    this.paint()
  }

  build() {
    this.nearby.disconnect()
    for (const card of this.cards) {
      card.chart?.destroy()
      card.element.remove()
    }
    this.cards = this.data.charts.map((spec) => this.#card(spec))
    this.top.replaceChildren(...this.cards.filter((card) => card.spec.kind === "number").map((card) => card.element))
    this.grid.replaceChildren(...this.cards.filter((card) => card.spec.kind !== "number").map((card) => card.element))
    for (const { chart, element } of this.cards) if (chart) this.nearby.observe(element)
    this.#offerReset()
  }

  #card(spec) {
    const element = make("section", `card ${spec.kind}${spec.wide ? " wide" : ""}`)
    const points = (spec.lines ?? (spec.beside ? [spec.quantity, spec.beside] : [null])).map(() => new Points())
    const card = { spec, element, points, dirty: true }
    if (spec.kind === "number") return Object.assign(card, this.#numberParts(spec, element))
    const head = make("header")
    const title = make("h3", "", spec.title)
    title.title = spec.about ?? ""
    if (spec.unit && !NAMELESS.has(spec.unit)) title.append(make("small", "", spec.unit === "B" ? "bytes" : spec.unit))
    card.rhythm = make("small", "rhythm")
    if (spec.thinned) title.append(card.rhythm)
    const legend = make("div", "legend")
    const tools = make("div", "tools")
    head.append(title, legend, tools)
    const body = make("div", "body")
    body.style.minHeight = `${spec.kind === "line" ? spec.height : 112}px`
    const empty = make("p", "empty")
    element.append(head, body, empty)
    card.legend = legend
    card.tools = tools
    card.emptyText = empty
    card.chart = new (spec.kind === "line" ? LineChart : MatrixChart)(spec, points, this, body)
    if (spec.kind === "line") this.#toggles(card, tools)
    return card
  }

  #toggles(card, tools) {
    const add = (option, text, hint) => {
      const button = make("button", "toggle", text)
      button.title = hint
      button.setAttribute("aria-pressed", card.chart[option])
      button.onclick = () => {
        card.chart.set(option, !card.chart[option])
        button.setAttribute("aria-pressed", card.chart[option])
      }
      tools.append(button)
    }
    if (card.spec.smooth > 0) add("smooth", "smooth", "Moving average over the raw line")
    add("log", "log", "Logarithmic axis")
  }

  #numberParts(spec, element) {
    const row = make("div", "reading")
    const [value, since] = [make("span", "value", "–"), make("span", "label")]
    const title = make("div", "label", spec.title)
    element.title = spec.about ?? ""
    element.hidden = true
    row.append(value, since)
    element.append(title, row)
    return { value, since }
  }

  #paintCard(card) {
    if (card.spec.kind === "number") return this.#paintNumber(card)
    const { chart } = card
    card.emptyText.hidden = !chart.empty
    card.element.classList.toggle("without", chart.empty)
    if (chart.empty) {
      card.emptyText.textContent = this.#emptySentence(card.spec)
      return
    }
    chart.paint()
    this.#paintRhythm(card)
    if (card.spec.kind === "line") this.#paintLegend(card)
    else this.#paintBar(card)
  }

  // The schedule is a rule for what comes; of a run that has ended, what came of it is told.
  #paintRhythm({ rhythm, points: [points] }) {
    const every = this.state?.measured ?? 1
    const over = this.state && !LIVE.has(this.state.status) && !points.folded
    const measured = over ? `measured at ${number(points.size)} step${points.size === 1 ? "" : "s"}` : `every ${number(every)} steps`
    rhythm.textContent = every > 1 ? measured : ""
    rhythm.title = every > 1 ? "Measured so seldom that watching costs little; the page Hooks says more." : ""
  }

  #paintLegend(card) {
    const { lines, unit } = card.spec
    if (!card.values) {
      card.values = lines.map(() => make("b"))
      card.legend.replaceChildren(...lines.map((line, place) => {
        const entry = make("span", "entry")
        entry.append(make("i", "swatch"))
        if (lines.length > 1) entry.append(make("span", "name", line.label))
        entry.append(card.values[place])
        if (line.same) entry.append(make("span", "same", line.same))
        return entry
      }))
    }
    card.values.forEach((value, place) => {
      const newest = card.chart.newest(place)
      value.textContent = newest === undefined ? "–" : quantity(newest, unit)
      value.className = Number.isNaN(newest) ? "bad" : ""
      const entry = value.parentElement
      const twin = card.chart.twin(place)
      // There may be no validation, say; and one entry does for all that share a line.
      entry.hidden = newest === undefined || (twin && !lines[place].same)
      entry.classList.toggle("twin", twin)
      entry.firstChild.style.background = card.chart.colour(place)
      const name = entry.querySelector(".name")
      if (!name) return
      name.textContent = card.chart.label(place)
      name.title = card.chart.label(place, Infinity)
    })
  }

  #paintBar(card) {
    const bar = card.chart.bar
    const shown = JSON.stringify(bar)
    if (!bar || shown === card.bar) return
    card.bar = shown
    const unit = card.spec.unit
    const text = (value) => (bar.log ? power(value) : quantity(value, unit === "L2" ? "" : unit))
    const strip = make("i", "ramp")
    strip.style.background = `linear-gradient(90deg, ${bar.stops.join(",")})`
    const parts = [make("span", "", text(bar.low)), strip, make("span", "", text(bar.high))]
    if (bar.bad) {
      const dot = make("i", "swatch square")
      dot.style.background = bar.nonfinite
      parts.push(dot, make("span", "", "NaN or ∞"))
    }
    card.legend.replaceChildren(...parts)
  }

  #paintNumber(card) {
    const [points, beside] = card.points
    const { reading, unit, control } = card.spec
    card.element.hidden = !points.size || (control && !this.#inForce(control) && !anyAbove(points, 0))
    if (card.element.hidden) return
    if (reading === "clock" && !this.state) return // without it, nobody knows whether to read the clock
    const read = {
      newest: () => points.planes[0][points.size - 1],
      mean: () => recentMean(points, SHOWN),
      share: () => recentMean(points, SHOWN) / (beside ? recentMean(beside, SHOWN) : 1),
      clock: () => samplesPerStep(points, beside) / this.#secondsPerStep(beside),
    }
    const value = read[reading]()
    if (reading === "clock" && !Number.isFinite(value)) return // not watched for long enough yet
    card.value.textContent = reading === "share" ? percent(value) : quantity(value, unit, 3)
    card.since.textContent = card.spec.thinned ? this.#since(points) : ""
  }

  #since({ size, steps }) {
    return size > SHOWN ? `since step ${number(steps[size - SHOWN])}` : "since the start"
  }

  #secondsPerStep(times) {
    const newest = Math.max(...this.cards.flatMap(({ points }) => points.map(({ last }) => last ?? -1)))
    return secondsPerStep(this.data.run, this.state, Math.max(this.state.step, newest) + 1, times)
  }

  #inForce(control) {
    return this.state?.controls.some(([name]) => name === control)
  }

  #emptySentence(spec) {
    const what = spec.title.charAt(0).toLowerCase() + spec.title.slice(1)
    if (!this.state) return ""
    if (spec.hint && this.state.step >= 0) return spec.hint
    if (LIVE.has(this.state.status)) return `Waiting for the first value of ${what}.`
    if (this.state.status === "empty") return "This run has recorded nothing yet: it shows as soon as its first step is done."
    return `This run recorded no ${what}.`
  }

  #note(message) {
    this.notice.hidden = !message
    this.notice.textContent = message
  }

  #resize() {
    for (const card of this.cards) card.chart?.resize()
  }

  followTheme() {
    const theme = this.readTheme()
    if (theme.key === this.theme.key && this.themed) return
    this.themed = true
    this.theme = theme
    const style = this.element.style
    style.setProperty("--muted", theme.muted)
    style.setProperty("--faint", mix(theme.text, theme.background, 0.06))
    style.setProperty("--danger", theme.danger)
    style.setProperty("--warning", theme.warning)
    style.setProperty("--good", theme.good)
    for (const card of this.cards) {
      card.chart?.rebuild()
      card.dirty = true
    }
    this.paint()
  }
}

/** An element with a class and text; text is never markup. */
export function make(tag, className = "", text = "") {
  const element = document.createElement(tag)
  if (className) element.className = className
  if (text !== "") element.textContent = text
  return element
}

function power(value) {
  const exponent = Math.log10(value)
  if (Number.isInteger(exponent) && Math.abs(exponent) > 2) return `10${[...String(exponent)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("")}`
  return number(value, 2)
}
