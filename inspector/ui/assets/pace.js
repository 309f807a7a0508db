// Speed read off the clock, slow motion included: one reading for the strip and the cards of a run.

const WINDOW_S = 5
const RECENT = 50
const seen = new Map() // run → [seconds, steps done] whenever more were done, oldest first

/** Seconds a step over the last seconds; undefined until they have been watched. */
export function secondsPerStep(run, status, done) {
  if (status !== "running" && status !== "paused") return undefined
  const now = performance.now() / 1000
  let kept = status === "paused" ? [] : seen.get(run) ?? []
  if (done < kept.at(-1)?.[1] - RECENT) kept = [] // rewound; a little less is another chart's frame
  if (!kept.length || done > kept.at(-1)[1]) kept.push([now, done])
  while (kept.length > 2 && kept[0][0] < now - WINDOW_S) kept.shift()
  seen.set(run, kept)
  const [[since, from], [until, to]] = [kept[0], kept.at(-1)]
  return until - since > 1 ? (until - since) / (to - from) : undefined
}

/** Mean of the finite values among the newest points; undefined where there are none. */
export function recentMean(points, most = RECENT) {
  if (!points?.size) return undefined
  return mean(newest(points, most))
}

/** Samples of a step: what a second brought, times the seconds it took. */
export function samplesPerStep(rates, times) {
  if (!rates?.size || !times?.size) return undefined
  const most = Math.min(rates.size, times.size, RECENT)
  const taken = newest(times, most)
  return mean(newest(rates, most).map((rate, place) => rate * taken[place]))
}

function newest(points, most) {
  return points.planes[0].slice(Math.max(0, points.size - most), points.size)
}

function mean(values) {
  const finite = values.filter(Number.isFinite)
  return finite.length ? finite.reduce((sum, value) => sum + value, 0) / finite.length : undefined
}
