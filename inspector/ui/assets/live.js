// What Streamlit's components call. Their state belongs to the element they stand in, so that a
// script run changes nothing of what a viewer sees.

import { Board } from "./board.js"
import { CompareBoard } from "./compare.js"
import { Strip } from "./strip.js"

const mounted = new WeakMap()

function mount(kind, { parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".inspector")
  let view = mounted.get(root)
  if (!view) mounted.set(root, (view = new kind(root)))
  view.update(data, setTriggerValue)
  return () => {
    view.destroy()
    mounted.delete(root)
  }
}

export const board = (component) => mount(Board, component)
export const strip = (component) => mount(Strip, component)
export const compare = (component) => mount(CompareBoard, component)
