// The status strip: how the run is doing, in one slim row above every page.

import { connection, Points } from "./connection.js"
import { LIVE, make } from "./board.js"
import { count, duration, number } from "./format.js"
import { samplesPerStep, secondsPerStep } from "./pace.js"
import { readTheme } from "./theme.js"

const WORDS = { running: "Running", paused: "Paused", finished: "Finished", stopped: "Stopped",
  failed: "Failed", crashed: "Crashed", empty: "Empty", unreadable: "Unreadable" }
const HIGH = 2 // plane of the greatest number that a point stands for

export class Strip {
  constructor(root) {
    this.root = root
    this.state = null
    this.shown = {}
    this.element = make("div", "strip")
    this.badge = make("span", "badge")
    this.steps = make("span", "fact steps")
    this.track = make("div", "track")
    this.fill = make("i", "fill")
    this.track.append(this.fill)
    this.waiting = make("span", "fact waiting")
    this.waiting.setAttribute("role", "status")
    this.waiting.hidden = true
    this.facts = make("div", "facts")
    this.controls = make("div", "controls")
    this.banner = make("div", "banner")
    this.banner.setAttribute("role", "alert")
    this.banner.hidden = true
    this.row = make("div", "row")
    this.row.append(this.badge, this.steps, this.waiting, this.track, this.facts, this.controls)
    this.element.append(this.row, this.banner)
    root.append(this.element)
    this.timer = setInterval(() => this.#theme(), 400)
    this.widths = new ResizeObserver(() => this.#fit())
    this.widths.observe(this.element)
    this.#theme()
  }

  update(data) {
    const wanted = JSON.stringify(data)
    if (wanted === this.wanted) return
    this.wanted = wanted
    this.data = data
    this.points = Object.fromEntries(data.charts.map((chart) => [chart.quantity, new Points()]))
    this.state = null
    if (this.connected) connection.renew(this.connected)
    else this.connected = connection.add(this)
  }

  destroy() {
    clearInterval(this.timer)
    this.widths.disconnect()
    if (this.connected) connection.remove(this.connected)
    this.element.remove()
  }

  subscription() {
    return { run: this.data.run, charts: this.data.charts }
  }

  news({ charts = [], state }) {
    for (const [place, , update] of charts) this.points[this.data.charts[place].quantity].apply(update)
    if (state) this.state = state
    this.dirty = true
  }

  offline(flag) {
    this.element.classList.toggle("offline", flag)
    this.#banner(flag ? "The connection to the app is lost; trying again." : "", "warning")
    if (!flag) this.dirty = true
  }

  problem(message) {
    this.#banner(message, "danger")
  }

  newest() {
    return {}
  }

  paint() {
    if (!this.dirty || !this.state) return
    this.dirty = false
    const { status, step, total_steps: total, controls, nonfinite, problem, waiting } = this.state
    this.badge.textContent = WORDS[status] ?? status
    this.badge.dataset.status = status
    // What is recorded after the last step stands in the row of one that never came.
    const done = Math.max(step, LIVE.has(status) ? this.#lastStep() : -1) + 1
    this.steps.hidden = !done
    this.steps.textContent = total ? `step ${count(done)} / ${count(total)}` : `step ${count(done)}`
    this.track.hidden = !total
    if (total) this.fill.style.transform = `scaleX(${Math.min(1, done / total)})`
    this.waiting.hidden = !waiting
    this.waiting.textContent = waiting ?? ""
    this.#paintFacts(status, done, total, waiting)
    this.#renew("controls", controls, ([name, value]) => {
      const chip = make("span", "chip", `${name} `)
      chip.append(make("b", "", value))
      return chip
    })
    this.#fit()
    if (problem) this.#banner(problem, "danger")
    else if (nonfinite) this.#banner(`Step ${nonfinite[0]}: ${nonfinite[1]}`, "danger")
    else this.#banner("", "")
  }

  #paintFacts(status, done, total, waiting) {
    const facts = []
    const epoch = this.#newest("epoch", HIGH)
    if (epoch !== undefined) facts.push(["epoch", number(epoch, 3)])
    const passes = this.#newest("backward_passes")
    if (passes > 1) facts.push(["backward passes in the gradients", count(passes)])
    const { samples_per_s: rates, step_time: times } = this.points
    // What a step itself took is without what slow motion waits.
    const stepTime = secondsPerStep(this.data.run, this.state, done, times)
    if (status === "running" && stepTime > 0 && !waiting) {
      if (total) facts.push(["left", duration((total - done) * stepTime)])
      facts.push(["steps/s", number(1 / stepTime, 3)])
      const samples = samplesPerStep(rates, times)
      if (samples > 0) facts.push(["samples/s", count(samples / stepTime)])
    }
    this.#renew("facts", facts, ([name, value]) => {
      const fact = make("span", "fact")
      const parts = [make("b", "", value), make("span", "", ` ${name}`)]
      if (name === "epoch") parts.splice(0, 2, make("span", "", "epoch "), make("b", "", value))
      fact.append(...parts)
      fact.dataset.name = name
      return fact
    })
  }

  // In a row that is too narrow, what the page shows elsewhere as well gives way to one line.
  #fit() {
    const fact = (name) => this.facts.querySelector(`[data-name="${name}"]`)
    const parts = [fact("samples/s"), this.track, fact("epoch"), fact("steps/s")].filter(Boolean)
    for (const part of parts) part.classList.remove("dropped")
    const twoLines = () => this.row.offsetHeight >= 2 * this.badge.offsetHeight
    while (parts.length && twoLines()) parts.shift().classList.add("dropped")
  }

  // Rebuilds a row of words only when they changed.
  #renew(place, words, build) {
    const key = JSON.stringify(words)
    if (this.shown[place] === key) return
    this.shown[place] = key
    this[place].replaceChildren(...words.map(build))
  }

  #lastStep() {
    return Math.max(-1, ...Object.values(this.points).map((points) => points.last ?? -1))
  }

  // The last point of a long run stands for many steps: what only grows ends at its greatest.
  #newest(quantity, plane = 0) {
    const points = this.points[quantity]
    return points?.size ? points.planes[plane][points.size - 1] : undefined
  }

  #banner(text, level) {
    this.banner.hidden = !text
    this.banner.textContent = text
    this.banner.dataset.level = level
  }

  #theme() {
    const theme = readTheme(this.root)
    if (theme.key === this.key) return
    this.key = theme.key
    for (const name of ["muted", "danger", "warning", "good"]) this.element.style.setProperty(`--${name}`, theme[name])
  }
}
