// The picture of the autograd graph: laid out in a worker, panned, zoomed, searched and clicked.

import { Layout } from "./graph-layout.js"
import { save, svgText, toPng } from "./graph-save.js"
import Panzoom from "./vendor/panzoom.es.js"

const LEAST = 0.02
const MOST = 6
const READABLE = 0.45
let layout // one worker for the page, kept across pictures and reruns

const MARKUP = `
  <div class="bar">
    <input type="search" placeholder="Search" title="Operations, modules, parameters" aria-label="Search the graph">
    <output></output>
    <span class="tour" role="group" aria-label="Jump along what is marked" hidden>
      <button data-do="before" title="Jump to the one before">‹</button>
      <span class="stop"></span>
      <button data-do="after" title="Jump to the next one">next ›</button>
    </span>
    <span class="space"></span>
    <button data-do="out" title="Zoom out">−</button>
    <button data-do="in" title="Zoom in">+</button>
    <button data-do="width" title="Fit to width">Width</button>
    <button data-do="all" title="Show the whole graph">All</button>
    <button data-do="svg" title="Download the picture as SVG">SVG</button>
    <button data-do="png" title="Download the picture as PNG, at twice its size">PNG</button>
  </div>
  <div class="view"><div class="sheet"></div><p class="busy" role="status"></p></div>`

export class GraphView {
  constructor(root) {
    this.root = root
    root.innerHTML = MARKUP // constant: names of models reach the page through Graphviz only
    this.view = root.querySelector(".view")
    this.sheet = root.querySelector(".sheet")
    this.busy = root.querySelector(".busy")
    this.search = root.querySelector("input")
    this.found = root.querySelector("output")
    this.tour = root.querySelector(".tour")
    this.stop = -1
    this.panzoom = Panzoom(this.sheet, {
      minScale: LEAST, maxScale: MOST, cursor: "grab", origin: "0 0", step: 0.25, animate: false,
    })
    this.view.addEventListener("wheel", (event) => this.wheel(event), { passive: false })
    this.view.addEventListener("pointerdown", (e) => { this.from = [e.clientX, e.clientY] })
    this.view.addEventListener("click", (event) => this.click(event))
    this.view.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") this.click(event)
    })
    // The browser scrolls to what gets the focus; here that is a pan.
    this.view.addEventListener("scroll", () => {
      this.shift(-this.view.scrollLeft, -this.view.scrollTop)
      this.view.scrollTo(0, 0)
    })
    this.search.addEventListener("input", () => this.highlight())
    this.search.addEventListener("keydown", (event) => event.key === "Enter" && this.next())
    root.querySelector(".bar").addEventListener("click", (event) => this.press(event))
  }

  /** Shows the picture described by `data`; `send` returns clicks to Python. */
  async update(data, send) {
    this.send = send
    this.data = data
    this.view.style.height = `${data.height}px`
    this.plan()
    if (data.dot === this.dot) {
      this.mark()
      this.reveal()
      return
    }
    if (data.dot === this.tooSlow) return // asked once already: nothing is left to fold
    const request = (this.request = data.dot)
    layout ??= new Layout(data.assets)
    this.say("Laying out …")
    try {
      const picture = await layout.draw(data.dot, data.limit)
      if (request !== this.request) return
      this.place(picture.svg)
      this.say("")
      this.root.dataset.graph = data.graph
      this.root.dataset.shown = data.id
      this.root.dataset.layoutMs = Math.round(picture.ms)
    } catch (error) {
      if (request !== this.request) return
      if (error.message === "timeout") {
        this.tooSlow = data.dot
        this.say("This picture takes too long to lay out: folding further.")
        this.send("too_slow", data.id)
      } else {
        this.say(`The picture could not be laid out: ${error.message}`)
      }
    }
  }

  say(text) {
    this.busy.textContent = text
    this.busy.hidden = !text
  }

  place(text) {
    const svg = document.importNode(
      new DOMParser().parseFromString(text, "image/svg+xml").documentElement, true)
    const anchor = this.anchor()
    const first = !this.dot || this.data.graph !== this.graph
    this.dot = this.data.dot
    this.graph = this.data.graph
    const box = svg.viewBox.baseVal
    this.width = box.width
    this.height = box.height
    svg.setAttribute("width", box.width)
    svg.setAttribute("height", box.height)
    this.sheet.replaceChildren(svg)
    this.sheet.style.width = `${box.width}px`
    this.sheet.style.height = `${box.height}px`
    this.label(svg)
    if (first) this.begin()
    else if (anchor) this.keep(anchor)
    this.toggled = null
    this.highlight()
    this.mark()
    this.reveal()
  }

  label(svg) {
    this.items = new Map()
    for (const item of this.data.items) {
      const element = svg.getElementById(item.id)
      if (!element) continue
      this.items.set(item.key, element)
      element.dataset.key = item.key
      element.querySelector("title").textContent = item.tip
      element.setAttribute("role", "button")
      element.setAttribute("tabindex", "0")
      element.setAttribute("aria-label", item.tip)
    }
    for (const title of svg.querySelectorAll("g.edge > title, g.graph > title")) title.remove()
  }

  // Where a box is on the screen, to find it there again when its fold was opened or closed.
  at(key) {
    const element = this.items?.get(key)
    if (!element) return null
    const place = element.getBoundingClientRect()
    return { key, x: place.left + place.width / 2, y: place.top }
  }

  // What stays where it is: the fold that was clicked, what is selected, or what is nearest to
  // the middle and in both pictures.
  anchor() {
    if (!this.items) return null
    if (this.toggled) return this.at(this.toggled)
    const chosen = this.chosen && this.at(this.chosen)
    const coming = this.data.chosen ?? this.chosen
    const known = new Set(this.data.items.map((item) => item.key))
    if (chosen && known.has(coming)) return { ...chosen, key: coming }
    const view = this.view.getBoundingClientRect()
    const middle = [view.left + view.width / 2, view.top + view.height / 2]
    let [nearest, least] = [null, Infinity]
    for (const key of this.items.keys()) {
      if (!known.has(key)) continue
      const place = this.at(key)
      const distance = Math.hypot(place.x - middle[0], place.y - middle[1])
      if (distance < least) [nearest, least] = [place, distance]
    }
    return nearest
  }

  keep(anchor) {
    const now = this.at(anchor.key)
    if (!now) return
    let [dx, dy] = [anchor.x - now.x, anchor.y - now.y]
    if (!this.toggled) return this.shift(dx, dy)
    // An opened frame that would stick out where its box was is moved into view.
    const frame = this.items.get(anchor.key).getBoundingClientRect()
    const view = this.view.getBoundingClientRect()
    dx -= Math.max(frame.right + dx - view.right + 12, 0)
    dx += Math.max(view.left + 12 - frame.left - dx, 0)
    dy -= Math.max(frame.bottom + dy - view.bottom + 12, 0)
    dy += Math.max(view.top + 12 - frame.top - dy, 0)
    this.shift(dx, dy)
  }

  shift(dx, dy) {
    const { x, y } = this.panzoom.getPan()
    const scale = this.panzoom.getScale()
    this.panzoom.pan(x + dx / scale, y + dy / scale, { force: true })
  }

  show(scale) {
    const left = Math.max((this.view.clientWidth - this.width * scale) / 2, 0)
    this.panzoom.zoom(scale, { force: true })
    this.panzoom.pan(left / scale, 8 / scale, { force: true })
  }

  // Fits the width, unless nothing could be read then: the start of the forward pass is shown.
  begin() {
    const scale = this.view.clientWidth / this.width
    if (scale >= READABLE) return this.fitWidth()
    this.show(READABLE)
    const view = this.view.getBoundingClientRect()
    const entry = this.items.get(this.data.first)?.getBBox()
    const x = entry ? entry.x + entry.width / 2 : 0
    this.shift(Math.min(view.width / 2 - x * READABLE, 0), 0)
  }

  fitWidth() {
    this.show(Math.max(Math.min(this.view.clientWidth / this.width, 1.15), LEAST))
  }

  fitAll() {
    const room = Math.min(
      this.view.clientWidth / this.width, (this.view.clientHeight - 16) / this.height)
    this.show(Math.max(Math.min(room, 1.15), LEAST))
  }

  wheel(event) {
    event.preventDefault()
    if (event.ctrlKey || event.metaKey || !event.shiftKey) this.panzoom.zoomWithWheel(event)
    else this.shift(-event.deltaX, -event.deltaY)
  }

  press(event) {
    const action = event.target.dataset.do
    if (action === "in" || action === "out") this.zoomCentre(action === "in" ? 1.3 : 1 / 1.3)
    if (action === "width") this.fitWidth()
    if (action === "all") this.fitAll()
    if (action === "svg") save(this.data.name + ".svg", svgText(this.sheet.firstChild), "image/svg+xml")
    if (action === "png") this.png()
    if (action === "before" || action === "after") this.jump(action === "after" ? 1 : -1)
  }

  async png() {
    try {
      save(this.data.name + ".png", await toPng(this.sheet.firstChild), "image/png")
      this.say("")
    } catch (error) {
      this.say(`The picture could not be saved: ${error.message}`)
    }
  }

  // What is marked (a path, a difference) can be visited in its order.
  plan() {
    const keys = this.data.tour ?? []
    const plan = JSON.stringify(keys)
    if (plan !== this.planned) this.stop = -1
    this.planned = plan
    this.tour.hidden = !keys.length
    this.count(keys)
  }

  count(keys) {
    this.tour.querySelector(".stop").textContent = this.stop < 0
      ? `${keys.length} ${this.data.tour_name}` : `${this.stop + 1} of ${keys.length}`
  }

  jump(by) {
    const keys = this.data.tour.filter((key) => this.items?.has(key))
    if (!keys.length) return
    this.stop = this.stop < 0 ? (by > 0 ? 0 : keys.length - 1) : (this.stop + by + keys.length) % keys.length
    this.count(keys)
    this.centre(keys[this.stop])
    this.items.get(keys[this.stop]).focus({ preventScroll: true })
  }

  // Python asks for it once: the number changes with each request.
  reveal() {
    const wanted = this.data.reveal
    if (!wanted || wanted.number === this.revealed || !this.items?.has(wanted.key)) return
    this.revealed = wanted.number
    this.centre(wanted.key)
  }

  centre(key) {
    if (this.panzoom.getScale() < READABLE) this.panzoom.zoom(READABLE, { force: true })
    const place = this.items.get(key).getBoundingClientRect()
    const view = this.view.getBoundingClientRect()
    this.shift(
      view.left + view.width / 2 - place.left - place.width / 2,
      view.top + view.height / 2 - place.top - Math.min(place.height / 2, view.height / 2 - 12))
  }

  zoomCentre(factor) {
    const place = this.view.getBoundingClientRect()
    const middle = { clientX: place.left + place.width / 2, clientY: place.top + place.height / 2 }
    this.panzoom.zoomToPoint(this.panzoom.getScale() * factor, middle)
  }

  click(event) {
    const dragged = event.type === "click" && this.from &&
      Math.hypot(event.clientX - this.from[0], event.clientY - this.from[1]) > 4
    const element = event.target.closest("[data-key]")
    if (dragged || !element) return
    event.preventDefault()
    const item = this.data.items.find((one) => one.key === element.dataset.key)
    if (item.fold && !event.shiftKey) this.toggled = item.key
    this.send("clicked", {
      key: item.key, graph: this.data.graph, toggle: Boolean(item.fold && !event.shiftKey),
    })
  }

  mark() {
    this.chosen = this.data.chosen
    for (const [key, element] of this.items ?? []) {
      element.classList.toggle("chosen", key === this.data.chosen)
    }
  }

  highlight() {
    const wanted = this.search.value.trim().toLowerCase()
    const svg = this.sheet.querySelector("svg")
    if (!svg) return
    this.hits = wanted
      ? this.data.items.filter((item) => item.words?.includes(wanted)).map((item) => item.key)
      : []
    svg.classList.toggle("searching", wanted !== "")
    for (const [key, element] of this.items) element.classList.toggle("hit", this.hits.includes(key))
    this.found.textContent = wanted ? `${this.hits.length} of ${this.items.size} boxes` : ""
    this.turn = -1
  }

  next() {
    if (!this.hits?.length) return
    this.turn = (this.turn + 1) % this.hits.length
    this.centre(this.hits[this.turn])
  }

  destroy() {
    this.panzoom.destroy()
  }
}

const views = new WeakMap()

/** Streamlit calls this at every script run; the picture and its zoom stay. */
export function mount({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".autograd-graph")
  let view = views.get(root)
  if (!view) views.set(root, (view = new GraphView(root)))
  view.update(data, setTriggerValue)
  return () => {
    // A rerun may call this and mount again on the same element; only a removed one is done with.
    queueMicrotask(() => root.isConnected || view.destroy())
  }
}
