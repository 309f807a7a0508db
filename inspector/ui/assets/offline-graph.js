// The graphs of an exported page: laid out once, zoomed, searched, clicked; no server is there.
addEventListener("DOMContentLoaded", async () => {
  for (const section of document.querySelectorAll("section.graph")) {
    const { dot, facts } = JSON.parse(section.querySelector("script").textContent)
    const view = section.querySelector(".view")
    const aside = section.querySelector("aside")
    const viz = await Viz.instance()
    const result = viz.render(dot, { format: "svg", engine: "dot" })
    if (result.status !== "success") {
      view.textContent = "The picture could not be laid out."
      continue
    }
    const svg = document.importNode(
      new DOMParser().parseFromString(result.output, "image/svg+xml").documentElement, true)
    const [width, height] = [svg.viewBox.baseVal.width, svg.viewBox.baseVal.height]
    view.replaceChildren(svg)
    for (const title of svg.querySelectorAll("g.edge > title, g.graph > title")) title.remove()
    let scale = 1
    const show = (wanted) => {
      scale = Math.max(0.05, Math.min(wanted, 6))
      svg.setAttribute("width", width * scale)
      svg.setAttribute("height", height * scale)
    }
    const fit = () => show(Math.min((view.clientWidth - 4) / width, 1.15))
    fit()
    const boxes = [...svg.querySelectorAll("g.node")]
    for (const box of boxes) {
      const lines = facts[box.id] ?? []
      box.querySelector("title").textContent = lines.join("\n")
      box.addEventListener("click", () => {
        const heading = document.createElement("b")
        heading.textContent = lines[0] ?? ""
        aside.replaceChildren(heading, ...lines.slice(1).map((line) => {
          const row = document.createElement("div")
          row.textContent = line
          return row
        }))
        for (const other of boxes) other.classList.toggle("chosen", other === box)
      })
    }
    section.querySelector(".bar").addEventListener("click", ({ target }) => {
      const action = target.dataset.do
      if (action === "fit") fit()
      if (action === "in" || action === "out") show(scale * (action === "in" ? 1.3 : 1 / 1.3))
    })
    section.querySelector("input").addEventListener("input", ({ target }) => {
      const wanted = target.value.trim().toLowerCase()
      svg.classList.toggle("searching", wanted !== "")
      for (const box of boxes) {
        const text = `${box.textContent}\n${(facts[box.id] ?? []).join("\n")}`.toLowerCase()
        box.classList.toggle("hit", wanted !== "" && text.includes(wanted))
      }
    })
    section.dataset.shown = boxes.length
  }
})
