// Who a key belongs to: something that is typed into, or the page.

const TAKES_KEYS = 'input, textarea, select, [contenteditable]:not([contenteditable="false"]), ' +
  '[role="slider"], [role="combobox"], [role="listbox"], [role="option"], [role="menuitem"], ' +
  '[role="textbox"], [role="grid"], [role="tab"], [role="radio"], [role="dialog"] *'
const CLICKED = 'button, [role="radio"], [role="button"], label:has([type="checkbox"])'
const SLIDERS = 'input[type="range"], [role="slider"]'

/** Whether a key is being typed, or moves a control that has the focus. */
export function typing(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return true
  const nodes = event.composedPath().filter((node) => node instanceof Element)
  if (event.key === " " && nodes[0]?.matches(SLIDERS)) return false // they only know arrows
  return nodes.some((node) => node.matches(TAKES_KEYS))
}

/** What was clicked with a pointer gives the focus back, so that the next key is the page's.
 * Returns what ends it; with the keyboard the focus stays where it was put. */
export function releaseClicks() {
  const released = (event) => {
    if (!event.pointerType) return
    const button = event.composedPath().find((node) => node instanceof Element && node.matches(CLICKED))
    if (button) setTimeout(() => document.activeElement?.blur?.(), 0)
  }
  window.addEventListener("click", released, true)
  return () => window.removeEventListener("click", released, true)
}
