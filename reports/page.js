"use strict";
// Tables: a click on a header sorts, words and a verdict filter, and what is long has pages. Without this script, or on
// paper, every row shows.
const FEW = 8; // rows that need no filter
const collator = new Intl.Collator("en", { numeric: true });

function enhance(box) {
  const size = Number(box.dataset.page);
  const body = box.querySelector("tbody");
  const all = [...body.rows];
  const heads = [...box.querySelectorAll("thead th")];
  const words = box.querySelector("input");
  const verdict = box.querySelector("select");
  const pages = box.querySelector(".pages");
  const [back, on] = pages.querySelectorAll("button");
  const texts = new Map(all.map((row) => [row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase()]));
  let ordered = all;
  let page = 0;

  function show() {
    const wanted = words.value.toLowerCase().split(/\s+/);
    const kept = ordered.filter(
      (row) => (!verdict?.value || row.dataset.verdict === verdict.value) && wanted.every((word) => texts.get(row).includes(word)),
    );
    const last = Math.max(0, Math.ceil(kept.length / size) - 1);
    page = Math.min(page, last);
    const first = page * size;
    const seen = kept.slice(first, first + size);
    const shown = new Set(seen);
    for (const row of all) row.classList.toggle("off", !shown.has(row));
    const which = last > 0 ? `${first + 1} to ${first + seen.length} of ` : "";
    box.querySelector("output").textContent = `${which}${kept.length} rows` + (kept.length < all.length ? `, of ${all.length} in all` : "");
    pages.hidden = last === 0;
    back.disabled = page === 0;
    on.disabled = page === last;
  }

  function sort(column) {
    const head = heads[column];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const each of heads) each.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const keys = new Map(all.map((row) => [row, key(row.cells[column])]));
    ordered = [...ordered].sort((x, y) => compare(keys.get(x), keys.get(y), sign));
    body.append(...ordered);
    page = 0;
    show();
  }

  heads.forEach((head, i) => {
    const button = head.firstElementChild; // no <button>: on paper Chromium repeats no header that has one
    button.addEventListener("click", () => sort(i));
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(i);
    });
  });
  words.addEventListener("input", () => { page = 0; show(); });
  verdict?.addEventListener("change", () => { page = 0; show(); });
  back.addEventListener("click", () => { page -= 1; show(); });
  on.addEventListener("click", () => { page += 1; show(); });
  for (const name of verdict ? new Set(all.map((row) => row.dataset.verdict)) : []) verdict.add(new Option(name, name));
  box.querySelector(".controls").hidden = all.length < FEW;
  show();
}

// A number where the cell has one to sort by, null where such a column has none, else its words.
function key(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  return cell.classList.contains("number") ? null : cell.textContent;
}

// What has no number is last, whatever the order.
function compare(x, y, sign) {
  if (x === null || y === null) return (x === null) - (y === null);
  return sign * (typeof x === "number" ? x - y : collator.compare(x, y));
}

for (const box of document.querySelectorAll(".data")) enhance(box);

let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const each of closed) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of closed) each.open = false;
});
