// ---- summary, guide and provenance: shown first ----------------------------------------------
const TOP = 6;

/** The tested concepts, largest effect first; significant ones come before the others. */
function ranked() {
  const measure = hasColumn("magnitude") ? "magnitude" : "score", found = [];
  for (let i = 0; i < DATA.scored; i++) {
    const r = reading(i, state.layer, state.target, measure);
    if (r.ok) found.push({ i, r });
  }
  const off = ({ r }) => Math.abs((r.score ?? 0.5) - 0.5);
  return found.sort((a, b) => b.r.significant - a.r.significant || Math.abs(b.r.lean) - Math.abs(a.r.lean) || off(b) - off(a) || a.i - b.i);
}

/** Reason why concepts have no number -> how many: "not testable", "too few groups", ... */
function reasons() {
  const found = new Map();
  for (let i = 0; i < DATA.scored; i++) {
    const r = reading(i, state.layer, state.target, hasColumn("magnitude") ? "magnitude" : "score");
    if (!r.ok) found.set(r.reason, (found.get(r.reason) ?? 0) + 1);
  }
  return found;
}

function rankedList(title, sign, tested) {
  const list = tested.filter(({ r }) => Math.sign(r.lean) === sign), note = list.length ? null : el("p", { class: "soft" }, "None.");
  const line = ({ i, r }) => {
    const example = DATA.examples[state.layer]?.[i]?.map((c) => DATA.clips[c]).find((clip) => clip.sound != null);
    const interval = r.low != null && r.high != null ? ` (${percent(r.low)} – ${percent(r.high)})` : "";
    return el("li", { class: r.significant ? "" : "chance" },
      example ? player(example, { compact: true, label: NAMES[i] }) : el("span", { class: "player compact" }),
      el("button", { type: "button", class: "link", on: { click: () => select(i, true) } }, conceptName(i)),
      bar(r, "magnitude"),
      el("span", { class: "share", title: r.score == null ? "" : `positive in ${percent(r.score)} of the clips${interval}` }, r.score == null ? signed(r.magnitude) : percent(r.score)));
  };
  return el("div", { class: `ranked ${sign < 0 ? "against-side" : "for-side"}` }, el("h3", {}, title, el("span", { class: "soft", title: "Share of clips with a positive sensitivity of the target to the concept (the TCAV score)" }, "TCAV score")), note ?? el("ol", {}, ...list.slice(0, TOP).map(line)));
}

function drawSummary() {
  const box = byId("summary");
  box.replaceChildren();
  if (!hasTargets) {
    box.append(el("h2", {}, "How the concepts relate"), el("p", { class: "lead" },
      "This model was explained without a classification head, so there are no scores: the page shows which concepts its layers represent, and how these relate."), ...warnings());
    return;
  }
  const tested = ranked(), sure = tested.filter(({ r }) => r.significant).length;
  const count = [`${plural(DATA.scored, "concept")}`];
  if (hasColumn("q")) count.push(`${thousands(sure)} significant (q < ${DATA.alpha})`);
  for (const [reason, number] of reasons()) count.push(`${thousands(number)} ${reason === FEW ? `with ${FEW}` : cut(flat(reason), 40)}`);
  box.append(
    el("div", { class: "summary-head" }, el("h2", {}, "What ", targetName(), " depends on"), foldButton()),
    el("p", { class: "lead" }, "Layer ", named(DATA.layers[state.layer], 40), ` · ${count.join(" · ")}`),
  );
  if (!tested.length) box.append(el("p", { class: "notice" }, "No concept could be tested here."));
  else {
    if (!sure && hasColumn("q")) box.append(el("p", { class: "notice" }, `No concept is significant (q < ${DATA.alpha}): the order may be due to chance.`));
    box.append(el("div", { class: "sides" }, rankedList("Raises the class", 1, tested), rankedList("Lowers the class", -1, tested)));
  }
  box.append(...warnings());
}

/** The button that folds the summary, to leave its space to the hierarchy. */
function foldButton() {
  const box = byId("summary");
  const text = () => (box.classList.contains("folded") ? "▾ show" : "▴ hide");
  const button = el("button", { type: "button", class: "quiet fold" }, text());
  button.addEventListener("click", () => { box.classList.toggle("folded"); button.textContent = text(); drawMap(); });
  return button;
}

function warnings() {
  if (!DATA.warnings.length) return [];
  const list = el("ul", {}, ...DATA.warnings.map((line) => el("li", {}, named(line, 400))));
  return [el("details", { class: "warnings", open: DATA.warnings.length <= 2 }, el("summary", {}, plural(DATA.warnings.length, "warning")), list)];
}

function guide() {
  const item = (term, ...text) => [el("dt", {}, term), el("dd", {}, ...text)];
  const sample = (lean, significant) => bar({ ok: true, lean, significant, weak: !significant, low: null, high: null }, "magnitude");
  return [
    el("h2", { class: "concept" }, "How to read this page"),
    el("p", {}, hasTargets
      ? "The model turns audio into scores for its classes. This page shows which human concepts these scores depend on, how the concepts relate inside the model, and how certain that is."
      : "The model turns audio into activations. This page shows which human concepts these represent, and how the concepts relate inside the model."),
    el("p", { class: "soft" }, hasTargets
      ? "The summary ranks concepts by magnitude, significant ones first; the hierarchy colours every concept; this column shows the details of the concept you select."
      : "Select a concept on the left or in the hierarchy to see its details in this column."),
    el("dl", { class: "guide" },
      ...item("Concept", "A named property, given by example clips. Press ▶ to play one."),
      ...(hasTargets ? [
        ...item(sample(0.8, true), "Blue, to the right: more of the concept raises the chosen class."),
        ...item(sample(-0.6, true), "Orange, to the left: more of it lowers the class."),
        ...item(sample(0.5, false), "Hollow: not significant; the effect may be due to chance."),
        ...item("TCAV score", "The share of clips with a positive sensitivity of the class to the concept: 1 always, 0.5 neutral, 0 never. The thin line is the 95 % interval."),
        ...item("Magnitude", "The mean sensitivity: the change of the class's logit per unit step along the concept's activation vector (CAV)."),
        ...item("q", "The expected share of false discoveries among the concepts marked at this level. ● marks q < 0.05."),
        ...item("Not testable", "The layer does not separate this concept from its negatives, so any number would be noise. None is given."),
        ...item("Too few groups", "The concept or its negatives have too few independent examples. This says nothing about the model."),
      ] : []),
      ...item("Hierarchy", "Parents are more general than their children. It was mined from the model, not given to it."),
      ...(DATA.shares?.flat().some(Boolean) ? [...item("Share", "Contribution of a concept or its subtree to what the layer explains of the class (Owen values). A value below 0 lowers the explained part.")] : []),
      ...item("×2, ↪", "The concept has several parents; ↪ marks places where its subtree is not repeated."),
    ),
    el("h3", {}, "Keyboard"),
    el("p", { class: "soft" }, el("kbd", {}, "/"), " search · ", el("kbd", {}, "↑"), el("kbd", {}, "↓"), " move · ", el("kbd", {}, "←"), el("kbd", {}, "→"), " close, open · ", el("kbd", {}, "Esc"), " clear"),
    hasTargets && el("p", { class: "soft" }, "Effects are those of the direction that the model has learned for a concept: evidence about the model, not about music."),
  ].filter(Boolean);
}

function provenanceList(value) {
  if (value === null || typeof value !== "object") return el("span", {}, cut(String(value), 2000));
  if (Array.isArray(value) && value.every((item) => item === null || typeof item !== "object")) {
    return el("span", {}, cut(value.slice(0, 200).join(", "), 2000), value.length > 200 ? ` … ${value.length} in all` : "");
  }
  return el("dl", {}, ...Object.entries(value).slice(0, 500).flatMap(([key, item]) => [el("dt", {}, cut(key, 200)), el("dd", {}, provenanceList(item))]));
}

function drawAbout() {
  byId("about").replaceChildren(el("details", {}, el("summary", {}, "Provenance"),
    Object.keys(DATA.provenance).length ? provenanceList(DATA.provenance) : el("p", { class: "soft" }, "No provenance was recorded.")));
}

function drawLegend() {
  if (!hasTargets) { byId("legend").replaceChildren(); return; }
  const stops = [-1, -0.5, 0, 0.5, 1].map((lean) => colour(lean).background).join(", ");
  const ends = state.measure === "score" ? ["0 lowers", "raises 1"] : [`${short(-scale(state.layer))} lowers`, `raises ${signed(scale(state.layer))}`];
  byId("legend").replaceChildren(
    el("span", { class: "soft" }, ends[0]), el("span", { class: "ramp", style: { background: `linear-gradient(to right, ${stops})` } }), el("span", { class: "soft" }, ends[1]),
    hasColumn("q") && el("span", { class: "key" }, `● q < ${DATA.alpha}`),
    hasColumn("q") && el("span", { class: "key" }, el("i", { class: "swatch weak" }), "not significant"),
    el("span", { class: "key" }, el("i", { class: "swatch untested" }), "no number"),
  );
}
