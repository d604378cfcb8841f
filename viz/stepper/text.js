// The text: every token with where it came from; the guesses of the step that is shown as ghosts behind it.

class Text {
  constructor(stepper) {
    this.stepper = stepper;
    this.element = make("div", "text");
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", "The text, token by token");
    this.list = make("div", "tokens");
    this.element.append(this.list);
    this.ghosts = make("span", "ghosts");
    this.clear();
    this.list.addEventListener("click", (event) => {
      const chosen = event.target.closest("[data-step]");
      if (!chosen) return;
      const step = Number(chosen.dataset.step);
      if (step === stepper.at && stepper.phase === WRITE && chosen.dataset.n !== undefined) stepper.pin(Number(chosen.dataset.n));
      else stepper.go(step, WRITE);
    });
    this.list.addEventListener("keydown", (event) => this.walk(event));
  }

  clear() {
    this.list.replaceChildren();
    this.steps = [];  // the elements of each step's tokens
    this.count = 0;
    this.shown = -2;
    this.end = null;
  }

  begin(head) {  // the prompt; what a chat template put around it is small
    const special = new Set(head.special);
    head.prompt.forEach(([id, template]) => {
      const kind = `tok ${template ? "template" : "prompt"}${special.has(id) ? " special" : ""}`;
      this.put(id, kind, null);
    });
    this.special = special;
    this.list.classList.toggle("pixels", Boolean(head.picture));
  }

  put(id, kind, step, node) {
    const words = this.stepper.full(id), made = this.stepper.word(id, kind, true);
    made.dataset.at = this.count++;
    made.title = `${words}: ${kind.replace("tok ", "")}, id ${id}${step === null ? "" : `, call ${step + 1}`}`;
    if (step !== null) {
      made.dataset.step = step;
      made.dataset.node = node;
      made.setAttribute("role", "button");
      made.setAttribute("aria-label", heard(made.title));
      made.tabIndex = -1;
    }
    this.list.append(made);
    for (const mark of made.querySelectorAll(".ws")) if (mark.textContent === "↵") mark.after(make("br"));  // what follows is indented
    return made;
  }

  grow(steps) {  // the tokens of steps that have come
    for (let i = this.steps.length; i < steps.length; i++) {
      const own = steps[i].tokens.map(([id, origin, node]) =>
        this.put(id, `tok ${ORIGINS[origin]}${this.special?.has(id) ? " special" : ""} later`, i, node));
      this.steps.push(own);
    }
    this.shown = -2;
  }

  brackets(joints) {  // tokens that are no characters by themselves, and what they spell together
    for (const old of this.list.querySelectorAll(".whole")) old.remove();
    for (const [start, stop, spelled] of joints) {
      const own = [...this.list.children].filter((e) => e.dataset.at >= start && e.dataset.at < stop);
      own.forEach((e) => e.classList.add("part"));
      const whole = make("span", "whole", `= ${spelled}`);
      if (own.length) own[own.length - 1].append(whole);
    }
  }

  show(at, phase) {
    const whole = phase === WRITE ? at : at - 1;  // the last step whose tokens are in the text
    this.steps.forEach((own, i) => {
      if (this.shown !== -2 && i < Math.min(this.shown, at) - 1 ) return;
      for (const one of own) {
        one.classList.toggle("later", i > whole);
        one.classList.toggle("now", i === at && i <= whole);
        if (i === at) one.dataset.n = one.dataset.node; else delete one.dataset.n;
        if (i === at) one.setAttribute("aria-current", "step"); else one.removeAttribute("aria-current");
      }
    });
    this.shown = at;
    this.ghost(at, phase);
    const here = this.steps[at]?.[0] && phase === WRITE ? this.steps[at] : null;
    if (this.end) this.end.tabIndex = -1;
    this.end = (here || this.steps[Math.max(0, whole)] || [])[0] || null;
    if (this.end) this.end.tabIndex = 0;
    this.follow(here ? here[here.length - 1] : this.ghosts.isConnected ? this.ghosts : this.end);
  }

  ghost(at, phase) {  // the guesses that hang together, as they would stand in the text
    this.ghosts.replaceChildren();
    this.ghosts.remove();
    const step = this.stepper.steps[at];
    if (!step || phase === WRITE) return;
    const chain = path(step, phase);
    for (const i of chain) {
      const node = step.nodes[i], verdict = phase === JUDGE ? ` ${kindOf(VERDICTS[node[VERDICT]])}` : phase === CHECK ? " checked" : "";
      const made = this.stepper.word(node[TOKEN], `tok ghost${verdict}`, true);
      made.dataset.n = i;
      this.ghosts.append(made);
    }
    const behind = this.steps[at]?.[0];
    if (behind) this.list.insertBefore(this.ghosts, behind); else this.list.append(this.ghosts);
  }

  follow(element) {
    if (!element) return;
    const box = this.element, top = element.offsetTop, foot = top + element.offsetHeight;
    if (foot + 8 > box.scrollTop + box.clientHeight || top < box.scrollTop) box.scrollTop = Math.max(0, foot + 12 - box.clientHeight);
  }

  fly(tree) {  // the tokens that are kept leave their boxes for the text
    const own = this.steps[this.stepper.at] || [];
    own.forEach((one, k) => {
      const from = tree.boxes?.find((box) => box.dataset.n === one.dataset.node)?.getBoundingClientRect();
      const to = one.getBoundingClientRect();
      if (!from || !from.width || !to.width) return;
      one.classList.add("flying");
      const x = from.left - to.left, y = from.top - to.top;
      const moved = move(one, [{ transform: `translate(${x}px, ${y}px)`, opacity: 0.4 }, { transform: "none", opacity: 1 }], 320, 45 * k);
      if (moved) moved.onfinish = () => one.classList.remove("flying"); else one.classList.remove("flying");
    });
  }

  walk(event) {
    const buttons = [...this.list.querySelectorAll('[role="button"]:not(.later)')], i = buttons.indexOf(event.target);
    const goal = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (i < 0 || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.key === "Enter" || event.key === " ") event.target.click();
    else if (goal !== undefined) {
      const next = buttons[Math.max(0, Math.min(buttons.length - 1, goal))];
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// The chain of guesses that is told in the text: the kept ones and the first refused behind them, or down the eldest children.
function path(step, phase) {
  const chain = [];
  for (let above = ROOT; chain.length < 24;) {
    const children = step.nodes.map((node, i) => [node, i]).filter(([node]) => node[PARENT] === above);
    if (!children.length) break;
    const kept = phase === JUDGE || phase === WRITE ? children.find(([node]) => node[VERDICT] === 0) : null;
    above = (kept || children[0])[1];
    chain.push(above);
  }
  return chain;
}
