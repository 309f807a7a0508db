// One node of the replay in words and numbers. Everything recorded becomes text, never markup.

import { number } from "./format.js"
import { readTheme, rgb } from "./theme.js"

const WORDS = { nan: "NaN", inf: "∞", "-inf": "−∞" }
const MOST_COLUMNS = 12
const CELL = 13

/** Fills `root` with what the pass looks like after `at` nodes. */
export function card(root, view, at) {
  const step = view.steps[at - 1]
  const parts = step ? node(view, step, readTheme(root)) : start(view, at)
  root.classList.toggle("bad", Boolean(step?.bad))
  root.replaceChildren(...parts)
}

export function element(tag, name = "", text = "") {
  const made = document.createElement(tag)
  if (name) made.className = name
  if (text !== "") made.textContent = text
  return made
}

export function say(value, digits = 5) {
  return typeof value === "string" ? WORDS[value] ?? value : number(value, digits)
}

function start(view) {
  const loss = view.loss?.values?.length === 1 ? ` The result is ${say(view.loss.values[0])}.` : ""
  return [
    element("h3", "", "Before the first node"),
    element("p", "words", `The forward pass is done.${loss} Backward begins with the gradient of the result with respect to itself, which is 1, and hands it from node to node.`),
    element("p", "facts", "Step with the buttons or with the arrow keys."),
  ]
}

function node(view, step, theme) {
  const { title, where, forward, leaf, value } = view.nodes[step.node]
  const parts = [element("h3", "", leaf ? `${title}: gradient accumulates` : title)]
  if (where) parts.push(element("p", "where", where))
  const words = element("p", "words")
  if (forward) words.append(element("span", "formula", forward), element("br"))
  words.append(step.words)
  parts.push(words)
  if (step.born) parts.push(element("p", "message alarm", `${say(step.bad)} first appears here: what arrived was finite.`))
  if (step.value_bad && !leaf) parts.push(element("p", "message alarm", `Its output was ${step.value_bad} in the forward pass already; the first such output there is that of ${view.first_bad_value}.`))
  const [forth, back] = [element("div"), element("div")]
  if (value && !leaf) forth.append(heading("Output in the forward pass"), tensor(value, theme))
  back.append(heading(step.arrivals.length ? "Incoming gradient g, a sum" : leaf ? "Incoming gradient g" : "Incoming gradient g = ∂L/∂out"))
  for (const one of step.incoming) back.append(tensor(one, theme))
  if (step.arrivals.length) back.append(arrivals(step.arrivals))
  const both = element("div", "both")
  both.append(back, forth)
  parts.push(both)
  if (leaf) parts.push(...accumulation(step, theme))
  else parts.push(heading("Outgoing gradients"), ...step.outgoing.map((one) => outgoing(one, step, theme)))
  if (!leaf && !step.outgoing.length) parts.push(element("p", "facts", "Nothing further back wants a gradient."))
  if (step.check) parts.push(check(step.check))
  return parts
}

function heading(text) {
  return element("h4", "", text)
}

function arrivals(list) {
  const made = element("p", "facts")
  made.textContent = list.map(({ from, tensor: one }) => `${one.values?.length === 1 ? say(one.values[0]) : `norm ${say(one.norm)}`} from ${from}`).join("  +  ")
  return made
}

function outgoing(one, step, theme) {
  const row = element("div", "sent")
  const target = element("span", "target", `to ${one.title}`)
  if (one.name) target.append(element("span", "facts", `  (${one.name})`))
  const formula = element("span", "formula")
  if (one.formula) formula.textContent = `∂L/∂${one.name || "a"} = ${one.formula}`
  row.append(target, formula)
  const shown = element("div", "tensor")
  if (one.local !== null) {
    const sum = element("span", "sum", `${say(step.incoming[0].values[0])} · ${say(one.local)} = `)
    const result = element("b", "number", say(one.tensor.values[0]))
    sum.append(result)
    shown.append(sum, element("span", "facts", "   incoming · local derivative"))
  } else shown.append(tensor(one.tensor, theme))
  row.append(shown)
  return row
}

function accumulation(step, theme) {
  const single = step.after?.values?.length === 1
  const parts = [heading("Accumulated in .grad")]
  if (single) {
    const before = step.before ? say(step.before.values[0]) : "0 (None)"
    const sum = element("p", "sum words", `${before} + ${say(step.incoming[0]?.values?.[0])} = `)
    sum.append(element("b", "number", say(step.after.values[0])))
    parts.push(sum)
    return parts
  }
  const before = step.before ? `norm ${say(step.before.norm)}` : "empty (None)"
  parts.push(element("p", "facts", `before: ${before}   →   after: norm ${say(step.after?.norm)}`))
  if (step.after) parts.push(tensor(step.after, theme))
  return parts
}

/** A number, a small matrix, or statistics with a map. */
export function tensor(one, theme) {
  if (!one) return element("p", "facts", "none")
  const shape = one.shape.join("×")
  if (one.values?.length === 1 && !one.shape.length) {
    return element("span", `number${typeof one.values[0] === "string" ? " bad" : ""}`, say(one.values[0]))
  }
  const made = element("div")
  if (one.values) {
    const columns = one.shape.at(-1) || 1
    if (columns <= MOST_COLUMNS) made.append(values(one.values, columns))
    else made.append(map([one.values], theme))
  }
  if (one.map) made.append(map(one.map, theme))
  made.append(element("div", "facts", facts(one, shape)))
  return made
}

function values(list, columns) {
  const table = element("table", "values")
  for (let from = 0; from < list.length; from += columns) {
    const row = table.insertRow()
    for (const value of list.slice(from, from + columns)) {
      const cell = row.insertCell()
      cell.textContent = say(value, 4)
      if (typeof value === "string") cell.className = "bad"
    }
  }
  const scroll = element("div", "scroll")
  scroll.append(table)
  return scroll
}

function facts(one, shape) {
  const parts = [shape, `norm ${say(one.norm)}`]
  if (one.mean !== undefined) parts.push(`mean ${say(one.mean, 3)}`, `${say(one.min, 3)} … ${say(one.max, 3)}`)
  if (one.zeros > 0) parts.push(`${Math.round(one.zeros * 100)}% zeros`)
  if (one.nan) parts.push(`${one.nan} NaN`)
  if (one.inf) parts.push(`${one.inf} infinite`)
  return parts.join(" · ")
}

// Orange is positive, blue negative, the panel's colour zero; a cell stands for its largest number.
function map(rows, theme) {
  const canvas = element("canvas", "map")
  const columns = rows[0].length
  const cell = Math.max(4, Math.min(CELL, Math.floor(380 / columns)))
  const tall = Math.max(cell, rows.length > 2 ? 0 : 16)
  canvas.width = columns * cell
  canvas.height = rows.length * tall
  const context = canvas.getContext("2d")
  const numbers = rows.flat().filter((value) => typeof value === "number")
  const most = Math.max(...numbers.map(Math.abs), 0)
  const zero = rgb(theme.panel)
  const [plus, minus] = theme.dark ? [[255, 169, 77], [116, 192, 252]] : [[217, 72, 15], [24, 100, 171]]
  rows.forEach((row, y) => row.forEach((value, x) => {
    const share = typeof value === "number" && most ? Math.sqrt(Math.abs(value) / most) : 0
    const ends = value < 0 ? minus : plus
    context.fillStyle = typeof value === "string" ? (theme.dark ? "#ff5fa8" : "#d6006c")
      : `rgb(${zero.map((part, i) => Math.round(part + (ends[i] - part) * share)).join(",")})`
    context.fillRect(x * cell, y * tall, cell, tall)
  }))
  canvas.title = `orange positive, blue negative, up to ±${say(most, 3)}`
  return canvas
}

/** Finite differences beside the analytic gradients. */
export function check(result) {
  const made = element("div", "check")
  const head = element("div", "", "Finite differences in float64: ")
  made.append(head)
  if (result.reason) {
    head.append("not here.")
    made.append(element("div", "facts", result.reason))
    return made
  }
  const word = result.agrees ? "✓ agrees" : "✗ differs"
  head.append(element("span", `verdict ${result.agrees ? "yes" : "no"}`, `${word} (relative difference ${say(result.difference, 3)})`))
  const table = element("table")
  const titles = table.insertRow()
  for (const title of ["", "numeric", "analytic"]) titles.append(element("th", "", title))
  for (const [place, one] of result.inputs.entries()) {
    one.numeric.slice(0, 4).forEach((value, at) => {
      const row = table.insertRow()
      const name = one.name || (result.inputs.length > 1 ? `input ${place + 1}` : "input")
      const several = one.numeric.length > 1 ? ` [${at}]` : ""
      row.insertCell().textContent = one.direction ? `${name}, along a random direction` : `${name}${several}`
      row.insertCell().textContent = say(value, 7)
      row.insertCell().textContent = say(one.analytic[at], 7)
    })
    if (one.numeric.length > 4) table.insertRow().insertCell().textContent = `… and ${one.numeric.length - 4} more`
  }
  made.append(table)
  if (result.inputs.some((one) => one.kink)) {
    made.append(element("div", "facts", "There is a kink here, such as a ReLU at 0 or two equal maxima: the slopes to both sides differ, and any between them is right."))
  }
  return made
}
