// Draws at one place: outlines of p, bars of q, and bars that fill as the draws are counted. What was drawn comes from draws.py.
"use strict";

const LASTS = 5000;  // ms of all draws; the first ones take as long as the last thousands
const quiet = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

function make(tag, kind, text, above) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  above?.append(made);
  return made;
}
const percent = (x) => `${(100 * x).toFixed(x > 0 && x < 0.0995 ? 1 : 0)}\u202f%`;

class Draws {
  constructor(place) {
    this.element = make("section", "drw", undefined, place);
    this.number = 0;
  }

  take(data) {
    if (data.number < this.number) return;
    const again = data.number !== this.number;
    this.number = data.number;
    this.element.classList.toggle("large", Boolean(data.large));
    if (!again) return;
    clearInterval(this.timer);
    this.data = data;
    this.series = [["right", "by the rule", data.right], ...(data.both ? [["wrong", "by the other rule", data.wrong]] : [])];
    this.build();
    const last = data.after.length - 1;
    if (last < 0 || quiet() || !data.play) { this.show(last); return; }
    const began = performance.now();
    this.show(0);
    this.timer = setInterval(() => {
      const done = Math.min(1, (performance.now() - began) / LASTS);
      this.show(Math.round(done * last));
      if (done === 1 || !this.element.isConnected) clearInterval(this.timer);
    }, 50);
  }

  build() {
    const { data } = this, keys = make("div", "keys"), grid = make("div", "grid");
    const top = Math.max(...data.p, ...data.q), width = (share) => `${(86 * share) / top}%`;
    const entries = [["p", "the large model alone (p)"], ["q", "what is guessed (q)"], ...(data.after.length ? this.series : [])];
    for (const [kind, name] of entries) { const key = make("span", "", undefined, keys); make("i", kind, undefined, key); key.append(name); }
    this.width = width;
    this.bars = data.names.map((name, i) => {
      make("div", i === data.names.length - 1 ? "name others" : "name", name, grid);
      const tracks = make("div", "tracks", undefined, grid), bars = {};
      const outline = (track) => { make("u", "", undefined, track).style.width = width(data.p[i]); };
      const guess = make("div", "track", undefined, tracks);
      make("b", "q", undefined, guess).style.width = width(data.q[i]);
      make("span", "", percent(data.q[i]), guess).style.left = `calc(${width(data.q[i])} + 6px)`;
      for (const [kind] of data.after.length ? this.series : [["right"]]) {
        const track = make("div", "track", undefined, tracks);
        bars[kind] = { fill: make("b", kind, undefined, track), said: make("span", "", "", track) };
        outline(track);
        if (!data.after.length) { bars[kind].said.textContent = percent(data.p[i]); bars[kind].said.style.left = `calc(${width(data.p[i])} + 6px)`; }
      }
      return bars;
    });
    this.count = make("p", "count");
    this.count.setAttribute("role", "status");
    this.far = make("p", "far");
    this.element.replaceChildren(keys, grid, this.count, this.far);
    if (!data.after.length) this.far.textContent = "Nothing was drawn yet.";
  }

  show(k) {
    const { data } = this;
    if (k < 0) return;
    const all = data.after[k], said = [];
    for (const [kind, name, counts] of this.series) {
      let far = 0;
      this.bars.forEach((bars, i) => {
        const share = counts[k][i] / all, { fill, said: words } = bars[kind];
        far += Math.abs(share - data.p[i]) / 2;
        fill.style.width = this.width(share);
        words.textContent = percent(share);
        words.style.left = `calc(${this.width(Math.max(share, data.p[i]))} + 6px)`;
      });
      said.push(`${name} ${(100 * far).toFixed(1)}\u202f%`);
    }
    this.count.textContent = `${all.toLocaleString("en-GB")} ${all === 1 ? "draw" : "draws"}`;
    this.far.textContent = `Away from p (total variation): ${said.join(", ")}. Seed ${data.seed}.`;
    this.element.dataset.after = all;
  }
}

export default function ({ data, parentElement }) {
  const place = parentElement.querySelector(".drw-place") || parentElement;
  (place.draws ??= new Draws(place)).take(data);
}
