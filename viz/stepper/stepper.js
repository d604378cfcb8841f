// The stepper itself: which call, which phase, which guess; and what the page is told of that. Everything here is local: Back, Next,
// Play, phases and looking around ask nobody. What data.py makes is taken in by `take`, a step at a time as it comes.

const KEPT_RUNS = 4, REST_MS = 350, TAIL = 16;  // runs a page remembers; ms without a move before the page is told; steps sent twice
const LOST_MS = 8000;  // without a word of an answer: it may be asked for again
const SCROLLBAR = 18;  // px: one that comes and goes must not draw the tree anew under the pointer

function memory() { return (window.draftscopeRuns ??= { runs: new Map(), views: new Map() }); }

function stored(run) {  // the steps of a run that have come to this page, whichever stepper they came to
  const { runs } = memory();
  const found = runs.get(run) || { head: null, steps: [], names: new Map(), joined: [] };
  runs.delete(run);
  runs.set(run, found);
  for (const old of runs.keys()) { if (runs.size <= KEPT_RUNS) break; runs.delete(old); }
  return found;
}

class Stepper {
  constructor(place) {
    this.at = -1; this.phase = WRITE; this.pinned = null; this.looked = null;
    this.unit = chosenUnit();
    this.data = {}; this.steps = []; this.number = 0; this.order = null; this.run = null; this.lights = new Set();
    this.element = make("section", "stp");
    this.build();
    place.append(this.element);
    this.watch = new ResizeObserver(() => { if (Math.abs(this.tree.drawnFor - this.tree.room().width) > SCROLLBAR) this.tree.draw(); });
    this.watch.observe(this.tree.frame);
  }

  build() {
    this.line = make("p", "line");
    this.line.setAttribute("role", "status");
    this.line.setAttribute("aria-live", "polite");
    this.under = make("p", "under");
    this.phases = make("div", "phases");
    this.phases.setAttribute("role", "group");
    this.phases.setAttribute("aria-label", "The four phases of a call; Shift and an arrow key go through them");
    this.chips = PHASES.map((name, i) => press("phase", `${i + 1} ${name}`, () => this.toPhase(i)));
    this.phases.append(...this.chips);
    this.units = press("unit", "", () => this.toUnit(1 - this.unit));
    this.text = new Text(this);
    this.tree = new Tree(this);
    this.panel = new Panel(this);
    this.table = new Table(this);
    this.bar = new Bar(this);
    this.main = make("div", "main");
    this.main.append(this.tree.frame, this.panel.element);
    this.head = make("div", "top");
    const tools = make("div", "right");
    tools.append(this.tree.tools, this.units);
    this.head.append(this.phases, tools);
    const said = make("div", "said-of");
    said.append(this.line, this.under);
    this.element.append(said, this.head, this.text.element, this.main, this.table.element, this.bar.element);
    const over = (event) => {
      const found = event.target.closest?.("[data-n]");
      this.look(found ? Number(found.dataset.n) : null, found);
      const word = event.target.closest?.(".tok[data-step]");
      this.lightStep(word ? Number(word.dataset.step) : null);
    };
    this.element.addEventListener("pointerover", over);
    this.element.addEventListener("pointerleave", () => { this.look(null); this.lightStep(null); });
    this.element.addEventListener("focusin", (event) => {
      const found = event.target.closest?.("[data-n]");
      if (found && event.target.matches(":focus-visible")) this.look(Number(found.dataset.n), found);
    });
  }

  // -- what comes from the page ---------------------------------------------------------------------------------------

  take(data, report) {
    if (data.number < this.number) return;  // calls may come in any order while the browser still loads this code
    this.number = data.number;
    this.report = report;
    const fresh = data.run !== this.run;
    this.data = data;
    if (fresh) this.other(data);
    const store = this.store, had = store.steps.length;
    if (data.head) store.head = data.head;
    if (data.from > had || !store.head) {  // what lies between never came
      if (report) report.ask("resend", this.told(store.head ? had : 0));
      return;
    }
    for (const [id, name] of Object.entries(data.names)) store.names.set(Number(id), name);
    store.steps.push(...data.steps.slice(Math.max(0, had - data.from)));
    store.joined = data.joined;
    this.settle(data);
    if (fresh) this.text.begin(store.head);
    this.text.grow(store.steps);
    this.text.brackets(store.joined);
    if (fresh || store.steps.length > had) this.bar.grow(store.steps);
    const before = this.at, partly = this.order === null;
    this.place(data, fresh, store.steps.length > this.drawn);
    this.drawn = store.steps.length;
    this.draw(this.at !== before && !fresh && !partly);
    if (this.incomplete) this.askForRest();
    else if (data.more && data.steps.length >= TAIL) this.tell();
  }

  get incomplete() { return this.steps.length < this.data.count; }

  askForRest() {  // a long run comes in parts; a question that went down with the connection is put again
    if (!this.report || !this.incomplete || this.wants === this.steps.length) return;
    this.wants = this.steps.length;
    this.report.ask("resend", this.told());
    clearTimeout(this.asking);
    this.asking = setTimeout(() => { this.wants = null; this.askForRest(); }, LOST_MS);
  }

  other(data) {  // another run: what this page has of it, and where the reader stood in it
    this.stop();
    this.run = data.run;
    this.store = stored(data.run);
    this.steps = this.store.steps;
    this.drawn = this.steps.length;
    this.text.clear();
    this.tree.tallest = 0;
    this.waiting = false; this.wants = null;
    const view = memory().views.get(data.key);
    if (view && view.run === data.run && view.order === data.order) {
      Object.assign(this, { at: view.at, phase: view.phase, pinned: view.pinned, order: view.order });
    } else this.order = null;
  }

  settle(data) {  // how it looks
    this.mode = data.mode; this.small = data.mode === "small"; this.large = Boolean(data.large); this.alone = Boolean(data.alone);
    this.lights = new Set(data.lights);
    const kind = ["stp", data.mode, this.large ? "large" : "", this.alone ? "alone" : ""].filter(Boolean).join(" ");
    if (this.element.className !== kind) this.element.className = kind;
    const hide = (element, on) => { element.hidden = !on; };
    hide(this.line.parentNode, data.show.sentence); hide(this.head, data.show.phases);
    hide(this.text.element, data.show.text); hide(this.tree.frame, data.show.tree); hide(this.panel.element, data.show.bars);
    hide(this.main, data.show.tree || data.show.bars); hide(this.table.element, data.show.table); hide(this.bar.element, data.show.transport);
  }

  place(data, fresh, grew) {  // where to stand: the page has a say when it changes its mind, the reader otherwise
    if (data.order !== this.order) {
      this.order = this.incomplete ? null : data.order;  // where it is to stand may be among what is still to come
      [this.at, this.phase, this.pinned] = data.at;
    } else if (grew && this.waiting) {
      this.at = Math.min(this.at + 1, this.steps.length - 1);
      this.phase = this.timer && this.bar.pace.value === "phases" ? GUESS : WRITE;
      this.pinned = null;
      this.moved(false);
    }
    if (grew || !data.busy) this.waiting = false;
    this.at = Math.max(-1, Math.min(this.at, this.steps.length - 1));
  }

  // -- moving ---------------------------------------------------------------------------------------------------------

  go(at, phase = WRITE, motion = false) {
    const goal = Math.max(-1, Math.min(this.steps.length - 1, at));
    if (goal === this.at && phase === this.phase) return;
    if (goal !== this.at) this.pinned = null;
    this.at = goal; this.phase = phase; this.looked = null;
    this.draw(motion);
    this.moved();
  }
  back() { this.stop(); this.go(this.at - 1); }
  next() {
    this.stop();
    if (this.data.again) this.ask();
    else if (this.at >= 0 && this.phase < WRITE) this.go(this.at, WRITE, true);  // first this call to its end
    else if (this.at < this.steps.length - 1) this.go(this.at + 1, WRITE, true);
    else this.ask();
  }
  toPhase(phase) { this.stop(); if (this.at >= 0) { if (phase === this.phase) this.motion(phase); else this.go(this.at, phase, true); } }
  phaseOn(by) {
    this.stop();
    const goal = this.phase + by;
    if (this.at >= 0 && goal >= GUESS && goal <= WRITE) this.go(this.at, goal, by > 0);
    else if (goal > WRITE && this.at < this.steps.length - 1) this.go(this.at + 1, GUESS, true);
    else if (goal > WRITE) this.ask();
    else if (this.at > 0) this.go(this.at - 1, WRITE);
  }
  pin(node) {
    this.pinned = node; this.looked = null;
    this.draw(false);
    this.moved();
  }
  get node() {  // the guess that the panel speaks of
    const step = this.steps[this.at];
    return this.pinned ?? (step ? step.open : ROOT);
  }

  get more() {  // whether Play asks for another step; where the settings have changed that would be another run, in this one's place
    return this.data.more && !(this.data.again && this.steps.length);
  }
  toggle() {
    if (this.timer) { this.stop(); this.moved(); return; }
    if (this.at >= this.steps.length - 1 && !this.more) this.go(0, this.bar.pace.value === "phases" ? GUESS : WRITE);
    this.beat();
    this.bar.show();
  }
  beat() {
    const [pace, , ms] = PACES.find(([key]) => key === this.bar.pace.value);
    this.timer = setTimeout(() => {
      const last = this.steps.length - 1;
      if (pace === "phases" && this.at >= 0 && this.phase < WRITE) this.go(this.at, this.phase + 1, true);
      else if (this.at < last) this.go(this.at + 1, pace === "phases" ? GUESS : WRITE, pace !== "fast");
      else if (!this.more) { this.stop(); this.moved(); return; }
      if (this.at >= this.steps.length - 1 && this.more) this.ask();
      this.beat();
    }, ms);
  }
  stop() { clearTimeout(this.timer); this.timer = null; if (this.data.show) this.bar.show(); }

  // -- what the page is told ------------------------------------------------------------------------------------------

  told(have = this.steps.length) {
    return { run: this.run, order: this.order, step: this.at, phase: this.phase, node: this.pinned, have };
  }
  moved(tell = true) {
    memory().views.set(this.data.key, { run: this.run, order: this.order, at: this.at, phase: this.phase, pinned: this.pinned });
    if (tell && !this.timer) this.tell();
  }
  tell() {
    clearTimeout(this.telling);
    if (this.report) this.telling = setTimeout(() => this.report.state(this.told()), REST_MS);
  }
  ask() {
    const heard = this.waiting && performance.now() - this.asked < LOST_MS;  // a press goes down with the connection
    if (!this.report || !this.data.more || heard || this.data.busy) return;
    this.waiting = true; this.asked = performance.now();
    clearTimeout(this.telling);
    this.report.ask("step", this.told());
  }

  // -- drawing --------------------------------------------------------------------------------------------------------

  draw(motion) {
    const step = this.steps[this.at], { phase } = this;
    this.element.dataset.phase = phase;
    this.element.dataset.step = this.at + 1;
    this.speak(step, phase);
    this.chips.forEach((chip, i) => {
      chip.setAttribute("aria-pressed", i === phase && this.at >= 0);
      chip.disabled = this.at < 0;
    });
    this.units.textContent = `59${NARROW}%`;
    this.units.replaceChildren(make("span", this.unit ? "" : "on", `59${NARROW}%`), make("span", this.unit ? "on" : "", "0.59"));
    this.units.setAttribute("aria-label", `Probabilities ${this.unit ? "as decimals; press for per cent" : "in per cent; press for decimals"}`);
    this.text.show(this.at, phase);
    this.bar.show();
    if (step) {
      if (this.data.show.tree) this.tree.show(step, this.plain(this.alt(step)));
      this.tree.frame.hidden = !this.data.show.tree;
    } else this.tree.frame.hidden = true;
    this.panel.element.hidden = !this.data.show.bars || !step;
    this.looks();
    this.table.show(step);
    this.light();
    this.heard?.(this.at);
    if (motion && step) this.motion(phase);
  }

  motion(phase) {
    if (this.data.show.tree) this.tree.motion(phase);
    this.panel.motion(phase);
    if (phase === WRITE && this.data.show.text) this.text.fly(this.tree);
  }

  speak(step, phase) {
    if (!step) {
      this.line.textContent = this.data.empty || "The prompt, before the first call.";
      this.under.textContent = "";
      return;
    }
    const node = step.nodes[this.node], verdict = node && VERDICTS[node[VERDICT]];
    const told = node && (phase >= JUDGE) && (this.pinned !== null || verdict === "rejected");
    const text = told ? step.strings[node[SAYS + this.unit]] : step.say[["guess", "check", "judge", "write"][phase]];
    this.said = told ? node : null;  // of which the headline speaks: the panel need not say it again
    this.line.replaceChildren(this.sentence(step, text, this.said));
    const more = phase === WRITE && told ? [this.sentence(step, step.say.write)] : phase === JUDGE && told ? [step.say.judge] : [];
    if (step.ending && phase === WRITE) more.push(` The run ends here: ${step.ending}.`);
    this.under.replaceChildren(...more);
  }

  alt(step) {
    const kept = step.nodes.filter((node) => node[VERDICT] === 0).length, refused = step.nodes.filter((node) => node[VERDICT] === 1).length;
    if (!step.nodes.length) return "No guesses in this call";
    return `Draft tree of ${step.nodes.length} guesses, ${step.depth} deep`
      + (this.phase >= JUDGE ? `: ${kept} kept, ${refused} refused, ${step.nodes.length - kept - refused} not judged` : "");
  }

  looks() {  // the panel, and with it the box that it speaks of
    const step = this.steps[this.at];
    if (!step) return;
    if (this.data.show.tree) this.tree.choose(this.node);
    this.panel.element.style.minHeight = "";
    if (this.data.show.bars) this.panel.show(step, this.looked ?? this.node, this.phase);
  }

  look(node, from) {
    if (node === this.looked) return;
    this.looked = node;
    this.light();
    if (from && this.panel.element.contains(from)) return;  // what the pointer is on stays where it is
    const step = this.steps[this.at], panel = this.panel.element;
    if (step && this.data.show.bars) {
      panel.style.minHeight = `${panel.offsetHeight}px`;  // a page that gets shorter would draw the box away from under the pointer
      this.panel.show(step, node ?? this.node, this.phase);
    }
    this.light();
  }

  light() {  // everything that means the same lights up together
    for (const lit of this.element.querySelectorAll(".lit")) lit.classList.remove("lit");
    if (this.looked !== null) for (const one of this.element.querySelectorAll(`[data-n="${this.looked}"]`)) one.classList.add("lit");
    const parts = { text: this.text.element, tree: this.tree.frame, sentence: this.line, phases: this.phases, calls: this.bar.strip,
      next: this.bar.next, play: this.bar.play, why: this.panel.element };
    for (const name of this.lights) {
      if (name in parts) parts[name].classList.add("lit");
      else if (name.startsWith("node:")) for (const one of this.element.querySelectorAll(`[data-n="${Number(name.slice(5))}"]`)) one.classList.add("lit");
      else if (name === "die" || name === "bars") this.element.querySelector(name === "die" ? ".die" : ".dist")?.classList.add("lit");
      else if (name.startsWith("phase:")) this.chips[Number(name.slice(6))]?.classList.add("lit");
    }
  }
  lightStep(step) {
    if (step === this.glowing) return;
    this.glowing = step;
    this.bar.stand(this.bar.glow, step === null ? -1 : step);
    for (const one of this.element.querySelectorAll(".tok.glow")) one.classList.remove("glow");
    if (step !== null) for (const one of this.text.steps[step] || []) one.classList.add("glow");
  }

  toUnit(unit) {
    this.unit = unit;
    keepUnit(unit);
    this.draw(false);
  }

  // -- words ----------------------------------------------------------------------------------------------------------

  get share() { return this.unit ? decimals : percents; }
  short(id) { return this.store.names.get(id)?.[0] ?? `#${id}`; }
  word(id, kind = "tok", whole = false) {  // a token; one that is a pixel bears its colour
    const [short, full, colour] = this.store.names.get(id) ?? [`#${id}`, `#${id}`], made = token(whole ? full : short, kind);
    if (colour) { made.classList.add("px"); made.style.setProperty("--px", colour); }
    return made;
  }
  full(id) { return this.store.names.get(id)?.[1] ?? `#${id}`; }
  plain(text) { return text.replace(/\u0002(\d+)\u0003/g, (_, id) => this.short(Number(id))); }
  columns() { return Math.min(4, Math.max(2, ...this.steps.map((step) => step.depth))); }
  treeHeight() { return Math.max(230, Math.min(560, window.innerHeight - (this.large ? 420 : 440))); }

  sentence(step, text, node = null) {  // with its tokens as tokens, which light up with their boxes
    const made = document.createDocumentFragment(), final = step.nodes.length;
    let before = -1;
    for (const [i, part] of text.split(/\u0002|\u0003/).entries()) {
      if (i % 2 === 0) { made.append(part); continue; }
      const id = Number(part), last = step.final && step.tokens[step.tokens.length - 1];
      let index = node && node[TOKEN] === id ? step.nodes.indexOf(node) : step.nodes.findIndex((n, k) => k > before && n[TOKEN] === id);
      if (last && last[0] === id && (node || index < 0)) index = node && node[TOKEN] === id ? index : final;
      const word = this.word(id, "tok name");
      if (index >= 0) {
        before = index;
        word.dataset.n = index;
        const state = index === final ? ORIGINS[last[1]] : VERDICTS[step.nodes[index][VERDICT]];
        if (this.phase >= JUDGE) word.classList.add(kindOf(state));
      }
      made.append(word);
    }
    return made;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const on = event.composedPath()[0];
    if (on.closest?.("input, textarea, select, [contenteditable=true], [role=combobox], [role=slider], [role=tab], [role=radio]")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.shiftKey && key === "ArrowRight") this.phaseOn(1);
    else if (event.shiftKey && key === "ArrowLeft") this.phaseOn(-1);
    else if (event.shiftKey) return;
    else if (key === "ArrowLeft" || key === "j") this.back();
    else if (key === "ArrowRight" || key === "k") this.next();
    else if (key === "p") this.toggle();
    else if (key === "Home" && !on.closest?.("button")) this.go(0);
    else if (key === "End" && !on.closest?.("button")) this.go(this.steps.length - 1);
    else if (key >= "1" && key <= "4" && this.data.digits !== false) this.toPhase(Number(key) - 1);
    else return;
    event.preventDefault();
  }

  listen(on) {  // one place on the page: an older stepper's clean-up may come late, never, or while it is still there
    document.removeEventListener("keydown", window.draftscopeKeys);
    window.draftscopeKeys = on ? (event) => this.key(event) : null;
    if (on) document.addEventListener("keydown", window.draftscopeKeys);
    this.listens = on;
  }
  gone() {
    if (this.element.isConnected) return;
    clearTimeout(this.timer); clearTimeout(this.telling); clearTimeout(this.asking);
    this.watch.disconnect();
    if (this.listens) this.listen(false);
  }
}

export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  const place = parentElement.querySelector(".stp-place") || parentElement;
  const stepper = (place.stepper ??= new Stepper(place));
  const report = setTriggerValue && {
    state: (told) => setStateValue("at", told),
    ask: (what, told) => setTriggerValue("ask", { key: what, at: performance.timeOrigin + performance.now(), ...told }),
  };
  stepper.take(data, report);
  if (data.keys && (!stepper.handler || window.draftscopeKeys !== stepper.handler)) { stepper.listen(true); stepper.handler = window.draftscopeKeys; }
  return () => stepper.gone();
}
