// One WebSocket per browser tab. Boards subscribe; frames come back, are decoded, painted together
// in one animation frame and then acknowledged. See docs/live-view.md for the protocol.

const HIDDEN_GRACE_MS = 2000
const BACKOFF_MS = [250, 500, 1000, 2000, 4000]

/** Points of one buffer: steps, and planes of values over them. */
export class Points {
  constructor() {
    this.size = 0
    this.steps = new Float64Array(0)
    this.planes = []
    this.subjects = []
    this.folded = false // whether a point stands for several rows
  }

  apply(update) {
    const { start, steps, planes } = update
    const size = start + steps.length
    if (start === 0) {
      this.subjects = update.subjects ?? []
      this.folded = update.folded ?? false
      this.steps = new Float64Array(0)
      this.planes = planes.map(() => new Float32Array(0))
    }
    if (size > this.steps.length) this.#reserve(Math.max(size, 2 * this.steps.length, 256))
    this.steps.set(steps, start)
    planes.forEach((plane, index) => this.planes[index].set(plane, start))
    this.size = size
  }

  #reserve(capacity) {
    const grow = (old, fresh) => (fresh.set(old), fresh)
    this.steps = grow(this.steps, new Float64Array(capacity))
    this.planes = this.planes.map((plane) => grow(plane, new Float32Array(capacity)))
  }

  get last() {
    return this.size ? this.steps[this.size - 1] : undefined
  }
}

function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true)
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)))
  const base = 4 + length
  for (const board of header.boards) {
    for (const entry of board.charts ?? []) {
      const update = entry[2]
      const [stepsAt, , count] = update.steps
      const [planesAt, rows, columns] = update.planes
      update.steps = new Float64Array(buffer, base + stepsAt, count)
      update.planes = Array.from(
        { length: rows },
        (_, row) => new Float32Array(buffer, base + planesAt + 4 * row * columns, columns),
      )
    }
  }
  return header
}

class Connection {
  #boards = new Map()
  #socket = null
  #failures = 0
  #timer = 0
  #next = 1
  #painting = false

  constructor() {
    document.addEventListener("visibilitychange", () => this.#visibility())
    // What the benchmark reads: when a frame was painted, and how old its newest point was.
    window.__inspector = { paints: [], connected: false }
  }

  /** Adds a board; `board` has subscription(), news(fields), paint(), offline(flag). */
  add(board) {
    const id = `b${this.#next++}`
    this.#boards.set(id, board)
    if (this.#socket?.readyState === WebSocket.OPEN) this.#subscribe(id, board)
    else this.#open()
    return id
  }

  /** Subscribes again after the board's charts or run changed. */
  renew(id) {
    const board = this.#boards.get(id)
    if (board && this.#socket?.readyState === WebSocket.OPEN) this.#subscribe(id, board)
  }

  remove(id) {
    this.#boards.delete(id)
    this.#send({ type: "unsubscribe", id })
    if (!this.#boards.size) this.#close()
  }

  #open() {
    if (this.#socket || document.hidden) return
    clearTimeout(this.#timer)
    const address = new URL("/live", location.origin)
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:"
    const socket = new WebSocket(address)
    socket.binaryType = "arraybuffer"
    this.#socket = socket
    socket.onopen = () => {
      this.#failures = 0
      window.__inspector.connected = true
      for (const [id, board] of this.#boards) {
        board.offline(false)
        this.#subscribe(id, board)
      }
    }
    socket.onmessage = ({ data }) => this.#receive(data)
    socket.onclose = () => {
      if (this.#socket === socket) this.#lost()
    }
  }

  #close() {
    const socket = this.#socket
    this.#socket = null
    clearTimeout(this.#timer)
    socket?.close()
  }

  #lost() {
    this.#socket = null
    window.__inspector.connected = false
    if (!this.#boards.size) return
    for (const board of this.#boards.values()) board.offline(true)
    const wait = BACKOFF_MS[Math.min(this.#failures++, BACKOFF_MS.length - 1)]
    this.#timer = setTimeout(() => this.#open(), wait)
  }

  #visibility() {
    clearTimeout(this.#timer)
    if (document.hidden) this.#timer = setTimeout(() => this.#close(), HIDDEN_GRACE_MS)
    else if (this.#boards.size) this.#open()
  }

  #subscribe(id, board) {
    this.#send({ type: "subscribe", id, ...board.subscription() })
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message))
  }

  #receive(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data)
      this.#boards.get(message.id)?.problem(message.message)
      return
    }
    const header = decode(data)
    for (const { id, ...fields } of header.boards) this.#boards.get(id)?.news(fields)
    this.#paintSoon(header)
  }

  #paintSoon(header) {
    if (this.#painting) return
    this.#painting = true
    const paint = () => {
      this.#painting = false
      const began = performance.now()
      for (const board of this.#boards.values()) board.paint()
      this.#send({ type: "ack", frame: header.frame })
      this.#measure(header, performance.now() - began)
    }
    requestAnimationFrame(paint)
  }

  #measure(header, took) {
    const paints = window.__inspector.paints
    const newest = {}
    for (const board of this.#boards.values()) Object.assign(newest, board.newest())
    const wall = Math.max(0, ...header.boards.map((board) => board.wall ?? 0))
    paints.push({ at: Date.now() / 1000, wall, took, newest })
    if (paints.length > 2000) paints.splice(0, 1000)
  }
}

export const connection = new Connection()
