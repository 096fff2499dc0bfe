"use strict";
// The dialog of one network: its drawing, its genotype, and the record and command that it comes from.
page.networks = page.json("networks");
page.details = null; // unpacked when the first is asked for

page.show = async function (number, anchor, point) {
  const dialog = document.getElementById("network");
  page.details ??= JSON.parse(await page.unpack(page.networks.details));
  const network = page.details[number], drawing = page.networks.drawings[number];
  page.text(document.getElementById("network-title"), `Network ${network.key.slice(0, 8)}`);
  page.text(document.getElementById("network-point"), point);
  fillEdges(network.edges);
  const places = network.places.map((place) => page.text(document.createElement("li"), place));
  document.getElementById("network-places").replaceChildren(...places);
  fillSource(anchor);
  page.text(document.getElementById("network-text"), network.text);
  const holder = document.getElementById("network-picture");
  holder.className = drawing ? "paper" : "note";
  page.text(holder, drawing ? "" : "Not drawn on this page: the run's folder has the drawing, named below.");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  if (drawing) {
    try {
      holder.replaceChildren(await page.image(drawing, `Drawing of network ${network.key.slice(0, 8)}`));
    } catch {
      page.text(holder, "This browser cannot show the drawing; the run's folder has it, named below.");
    }
  }
};

function fillEdges(edges) {
  const rows = edges.map((edge) => {
    const row = document.createElement("tr");
    row.append(...edge.map((text) => page.text(document.createElement("td"), text)));
    return row;
  });
  if (!rows.length) {
    const cell = page.text(document.createElement("td"), "The record's architecture cannot be read; it is below as text.");
    cell.colSpan = 4;
    rows.push(document.createElement("tr"));
    rows[0].append(cell);
  }
  document.querySelector("#network-edges tbody").replaceChildren(...rows);
}

function fillSource(anchor) {
  const run = document.getElementById(anchor);
  const record = run.querySelector("p a").cloneNode(true);
  const link = page.text(document.createElement("a"), "all about the run");
  link.href = "#" + anchor;
  document.getElementById("network-record").replaceChildren("Record: ", record, " · ", link);
  const code = document.querySelector("#network-command code");
  page.text(code, run.querySelector(".command code").textContent);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-network]");
  if (button) page.show(Number(button.dataset.network), button.dataset.run, button.dataset.point);
  const dialog = document.getElementById("network");
  // A link in the dialog leads out of it; a click beside it closes it.
  if (dialog.open && (event.target === dialog || event.target.closest("#network a[href^='#']"))) dialog.close();
});
