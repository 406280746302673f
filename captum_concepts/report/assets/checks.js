// ---- checks: what to know of the concepts before the rest is believed ---------------------------------------------
const CHECKED = 12; // rows of each list that are shown at once

/** A list with a heading, a sentence and rows of cells; the first cells are concepts that can be chosen. */
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
    d?.confounded && el("section", { class: "check" }, el("h3", {}, "Another domain"), el("p", {},
      `Any set of the concepts' clips differs from the random pool: held-out AUC ${two(d.auc)}, as do ${percent(d.random_sets)} of random sets of them. ` +
      `${percent(d.common)} of what sets a concept apart from the pool is common to all concepts. Significance against this pool says little; explain again with --negatives in-domain.`)),
    checkTable("Hard to tell apart", "Pairs whose directions agree more than those of random sets, or that share half their recordings. What is said of one holds for the other.",
      ["concept", "and", "cosine", "chance", "finds the other: AUC", "shared groups"],
      found.pairs.map(([a, b, cosine, chance, one, other, groups, overlap]) => [pick(a), pick(b), two(cosine), upTo(chance), one == null && other == null ? "–" : `${two(one)}, ${two(other)}`, groups ? `${thousands(groups)} (${percent(overlap)})` : "0"]), found.n_pairs),
    checkTable("Not repeatable", "Fitted on two halves of the examples, the directions agree no more than those of random sets: more examples are needed.",
      ["concept", "cosine of halves", "chance"], found.unstable.map(([i, cosine, chance]) => [pick(i), two(cosine), upTo(chance)]), found.n_unstable),
    checkTable("Tied to a position", "The direction depends on where in the patch the concept sounds.",
      ["concept", "axis", "unevenness", "chance"], found.placed.map(([i, axis, value, chance]) => [pick(i), axis, two(value), upTo(chance)]), found.n_placed),
    checkTable("Not the same at the next layer", "Moving this layer along the direction does not move the next layer along its own.",
      ["concept", "next layer", "cosine", "chance"], found.lost.map(([i, layer, cosine, chance]) => [pick(i), named(layer, 30), two(cosine), upTo(chance)]), found.n_lost),
    checkTable("Heard before", "Explained clips of recordings that concepts are made of: scores on them are not on unseen audio.",
      ["recording", "explained clips", "concept clips", "concepts"],
      DATA.checks.shared.map(([group, own, theirs, names]) => [named(group, 50), thousands(own), thousands(theirs), named(names, 80)]), DATA.checks.n_shared),
  ].filter(Boolean);
}

function drawChecks() {
  const found = DATA.checks?.layers[state.layer];
  if (!found?.checked && !found?.domain) return;
  const lists = checkLists(found), box = byId("summary");
  const text = lists.length ? lists.map((list) => list.querySelector("h3").textContent.toLowerCase()).join(" · ") : `nothing found in ${plural(found.checked, "concept")}`;
  const open = box.dataset.checks === "open";
  const details = el("details", { class: "warnings checks", open }, el("summary", {}, "Checks: ", text), ...lists);
  details.addEventListener("toggle", () => { box.dataset.checks = details.open ? "open" : ""; drawMap(); });
  box.append(details);
}
