// Lanes whose runs draw a picture: pixels in place of words, on the clock of lanes.js, behind which this file is joined.

class PictureLane {
  constructor(lane) {
    this.calls = lane.calls;
    this.element = make("section", "lane picture");
    const who = make("div", "whose");
    who.append(make("h3", "", lane.name), make("p", "", lane.how));
    this.field = make("div", "field");
    this.field.setAttribute("role", "img");
    this.field.setAttribute("aria-label", lane.says);
    this.field.style.gridTemplateColumns = `repeat(${lane.width}, 1fr)`;
    this.pixels = Array.from({ length: lane.width * lane.height }, () => make("i"));
    this.field.append(...this.pixels);
    this.count = make("div", "counted");
    this.number = make("b", "", "0");
    this.unit = make("span", "", "calls");
    this.count.append(this.number, this.unit);
    this.element.append(who, this.field, this.count);
    this.starts = [];
    lane.calls.reduce((at, call) => { this.starts.push(at); return at + call.tokens.length; }, 0);
    this.state = "";
  }

  reserve() {}  // a picture has its place

  show(clock) {  // clock: calls, with the part of the one that runs
    const done = Math.min(this.calls.length, Math.floor(clock)), part = done < this.calls.length ? clock - done : 0;
    const judged = part >= JUDGED, state = `${done} ${part > 0} ${judged}`;
    if (state === this.state) return;
    this.state = state;
    this.pixels.forEach((one) => { one.className = ""; one.style.backgroundColor = ""; });
    this.calls.slice(0, done).forEach((call, i) => call.tokens.forEach(([colour], k) => this.paint(this.starts[i] + k, colour, "there")));
    if (part > 0) {
      const start = this.starts[done];
      this.calls[done].guesses.forEach(([colour, verdict], k) => this.paint(start + k, colour, judged ? verdict.replace(" ", "-") : "guess"));
      if (!this.calls[done].guesses.length) this.paint(start, "", "guess");
    }
    const number = done + (part > 0 ? 1 : 0);
    this.number.textContent = String(number);
    this.unit.textContent = number === 1 ? "call" : "calls";
    this.element.classList.toggle("done", done === this.calls.length);
  }

  paint(place, colour, kind) {
    const one = this.pixels[place];
    if (!one) return;
    one.className = kind;
    one.style.backgroundColor = colour;
  }
}
