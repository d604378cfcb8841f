// Lanes: recorded runs on one clock that ticks once per call. Joined behind the stepper's base.js; all text goes in as text nodes.

const TICK = 620;  // ms of a call
const SHOWN = 0, CHECKED = 0.38, JUDGED = 0.6;  // of a call: guesses appear, are read, are kept or struck; at its end it is written
const END_WORDS = { accepted: "kept", rejected: "struck", "not judged": "dropped" };

class Lane {
  constructor(lane) {
    this.calls = lane.calls;
    this.element = make("section", "lane");
    const who = make("div", "whose");
    who.append(make("h3", "", lane.name), make("p", "", lane.how));
    this.text = make("p", "tokens");
    this.count = make("div", "counted");
    this.number = make("b", "", "0");
    this.unit = make("span", "", "calls");
    this.count.append(this.number, this.unit);
    this.element.append(who, this.text, this.count);
    this.ghosts = make("span", "ghosts");
    this.written = this.calls.map((call) => call.tokens.map(([words, origin]) => this.put(words, origin)));
    this.state = "";
  }

  put(words, origin) {
    const made = token(words, `tok ${origin} later`);
    this.text.append(made);
    return made;
  }

  reserve() {  // the place that the whole text and a line of guesses take, so that nothing below moves
    this.text.style.minHeight = "";
    const later = [...this.text.querySelectorAll(".later")];
    later.forEach((one) => one.classList.remove("later"));
    const style = getComputedStyle(this.text), whole = this.text.offsetHeight + (this.guesses() ? parseFloat(style.lineHeight) : 0);
    later.forEach((one) => one.classList.add("later"));
    this.text.style.minHeight = `${Math.ceil(whole)}px`;
  }

  guesses() { return this.calls.some((call) => call.guesses.length); }

  show(clock) {  // clock: calls, with the part of the one that runs
    const done = Math.min(this.calls.length, Math.floor(clock)), part = done < this.calls.length ? clock - done : 0;
    const phase = part >= JUDGED ? 2 : part >= CHECKED ? 1 : part > SHOWN ? 0 : -1;
    const state = `${done} ${phase}`;
    if (state === this.state) return;
    this.state = state;
    this.written.forEach((own, i) => own.forEach((one) => {
      const is = i < done, was = !one.classList.contains("later");
      one.classList.toggle("later", !is);
      if (is && !was && i === done - 1) move(one, [{ transform: "translateY(-5px)", opacity: 0.3 }, { transform: "none", opacity: 1 }], 180);
    }));
    const running = phase >= 0 ? 1 : 0;
    this.number.textContent = String(done + running);
    this.unit.textContent = done + running === 1 ? "call" : "calls";
    this.element.classList.toggle("done", done === this.calls.length);
    this.ghost(this.calls[done], phase, done);
  }

  ghost(call, phase, done) {
    this.ghosts.remove();
    if (!call || phase < 0) return;
    this.ghosts.replaceChildren();
    call.guesses.forEach(([words, verdict]) => {
      const kind = phase === 2 ? ` ${verdict.replace(" ", "-")}` : phase === 1 ? " checked" : "";
      this.ghosts.append(token(words, `tok ghost${kind}`));
    });
    if (!call.guesses.length) this.ghosts.append(make("span", `caret${phase ? " checked" : ""}`, "\u2002"));
    const next = this.written[done]?.[0] || this.written.slice(done).flat()[0];
    if (next) this.text.insertBefore(this.ghosts, next); else this.text.append(this.ghosts);
  }
}

const KEYS = [["ghost", "guessed"], ["ghost checked", "being checked"], ["ghost accepted", "✓ kept"], ["ghost rejected", "✗ struck"],
  ["correction", "↩ the large model's own"]];

class Race {
  constructor(place, data) {
    this.root = make("div", `stp lanes${data.lanes[0]?.width ? " pictures" : ""}`);
    this.lanes = data.lanes.map((lane) => (lane.width ? new PictureLane(lane) : new Lane(lane)));
    this.tickMs = data.tick || TICK;
    this.length = Math.max(...data.lanes.map((lane) => lane.calls.length));
    this.said = make("p", "result", data.result);
    this.said.setAttribute("aria-live", "polite");
    this.again = press("again", "Again", () => this.restart());
    this.pause = press("pause", "Pause", () => this.toggle());
    this.next = press("next", "Next call", () => this.step());
    const bar = make("div", "row"), keys = make("div", "legend");
    bar.append(this.pause, this.next, this.again);
    for (const [kind, words] of data.keys || KEYS) keys.append(make("span", `tok ${kind}`, words));
    const foot = make("div", "below");
    foot.append(bar, keys);
    this.root.append(...this.lanes.map((lane) => lane.element), this.said, foot);
    place.replaceChildren(this.root);
    this.clock = quiet() ? this.length : 0;
    this.playing = !quiet() && !data.waits;
    if (!quiet() && data.waits) this.begin();
    this.watch = new ResizeObserver(() => this.measure());
    this.watch.observe(place);
    this.frame = requestAnimationFrame((now) => this.tick(now));
    this.draw();
  }

  begin() {  // once it is in sight
    this.sight = new IntersectionObserver((seen) => {
      if (!seen.some((one) => one.isIntersecting)) return;
      this.sight.disconnect();
      if (this.clock === 0) { this.playing = true; this.draw(); }
    }, { threshold: 0.6 });
    this.sight.observe(this.root);
  }

  measure() {
    if (this.width === this.root.clientWidth) return;
    this.width = this.root.clientWidth;
    this.lanes.forEach((lane) => lane.reserve());
  }

  tick(now) {
    const since = Math.min(200, now - (this.before ?? now));  // a tab that slept goes on where it was
    this.before = now;
    if (this.playing) {
      this.clock = Math.min(this.length, this.clock + since / this.tickMs);
      if (this.clock === this.length) this.playing = false;
      this.draw();
    }
    this.frame = requestAnimationFrame((next) => this.tick(next));
  }

  draw() {
    this.lanes.forEach((lane) => lane.show(this.clock));
    const over = this.clock >= this.length;
    this.said.classList.toggle("over", over);
    this.said.toggleAttribute("aria-hidden", !over);
    this.pause.disabled = over;
    this.pause.textContent = this.playing || over ? "Pause" : "Play";
    this.next.disabled = over;
    this.root.dataset.state = over ? "over" : this.playing ? "playing" : "paused";
  }

  restart() {
    this.clock = 0;
    this.playing = !quiet();
    this.draw();
  }

  toggle() {
    this.playing = !this.playing;
    this.draw();
  }

  step() {  // a whole call
    this.playing = false;
    this.clock = Math.min(this.length, Math.floor(this.clock) + 1);
    this.draw();
  }

  end() {
    cancelAnimationFrame(this.frame);
    this.watch.disconnect();
    this.sight?.disconnect();
  }
}

export default function ({ data, parentElement }) {
  const place = parentElement.querySelector(".lanes-place");
  if (place.race) return;
  place.race = new Race(place, data);
  return () => { place.race?.end(); place.race = null; };
}
