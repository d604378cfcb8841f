// Why the guess that is looked at was kept or refused: a sentence, its die on a rule from 0 to 1, the two models' bars, the numbers.

const MEANS = {
  p: "p, the large model's probability of this token here, less what refused siblings used up",
  q: "q, the probability with which it was guessed",
  u: "u, the die: a random number between 0 and 1, drawn before anything is judged",
  border: "min(1, p / q): below it the guess is kept",
};
const SERIES = { p: "large model (p)", q: "guess (q)", residual: "what p leaves after the refusals (residual)" };

class Panel {
  constructor(stepper) {
    this.stepper = stepper;
    this.element = make("aside", "why");
    this.element.setAttribute("aria-label", "The guess that is looked at");
    this.numbersOpen = false;
  }

  show(step, node, phase) {
    if (!step) { this.element.replaceChildren(); return; }
    const parts = node === ROOT ? this.root(step) : node === step.nodes.length ? this.final(step, phase) : this.guess(step, node, phase);
    this.element.replaceChildren(...parts.filter(Boolean));
  }

  root(step) {
    return [make("h3", "", "The end of the text"), make("p", "", "Here the guesses begin. The bars show what comes next."),
      this.series(step, 0, null, WRITE)];
  }

  final(step, phase) {
    const [id] = step.tokens[step.tokens.length - 1];
    if (phase < JUDGE) return [make("h3", "", "Not written yet"), make("p", "", "The large model adds a token once it has judged.")];
    const title = make("h3");
    title.append("Where does ", this.stepper.word(id, "tok name", true), " come from?");
    const words = make("p");
    words.append(this.stepper.sentence(step, step.strings[step.final[0]]));
    return [title, words, make("p", "dim", step.strings[step.final[1]]), this.series(step, step.end, id, phase)];
  }

  guess(step, index, phase) {
    const { stepper } = this, node = step.nodes[index], state = VERDICTS[node[VERDICT]], told = phase >= JUDGE;
    const title = make("h3"), name = stepper.word(node[TOKEN], "tok name", true);
    if (told && state !== "not judged") title.append("Why was ", name, ` ${STATE_WORDS[state]}?`);
    else if (told) title.append(name, " was not judged");
    else title.append(name, phase === CHECK ? " is being checked" : " is a guess");
    const parts = [title];
    if (told) parts.push(this.reason(step, node, state));
    if (told && node[BORDER] !== null) parts.push(this.die(node, state));
    parts.push(this.series(step, node[PARENT] + 1, node[TOKEN], phase), told ? this.numbers(step, index, node) : null);
    return parts;
  }

  reason(step, node, state) {
    const { stepper } = this, words = make("p"), said = stepper.said === node;
    const judged = stepper.store.head.method === "judge";  // which keeps more than the dice do
    const dice = !judged && node[Q] !== null && node[BORDER] !== null;
    const why = !dice || state === "not judged" ? ""
      : node[BORDER] >= 1 ? "The large model likes it at least as much as the guess did, so every die keeps it."
      : node[BORDER] <= 0 ? "The large model would not write it here, so no die keeps it."
      : `A guess survives with probability ${stepper.share(node[P])} / ${stepper.share(node[Q])} = ${decimals(node[BORDER])}: `
        + "that keeps the text exactly as likely as without guessing.";
    if (!said || !why) words.append(stepper.sentence(step, step.strings[node[SAYS + stepper.unit]], node), " ");
    words.append(why);
    return words;
  }

  die(node, state) {
    const made = make("div", "die"), rule = make("div", "rule"), { stepper } = this, border = node[BORDER], u = node[U];
    const kept = make("i", "keep"), mark = make("b", `mark ${kindOf(state)}`), said = make("span", "said", `die ${decimals(u)}`);
    kept.style.width = `${100 * border}%`;
    mark.style.left = `${100 * u}%`;
    said.style.left = `${Math.max(12, Math.min(88, 100 * u))}%`;
    rule.append(kept, mark);
    const foot = make("div", "foot");
    foot.append(make("span", "", border > 0 ? `keep below ${decimals(border)}` : "nothing is kept"), make("span", "", border < 1 ? "refuse" : ""));
    made.append(said, rule, foot);
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", `The die says ${decimals(u)} on a rule from 0 to 1; kept below ${decimals(border)}.`);
    if (stepper.lights.has("die")) made.classList.add("lit");
    this.mark = mark;
    return made;
  }

  motion(phase) {
    if (phase !== JUDGE || !this.mark?.isConnected) return;
    move(this.mark, [{ transform: "translateY(-46px)", opacity: 0 }, { transform: "none", opacity: 1 }], 300);
  }

  series(step, place, marked, phase) {
    const row = step.rows[place], box = make("div", "dist");
    if (!row) {
      return make("p", "dim", step.recorded ? "Nothing was judged here, so its distribution was left out." : "No distribution was recorded here.");
    }
    const [tokens, p, q, residual, drawn, spread] = row, { stepper } = this;
    const series = [["p", p], ...(q ? [["q", q]] : []), ...(residual && phase >= JUDGE ? [["residual", residual]] : [])]
      .filter(([key]) => key === "q" || phase > GUESS);
    const keys = make("div", "keys");
    for (const [key] of series) { const entry = make("span", "key"); entry.append(make("i", `fill ${key}`), SERIES[key]); keys.append(entry); }
    const weight = tokens.map((id, k) => (id === marked || (id === drawn && phase >= JUDGE) ? 2 : Math.max(...series.map(([, v]) => v[k] || 0))));
    const kept = tokens.map((_, k) => k).sort((a, b) => weight[b] - weight[a]).slice(0, stepper.small ? 3 : 5).sort((a, b) => a - b);
    const grid = make("div", "grid");
    for (const k of kept) {
      const who = stepper.word(tokens[k], `tok who${tokens[k] === marked ? " marked" : ""}`, true);
      if (tokens[k] === drawn && phase >= JUDGE) who.append(make("small", "", " drawn"));
      const child = step.nodes.findIndex((node) => node[PARENT] === place - 1 && node[TOKEN] === tokens[k]);
      const line = make("div", "pair");
      for (const [key, values] of series) {
        const track = make("div", "track"), fill = make("i", `fill ${key}`), value = make("span", "value", stepper.share(values[k]));
        fill.style.width = `${100 * Math.min(1, values[k] || 0)}%`;
        track.append(fill, value);
        line.append(track);
      }
      if (child >= 0) { who.dataset.n = child; line.dataset.n = child; }
      grid.append(who, line);
    }
    box.append(keys, grid);
    if (phase >= CHECK) box.append(make("p", "dim", spread));
    return box;
  }

  numbers(step, index, node) {
    const made = make("details", "numbers"), list = make("dl"), { stepper } = this;
    made.open = this.numbersOpen || stepper.alone;
    made.addEventListener("toggle", () => { this.numbersOpen = made.open; });
    made.append(make("summary", "", "The numbers"), make("p", "mono", step.strings[node[NUMBERS]]));
    const say = (name, value, meaning) => {
      const term = make("dt", "", name);
      if (meaning) term.title = meaning;
      list.append(term, make("dd", "", value));
      if (meaning) list.append(make("dd", "meaning", meaning));
    };
    say("p", String(node[P] ?? "–"), MEANS.p);
    say("q", node[Q] === null ? "none: chosen, not drawn" : String(node[Q]), MEANS.q);
    say("u", node[U] === null ? "none" : String(node[U]), MEANS.u);
    if (node[BORDER] !== null) say("p / q", String(node[BORDER]), MEANS.border);
    say("token", `${stepper.full(node[TOKEN])} (id ${node[TOKEN]}, node ${index})`);
    say("source", step.strings[node[SOURCE]]);
    made.append(list);
    return made;
  }
}

// The same step as a table, drawn once it is open.
class Table {
  constructor(stepper) {
    this.stepper = stepper;
    this.element = make("details", "twin");
    this.place = make("div", "scroll");
    this.place.tabIndex = 0;
    this.place.setAttribute("role", "region");
    this.place.setAttribute("aria-label", "Table of the call");
    this.element.append(make("summary", "", "This call as a table"), this.place);
    this.element.addEventListener("toggle", () => this.show(this.step));
  }

  show(step) {
    this.step = step;
    if (!this.element.open || !step) return;
    if (!step.nodes.length) { this.place.replaceChildren(make("p", "", "Nothing was drafted in this step.")); return; }
    const made = make("table"), head = make("tr"), { stepper } = this;
    for (const name of ["node", "parent", "token", "id", "verdict", "p", "q", "u", "why", "source"]) {
      const cell = make("th", "", name);
      cell.scope = "col";
      head.append(cell);
    }
    made.append(head);
    step.nodes.forEach((node, i) => {
      const line = make("tr"), cells = [i, node[PARENT], stepper.full(node[TOKEN]), node[TOKEN], VERDICTS[node[VERDICT]],
        node[P] ?? "–", node[Q] ?? "–", node[U] ?? "–", step.strings[node[NUMBERS]], step.strings[node[SOURCE]]];
      line.dataset.n = i;
      cells.forEach((cell, k) => line.append(make("td", k === 2 ? "mono" : [4, 8, 9].includes(k) ? "" : "n", String(cell))));
      made.append(line);
    });
    this.place.replaceChildren(made);
  }
}
