"use strict";
// Sorting: a click, Enter or Space on a column's header; again for the other direction. Empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    header.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(table.tBodies[0], column, descending, header.classList.contains("number"));
    });
  });
}

function sort(body, column, descending, numeric) {
  const key = (row) => row.cells[column].dataset.v;
  const collator = new Intl.Collator("en", { numeric: true });
  const compare = numeric ? (a, b) => Number(a) - Number(b) : collator.compare;
  const rows = [...body.rows].sort((one, other) => {
    const a = key(one), b = key(other);
    if (a === "" || b === "") return (a === "") - (b === "");
    return descending ? compare(b, a) : compare(a, b);
  });
  body.append(...rows);
}
