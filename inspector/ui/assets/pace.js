// Speed read off the clock, slow motion included: one reading for the strip and the cards of a run.

const WINDOW_S = 5
const RECENT = 50
const LOW = 1, HIGH = 2 // planes of the least and greatest number that a point stands for
const COUNT = 4 // plane of how many numbers a point is the mean of
const seen = new Map() // run → [seconds, steps done] whenever more were done, oldest first

/** Seconds a step over the last seconds; undefined until they have been watched.
 *
 * Of a run that rests or has ended they are read from what was recorded: `pace` of its state, or the
 * steps' own `times` where all was over too soon.
 */
export function secondsPerStep(run, { status, pace }, done, times) {
  if (status !== "running") { // what was waited in a pause is no step's time
    seen.delete(run)
    return pace ?? recentMean(times)
  }
  const now = performance.now() / 1000
  let kept = seen.get(run) ?? []
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
  return mean(newest(points, most), points.planes[COUNT] && newest(points, most, COUNT))
}

/** Whether any number is above a limit. */
export function anyAbove(points, limit) {
  return newest(points, points.size, HIGH).some((value) => value > limit)
}

/** Samples of a step: what a second brought, times the seconds it took.
 *
 * Where a point stands for many steps, their means would not do: the mean of the rates times that of
 * the times is more than the samples. The highest rate is that of the shortest step.
 */
export function samplesPerStep(rates, times) {
  if (!rates?.size || !times?.size) return undefined
  const most = Math.min(rates.size, times.size, RECENT)
  const taken = newest(times, most, LOW)
  return mean(newest(rates, most, HIGH).map((rate, place) => rate * taken[place]))
}

function newest(points, most, plane = 0) {
  return points.planes[plane].slice(Math.max(0, points.size - most), points.size)
}

/** A point may stand for many steps: its weight is how many numbers it is the mean of. */
function mean(values, weights) {
  let sum = 0, total = 0
  values.forEach((value, place) => {
    if (!Number.isFinite(value)) return
    const weight = weights ? weights[place] : 1
    sum += weight * value
    total += weight
  })
  return total ? sum / total : undefined
}
