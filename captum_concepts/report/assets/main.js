// ---- main: controls, and how changes update the parts of the page -----------------------------------------------------------
const PANELS = { summary: "Summary", outline: "Concepts", map: "Hierarchy", details: "Details" };

/** One of several options: side by side when they fit, else a drop-down list. */
function choice(title, options, current, change) {
  if (options.length < 2) return null;
  const texts = options.map((option) => cut(flat(option), 40)), group = `choice-${title}`;
  if (texts.length > 6 || texts.join("").length > 36 || innerWidth < 560) {
    const list = el("select", { id: group, on: { change: () => change(Number(list.value)) } }, ...texts.map((text, k) => el("option", { value: k, selected: k === current }, text)));
    return el("label", { class: "choice" }, el("span", { class: "soft" }, title), list);
  }
  return el("fieldset", { class: "choice" }, el("legend", { class: "soft" }, title), el("div", { class: "segments" }, ...texts.map((text, k) =>
    el("label", { title: cut(options[k], 300) }, el("input", { type: "radio", name: group, value: k, checked: k === current, on: { change: () => change(k) } }), el("bdi", {}, text)))));
}

function drawSwitches() {
  const measures = ["score", "magnitude"].filter(hasColumn);
  if (measures.length && !measures.includes(state.measure)) state.measure = measures[0];
  const focused = document.activeElement?.name || document.activeElement?.id;
  byId("switches").replaceChildren(...[
    choice("Target", DATA.targets, state.target, (target) => switchTo({ target })),
    choice("Layer", DATA.layers, state.layer, (layer) => switchTo({ layer })),
    choice("Show", measures.map((m) => (m === "score" ? "TCAV score" : "Magnitude")), measures.indexOf(state.measure), (m) => switchTo({ measure: measures[m] })),
  ].filter(Boolean));
  if (focused?.startsWith("choice-")) byId("switches").querySelector(`[name="${focused}"]:checked, [id="${focused}"]`)?.focus();
  const orders = [["tree", "hierarchy"], ...measures.map((m) => [m, m === "score" ? "by score" : "by magnitude"])];
  byId("order").replaceChildren(...orders.map(([value, text]) => el("option", { value }, text)));
}

/** A new layer, target or measure: everything is recoloured, the selection stays. */
function switchTo(change) {
  const layer = state.layer;
  Object.assign(state, change);
  if (state.layer !== layer) {
    foldToFit();
    const { nodes, roots } = tree();
    if (!nodes.includes(state.selected)) state.selected = -1;
    state.focus = roots.length === 1 ? roots[0] : -1;
  }
  drawSwitches();
  byId("order").value = state.order;
  drawAll();
}

function drawAll() {
  document.body.dataset.measure = state.measure;
  drawSummary();
  drawChecks();
  drawLegend();
  drawOutline();
  showInMap(state.selected);
  drawDetails();
}

/** Shows a concept everywhere; `open` shows its details where only one part fits. */
function select(node, open = false) {
  state.selected = node;
  if (node >= 0) reveal(node); else drawRows(true);
  showInMap(node);
  drawDetails();
  if (open && NARROW.matches) showPanel("details");
}

function showPanel(name) {
  document.body.dataset.panel = name;
  for (const button of byId("panels").children) button.setAttribute("aria-current", String(button.dataset.to === name));
  if (name === "outline") { scrollToActive(); }
  if (name === "map") showInMap(state.selected);
}

function search(text) {
  state.query = text;
  state.closed.clear();
  byId("tree").scrollTop = 0;
  drawOutline();
  if (text && NARROW.matches) showPanel("outline");
}

function pageKey(event) {
  const typing = event.target.closest?.("input:not([type=range]):not([type=radio]), select, textarea");
  if (event.key === "/" && !typing) { byId("query").focus(); byId("query").select(); event.preventDefault(); }
  if (event.key !== "Escape") return;
  if (state.query) { byId("query").value = ""; search(""); if (state.selected >= 0) reveal(state.selected); }
  else if (state.selected >= 0) select(-1);
}

function start() {
  document.body.classList.toggle("unscored", !hasTargets);
  byId("model").append(named(DATA.model, 60));
  byId("panels").append(...Object.entries(PANELS).map(([name, text]) => el("button", { type: "button", "data-to": name, "aria-current": String(name === "summary"), on: { click: () => showPanel(name) } }, text)));
  byId("tree").addEventListener("click", outlineClick);
  byId("tree").addEventListener("keydown", outlineKey);
  byId("tree").addEventListener("scroll", () => drawRows(), { passive: true });
  byId("cells").addEventListener("click", mapClick);
  byId("cells").addEventListener("keydown", mapKey);
  byId("help").addEventListener("click", () => { select(-1); if (NARROW.matches) showPanel("details"); });
  byId("unfold").addEventListener("click", unfoldAll);
  byId("query").addEventListener("input", (event) => search(event.target.value));
  byId("query").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== "ArrowDown") return;
    const hits = searchHits(), at = hits ? rows.findIndex((row) => hits.has(row.node)) : 0;
    if (at < 0) return;
    active = at;
    select(rows[at].node, event.key === "Enter");
    if (event.key === "ArrowDown") byId("tree").focus();
    event.preventDefault();
  });
  byId("order").addEventListener("change", (event) => { state.order = event.target.value; byId("tree").scrollTop = 0; drawOutline(); });
  document.addEventListener("keydown", pageKey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { palette = null; drawAll(); });
  let waiting = 0;
  addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => { drawRows(true); drawMap(); }); });
  const { roots } = tree();
  state.focus = roots.length === 1 ? roots[0] : -1;
  foldToFit();
  if (saturated()) state.measure = "magnitude";
  drawSwitches();
  drawAbout();
  drawAll();
  document.documentElement.dataset.drawn = String(Math.round(performance.now()));
}
start();
