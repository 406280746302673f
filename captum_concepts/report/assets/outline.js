// ---- outline: the collapsible tree, drawn row by row as it is scrolled --------------------------------------------
const ROW = 28;
let rows = [], active = 0, drawn = [-1, -1];

/** Opens the largest subtrees first, as long as no more than `limit` rows show. */
function foldToFit(limit = FOLD_BEYOND) {
  const { roots, edges, main, nodes } = tree();
  state.open.clear();
  state.unfolded = nodes.length <= limit;
  if (nodes.length <= limit) { nodes.forEach((i) => state.open.add(i)); return; }
  let shown = roots.length;
  const queue = [...roots];
  while (queue.length) {
    const node = queue.shift(), count = edges[node].length;
    if (!count || shown + count > limit) continue;
    shown += count;
    state.open.add(node);
    queue.push(...edges[node].map((edge) => edge.child).filter((child) => main[child] === node));
  }
}

function searchHits() {
  const query = state.query.trim().toLowerCase();
  if (!query) return null;
  return new Set(tree().nodes.filter((i) => NAMES[i].toLowerCase().includes(query)));
}

function buildRows() {
  const { roots, edges, parents, main, nodes } = tree(), hits = searchHits();
  rows = [];
  if (state.order !== "tree") {
    const key = (i) => reading(i, state.layer, state.target, state.order).lean ?? -Infinity;
    const keys = new Map(nodes.map((i) => [i, key(i)]));
    const list = nodes.filter((i) => !hits || hits.has(i)).sort((a, b) => keys.get(b) - keys.get(a) || a - b);
    rows = list.map((node, n) => ({ node, parent: main[node], depth: 0, main: true, flat: true, pos: n + 1, size: list.length }));
    return hits;
  }
  let keep = null;
  if (hits) { // a hit is shown with everything above it
    keep = new Set();
    const up = [...hits];
    while (up.length) {
      const node = up.pop();
      if (keep.has(node)) continue;
      keep.add(node);
      up.push(...parents[node].map((edge) => edge.parent));
    }
  }
  const below = (node) => (keep ? edges[node].filter((edge) => keep.has(edge.child)) : edges[node]);
  const first = keep ? roots.filter((i) => keep.has(i)) : roots;
  const stack = first.map((node, n) => ({ node, parent: -1, depth: 0, main: true, pos: n + 1, size: first.length })).reverse();
  while (stack.length) {
    const row = stack.pop();
    const children = row.main ? below(row.node) : [];
    row.branch = children.length > 0;
    row.open = row.branch && (keep ? !state.closed.has(row.node) : state.open.has(row.node));
    rows.push(row);
    if (!row.open) continue;
    for (let n = children.length - 1; n >= 0; n--) {
      const child = children[n].child;
      stack.push({ node: child, parent: row.node, depth: row.depth + 1, main: main[child] === row.node, pos: n + 1, size: children.length });
    }
  }
  return hits;
}

/** The name with the searched part marked. */
function markedName(i) {
  const text = cut(flat(NAMES[i]), 90), lower = text.toLowerCase(), query = state.query.trim().toLowerCase();
  const box = el("bdi", { title: cut(NAMES[i], 600) });
  let at = 0;
  if (query && lower.length === text.length) { // some characters change length in lower case; then nothing is marked
    const first = lower.indexOf(query);
    if (first > 16) { // a hit far into a long name would be hidden by the column's edge
      box.append("…");
      at = first - 8;
    }
    for (let hit; (hit = lower.indexOf(query, at)) >= 0; at = hit + query.length) {
      box.append(text.slice(at, hit), el("mark", {}, text.slice(hit, hit + query.length)));
    }
  }
  box.append(text.slice(at));
  return box;
}

function rowElement(row, n) {
  const r = reading(row.node), { below, parents } = tree(), also = parents[row.node].length > 1;
  const indent = 10 * Math.min(row.depth, 5) + 4 * Math.max(0, row.depth - 5);
  const box = el("div", {
    role: "treeitem", id: `row-${n}`, class: `row${r.ok || !hasTargets ? "" : " untested"}${row.depth === 0 && row.branch ? " root" : ""}`,
    "aria-level": row.depth + 1, "aria-posinset": row.pos, "aria-setsize": row.size, "aria-selected": String(row.node === state.selected),
    "aria-expanded": row.branch ? String(row.open) : null, "data-n": n, style: { top: `${n * ROW}px`, "--indent": `${indent}px` },
  });
  if (n === active) box.classList.add("active");
  box.append(
    el("span", { class: `twist${row.branch ? (row.open ? " open" : " closed") : ""}`, "data-twist": row.branch }),
    el("span", { class: "name" }, markedName(row.node),
      also && el("span", { class: "also", title: row.main ? `Under ${parents[row.node].length} parents` : "Also under another parent, which shows its subtree" }, row.main ? `×${parents[row.node].length}` : "↪"),
      row.flat && row.parent >= 0 && el("span", { class: "soft" }, " in ", conceptName(row.parent, 30))),
    el("span", { class: "count soft", title: `${plural(below[row.node], "concept")} below` }, below[row.node] ? thousands(below[row.node]) : ""),
  );
  if (!hasTargets) return box;
  if (r.ok) box.append(bar(r), el("span", { class: "value" }, valueText(r)), el("span", { class: "sign", title: r.significant ? `q < ${DATA.alpha}` : "not significant" }, r.significant ? "●" : ""));
  else box.append(el("span", { class: "reason soft", title: cut(r.reason, 300) }, r.reason === "group" ? "" : cut(flat(r.reason), 60)));
  return box;
}

function drawRows(force = false) {
  const box = byId("tree"), list = byId("rows");
  const from = Math.max(0, Math.floor(box.scrollTop / ROW) - 8);
  const to = Math.min(rows.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + 8);
  if (!force && from === drawn[0] && to === drawn[1]) return;
  drawn = [from, to];
  list.style.height = `${rows.length * ROW}px`;
  list.replaceChildren(...rows.slice(from, to).map((row, k) => rowElement(row, from + k)));
  if (rows[active] && active >= from && active < to) box.setAttribute("aria-activedescendant", `row-${active}`);
  else box.removeAttribute("aria-activedescendant");
}

function drawOutline() {
  const before = rows[active];
  const hits = buildRows();
  byId("found").textContent = hits ? `${thousands(hits.size)} found` : thousands(tree().nodes.length);
  byId("unfold").textContent = state.unfolded ? "fold" : "unfold all";
  byId("unfold").hidden = state.order !== "tree" || Boolean(hits);
  byId("bar-head").textContent = hasTargets ? (state.measure === "score" ? "against ◂ score ▸ for" : "◂ magnitude ▸") : "";
  active = Math.max(0, rows.findIndex((row) => before && row.node === before.node && row.parent === before.parent));
  drawRows(true);
  if (!rows.length) byId("rows").replaceChildren(el("p", { class: "empty soft" }, hits ? "No concept name contains this." : "No concepts."));
}

function scrollToActive() {
  const box = byId("tree"), top = active * ROW;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
  drawRows(true);
}

function unfoldAll() {
  state.unfolded = !state.unfolded;
  if (state.unfolded) tree().nodes.forEach((i) => state.open.add(i));
  else foldToFit();
  drawOutline();
}

/** Opens the ancestors of a concept and moves to its row. */
function reveal(node) {
  if (rows[active]?.node !== node) {
    if (!searchHits()) pathTo(node).slice(0, -1).forEach((i) => state.open.add(i));
    drawOutline();
    const at = rows.findIndex((row) => row.node === node && row.main);
    if (at >= 0) active = at;
  }
  scrollToActive();
}

function toggle(row, open = !row.open) {
  // A search opens everything it found, so it remembers what was closed; otherwise what was opened is remembered.
  const searching = Boolean(state.query.trim()), set = searching ? state.closed : state.open;
  if (open !== searching) set.add(row.node); else set.delete(row.node);
  drawOutline();
}

function outlineKey(event) {
  const row = rows[active];
  if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
  const go = (n) => { active = clamp(n, 0, rows.length - 1); select(rows[active].node); };
  const page = Math.max(1, Math.floor(byId("tree").clientHeight / ROW) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -rows.length, End: rows.length };
  if (event.key in steps) go(active + steps[event.key]);
  else if (event.key === "ArrowRight") { if (row.branch && !row.open) toggle(row, true); else if (row.open) go(active + 1); }
  else if (event.key === "ArrowLeft") {
    if (row.open) toggle(row, false);
    else { for (let n = active - 1; n >= 0; n--) if (rows[n].main && rows[n].node === row.parent) { go(n); break; } }
  } else if (event.key === "*") { // all siblings of this row
    rows.filter((other) => other.parent === row.parent && other.branch).forEach((other) => state.open.add(other.node));
    drawOutline();
  } else if (event.key === "Enter" || event.key === " ") select(row.node, true);
  else return;
  event.preventDefault();
}

function outlineClick(event) {
  const box = event.target.closest("[data-n]");
  if (!box) return;
  const n = Number(box.dataset.n);
  active = n;
  if (event.target.closest("[data-twist]")) toggle(rows[n]);
  else select(rows[n].node, true);
}
