// Numbers in words: few digits, the unit always beside them.

const BYTES = ["B", "KiB", "MiB", "GiB", "TiB"]

export function number(value, digits = 4) {
  if (value === undefined || value === null) return "–"
  if (Number.isNaN(value)) return "NaN"
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞"
  if (value === 0) return "0"
  const size = Math.abs(value)
  if (size >= 1e6 || size < 1e-3) return tidy(value.toExponential(digits - 2))
  if (size >= 10 ** (digits - 1)) return count(value).replace("-", "−")
  return tidy(value.toPrecision(digits))
}

/** A value with its unit; bytes and seconds get a prefix. */
export function quantity(value, unit, digits = 4) {
  if (!Number.isFinite(value)) return number(value)
  if (unit === "B") return bytes(value)
  if (unit === "s") return duration(value)
  if (unit === "share") return percent(value)
  const text = number(value, digits)
  return unit && unit !== "L2" && unit !== "0/1" ? `${text} ${unit === "1/s" ? "/s" : unit}` : text
}

export function bytes(value) {
  let place = 0
  while (Math.abs(value) >= 1024 && place < BYTES.length - 1) {
    value /= 1024
    place++
  }
  return `${number(value, 3)} ${BYTES[place]}`
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–"
  if (seconds < 1e-3) return `${number(seconds * 1e6, 3)} µs`
  if (seconds < 1) return `${number(seconds * 1e3, 3)} ms`
  if (seconds < 60) return `${number(seconds, 3)} s`
  const whole = Math.round(seconds)
  const parts = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60]
  if (parts[0]) return `${parts[0]} h ${parts[1]} min`
  if (parts[1] >= 10) return `${parts[1]} min`
  return `${parts[1]} min ${parts[2]} s`
}

export function count(value) {
  return Math.round(value).toLocaleString("en")
}

export function percent(share) {
  return Number.isFinite(share) ? `${number(share * 100, 3)}%` : "–"
}

/** Label of an axis tick: shorter than a value. */
export function tick(value, unit) {
  if (value === null || value === undefined) return ""
  if (unit === "B") return bytes(value)
  if (unit === "share") return percent(value)
  if (value === 0) return "0"
  const size = Math.abs(value)
  if (size >= 1e9 || size < 1e-3) return tidy(value.toExponential(2))
  if (size >= 1e4) return stepTick(value).replace("-", "−")
  return String(Number(value.toPrecision(4))).replace("-", "−")
}

export function stepTick(value) {
  const size = Math.abs(value)
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`
  return String(Number(value.toPrecision(6)))
}

/** A module path with as many names as it takes cut to a letter, from the left; numbers
 * stay, which tell modules apart. */
export function abbreviated(path, fits) {
  const names = path.split(".")
  for (let i = 0; i < names.length - 1 && !fits(names.join(".")); i++) {
    names[i] = names[i].replace(/^(\D).*?(\d*)$/, "$1$2")
  }
  return names.join(".")
}

function tidy(text) {
  if (text.includes("e")) {
    const [mantissa, exponent] = text.split("e")
    return `${trim(mantissa)}e${Number(exponent)}`.replaceAll("-", "−")
  }
  return trim(text).replace("-", "−")
}

function trim(text) {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text
}
