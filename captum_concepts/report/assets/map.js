// ---- map: an icicle plot of the focused subtree, four levels, every name readable ---------------------------------------
const LEVELS = 4, CELL = 23;
let cells = []; // { node, level, top, height, more, reference }
let screens = 3; // the map is at most this many screens high; "+n more" of the focused subtree adds to it

function levelsBelow() { return NARROW.matches && innerWidth < 560 ? 2 : NARROW.matches && innerWidth < 720 ? 3 : LEVELS; }
function childrenOf(node) {
  const { edges, roots, main } = tree();
  if (node < 0) return roots.map((child) => ({ child, reference: false }));
  return edges[node].map(({ child }) => ({ child, reference: main[child] !== node }));
}

/** How many lines a node needs so that each name `levels` below it has its own. */
function wanted(node, levels) {
  const children = levels > 0 ? childrenOf(node) : [];
  return children.reduce((sum, { child, reference }) => sum + (reference ? 1 : wanted(child, levels - 1)), 0) || 1;
}

/** Distributes `lines` among children: all they need, or in proportion, at least one each. */
function share(wants, lines) {
  const total = wants.reduce((a, b) => a + b, 0);
  if (total <= lines) return wants;
  const given = wants.map((w) => Math.max(1, Math.floor((w * lines) / total)));
  for (let over = given.reduce((a, b) => a + b, 0) - lines; over > 0; over--) given[given.indexOf(Math.max(...given))]--;
  return given;
}

function layOut(node, level, levels, top, room) {
  let children = childrenOf(node);
  if (!children.length || level > levels) return;
  const lines = Math.floor(room + 1e-6);
  if (lines < 2 && children.length > 1) return; // a lone "+n more" says less than the number beside the parent's name
  let hidden = 0;
  if (children.length > lines) {
    hidden = children.length - (lines - 1);
    children = children.slice(0, lines - 1);
  }
  const wants = children.map(({ child, reference }) => (reference ? 1 : wanted(child, levels - level)));
  const given = share(wants, lines - (hidden ? 1 : 0));
  const stretch = room / (given.reduce((a, b) => a + b, 0) + (hidden ? 1 : 0)); // a column is filled to the bottom
  children.forEach(({ child, reference }, k) => {
    const height = given[k] * stretch;
    cells.push({ node: child, parent: node, level, top, height, reference });
    if (!reference) layOut(child, level + 1, levels, top, height);
    top += height;
  });
  if (hidden) cells.push({ node, level, top, height: stretch, more: hidden });
}

function cellElement(cell, unit, columns) {
  const width = 100 / columns;
  const box = el("button", {
    type: "button", class: "cell", tabindex: -1,
    style: { left: `${(cell.level - 1) * width}%`, width: `calc(${width}% - 2px)`, top: `${cell.top * unit}px`, height: `${cell.height * unit - 2}px` },
  });
  if (cell.more) {
    box.classList.add("more");
    box.append(`+${thousands(cell.more)} more`);
    return box;
  }
  const r = reading(cell.node), { below } = tree();
  box.append(el("span", { class: "cell-name" }, r.significant ? "● " : "", conceptName(cell.node, 70), cell.reference ? " ↪" : ""));
  const facts = [];
  if (r.ok) {
    const shade = colour(r.weak ? 0.3 * r.lean : r.lean);
    box.style.background = shade.background;
    box.style.color = shade.color;
    if (r.weak) box.style.setProperty("--stripe", colour(r.lean).background);
    box.classList.toggle("weak", r.weak);
    facts.push(valueText(r));
  } else if (hasTargets && r.reason !== "group") {
    box.classList.add("untested");
    facts.push(cut(flat(r.reason), 40));
  }
  const share = shareOf(cell.node);
  if (share) {
    facts.push(`share ${shareText(share.branch, share.branchError)}`);
    box.title = `This subtree accounts for ${shareText(share.branch, share.branchError)} of what the layer explains of the class`;
  }
  if (below[cell.node]) facts.push(`${thousands(below[cell.node])} below`);
  if (cell.height * unit >= 40) box.append(el("span", { class: "cell-facts" }, facts.join(" · ")));
  else if (below[cell.node] && !cell.reference && (cell.level === columns || !cells.some((other) => other.parent === cell.node && other.level > cell.level))) box.append(el("span", { class: "cell-deep", "aria-hidden": "true" }, `${below[cell.node]} ›`));
  box.setAttribute("aria-label", `${cut(flat(NAMES[cell.node]), 80)}, ${facts.join(", ")}`);
  if (cell.node === state.selected) box.classList.add("selected");
  return box;
}

function drawMap() {
  const box = byId("map-box"), levels = levelsBelow(), { below, nodes } = tree();
  const lines = Math.min(wanted(state.focus, levels), Math.max(36 * screens, Math.round((screens * box.clientHeight) / CELL)));
  const unit = Math.max(CELL, Math.min(64, (box.clientHeight - 4) / lines));
  cells = [];
  layOut(state.focus, 1, levels, 0, lines);
  const area = byId("cells"), columns = Math.max(1, ...cells.map((cell) => cell.level));
  area.style.height = `${Math.max(CELL, ...cells.map((cell) => (cell.top + cell.height) * unit))}px`;
  area.replaceChildren(...cells.map((cell) => { const node = cellElement(cell, unit, columns); cell.box = node; return node; }));
  if (!cells.length) area.replaceChildren(el("p", { class: "empty soft" }, nodes.length ? "Nothing below this concept." : "No hierarchy."));
  const current = cells.find((cell) => cell.node === state.selected && !cell.more) ?? cells[0];
  if (current) current.box.tabIndex = 0;

  const trail = byId("trail"), path = state.focus < 0 ? [] : pathTo(state.focus);
  const total = state.focus < 0 ? nodes.length : below[state.focus];
  trail.replaceChildren(
    el("button", { class: "quiet up", type: "button", disabled: state.focus < 0, title: "One level up", on: { click: () => zoom(path.at(-2) ?? -1) } }, "↑ up"),
    crumbs(path, zoom, { start: "All concepts" }),
    el("span", { class: "soft trail-count" }, state.focus < 0 ? plural(tree().roots.length, "root") : path.length === 1 ? `root · ${total} below` : `${total} below`),
  );
}

/** One line that never wraps: first, …, the last ones; the … opens the rest. */
function crumbs(path, go, { start = null, ends = 2 } = {}) {
  const steps = path.map((i) => el("button", { class: "crumb", type: "button", on: { click: () => go(i) } }, conceptName(i, 60)));
  if (start) steps.unshift(el("button", { class: "crumb", type: "button", on: { click: () => go(-1) } }, start));
  const box = el("nav", { class: "crumbs", "aria-label": "Path" });
  const show = (list) => box.replaceChildren(...list.flatMap((step, k) => (k ? [el("span", { class: "soft step", "aria-hidden": "true" }, "›"), step] : [step])));
  if (steps.length <= ends + 2) show(steps);
  else {
    const dots = el("button", { class: "crumb dots", type: "button", title: `${steps.length - 1 - ends} more`, "aria-label": "Show the whole path" }, "…");
    dots.addEventListener("click", () => { box.classList.add("whole"); show(steps); });
    show([steps[0], dots, ...steps.slice(-ends)]);
  }
  return box;
}

function zoom(node) {
  state.focus = node;
  screens = 3;
  byId("map-box").scrollTop = 0;
  drawMap();
}

/** Keeps a selected concept in the map: moves the focus only when the concept is not in it. */
function showInMap(node) {
  if (node < 0) return drawMap();
  drawMap();
  let cell = cells.find((c) => c.node === node && !c.more);
  if (!cell && node !== state.focus) {
    zoom(tree().edges[node].length ? node : tree().main[node]);
    cell = cells.find((c) => c.node === node && !c.more);
  }
  if (!cell) return; // scrollIntoView would also move the column that holds the map
  const box = byId("map-box"), top = cell.box.offsetTop, bottom = top + cell.box.offsetHeight;
  if (top < box.scrollTop || bottom - top > box.clientHeight) box.scrollTop = top;
  else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
}

function mapClick(event) {
  const cell = cells.find((c) => c.box === event.target.closest(".cell"));
  if (!cell) return;
  if (cell.more && cell.node === state.focus) { screens *= 4; return drawMap(); }
  if (cell.more) return zoom(cell.node);
  if (cell.node === state.selected && tree().edges[cell.node].length) zoom(cell.node);
  select(cell.node, true);
}

function mapKey(event) {
  const cell = cells.find((c) => c.box === document.activeElement);
  if (!cell) return;
  const near = (level) => cells.filter((c) => c.level === level && c.top < cell.top + cell.height && c.top + c.height > cell.top)[0];
  const column = cells.filter((c) => c.level === cell.level), at = column.indexOf(cell);
  const next = { ArrowDown: column[at + 1], ArrowUp: column[at - 1], ArrowRight: near(cell.level + 1), ArrowLeft: near(cell.level - 1) }[event.key];
  if (!next) return;
  cells.forEach((c) => { c.box.tabIndex = c === next ? 0 : -1; });
  next.box.focus();
  event.preventDefault();
}
