// The picture of a graph as a file: SVG text, or a PNG drawn from it at twice its size.

const SCALE = 2
const MOST = 16_000 // pixels along an edge; browsers draw nothing on larger canvases
const AREA = 200_000_000

/** The SVG on white, without what only the page's style sheet understands. */
export function svgText(svg) {
  const copy = svg.cloneNode(true)
  copy.setAttribute("style", "background:#ffffff")
  copy.removeAttribute("class")
  for (const element of copy.querySelectorAll("[tabindex]")) element.removeAttribute("tabindex")
  return new XMLSerializer().serializeToString(copy)
}

/** A PNG blob, at twice the size of the SVG, or less where no browser could hold it. */
export async function toPng(svg) {
  const [width, height] = ["width", "height"].map((name) => parseFloat(svg.getAttribute(name)))
  const scale = Math.min(
    SCALE, MOST / Math.max(width, height), Math.sqrt(AREA / (width * height)))
  const address = URL.createObjectURL(new Blob([svgText(svg)], { type: "image/svg+xml" }))
  try {
    const image = new Image()
    image.src = address
    await image.decode()
    const canvas = document.createElement("canvas")
    canvas.width = Math.round(width * scale)
    canvas.height = Math.round(height * scale)
    const context = canvas.getContext("2d")
    context.fillStyle = "#ffffff"
    context.fillRect(0, 0, canvas.width, canvas.height)
    context.drawImage(image, 0, 0, canvas.width, canvas.height)
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"))
    if (!blob) throw new Error("it is too large for this browser.")
    return blob
  } finally {
    URL.revokeObjectURL(address)
  }
}

/** Hands a file to the person. */
export function save(name, content, type) {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }))
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
}
