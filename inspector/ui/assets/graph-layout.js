// One layout worker for the page; a layout that exceeds its time is ended with its worker.

const KEPT = 8

export class Layout {
  constructor(assets) {
    this.address = `${assets}/graph-worker.js`
    this.pictures = new Map()
    this.count = 0
    this.begin()
  }

  begin() {
    this.worker = new Worker(this.address)
    this.ready = new Promise((resolve, reject) => {
      this.worker.onmessage = ({ data }) => data.ready && resolve()
      this.worker.onerror = () => reject(new Error("Graphviz could not be loaded from this server."))
    })
    this.ready.catch(() => {})
  }

  /** The SVG text of a graph; rejects with `timeout` after `limit` milliseconds of layout. */
  async draw(dot, limit) {
    const known = this.pictures.get(dot)
    if (known) return known
    // One after the other: a later call would otherwise wait inside an earlier one's time.
    const turn = (this.turn ?? Promise.resolve()).catch(() => {}).then(() => this.run(dot, limit))
    this.turn = turn
    return turn
  }

  async run(dot, limit) {
    await this.ready
    const id = ++this.count
    const picture = await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.worker.terminate()
        this.begin()
        reject(new Error("timeout"))
      }, limit)
      this.worker.onmessage = ({ data }) => {
        if (data.id !== id) return
        clearTimeout(timer)
        if (data.error) reject(new Error(data.error))
        else resolve(data)
      }
      this.worker.postMessage({ id, dot })
    })
    this.pictures.set(dot, picture)
    if (this.pictures.size > KEPT) this.pictures.delete(this.pictures.keys().next().value)
    return picture
  }
}
