// ---- core: data, names, numbers, colours, state -------------------------------------------------------------------
const DATA = JSON.parse(document.getElementById("data").textContent);
const NAMES = DATA.names;
const FOLD_BEYOND = 32; // people can use at most about 32 concepts (Ramaswamy et al., CVPR 2023)
const FEW = "too few groups"; // a status that is about the examples, not about the model
const NARROW = matchMedia("(max-width: 1180px)");
const state = {
  layer: Math.max(0, DATA.layers.length - 1), target: 0, measure: "score", order: "tree", query: "", open: new Set(), closed: new Set(), unfolded: false, selected: -1, focus: -1,
};

const byId = (id) => document.getElementById(id);
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

/** An element; `on` holds listeners, `style` custom or plain properties, children are nodes or text (never markup). */
function el(tag, { on = {}, style = {}, ...attributes } = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  for (const [key, value] of Object.entries(style)) node.style.setProperty(key, value);
  for (const [key, value] of Object.entries(on)) node.addEventListener(key, value);
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Names come from outside: they are only ever text, on one line, cut, and isolated from the text direction around them.
const flat = (text) => text.replace(/\s+/gu, " ").trim() || "(no name)";
function cut(text, limit) {
  if (text.length <= limit) return text;
  return [...text.slice(0, 2 * limit)].slice(0, limit - 1).join("") + "…";
}
const named = (text, limit = 80) => el("bdi", { title: cut(text, 600) }, cut(flat(text), limit));
const conceptName = (i, limit) => named(NAMES[i], limit);
const targetName = (t = state.target, limit = 40) => named(DATA.targets[t], limit);

// ---- numbers
function short(x) {
  if (x == null) return "–";
  const size = Math.abs(x);
  if (size === 0) return "0";
  if (size >= 0.001 && size < 10000) return String(Number(x.toPrecision(2))).replace("-", "−");
  return x.toExponential(1).replace("e-", "e−").replace("e+", "e").replace(/^-/, "−");
}
const signed = (x) => (x > 0 ? "+" : "") + short(x);
const thousands = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ","); // the first toLocaleString costs 40 ms
const percent = (x) => `${Math.round(100 * x)} %`;
const plural = (n, one, many = one + "s") => `${thousands(n)} ${n === 1 ? one : many}`;
const length = (t) => (t < 10 ? `${t.toFixed(1)} s` : seconds(t));
const seconds = (t) => `${Math.floor(t / 60)}:${String(Math.floor(t % 60)).padStart(2, "0")}`;

// ---- hierarchy of one layer
const trees = [];
/** children/edges/parents per node; `main` is the parent under which a node with several parents shows its subtree. */
function tree(layer = state.layer) {
  if (trees[layer]) return trees[layer];
  const raw = DATA.trees[layer] ?? { parent: [], child: [], weight: [], support: [], below: [], members: [] };
  const edges = NAMES.map(() => []), parents = NAMES.map(() => []);
  raw.parent.forEach((parent, e) => {
    const edge = { parent, child: raw.child[e], weight: raw.weight[e], support: raw.support[e] };
    edges[parent].push(edge);
    parents[edge.child].push(edge);
  });
  const heavier = (a, b) => (b.weight ?? -Infinity) > (a.weight ?? -Infinity) ? b : a;
  const main = parents.map((list) => (list.length ? list.reduce(heavier).parent : -1));
  const members = new Set(raw.members);
  const nodes = NAMES.map((_, i) => i).filter((i) => i < DATA.scored || members.has(i));
  const below = NAMES.map((_, i) => raw.below[i] ?? 0);
  // Untestable concepts are in no hierarchy; they come last.
  const roots = nodes.filter((i) => !parents[i].length).sort((a, b) => members.has(b) - members.has(a) || below[b] - below[a] || a - b);
  return (trees[layer] = { edges, parents, main, nodes, below, roots });
}
function pathTo(node, layer) {
  const { main } = tree(layer), path = [];
  for (let at = node; at >= 0; at = main[at]) path.unshift(at);
  return path;
}

// ---- scores
const scales = new Map();
/** The largest magnitude of a layer over all targets, so that bars can be compared between targets. */
function scale(layer) {
  if (!scales.has(layer)) {
    let top = 0;
    for (const table of DATA.scores[layer] ?? []) {
      table?.magnitude?.forEach((x, i) => { if (x != null && table.status[i] === 0) top = Math.max(top, Math.abs(x)); });
    }
    scales.set(layer, top || 1);
  }
  return scales.get(layer);
}

/** Results of a concept: numbers when `ok`, else the `reason` why there are none. `lean` is -1 (lowers) .. 1 (raises). */
function reading(i, layer = state.layer, target = state.target, measure = state.measure) {
  const table = DATA.scores[layer]?.[target];
  if (!table) return { ok: false, reason: "no score" };
  if (i >= DATA.scored) return { ok: false, reason: "group" };
  const status = table.status[i];
  if (status !== 0) return { ok: false, reason: status == null ? "not scored" : DATA.statuses[status] };
  const of = (column) => column?.[i] ?? null;
  const score = of(table.score), magnitude = of(table.magnitude), q = of(table.q);
  if ((measure === "score" ? score : magnitude) == null) return { ok: false, reason: "no number" };
  return {
    ok: true, score, magnitude, q, low: of(table.low), high: of(table.high), p: of(table.p), groups: of(table.groups), auc: of(table.auc),
    significant: q != null && q < DATA.alpha, weak: q != null && !(q < DATA.alpha),
    lean: clamp(measure === "score" ? 2 * score - 1 : magnitude / scale(layer), -1, 1),
  };
}
const valueText = (r) => (state.measure === "score" ? r.score.toFixed(2) : signed(r.magnitude));
const hasTargets = DATA.targets.length > 0 && DATA.layers.length > 0;
const hasColumn = (key) => DATA.scores.some((row) => row.some((table) => table?.[key]?.some((x) => x != null)));

/** Whether so many scores are 0 or 1 that they no longer rank the concepts; the page then starts with the magnitude. */
function saturated() {
  let all = 0, ends = 0;
  for (const table of DATA.scores.flat()) {
    for (const score of table?.score ?? []) {
      if (score == null) continue;
      all++;
      if (score < 0.02 || score > 0.98) ends++;
    }
  }
  return ends > all / 4;
}

/** Contributions of a node and of its subtree to the class, with errors; null where unknown. */
function shareOf(i, layer = state.layer, target = state.target) {
  const table = DATA.shares?.[layer]?.[target], branch = table?.branch?.[i];
  if (branch == null) return null;
  return { branch, own: table.share[i], branchError: table.branchError[i], error: table.error[i], whole: table.completeness, explained: table.explained };
}
const shareText = (x, error) => `${Math.round(100 * x)} %${error ? ` ± ${Math.round(196 * error)}` : ""}`;

/** All numbers in one line, for tooltips. */
function summaryLine(r) {
  const range = r.low != null && r.high != null ? ` [${r.low.toFixed(2)}, ${r.high.toFixed(2)}]` : "";
  const parts = [r.score != null && `TCAV score ${r.score.toFixed(2)}${range}`, r.magnitude != null && `magnitude ${signed(r.magnitude)}`, r.q != null && `q = ${short(r.q)}`];
  return parts.filter(Boolean).join(", ");
}

/** A diverging bar: hollow when not significant; the whisker is the interval of the TCAV score. */
function bar(r, measure = state.measure) {
  const box = el("span", { class: "bar", title: r.ok ? summaryLine(r) : null });
  if (!r.ok) return box;
  const at = (lean) => `${50 + 50 * lean}%`;
  box.append(el("i", {
    class: `fill ${r.lean < 0 ? "against" : "for"}${r.weak ? " weak" : ""}`,
    style: { left: at(Math.min(0, r.lean)), width: `${50 * Math.abs(r.lean)}%` },
  }));
  if (measure === "score" && r.low != null && r.high != null) {
    const low = clamp(2 * r.low - 1, -1, 1), high = clamp(2 * r.high - 1, -1, 1);
    box.append(el("i", { class: "whisker", style: { left: at(low), width: `${50 * (high - low)}%` } }));
  }
  return box;
}

// ---- colours: blue raises, orange lowers (distinct in all common kinds of colour blindness); text by contrast
let palette = null;
function colours() {
  if (palette) return palette;
  const css = getComputedStyle(document.documentElement);
  const rgb = (name) => css.getPropertyValue(name).trim().match(/\w\w/g).map((h) => parseInt(h, 16));
  return (palette = { for: rgb("--for"), against: rgb("--against"), mid: rgb("--mid") });
}
function colour(lean) {
  const { mid, ...ends } = colours(), end = lean < 0 ? ends.against : ends.for, t = Math.abs(lean);
  const mix = mid.map((m, c) => Math.round(m + (end[c] - m) * t));
  const [r, g, b] = mix.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return { background: `rgb(${mix.join(" ")})`, color: light > 0.179 ? "#000" : "#fff" };
}
