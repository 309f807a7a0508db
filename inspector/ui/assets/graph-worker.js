// Lays graphs out with Graphviz, off the page's own thread: the page ends this worker when it
// takes too long.
importScripts(new URL("vendor/viz-global.js", self.location.href).href)

const ready = Viz.instance()
ready.then(() => postMessage({ ready: true }))

onmessage = async ({ data: { id, dot } }) => {
  try {
    const viz = await ready
    const started = performance.now()
    const result = viz.render(dot, { format: "svg", engine: "dot" })
    if (result.status !== "success") throw new Error(result.errors.map((e) => e.message).join("; "))
    postMessage({ id, svg: result.output, ms: performance.now() - started })
  } catch (error) {
    postMessage({ id, error: String(error.message ?? error) })
  }
}
