// Which boxes of a tree are drawn, and where. Knows parents and px, no tokens.
//
// An item is { node, parent, state, hidden }: node is an index in the step, ROOT, or the final token's (as many as there are nodes);
// parent is a place in the list of items; an item with `hidden` stands for so many guesses that are folded away.

const ALL = 24, SOME = 4, FEW = 2;  // nodes that are always drawn; unjudged siblings that are, in trees of up to 64 and beyond

function itemsOf(step, opened) {
  const nodes = step.nodes, items = [{ node: ROOT, parent: -1, state: "root", hidden: 0 }], place = new Map([[ROOT, 0]]);
  const folds = nodes.length > ALL, few = nodes.length <= 64 ? SOME : FEW;
  const folded = new Map(), seen = new Map();
  nodes.forEach((node, i) => {
    const above = node[PARENT], state = VERDICTS[node[VERDICT]];
    if (!place.has(above)) {  // below something that is folded away
      const up = folded.get(above);
      folded.set(i, up);
      items[up].hidden += 1;
      return;
    }
    const unjudged = state === "not judged";
    const deep = unjudged && above !== ROOT && VERDICTS[nodes[above][VERDICT]] === "not judged";
    const nth = (seen.get(above) || 0) + unjudged;
    seen.set(above, nth);
    if (folds && !opened.has(above) && unjudged && (deep || nth > few)) {
      let stub = items.findIndex((item) => item.hidden && item.node === null && item.parent === place.get(above));
      if (stub < 0) stub = items.push({ node: null, of: above, parent: place.get(above), state: "folded", hidden: 0 }) - 1;
      items[stub].hidden += 1;
      folded.set(i, stub);
      return;
    }
    place.set(i, items.push({ node: i, parent: place.get(above), state, hidden: 0 }) - 1);
  });
  if (step.final) {
    const end = step.end - 1, state = ORIGINS[step.tokens[step.tokens.length - 1][1]];
    items.push({ node: nodes.length, parent: place.get(end), state, hidden: 0 });
  }
  return items;
}

// Columns by depth; every leaf has a row of its own, every other item stands level with its first child, so that no edges cross.
function arrange(items) {
  const children = items.map(() => []);
  items.forEach((item, i) => { if (item.parent >= 0) children[item.parent].push(i); });
  const column = items.map(() => 0), row = items.map(() => 0), order = [];
  let rows = 0;
  const pending = [[0, false]];
  while (pending.length) {
    const [i, done] = pending.pop();
    if (done) { row[i] = row[children[i][0]]; continue; }
    order.push(i);
    if (items[i].parent >= 0) column[i] = column[items[i].parent] + 1;
    if (!children[i].length) { row[i] = rows++; continue; }
    pending.push([i, true]);
    for (let k = children[i].length - 1; k >= 0; k--) pending.push([children[i][k], false]);
  }
  return { children, column, row, order, rows: Math.max(1, rows), columns: Math.max(...column) };
}

// Levels of detail: 0 a map, 1 the token, 2 and two bars, 3 and their numbers.
const LEVELS = [{ box: 12, pitch: 16 }, { box: 32, pitch: 38 }, { box: 54, pitch: 64 }, { box: 92, pitch: 104 }];
const LINES = [{ box: 14, pitch: 17 }, { box: 32, pitch: 36 }, { box: 36, pitch: 41 }, { box: 36, pitch: 41 }];  // of an outline
const NARROWEST = 124, WIDEST = 208, GAP = 24, START = 40, LARGER = 1.2;  // px of a column, between columns, and before the first

function placesOf(items, width, height, wish, least, large) {
  const tree = arrange(items), scale = large ? LARGER : 1, columns = Math.max(tree.columns, least);
  const outline = (width - START + GAP) / Math.max(1, tree.columns) < NARROWEST * scale;
  const levels = outline ? LINES : LEVELS, count = outline ? items.length - 1 : tree.rows;
  const wide = Math.min(WIDEST * scale, Math.max(NARROWEST * scale, (width - START + GAP - 4) / Math.max(1, columns)));
  let level = wish;
  if (level === null) {
    const most = outline ? (width > 430 ? 3 : 2) : wide >= 150 * scale ? 3 : 2;
    for (level = most; level > 1 && count * levels[level].pitch * scale > height; level--);
  }
  const pitch = levels[level].pitch * scale, box = levels[level].box * scale;
  const made = outline ? lines(items, tree, width, pitch, box) : columnsOf(items, tree, wide, pitch, box, level);
  return { ...made, level, outline, children: tree.children, order: tree.order, column: tree.column, row: tree.row };
}

function columnsOf(items, tree, wide, pitch, box, level) {
  const broad = level === 0 ? Math.min(40, wide - GAP) : wide - GAP, step = level === 0 ? broad + 16 : wide;
  const boxes = items.map((item, i) => ({ x: i ? START + (tree.column[i] - 1) * step : 4, y: tree.row[i] * pitch + 14,
    width: i ? (item.hidden && level ? Math.min(broad, 128) : broad) : 12, height: i ? box : 12 }));
  boxes[0].y = boxes.length > 1 ? boxes[1].y + box / 2 - 6 : 14;
  const edges = items.map((item, i) => {
    if (!i) return "";
    const up = boxes[item.parent], own = boxes[i], x = up.x + up.width, y = up.y + up.height / 2, end = own.y + own.height / 2;
    const middle = (x + own.x) / 2;
    return `M${x},${y}C${middle},${y} ${middle},${end} ${own.x},${end}`;
  });
  return { boxes, edges, width: Math.max(...boxes.map((b) => b.x + b.width)) + 2, height: tree.rows * pitch + 12 };
}

// One line per item, children indented below their parent: where columns would not fit.
function lines(items, tree, width, pitch, box) {
  const indent = Math.min(20, Math.max(6, (width - 210) / Math.max(1, tree.columns)));
  const boxes = items.map(() => ({ x: 4, y: 0, width: 12, height: 12 }));
  tree.order.slice(1).forEach((i, line) => {
    const x = 26 + (tree.column[i] - 1) * indent;
    boxes[i] = { x, y: line * pitch + 14, width: Math.max(60, Math.min(width - x - 2, 560)), height: box };
  });
  boxes[0].y = boxes.length > 1 ? 4 : 8;
  const edges = items.map((item, i) => {
    if (!i) return "";
    const up = boxes[item.parent], own = boxes[i], x = Math.min(own.x - 5, up.x + 6), y = own.y + own.height / 2;
    return `M${x},${up.y + up.height}V${y}H${own.x}`;
  });
  return { boxes, edges, width: Math.min(width, Math.max(...boxes.map((b) => b.x + b.width)) + 2), height: (items.length - 1) * pitch + 18 };
}
