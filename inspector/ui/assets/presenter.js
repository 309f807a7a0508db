// Presenter mode's keyboard: sends keys to Python, shows the overview of keys.

import { releaseClicks, typing } from "./typing.js"

const PRESSED_BY_SPACE = 'button, summary, [role="button"], [role="checkbox"], [role="switch"]'

class Keyboard {
  constructor(root) {
    this.root = root
    this.keys = (event) => this.key(event)
    // On window, after everything on the page: the replay takes the arrows for itself.
    window.addEventListener("keydown", this.keys)
    this.hold = releaseClicks()
    root.replaceChildren(
      pill("? keys", "Show the keys", "14px", () => this.toggle()),
      pill("✕ leave", "Leave presenter mode", "124px", () => this.send("pressed", { key: "leave" })),
    )
  }

  update(data, send) {
    this.data = data
    this.send = send
  }

  key(event) {
    if (event.key === "Escape") return this.close()
    if (event.defaultPrevented || event.repeat || typing(event)) return
    if (event.key === "?") return this.take(event, () => this.toggle())
    const name = { " ": "space", ArrowRight: "right", ArrowLeft: "left" }[event.key]
    const key = name ?? (/^[1-9]$/.test(event.key) ? event.key : null)
    if (!key) return
    const focused = event.composedPath().find((node) => node instanceof Element)
    if (key === "space" && focused?.closest(PRESSED_BY_SPACE)) return
    this.take(event, () => this.send("pressed", { key }))
  }

  take(event, action) {
    event.preventDefault()
    action()
  }

  toggle() {
    if (this.overlay) return this.close()
    const [overlay, panel, title, table] = ["div", "div", "h2", "table"].map((tag) => document.createElement(tag))
    overlay.setAttribute("role", "dialog")
    overlay.setAttribute("aria-label", "Keys")
    Object.assign(overlay.style, {
      position: "fixed", inset: 0, zIndex: 999991, display: "grid", placeItems: "center",
      background: "rgba(0,0,0,0.55)",
    })
    Object.assign(panel.style, {
      background: "var(--st-background-color)", color: "var(--st-text-color)", padding: "28px 40px",
      borderRadius: "12px", border: "2px solid var(--st-text-color)", font: "22px/1.6 var(--st-font, sans-serif)",
    })
    title.textContent = "Keys"
    title.style.margin = "0 0 10px"
    for (const [key, text] of this.data.help) {
      const row = table.insertRow()
      const name = row.insertCell()
      name.textContent = key
      Object.assign(name.style, { fontWeight: 700, paddingRight: "32px", whiteSpace: "pre" })
      row.insertCell().textContent = text
    }
    panel.append(title, table)
    overlay.append(panel)
    overlay.addEventListener("click", () => this.close())
    this.root.append((this.overlay = overlay))
  }

  close() {
    this.overlay?.remove()
    this.overlay = null
  }

  destroy() {
    window.removeEventListener("keydown", this.keys)
    this.hold()
    this.close()
  }
}

function pill(text, label, right, action) {
  const made = document.createElement("button")
  made.textContent = text
  made.setAttribute("aria-label", label)
  made.addEventListener("click", action)
  Object.assign(made.style, {
    position: "fixed", right, bottom: "12px", zIndex: 999990, font: "600 16px var(--st-font, sans-serif)",
    padding: "5px 13px", borderRadius: "18px", cursor: "pointer", border: "2px solid currentColor",
    background: "var(--st-background-color)", color: "var(--st-text-color)",
  })
  return made
}

const boards = new WeakMap()

export function mount({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".presenter")
  let keyboard = boards.get(root)
  if (!keyboard) boards.set(root, (keyboard = new Keyboard(root)))
  keyboard.update(data, setTriggerValue)
  return () => {
    keyboard.destroy()
    boards.delete(root)
  }
}
