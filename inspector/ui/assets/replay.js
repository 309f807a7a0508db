// The replay of one backward pass: position, breakpoints and keys; see replay-card.js for a node.

import { Layout } from "./graph-layout.js"
import { card, element } from "./replay-card.js"
import { readTheme } from "./theme.js"
import { releaseClicks, typing } from "./typing.js"

const WHOLE = 18 // nodes drawn at once; of larger graphs the surroundings are drawn
const AROUND = 2
const FEW = 12
const NAMED = 64 // pixels of a bar that has its name below
const LIMIT_MS = 3000
let layout // one worker for the page
let last = { id: "", at: 0 } // where the viewer was: the page may put the component elsewhere

const MARKUP = `
  <div class="bar">
    <button data-do="first" title="Before the first node (Home)" aria-label="First">⏮</button>
    <button data-do="back" title="One node back (←)">← Back</button>
    <button data-do="step" class="main" title="One node on (→)">Step →</button>
    <button data-do="last" title="To the end (End)" aria-label="Last">⏭</button>
    <span class="place" role="status"></span>
    <span class="space"></span>
    <label>Break at <select class="what" aria-label="Break at">
      <option value="nonfinite">first NaN or infinity</option>
      <option value="norm">gradient norm over</option>
      <option value="module">module</option>
      <option value="op">node</option>
    </select></label>
    <select class="which" aria-label="Which" hidden></select>
    <input class="limit" type="number" value="1" min="0" step="any" aria-label="Threshold" hidden>
    <button data-do="run" title="On to the break">Run to break</button>
  </div>
  <div class="track"><canvas class="bars" aria-hidden="true"></canvas>
    <input type="range" min="0" value="0" aria-label="Position in the backward pass"></div>
  <p class="message" hidden></p>
  <div class="two"><div class="picture"></div><div class="card"></div></div>`

export class Replay {
  constructor(root) {
    this.root = root
    root.innerHTML = MARKUP // constant: everything recorded is put in as text
    const one = (selector) => root.querySelector(selector)
    this.place = one(".place")
    this.what = one(".what")
    this.which = one(".which")
    this.limit = one(".limit")
    this.bars = one(".bars")
    this.range = one("input[type=range]")
    this.message = one(".message")
    this.picture = one(".picture")
    this.card = one(".card")
    root.querySelector(".bar").addEventListener("click", (event) => this.press(event.target.closest("button")?.dataset.do))
    this.what.addEventListener("change", () => this.choices())
    this.range.addEventListener("input", () => this.go(Number(this.range.value)))
    this.bars.addEventListener("click", (event) => {
      const share = event.offsetX / this.bars.clientWidth
      this.go(Math.min(Math.floor(share * this.steps.length), this.steps.length - 1) + 1)
    })
    this.picture.addEventListener("click", (event) => {
      const id = event.target.closest("g.node")?.id
      const step = id ? this.steps.findIndex((one) => `n${one.node}` === id) : -1
      if (step >= 0) this.go(step + 1)
    })
    this.keys = (event) => this.key(event)
    document.addEventListener("keydown", this.keys)
    this.hold = releaseClicks()
    this.sizes = new ResizeObserver(() => this.fit())
    this.sizes.observe(root)
    this.timer = setInterval(() => this.theme(), 500)
  }

  update(data, send) {
    this.send = send
    this.assets = data.assets
    this.root.classList.toggle("large", data.presenter)
    if (data.id !== this.id) {
      this.id = data.id
      this.view = data.view
      this.steps = data.view.steps
      this.drawn = null
      this.range.max = this.steps.length
      this.choices()
      this.at = -1
      const at = last.id === data.id ? last.at : data.at
      this.go(Math.min(at, this.steps.length), at !== data.at)
      if (data.stop && !at) this.stopAt(data.stop)
    } else this.fit()
    this.theme()
  }

  destroy() {
    document.removeEventListener("keydown", this.keys)
    this.hold()
    this.sizes.disconnect()
    clearInterval(this.timer)
    clearTimeout(this.later)
  }

  /** Shows the pass after `at` nodes have run; 0 is before the first. */
  go(at, tell = true) {
    at = Math.max(0, Math.min(at, this.steps.length))
    if (at === this.at) return
    this.at = at
    last = { id: this.id, at }
    this.say("")
    this.range.value = at
    this.place.textContent = `${at} / ${this.steps.length}`
    for (const [name, off] of [["first", !at], ["back", !at], ["step", at === this.steps.length], ["last", at === this.steps.length]]) {
      this.root.querySelector(`[data-do=${name}]`).disabled = off
    }
    card(this.card, this.view, at)
    this.root.dataset.at = at
    this.draw()
    this.paint()
    if (!tell) return
    clearTimeout(this.later)
    this.later = setTimeout(() => this.send("at", { id: this.id, at: this.at }), 350)
  }

  press(action) {
    if (action === "first") this.go(0)
    if (action === "back") this.go(this.at - 1)
    if (action === "step") this.go(this.at + 1)
    if (action === "last") this.go(this.steps.length)
    if (action === "run") this.run()
  }

  key(event) {
    if (event.defaultPrevented || typing(event)) return
    const action = { ArrowRight: "step", ArrowLeft: "back", Home: "first", End: "last" }[event.key]
    if (!action) return
    event.preventDefault() // presenter.js then knows that the key was taken
    this.press(action)
  }

  // ---------------------------------------------------------------- breakpoints

  choices() {
    const what = this.what.value
    const names = what === "module" ? this.view.modules : what === "op" ? this.view.ops : []
    this.which.replaceChildren(...names.map((name) => new Option(name, name)))
    this.which.hidden = what !== "module" && what !== "op"
    this.limit.hidden = what !== "norm"
  }

  stopAt(what) {
    this.what.value = what
    this.choices()
    this.run()
  }

  run() {
    const what = this.what.value
    const hit = this.condition(what)
    const from = what === "nonfinite" ? 0 : this.at
    let found = this.steps.findIndex((step, place) => place >= from && hit(step))
    const again = found < 0 && from > 0
    if (again) found = this.steps.findIndex(hit)
    if (found < 0) {
      this.go(this.steps.length)
      return this.say(what === "nonfinite" ? "Every gradient of this pass is finite." : "No node of this pass meets the condition: ran to the end.")
    }
    this.go(found + 1)
    const title = this.view.nodes[this.steps[found].node].title
    this.say(`Stopped at ${title}${again ? " (searched again from the start)" : ""}.`, what === "nonfinite")
  }

  condition(what) {
    const { nodes } = this.view
    const which = this.which.value
    const limit = Number(this.limit.value)
    if (what === "nonfinite") return (step) => step.bad !== ""
    if (what === "norm") return (step) => typeof step.norm === "string" || step.norm > limit
    if (what === "module") return (step) => nodes[step.node].module === which
    return (step) => nodes[step.node].title === which
  }

  say(text, alarm = false) {
    this.message.textContent = text
    this.message.hidden = !text
    this.message.classList.toggle("alarm", alarm)
  }

  // ---------------------------------------------------------------- the picture

  async draw() {
    const chosen = this.shown()
    const dot = this.dot(chosen)
    const request = (this.request = `${this.id}/${this.at}`)
    if (dot !== this.drawn) {
      layout ??= new Layout(this.assets)
      let svg
      try {
        const { svg: text } = await layout.draw(dot, LIMIT_MS)
        svg = document.importNode(new DOMParser().parseFromString(text, "image/svg+xml").documentElement, true)
      } catch {
        svg = element("p", "facts", "This part of the graph takes too long to lay out.")
      }
      if (request !== this.request) return
      this.drawn = dot
      for (const title of svg.querySelectorAll("title")) title.remove()
      const { width } = svg.viewBox?.baseVal ?? {}
      if (width) svg.setAttribute("width", width * 1.35)
      svg.removeAttribute("height")
      this.picture.replaceChildren(svg)
    }
    this.mark()
  }

  // The whole graph where it is small, else what lies within two edges of the current node.
  shown() {
    const { nodes, edges } = this.view
    if (nodes.length <= WHOLE) return new Set(nodes.map((node) => node.id))
    const centre = this.steps[Math.max(this.at - 1, 0)]?.node ?? nodes.length - 1
    let near = new Set([centre])
    for (let round = 0; round < AROUND && near.size < WHOLE; round++) {
      const wider = new Set(near)
      for (const [from, to] of edges) {
        if (near.has(from)) wider.add(to)
        if (near.has(to)) wider.add(from)
      }
      near = wider
    }
    return near
  }

  dot(chosen) {
    const lines = ["digraph backward {", 'bgcolor="transparent" rankdir=TB nodesep=0.3 ranksep=0.32',
      'node [shape=box style="rounded" fontname="Helvetica" fontsize=13 margin="0.16,0.07"]', "edge [arrowsize=0.7]"]
    for (const id of [...chosen].sort((a, b) => a - b)) lines.push(`n${id} [id="n${id}" ${this.view.nodes[id].dot}]`)
    if (chosen.size <= FEW) lines.push("ordering=in") // inputs from left to right, as they are written
    const edges = this.view.edges.map(([from, to], place) => ({ from, to, place }))
    const inputs = new Map(this.steps.map((step) => [step.node, step.outgoing.map((one) => one.to)]))
    edges.sort((a, b) => a.to - b.to || (inputs.get(a.to)?.indexOf(a.from) ?? 0) - (inputs.get(b.to)?.indexOf(b.from) ?? 0))
    for (const { from, to, place } of edges) {
      if (chosen.has(from) && chosen.has(to)) lines.push(`n${from} -> n${to} [id="e${place}"]`)
    }
    return [...lines, "}"].join("\n")
  }

  mark() {
    const svg = this.picture.querySelector("svg")
    if (!svg) return
    const current = this.steps[this.at - 1]
    const done = new Map(this.steps.slice(0, this.at).map((step) => [step.node, step]))
    const future = new Map(this.steps.map((step) => [step.node, step]))
    for (const group of svg.querySelectorAll("g.node")) {
      const id = Number(group.id.slice(1))
      const last = [...group.querySelectorAll("text")].at(-1)
      last?.classList.toggle("gradient", future.has(id))
      group.classList.toggle("done", done.has(id))
      group.classList.toggle("now", current?.node === id)
      group.classList.toggle("bad", Boolean(future.get(id)?.bad))
    }
    const sent = new Set((current?.outgoing ?? []).map((one) => one.to))
    this.view.edges.forEach(([from, to], place) => {
      const edge = svg.getElementById(`e${place}`)
      edge?.classList.toggle("flow", to === current?.node && sent.has(from))
      edge?.classList.toggle("bad", Boolean(current?.bad))
    })
    const now = svg.querySelector("g.now")
    if (now && this.picture.scrollHeight > this.picture.clientHeight) {
      const [inner, outer] = [now.getBoundingClientRect(), this.picture.getBoundingClientRect()]
      this.picture.scrollTop += inner.top - outer.top - (outer.height - inner.height) / 2
    }
  }

  // ---------------------------------------------------------------- the norms, one bar a node

  paint() {
    const canvas = this.bars
    const ratio = window.devicePixelRatio || 1
    const width = canvas.clientWidth
    if (!width || !this.steps) return
    const named = width / this.steps.length >= NAMED
    const size = parseFloat(getComputedStyle(this.root).fontSize) * 0.8
    const below = named ? size * 1.5 : 0
    canvas.style.height = `${42 + below}px`
    const height = canvas.clientHeight
    canvas.width = width * ratio
    canvas.height = height * ratio
    const context = canvas.getContext("2d")
    context.scale(ratio, ratio)
    const theme = readTheme(this.root)
    const logs = this.steps.map(({ norm }) => (norm > 0 ? Math.log10(norm) : null))
    const known = logs.filter((value) => value !== null)
    const [low, high] = [Math.min(...known) - 0.3, Math.max(...known)]
    const slot = width / this.steps.length
    const gap = slot > 6 ? 2 : slot > 3 ? 1 : 0
    const danger = theme.dark ? "#ff5fa8" : "#d6006c"
    this.steps.forEach((step, place) => {
      const share = step.bad ? 1 : logs[place] === null ? 0.04 : high > low ? (logs[place] - low) / (high - low) : 1
      const tall = Math.max(share * (height - below - 4), 2)
      context.globalAlpha = place < this.at ? 1 : 0.3
      context.fillStyle = step.bad ? danger : theme.primary
      context.fillRect(place * slot + gap / 2, height - below - tall, Math.max(slot - gap, 1), tall)
      if (place === this.at - 1) {
        context.fillStyle = theme.text
        context.fillRect(place * slot + gap / 2, height - below - 3, Math.max(slot - gap, 2), 3)
      }
      if (!named) return
      const title = this.view.nodes[step.node].title.replace(/Backward\d*$/, "")
      context.globalAlpha = 1
      context.fillStyle = place === this.at - 1 ? theme.text : theme.muted
      context.font = `${place === this.at - 1 ? 700 : 400} ${size}px ${theme.font}`
      context.textAlign = "center"
      context.fillText(title, (place + 0.5) * slot, height - size * 0.35, slot - 4)
    })
  }

  fit() {
    this.root.querySelector(".two").classList.toggle("narrow", this.root.clientWidth < 640)
    this.paint()
  }

  theme() {
    const theme = readTheme(this.root)
    if (theme.key === this.themed) return
    this.themed = theme.key
    this.root.classList.toggle("dark", theme.dark)
    this.paint()
    if (this.view) card(this.card, this.view, this.at)
  }
}

const views = new WeakMap()

export function mount({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".replay")
  let view = views.get(root)
  if (!view) views.set(root, (view = new Replay(root)))
  view.update(data, setStateValue)
  return () => {
    view.destroy()
    views.delete(root)
  }
}
