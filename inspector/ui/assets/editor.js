// The lab's code editor. Python replaces its text by a new revision; what is typed goes back.

import * as cm from "./vendor/codemirror.esm.js"
import { readTheme } from "./theme.js"

const SYNC_MS = 300
const THEME_CHECK_MS = 400

const highlighting = cm.syntaxHighlighting(cm.HighlightStyle.define([
  { tag: [cm.tags.keyword, cm.tags.operatorKeyword, cm.tags.bool, cm.tags.null, cm.tags.self], class: "tok-keyword" },
  { tag: [cm.tags.string, cm.tags.special(cm.tags.string)], class: "tok-string" },
  { tag: cm.tags.number, class: "tok-number" },
  { tag: cm.tags.comment, class: "tok-comment" },
  { tag: [cm.tags.definition(cm.tags.function(cm.tags.variableName)), cm.tags.definition(cm.tags.className)], class: "tok-definition" },
]))

const setError = cm.StateEffect.define()
const errorLine = cm.StateField.define({
  create: () => cm.Decoration.none,
  update(marks, transaction) {
    for (const effect of transaction.effects) {
      if (!effect.is(setError)) continue
      const { doc } = transaction.state
      if (effect.value < 1 || effect.value > doc.lines) return cm.Decoration.none
      const mark = cm.Decoration.line({ class: "cm-error-line" })
      return cm.Decoration.set([mark.range(doc.line(effect.value).from)])
    }
    return marks.map(transaction.changes)
  },
  provide: (field) => cm.EditorView.decorations.from(field),
})

// A long line continues below its own indentation, two columns in.
const hanging = cm.StateField.define({
  create: (state) => indents(state.doc),
  update: (marks, transaction) => (transaction.docChanged ? indents(transaction.newDoc) : marks),
  provide: (field) => cm.EditorView.decorations.from(field),
})

function indents(doc) {
  const marks = []
  for (let number = 1; number <= doc.lines; number++) {
    const line = doc.line(number)
    const columns = line.text.search(/\S|$/) + 2
    const style = `text-indent:-${columns}ch;padding-left:calc(${columns}ch + 6px)`
    marks.push(cm.Decoration.line({ attributes: { style } }).range(line.from))
  }
  return cm.Decoration.set(marks)
}

class Editor {
  constructor(root, parent) {
    this.root = root
    this.revision = null
    this.timer = 0
    this.view = new cm.EditorView({
      parent: root,
      root: parent instanceof ShadowRoot ? parent : undefined,
      extensions: this.extensions(),
    })
    this.clock = setInterval(() => this.follow(), THEME_CHECK_MS)
    this.follow()
  }

  extensions() {
    const run = () => (this.run(), true)
    return [
      cm.Prec.highest(cm.keymap.of([{ key: "Mod-Enter", run }, { key: "Shift-Enter", run }])),
      cm.lineNumbers(), cm.highlightSpecialChars(), cm.history(), cm.drawSelection(),
      cm.indentOnInput(), cm.bracketMatching(), cm.closeBrackets(), cm.highlightActiveLine(),
      cm.highlightActiveLineGutter(), cm.indentUnit.of("    "), cm.EditorView.lineWrapping,
      cm.python(), highlighting, errorLine, hanging,
      // Escape, then Tab, leaves the editor by keyboard: CodeMirror sees to it.
      cm.keymap.of([...cm.closeBracketsKeymap, ...cm.defaultKeymap, ...cm.historyKeymap, cm.indentWithTab]),
      cm.EditorView.contentAttributes.of({ "aria-label": "Snippet" }),
      cm.EditorView.updateListener.of((update) => update.docChanged && !this.replacing && this.typed()),
      cm.EditorView.domEventHandlers({ blur: () => { this.sync() } }),
    ]
  }

  update(component) {
    const { data, setStateValue, setTriggerValue } = component
    this.state = setStateValue
    this.trigger = setTriggerValue
    if (data.revision !== this.revision) {
      clearTimeout(this.timer)
      this.dirty = false
      this.revision = data.revision
      this.replace(data.code)
    }
    if (!this.dirty) this.view.dispatch({ effects: setError.of(data.error_line) })
  }

  // Only what differs is replaced, so that cursor and scroll position stay.
  replace(text) {
    const old = this.view.state.doc.toString()
    let start = 0
    while (start < old.length && start < text.length && old[start] === text[start]) start++
    let [end, stop] = [old.length, text.length]
    while (end > start && stop > start && old[end - 1] === text[stop - 1]) { end--; stop-- }
    this.replacing = true
    this.view.dispatch({ changes: { from: start, to: end, insert: text.slice(start, stop) } })
    this.replacing = false
  }

  typed() {
    this.dirty = true
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.sync(), SYNC_MS)
  }

  content() {
    return { code: this.view.state.doc.toString(), revision: this.revision }
  }

  sync() {
    clearTimeout(this.timer)
    if (!this.dirty) return
    this.dirty = false
    this.state("typed", this.content())
  }

  run() {
    clearTimeout(this.timer)
    this.dirty = false
    this.state("typed", this.content())
    // A trigger is delivered once per value: the number makes every press a new one.
    this.trigger("run", { ...this.content(), press: (this.presses = (this.presses ?? 0) + 1) })
  }

  follow() {
    this.root.firstElementChild?.classList.toggle("dark", readTheme(this.root).dark)
  }

  destroy() {
    clearInterval(this.clock)
    clearTimeout(this.timer)
    this.view.destroy()
  }
}

const editors = new WeakMap()

/** Streamlit calls this at every script run; text, cursor and history stay. */
export function mount(component) {
  const root = component.parentElement.querySelector(".editor")
  let editor = editors.get(root)
  if (!editor) editors.set(root, (editor = new Editor(root, component.parentElement)))
  editor.update(component)
  return () => {
    // A rerun may call this and mount again on the same element; only a removed one is done with.
    queueMicrotask(() => {
      if (root.isConnected) return
      editor.destroy()
      editors.delete(root)
    })
  }
}
