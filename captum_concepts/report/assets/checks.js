// ---- checks: diagnostics of the concepts ---------------------------------------------
const CHECKED = 12; // rows of each list shown at first

/** A list with a heading, a sentence and rows of cells; the first cells are buttons that select a concept. */
function checkTable(title, text, heads, rows, total) {
  if (!rows.length) return null;
  const body = el("tbody", {}, ...rows.slice(0, CHECKED).map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell)))));
  const more = total > Math.min(rows.length, CHECKED) ? el("p", { class: "soft" }, `… ${thousands(total)} in all: explanation.json`) : null;
  return el("section", { class: "check" }, el("h3", {}, title), el("p", { class: "soft" }, text),
    el("div", { class: "check-box" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", {}, head)))), body)), more);
}
const pick = (i) => el("button", { type: "button", class: "link", on: { click: () => select(i, true) } }, conceptName(i, 40));
const upTo = (x) => (x == null ? "–" : `≤ ${x.toFixed(2)}`);
const two = (x) => (x == null ? "–" : x.toFixed(2).replace("-", "−"));

function checkLists(found) {
  const d = found.domain;
  return [
    d?.confounded && el("section", { class: "check" }, el("h3", {}, "Domain shift"), el("p", {},
      `Any set of the concepts' clips differs from the random pool: held-out AUC ${two(d.auc)}, as do ${percent(d.random_sets)} of random sets of them. ` +
      `${percent(d.common)} of the difference between a concept and the pool is common to all concepts. Significance against this pool says little; explain again with --negatives in-domain.`)),
    checkTable("Correlated CAVs", "Pairs whose CAVs are more similar than those of null concepts, or that share half their groups. Results for one also hold for the other.",
      ["concept", "and", "cosine", "chance", "AUC for the other", "shared groups"],
      found.pairs.map(([a, b, cosine, chance, one, other, groups, overlap]) => [pick(a), pick(b), two(cosine), upTo(chance), one == null && other == null ? "–" : `${two(one)}, ${two(other)}`, groups ? `${thousands(groups)} (${percent(overlap)})` : "0"]), found.n_pairs),
    checkTable("Not reproducible", "CAVs fitted on two halves of the groups are no more similar than those of null concepts: more examples are needed.",
      ["concept", "cosine of halves", "chance"], found.unstable.map(([i, cosine, chance]) => [pick(i), two(cosine), upTo(chance)]), found.n_unstable),
    checkTable("Position dependence", "The CAV depends on the position of the concept in the patch.",
      ["concept", "axis", "unevenness", "chance"], found.placed.map(([i, axis, value, chance]) => [pick(i), axis, two(value), upTo(chance)]), found.n_placed),
    checkTable("Different at the next layer", "Moving the activations of this layer along the CAV does not move those of the next layer along its CAV.",
      ["concept", "next layer", "cosine", "chance"], found.lost.map(([i, layer, cosine, chance]) => [pick(i), named(layer, 30), two(cosine), upTo(chance)]), found.n_lost),
    checkTable("Leakage", "Explained clips from groups that also contain concept examples: their scores are not on unseen audio.",
      ["group", "explained clips", "concept clips", "concepts"],
      DATA.checks.shared.map(([group, own, examples, names]) => [named(group, 50), thousands(own), thousands(examples), named(names, 80)]), DATA.checks.n_shared),
  ].filter(Boolean);
}

function drawChecks() {
  const found = DATA.checks?.layers[state.layer];
  if (!found?.checked && !found?.domain) return;
  const lists = checkLists(found), box = byId("summary");
  const text = lists.length ? lists.map((list) => list.querySelector("h3").textContent.toLowerCase()).join(" · ") : `no findings for ${plural(found.checked, "concept")}`;
  const open = box.dataset.checks === "open";
  const details = el("details", { class: "warnings checks", open }, el("summary", {}, "Checks: ", text), ...lists);
  details.addEventListener("toggle", () => { box.dataset.checks = details.open ? "open" : ""; drawMap(); });
  box.append(details);
}
