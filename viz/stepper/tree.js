// The draft tree: a button for every box, the edges behind them, arrows that walk, folds that open, three levels of detail.

class Tree {
  constructor(stepper) {
    this.stepper = stepper;
    this.wish = null;  // level of detail that the reader chose; null: whatever fits
    this.opened = new Set();
    this.frame = make("div", "treeframe");
    this.view = make("div", "treeview");
    this.field = make("div", "tree");
    this.field.setAttribute("role", "group");
    this.view.append(this.field);
    this.tools = make("div", "tools");
    this.less = press("tool", "−", () => this.zoom(-1), "Less detail: the whole tree at a glance");
    this.more = press("tool", "+", () => this.zoom(1), "More detail: bars, then numbers");
    this.fit = press("tool", "Fit", () => { this.wish = this.fits() ? null : 0; this.draw(); }, "Fit the tree into its place");
    this.tools.append(this.less, this.more, this.fit);
    this.frame.append(this.view);
    this.field.addEventListener("keydown", (event) => this.walk(event));
    this.field.addEventListener("click", (event) => this.clicked(event));
    this.pan();
  }

  show(step, alt) {
    if (step !== this.step) { this.step = step; this.opened = new Set(); this.at = 0; }
    this.alt = alt;
    this.draw();
  }

  zoom(by) {
    this.wish = Math.max(0, Math.min(3, this.places.level + by));
    this.draw();
  }
  fits() { return this.places.height <= this.room().height + 2 && this.places.width <= this.room().width + 2; }
  room() { return { width: Math.max(120, this.frame.clientWidth), height: this.stepper.small ? 220 : this.stepper.treeHeight() }; }

  draw() {
    const { step, stepper } = this;
    if (!step) return;
    const had = this.field.contains(this.field.getRootNode().activeElement);
    const room = this.room(), wish = stepper.small ? 1 : this.wish;
    this.items = itemsOf(step, this.opened);
    this.places = placesOf(this.items, room.width, room.height, wish, stepper.columns(), stepper.large);
    const { level, outline, width, height } = this.places;
    this.drawnFor = room.width;
    this.field.className = `tree level${level}${outline ? " outline" : ""}`;
    this.field.style.width = `${width}px`;
    this.field.style.height = `${height}px`;
    this.view.style.maxHeight = `${Math.max(room.height, 120) + 24}px`;
    this.field.setAttribute("aria-label", this.alt);
    this.boxes = this.items.map((item, i) => this.box(item, i));
    this.field.replaceChildren(this.edges(width, height), ...this.boxes);
    this.tools.hidden = stepper.small || this.items.length < 3;
    this.less.disabled = level === 0;
    this.more.disabled = level === 3;
    this.phase(stepper.phase);
    this.choose(stepper.node);
    if (had) this.boxes[this.at]?.focus({ preventScroll: true });
  }

  edges(width, height) {
    const made = svg("svg", { width, height, "aria-hidden": "true" }), paths = new Map();
    this.items.forEach((item, i) => { if (i) paths.set(item.state, (paths.get(item.state) || "") + this.places.edges[i]); });
    const order = ["folded", "not judged", "rejected", "plain", "bonus", "correction", "accepted"];
    for (const state of order) if (paths.has(state)) svg("path", { d: paths.get(state), class: `edge ${kindOf(state)}` }, made);
    return made;
  }

  box(item, i) {
    const { x, y, width, height } = this.places.boxes[i], { step, stepper } = this, { level } = this.places;
    const made = make("button", `box ${kindOf(item.state)}`);
    made.type = "button";
    made.tabIndex = -1;
    made.style.left = `${x}px`; made.style.top = `${y}px`; made.style.width = `${width}px`; made.style.height = `${height}px`;
    made.dataset.i = i;
    if (item.node === null) {
      made.append(make("span", "hidden-below", level ? `+${item.hidden} not judged` : ""));
      made.setAttribute("aria-label", `${item.hidden} guesses that were not judged; Enter shows them`);
      return made;
    }
    made.dataset.n = item.node;
    if (item.node === ROOT) return made;
    const final = item.node === step.nodes.length, node = final ? null : step.nodes[item.node];
    const id = final ? step.tokens[step.tokens.length - 1][0] : node[TOKEN];
    if (level) {
      const head = make("span", "head");
      head.append(stepper.word(id));
      const verdict = verdictOf(item.state, level, this.places.outline);
      if (level > 1 || this.places.outline) (this.places.outline ? head : made).append(verdict); else head.append(verdict);
      made.prepend(head);
    }
    made.title = stepper.full(id);
    const beside = level === 1 && !this.places.outline && width >= 150;  // one line has room for bars as well
    if (beside) made.classList.add("beside");
    if (node && (level >= 2 || beside)) made.append(bars(node, level, stepper.unit));
    if (level === 3 && final) made.append(make("span", "note", STATE_WORDS[item.state]));
    return made;
  }

  phase(phase) {  // how far the call has come is a matter of style; what a screen reader hears changes with it
    this.field.dataset.phase = phase;
    this.items.forEach((item, i) => { if (item.node !== null) this.boxes[i].setAttribute("aria-label", heard(this.spoken(item, phase))); });
  }

  spoken(item, phase) {
    const { step, stepper } = this;
    if (item.node === ROOT) return "The end of the text; the guesses begin here";
    if (item.node === step.nodes.length) {
      const words = `${stepper.full(step.tokens[step.tokens.length - 1][0])}: ${STATE_WORDS[item.state]}`;
      return phase < JUDGE ? "Not written yet" : words;
    }
    const node = step.nodes[item.node], name = stepper.full(node[TOKEN]), share = stepper.share;
    const guessed = node[Q] === null ? "guessed" : `guessed with ${share(node[Q])}`;
    if (phase === GUESS) return `${name}: ${guessed}`;
    if (phase === CHECK) return `${name}: ${guessed}, being checked; the large model gives it ${share(node[P])}`;
    const sentence = stepper.plain(step.strings[node[SAYS + stepper.unit]]);
    return `${name}: ${STATE_WORDS[item.state]}. ${sentence}`;
  }

  choose(node) {  // the box that the panel speaks of
    const place = this.items.findIndex((item) => item.node === node);
    this.boxes.forEach((box, i) => {
      box.classList.toggle("chosen", i === place);
      if (this.items[i].node !== null) box.setAttribute("aria-pressed", i === place && this.stepper.pinned !== null);
      box.tabIndex = -1;
    });
    if (place >= 0) this.at = place;
    this.at = Math.min(this.at, this.boxes.length - 1);
    this.boxes[this.at].tabIndex = 0;
  }

  clicked(event) {
    const box = event.target.closest("[data-i]");
    if (!box || this.dragged) return;
    const item = this.items[Number(box.dataset.i)];
    if (item.node === null) this.unfold(item, Number(box.dataset.i));
    else this.stepper.pin(item.node);
  }
  unfold(item, i) {
    this.opened.add(item.of);
    this.at = i;
    this.draw();
    this.focus(i);
  }

  focus(i) {
    if (i === undefined || i < 0 || i >= this.boxes.length) return;
    this.boxes[this.at].tabIndex = -1;
    this.at = i;
    this.boxes[i].tabIndex = 0;
    this.boxes[i].focus();
  }

  walk(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const at = this.boxes.indexOf(event.target.closest("[data-i]"));
    if (at < 0) return;
    const { children, column, row, order } = this.places, item = this.items[at];
    const level = order.filter((i) => column[i] === column[at]).sort((a, b) => row[a] - row[b]);
    const line = order.indexOf(at), beside = level.indexOf(at);
    const goal = {
      ArrowRight: children[at][0],
      ArrowLeft: item.parent >= 0 ? item.parent : undefined,
      ArrowDown: this.places.outline ? order[line + 1] : level[beside + 1],
      ArrowUp: this.places.outline ? order[line - 1] : level[beside - 1],
      Home: 0, End: order[order.length - 1],
    };
    if (event.key in goal) this.focus(goal[event.key]);
    else if (event.key === "Enter" || event.key === " ") {
      if (item.node === null) this.unfold(item, at); else this.stepper.pin(item.node);
    } else if (event.key === "Escape" && this.stepper.pinned !== null) this.stepper.pin(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  pan() {  // drag the field when it is larger than its place
    let from = null;
    this.view.addEventListener("pointerdown", (event) => {
      this.dragged = false;
      const big = this.view.scrollWidth > this.view.clientWidth + 1 || this.view.scrollHeight > this.view.clientHeight + 1;
      if (big && event.button === 0 && event.pointerType === "mouse") {
        from = { x: event.clientX + this.view.scrollLeft, y: event.clientY + this.view.scrollTop, id: event.pointerId };
      }
    });
    this.view.addEventListener("pointermove", (event) => {
      if (!from) return;
      const x = from.x - event.clientX, y = from.y - event.clientY;
      if (!this.dragged && Math.hypot(x - this.view.scrollLeft, y - this.view.scrollTop) < 5) return;
      if (!this.dragged) this.view.setPointerCapture(from.id);
      this.dragged = true;
      this.view.scrollLeft = x; this.view.scrollTop = y;
    });
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) this.view.addEventListener(end, () => { from = null; });
    this.view.addEventListener("wheel", (event) => {  // with Ctrl, as everywhere: the wheel alone scrolls the page
      if (!event.ctrlKey) return;
      event.preventDefault();
      if (event.timeStamp - (this.zoomed || 0) < 180) return;
      this.zoomed = event.timeStamp;
      this.zoom(event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
  }

  motion(phase) {
    const boxes = this.boxes.slice(1), many = boxes.length > 120;
    if (phase === GUESS) {
      if (many) move(this.field, [{ opacity: 0 }, { opacity: 1 }], 250);
      else boxes.forEach((box, i) => {
        const late = Math.min(240, 60 * (this.places.column[i + 1] - 1));
        move(box, [{ opacity: 0, transform: "translateX(-10px)" }, { opacity: 1, transform: "none" }], 160, late);
      });
    } else if (phase === CHECK) {
      const sweep = make("div", "sweep");
      this.field.append(sweep);
      const across = this.places.outline ? [{ transform: "translateY(-100%)" }, { transform: `translateY(${this.places.height}px)` }]
        : [{ transform: "translateX(-100%)" }, { transform: `translateX(${this.places.width}px)` }];
      const moved = move(sweep, across, 400);
      if (moved) moved.onfinish = () => sweep.remove(); else sweep.remove();
    } else if (phase === JUDGE && !many) {
      boxes.forEach((box, i) => {
        if (this.items[i + 1].state === "not judged") return;
        const chip = box.querySelector(".verdict");
        if (chip) move(chip, [{ opacity: 0, transform: "scale(0.7)" }, { opacity: 1, transform: "none" }], 200,
          Math.min(200, 50 * (this.places.column[i + 1] - 1)));
      });
    }
  }
}

const kindOf = (state) => state.replace(" ", "-");

function verdictOf(state, level, outline) {  // never cut: on the border of the box, or behind the token; where it is tight, its mark
  const made = make("span", `verdict ${kindOf(state)}`), mark = STATE_MARKS[state];
  const word = state === "rejected" || state === "accepted" ? STATE_WORDS[state] : "";
  made.textContent = word && (level > 1 || outline) ? `${mark} ${word}` : mark;
  made.hidden = !made.textContent;
  return made;
}

function bars(node, level, unit) {
  const made = make("span", "bars"), share = unit ? decimals : percents;
  for (const [key, name, value] of [["q", "guess", node[Q]], ["p", "large", node[P]]]) {
    const line = make("span", `bar ${key}`), track = make("span", "track"), fill = make("i");
    fill.style.width = `${100 * Math.min(1, value || 0)}%`;
    track.append(fill);
    if (level === 3) line.append(make("span", "what", name), track, make("span", "value", value === null ? "chosen" : share(value)));
    else line.append(track);
    made.append(line);
  }
  return made;
}
