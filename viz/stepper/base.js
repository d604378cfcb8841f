// The stepper's alphabet: elements, tokens, numbers, words. All text goes onto the page as text nodes, never as markup.
// The files of this folder are one module, joined by assets.py: no import, nothing from outside.
"use strict";

const VERDICTS = ["accepted", "rejected", "not judged"], ORIGINS = ["accepted", "bonus", "correction", "plain"];
const PHASES = ["Guess", "Check", "Judge", "Write"];
const GUESS = 0, CHECK = 1, JUDGE = 2, WRITE = 3;
const STATE_WORDS = { accepted: "kept", rejected: "refused", "not judged": "not judged", correction: "the large model's own",
  bonus: "one more from the same call", plain: "the large model's own" };
const STATE_MARKS = { accepted: "✓", rejected: "✗", "not judged": "", correction: "↩", bonus: "+", plain: "·" };
const ROOT = -1;
const PARENT = 0, TOKEN = 1, VERDICT = 2, P = 3, Q = 4, U = 5, BORDER = 6, SAYS = 7, NUMBERS = 9, SOURCE = 10;  // of a node

function make(tag, kind, text) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}
function svg(tag, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}
function press(kind, text, act, label) {
  const made = make("button", kind, text);
  made.type = "button";
  made.addEventListener("click", act);
  if (label) made.setAttribute("aria-label", label);
  return made;
}

// A token: its leading space is a thin mark, line breaks and tabs are dim glyphs, everything else is as it is.
function token(text, kind = "tok") {
  const made = make("span", kind);
  let plain = "";
  const flush = () => { if (plain) made.append(plain); plain = ""; };
  for (const c of text) {
    if (!"␣↵⇥".includes(c)) { plain += c; continue; }
    flush();
    made.append(make("span", c === "␣" ? "sp" : "ws", c === "␣" ? " " : c));
  }
  flush();
  return made;
}

// A token as a screen reader says it: no marks for what is not seen.
function heard(text) {
  return text.replaceAll("␣", " ").replaceAll("↵", " line break ").replaceAll("⇥", " tab ").trim() || "space";
}

const quiet = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;
function move(element, frames, ms, delay = 0) {  // one short motion, to where the element is anyway
  if (quiet() || !element.animate || document.hidden) return null;
  return element.animate(frames, { duration: ms, delay, easing: "ease-out", fill: "backwards" });
}

const NARROW = "\u202f";
function decimals(x) {
  if (x === null || x === undefined) return "–";
  if (x === 0 || x === 1) return String(x);
  if (x < 0.0001) return x.toExponential(0);
  return x < 0.0995 ? String(Number(x.toPrecision(2))) : x.toFixed(2);
}
function percents(x) {
  if (x === null || x === undefined) return "–";
  if (x > 0 && x < 0.001) return `<0.1${NARROW}%`;
  const digits = x < 0.0995 && x > 0 ? 1 : x >= 0.995 && x < 1 ? 2 : 0;
  return `${Number((100 * x).toFixed(digits))}${NARROW}%`;
}

// What the reader chose once: 59 % or 0.59. A page from disk may have no place to keep it.
const CHOICE = "draftscope.unit";
function chosenUnit() { try { return localStorage.getItem(CHOICE) === "1" ? 1 : 0; } catch { return 0; } }
function keepUnit(unit) { try { localStorage.setItem(CHOICE, String(unit)); } catch { /* for this page only */ } }
