// Stands in for Graphviz's `dot` where none is installed: the bundled build, run by Node.
// What the measured tools use of it: -V, -Tformat, -Kengine, -ofile or -o file, -O, a file or stdin.
const fs = require("fs")
const path = require("path")

if (process.argv[2] === "-V") {
  console.error("dot - graphviz version 12.0.0 (bundled)")
  process.exit(0)
}
let [format, engine, output, beside, input] = ["svg", "dot", null, false, 0]
for (let at = 2; at < process.argv.length; at++) {
  const word = process.argv[at]
  if (word.startsWith("-T")) format = word.slice(2)
  else if (word.startsWith("-K")) engine = word.slice(2)
  else if (word === "-O") beside = true
  else if (word === "-o") output = process.argv[++at]
  else if (word.startsWith("-o")) output = word.slice(2)
  else if (!word.startsWith("-")) input = word
}
if (beside) output = `${input}.${format}`
const bundle = path.join(__dirname, "../inspector/ui/assets/vendor/viz-global.js")
const text = fs.readFileSync(input, "utf8")
require(bundle).instance().then((viz) => {
  const result = viz.render(text, { format: format.split(":")[0], engine })
  if (result.status !== "success") {
    console.error(result.errors.map((error) => error.message).join("\n"))
    process.exit(1)
  }
  if (output) fs.writeFileSync(output, result.output)
  else process.stdout.write(result.output)
})
