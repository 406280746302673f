// ---- details: everything about one concept ---------------------------------------------------------------------
const verb = (lean) => (lean < 0 ? "lowers" : "raises");

/** The result in one sentence. */
function verdict(r) {
  if (!hasTargets) return el("p", { class: "verdict" }, "The model was explained without class scores, so only its hierarchy is known.");
  if (!r.ok) {
    if (r.reason === "group") return el("p", { class: "verdict" }, "A group from the hierarchy without examples of its own, so it has no score.");
    const why = r.reason === FEW ? "The concept or its negatives have too few independent examples." : "The CAV of this concept failed the quality gate, so no number is given.";
    return el("p", { class: "verdict warn" }, "No score: ", el("b", {}, named(r.reason, 200)), `. ${why}`);
  }
  const up = (r.score ?? (r.magnitude > 0 ? 1 : 0)) >= 0.5;
  const share = r.score == null ? null : up ? r.score : 1 - r.score;
  const line = el("p", { class: "verdict" }, "More of this in the sound ",
    el("b", { class: up ? "for-text" : "against-text" }, verb(up ? 1 : -1)), " ", el("b", {}, targetName()), share == null ? "" : ` in ${percent(share)} of the clips`);
  line.append(r.q == null ? "." : r.significant ? `; significant (q = ${short(r.q)}).` : `, but not significantly (q = ${short(r.q)}).`);
  return line;
}

function fact(term, value, title) {
  return el("div", { title }, el("dt", {}, term), el("dd", {}, value));
}

function facts(i, r) {
  const quality = DATA.quality[state.layer] ?? {}, at = (key) => quality[key]?.[i] ?? null;
  const auc = r.auc ?? at("auc"), range = at("low") != null && at("high") != null ? ` [${at("low").toFixed(2)}, ${at("high").toFixed(2)}]` : "";
  const list = el("dl", { class: "facts" });
  if (r.ok) {
    list.append(
      fact("TCAV score", r.score == null ? "–" : r.score.toFixed(2), "Share of clips with a positive sensitivity of the target to the concept; 0.5 is neutral"),
      fact("95 % interval", r.low == null ? "–" : `${r.low.toFixed(2)}–${r.high.toFixed(2)}`),
      fact("magnitude", r.magnitude == null ? "–" : signed(r.magnitude), "Mean change of the target's logit per unit step along the CAV"),
      fact("p", short(r.p), "Share of null concepts (random sets of clips, same procedure) with an effect at least as strong"),
      fact("q", short(r.q), "p corrected for multiple tests"),
    );
  }
  const share = shareOf(i);
  if (share) {
    const told = `All concepts together account for ${percent(share.whole)} of what the layer explains of the class; the layer explains ${percent(share.explained)} of its variance on held-out groups`;
    if (share.own != null) list.append(fact("own share", shareText(share.own, share.error), told));
    list.append(fact("subtree share", shareText(share.branch, share.branchError), told));
  }
  list.append(
    fact("CAV AUC", auc == null ? "–" : el("span", {}, auc.toFixed(2), el("small", { class: "soft" }, range)), "How well the CAV separates the concept's held-out clips from its negatives; 0.5 is chance"),
    fact("concept groups", at("groups") == null ? "–" : thousands(at("groups")), "Independent groups of examples of the concept"),
    r.groups == null ? "" : fact("clip groups", thousands(r.groups), "Independent groups of explained clips"),
  );
  return list;
}

/** The same concept for all targets (rows) and layers (columns); a click switches the page to it. */
function multiples(i) {
  const rowsShown = 12, table = el("table", { class: "multiples" });
  table.append(el("thead", {}, el("tr", {}, el("th", {}, el("span", { class: "hidden" }, "target")), ...DATA.layers.map((name) => el("th", { scope: "col" }, named(name, 24))))));
  const row = (_, target) => el("tr", {}, el("th", { scope: "row" }, targetName(target, 30)), ...DATA.layers.map((name, layer) => {
    const r = reading(i, layer, target), here = layer === state.layer && target === state.target;
    const label = `${cut(flat(DATA.targets[target]), 40)}, ${cut(flat(name), 40)}: ${r.ok ? valueText(r) : r.reason}`;
    return el("td", {}, el("button", { type: "button", class: here ? "multiple here" : "multiple", title: cut(label, 200), "aria-label": cut(label, 200), on: { click: () => switchTo({ layer, target }) } },
      bar(r), el("span", { class: "value" }, r.ok ? valueText(r) : "–")));
  }));
  const all = DATA.targets.map(row), body = el("tbody", {}, ...all.slice(0, rowsShown));
  table.append(body);
  if (all.length <= rowsShown) return table;
  const more = el("button", { type: "button", class: "quiet", on: { click: () => { body.append(...all.slice(rowsShown)); more.remove(); } } }, `all ${all.length} targets`);
  return el("div", {}, table, more);
}

function relatives(title, edges, end) {
  if (!edges.length) return null;
  const limit = 12, list = el("ul", { class: "relatives" });
  const line = (edge) => {
    const r = reading(edge[end]);
    const strength = [edge.weight, edge.support].filter((x) => x != null).map(short).join(" · ");
    return el("li", {}, el("button", { type: "button", class: "link", on: { click: () => select(edge[end], true) } }, conceptName(edge[end])),
      el("span", { class: "soft strength" }, strength), hasTargets && (r.ok ? bar(r) : el("span", { class: "bar none" })));
  };
  list.append(...edges.slice(0, limit).map(line));
  const more = edges.length > limit && el("button", { type: "button", class: "quiet", on: { click: () => { list.append(...edges.slice(limit).map(line)); more.remove(); } } }, `+${edges.length - limit} more`);
  return el("section", {}, el("h3", {}, title, el("span", { class: "soft" }, ` ${edges.length}`), el("span", { class: "soft strength-head" }, edges.some((edge) => edge.support != null) ? "weight · support" : "weight")), list, more);
}

// ---- timeline
function pushOf(line, concept) {
  line.bytes ??= Int8Array.from(atob(line.push), (c) => c.charCodeAt(0));
  const patches = line.starts.length;
  return Array.from(line.bytes.subarray(concept * patches, (concept + 1) * patches), (b) => (b / 127) * (line.scale[concept] ?? 0));
}

/** Probability that each patch shows the concept; null where it was not saved. */
function presenceOf(line, concept) {
  if (line.presence == null) return null;
  line.shown ??= Uint8Array.from(atob(line.presence), (c) => c.charCodeAt(0));
  const patches = line.starts.length;
  return Array.from(line.shown.subarray(concept * patches, (concept + 1) * patches), (b) => b / 255);
}

/** Where one patch's value gives way to the next: half way between their centres. */
function borders(line) {
  const centres = line.starts.map((start, k) => (start + line.ends[k]) / 2);
  const inner = centres.slice(1).map((c, k) => (c + centres[k]) / 2);
  return [line.starts[0], ...inner, line.ends.at(-1)];
}

function chart(line, concept, goTo) {
  const W = 320, H = 92, P = 22, edges = borders(line), push = pushOf(line, concept), clip = DATA.clips[line.clip];
  const from = Math.min(clip.start, edges[0]), to = clip.seconds ? clip.start + clip.seconds : edges.at(-1), x = (t) => (clamp((t - from) / (to - from), 0, 1) * W);
  const top = Math.max(...push.map(Math.abs)) || 1, y = (v) => H / 2 - (v / top) * (H / 2 - 4);
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", class: "chart", role: "img" });
  picture.append(svg("title", {}, `Sensitivity along the clip, between ${short(-top)} and ${short(top)}`));
  push.forEach((v, k) => picture.append(svg("rect", { x: x(edges[k]), width: Math.max(0, x(edges[k + 1]) - x(edges[k]) - 0.6), y: Math.min(y(v), y(0)), height: Math.abs(y(v) - y(0)), class: v < 0 ? "against" : "for" })));
  picture.append(svg("line", { x1: 0, x2: W, y1: H / 2, y2: H / 2, class: "zero" }));
  const cursor = svg("line", { x1: 0, x2: 0, y1: 0, y2: H, class: "cursor" });
  picture.append(cursor);
  if (goTo) picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    goTo(from + ((event.clientX - box.left) / box.width) * (to - from) - clip.start);
  });
  const presence = presenceOf(line, concept), strip = presence && svg("svg", { viewBox: `0 0 ${W} ${P}`, preserveAspectRatio: "none", class: "presence", role: "img" });
  if (strip) {
    strip.append(svg("title", {}, "Probability over time that the concept is present: from 0 (empty) to 1 (full)"));
    presence.forEach((v, k) => strip.append(svg("rect", { x: x(edges[k]), width: Math.max(0, x(edges[k + 1]) - x(edges[k]) - 0.6), y: P * (1 - v), height: P * v })));
  }
  const frame = el("div", { class: "chart-box" }, strip && el("p", { class: "soft presence-head" }, `presence, at most ${percent(Math.max(...presence))}`), strip, el("p", { class: "soft presence-head" }, "sensitivity of the target"), el("div", { class: "push-box" }, picture,
    el("span", { class: "soft y-top" }, `▲ ${short(top)}`), el("span", { class: "soft y-low" }, "▼ lowers")),
    el("div", { class: "x-axis soft" }, el("span", {}, seconds(from)), el("span", {}, seconds(to))));
  frame.moveTo = (time) => { for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(clip.start + time)); };
  frame.patchAt = (time) => edges.findIndex((edge, k) => k < push.length && clip.start + time < edges[k + 1]);
  return frame;
}

/** The concepts with the largest and the smallest sensitivity in one patch, among testable ones. */
function strongest(line, patch) {
  const patches = line.starts.length;
  pushOf(line, 0);
  let most = [-1, 0], least = [-1, 0];
  for (let i = 0; i < DATA.scored; i++) {
    if (!reading(i).ok) continue;
    const v = (line.bytes[i * patches + patch] / 127) * (line.scale[i] ?? 0);
    if (v > most[1]) most = [i, v];
    if (v < least[1]) least = [i, v];
  }
  return { most: most[0], least: least[0] };
}

function timelines(i) {
  const lines = DATA.timelines.filter((line) => line.layer === state.layer && line.target === state.target && line.starts.length);
  if (i >= DATA.scored || !lines.length) return null;
  const box = el("div", {}), pick = el("select", { "aria-label": "Explained clip" }, ...lines.map((line, k) => el("option", { value: k }, cut(flat(DATA.clips[line.clip].name), 44) + (line.close ? " (full timeline)" : ""))));
  const show = (line) => {
    let sound = null, last = -1;
    const now = el("p", { class: "now soft" }, "Blue above the line: the concept raises the target at that moment; orange below: it lowers it.");
    const picture = chart(line, i, DATA.clips[line.clip].sound == null ? null : (t) => sound.goTo(t));
    sound = player(DATA.clips[line.clip], { onTime: (t) => {
      picture.moveTo(t);
      const patch = picture.patchAt(t);
      if (patch === last || patch < 0) return;
      last = patch;
      const { most, least } = strongest(line, patch);
      now.replaceChildren("Strongest now: ", ...(most < 0 ? ["–"] : [el("span", { class: "for-text" }, "▲ ", conceptName(most, 30))]), " ", ...(least < 0 ? [] : [el("span", { class: "against-text" }, "▼ ", conceptName(least, 30))]));
    } });
    box.replaceChildren(picture, sound, now);
  };
  pick.addEventListener("change", () => show(lines[pick.value]));
  show(lines[0]);
  return el("section", { class: "timeline" }, el("h3", {}, "Along an explained clip"), lines.length > 1 && pick, box);
}

function examples(i) {
  const clips = DATA.examples[state.layer]?.[i] ?? [];
  if (!clips.length) return null;
  return el("section", {}, el("h3", {}, "What it sounds like"), ...clips.map((c) => player(DATA.clips[c])));
}

function drawDetails() {
  const box = byId("details"), i = state.selected;
  box.scrollTop = 0;
  if (i < 0) { box.replaceChildren(...guide()); return; }
  const t = tree(), r = reading(i), parents = t.parents[i], main = parents.find((edge) => edge.parent === t.main[i]);
  const others = parents.filter((edge) => edge !== main).sort((a, b) => (b.weight ?? 0) - (a.weight ?? 0));
  const go = (node) => select(node, true);
  const full = NAMES[i];
  box.replaceChildren(
    el("div", { class: "details-head" }, crumbs(pathTo(i).slice(0, -1), go, { ends: 1 }), el("button", { class: "quiet close", type: "button", title: "Close (Esc)", "aria-label": "Close details", on: { click: () => select(-1) } }, "×")),
    el("h2", { class: "concept" }, conceptName(i, 120)),
  );
  const add = (...nodes) => box.append(...nodes.filter(Boolean));
  if (flat(full).length > 120) add(el("details", { class: "whole-name" }, el("summary", {}, `full name, ${thousands(full.length)} characters`), el("pre", { dir: "auto" }, full)));
  if (others.length) add(el("p", { class: "also-under" }, "other parents: ", ...others.slice(0, 6).flatMap((edge, k) => [k ? ", " : "", el("button", { type: "button", class: "link", on: { click: () => go(edge.parent) } }, conceptName(edge.parent, 40))]), others.length > 6 ? ` and ${others.length - 6} more` : ""));
  add(verdict(r));
  if (r.ok) add(el("div", { class: "gauge" }, bar(r), el("div", { class: "gauge-ends soft" }, el("span", {}, "lowers"), el("span", {}, state.measure === "score" ? "0.5 = neutral" : "0"), el("span", {}, "raises"))));
  add(facts(i, r), examples(i), timelines(i));
  if (hasTargets && i < DATA.scored && DATA.targets.length * DATA.layers.length > 1) {
    add(el("section", {}, el("h3", {}, "For all targets and layers", el("span", { class: "soft" }, state.measure === "score" ? " TCAV score" : " magnitude")), multiples(i)));
  }
  add(relatives("Children", t.edges[i], "child"), relatives(parents.length > 1 ? "Parents" : "Parent", parents, "parent"));
}
