// The bar at the bottom: back, on, play, and a strip with one bar per call, as high as the tokens that it gave.

const PACES = [["phases", "phase by phase", 750], ["calls", "a call a second", 1000], ["fast", "four calls a second", 250]];

class Bar {
  constructor(stepper) {
    this.stepper = stepper;
    this.element = make("nav", "bar");
    this.element.setAttribute("aria-label", "Calls");
    const named = (button, name, key) => { button.dataset.do = name; if (key) button.append(make("kbd", "", key)); return button; };
    this.back = named(press("", "Back", () => stepper.back()), "back", "← J");
    this.next = named(press("first", "Next", () => stepper.next()), "next", "→ K");
    this.play = named(press("", "Play", () => stepper.toggle()), "play", "P");
    this.pace = make("select", "pace");
    this.pace.setAttribute("aria-label", "Pace of Play");
    for (const [key, name] of PACES) { const option = make("option", "", name); option.value = key; this.pace.append(option); }
    this.pace.value = "calls";
    this.strip = make("div", "scrub");
    this.strip.tabIndex = 0;
    this.strip.setAttribute("role", "slider");
    this.strip.setAttribute("aria-label", "Call; the bars are as high as the tokens it gave");
    this.strip.setAttribute("aria-valuemin", "1");
    this.picture = svg("svg", { preserveAspectRatio: "none", "aria-hidden": "true" }, this.strip);
    this.all = svg("path", { class: "calls" }, this.picture);
    this.mark = svg("rect", { class: "here", y: 0 }, this.picture);
    this.glow = svg("rect", { class: "glow", y: 0, width: 0 }, this.picture);
    this.count = make("span", "count");
    this.element.append(this.back, this.next, this.play, this.pace, this.strip, this.count);
    this.listen();
  }

  listen() {
    let down = false;
    const to = (event) => {
      const box = this.strip.getBoundingClientRect(), count = this.stepper.steps.length;
      return Math.max(0, Math.min(count - 1, Math.floor(((event.clientX - box.left) / box.width) * count)));
    };
    this.strip.addEventListener("pointerdown", (event) => {
      if (!this.stepper.steps.length) return;
      down = true; this.strip.setPointerCapture(event.pointerId); this.stepper.go(to(event), WRITE);
    });
    this.strip.addEventListener("pointermove", (event) => {
      if (down) this.stepper.go(to(event), WRITE); else this.stepper.lightStep(to(event));
    });
    this.strip.addEventListener("pointerup", () => { down = false; });
    this.strip.addEventListener("pointerleave", () => { down = false; this.stepper.lightStep(null); });
    this.strip.addEventListener("keydown", (event) => {
      const { at, steps } = this.stepper;
      const goal = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: steps.length - 1,
        PageUp: at + 10, PageDown: at - 10 }[event.key];
      if (goal === undefined || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault(); event.stopPropagation();
      this.stepper.go(goal, WRITE);
    });
  }

  grow(steps) {  // redrawn only when calls have come
    const most = Math.max(2, ...steps.map((step) => step.tokens.length)), gap = steps.length > 120 ? 0 : 0.12;
    this.picture.setAttribute("viewBox", `0 0 ${Math.max(1, steps.length)} 1`);
    this.all.setAttribute("d", steps.map((step, i) => {
      const high = 0.1 + (0.9 * step.tokens.length) / most;
      return `M${i + gap},1V${(1 - high).toFixed(3)}H${i + 1 - gap}V1Z`;
    }).join(""));
    this.heights = steps.map((step) => 0.1 + (0.9 * step.tokens.length) / most);
    this.gap = gap;
  }

  stand(rect, at) {
    const high = this.heights?.[at];
    rect.setAttribute("width", high ? 1 - 2 * this.gap : 0);
    if (!high) return;
    rect.setAttribute("x", at + this.gap);
    rect.setAttribute("y", 1 - high);
    rect.setAttribute("height", high);
  }

  show() {
    const { at, phase, steps, timer, data } = this.stepper, last = steps.length - 1;
    this.back.disabled = at < 0;
    const asks = data.again || (at >= last && phase === WRITE && data.more);
    this.next.firstChild.textContent = data.again || last < 0 ? "Start" : asks ? "Step" : "Next";
    this.next.disabled = (at >= last && phase === WRITE && !data.more) || (asks && Boolean(data.busy));
    this.next.classList.toggle("busy", asks && Boolean(data.busy));
    this.play.disabled = !timer && at >= last && !data.more && last < 1;
    this.play.firstChild.textContent = timer ? "Pause" : "Play";
    this.count.textContent = at < 0 ? `prompt, ${steps.length} ${steps.length === 1 ? "call" : "calls"}` : `call ${at + 1} of ${steps.length}`;
    this.strip.setAttribute("aria-valuemax", String(Math.max(1, steps.length)));
    this.strip.setAttribute("aria-valuenow", String(at + 1));
    const gave = steps[at]?.tokens.length;
    this.strip.setAttribute("aria-valuetext", gave ? `Call ${at + 1} of ${steps.length}: ${gave} ${gave === 1 ? "token" : "tokens"}` : "The prompt");
    this.stand(this.mark, at);
  }
}
