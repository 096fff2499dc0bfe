"use strict";
// What all parts share: unpacking texts, copying commands, opening what a link points to.
const page = {
  async unpack(packed) {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  },

  // An SVG as an image: nothing in it can run, and its names cannot meet the page's.
  async image(packed, alternative) {
    const svg = await page.unpack(packed);
    const bytes = new TextEncoder().encode(svg);
    let letters = "";
    for (let at = 0; at < bytes.length; at += 8192) letters += String.fromCharCode(...bytes.subarray(at, at + 8192));
    const image = new Image();
    image.alt = alternative;
    image.src = "data:image/svg+xml;base64," + btoa(letters);
    await image.decode();
    // Pictures keep the size that they were made for; narrow screens shrink them as far as their type is readable, and scroll.
    image.width = image.naturalWidth;
    image.height = image.naturalHeight;
    image.style.minWidth = `${Math.min(image.naturalWidth, 540)}px`;
    return image;
  },

  json(id) {
    return JSON.parse(document.getElementById(id).textContent);
  },

  text(holder, text) {
    holder.textContent = text;
    return holder;
  },

  // Opens what an address points to: browsers do not open <details> for it.
  open() {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at instanceof HTMLDetailsElement) at.open = true;
    target.scrollIntoView();
    const focused = target.querySelector("summary") || target;
    if (!focused.matches("summary, a, button")) focused.tabIndex = -1;
    focused.focus({ preventScroll: true });
  },
};

// A picture is unpacked when it comes near the screen, so that the page is there at once.
const arriving = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) reveal(target);
}, { rootMargin: "600px" });

function reveal(holder) {
  arriving.unobserve(holder);
  page.image(holder.dataset.packed, holder.dataset.alt).then(
    (image) => { holder.replaceChildren(image); page.hint(holder); },
    () => page.text(holder, "This browser cannot show the picture here; see its files.")
  );
  holder.removeAttribute("data-packed");
}
for (const holder of document.querySelectorAll("[data-packed]")) arriving.observe(holder);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    // A page opened from a file may not copy: select the text, so that the reader can.
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});

// On a small screen the contents would push everything else away.
if (matchMedia("(max-width: 70rem)").matches) document.querySelector("nav details").open = false;
addEventListener("hashchange", page.open);
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((it) => { it.open = true; });
  document.querySelectorAll("[data-packed]").forEach(reveal);
});

// What is wider than its place says that it goes on, until it was scrolled to its end.
page.hint = (holder) => {
  const more = holder.scrollWidth - holder.clientWidth - holder.scrollLeft > 4;
  holder.classList.toggle("goes-on", more);
};
const widths = new ResizeObserver((entries) => entries.forEach((entry) => page.hint(entry.target)));
for (const holder of document.querySelectorAll(".scroll, .paper")) {
  widths.observe(holder);
  holder.addEventListener("scroll", () => page.hint(holder), { passive: true });
}

// The contents mark the part that is being read: the last whose beginning has passed the upper third of the screen.
const entries = [...document.querySelectorAll("nav a")].map((link) => [link, document.getElementById(link.hash.slice(1))]);
function follow() {
  const shown = entries.filter(([, part]) => part && part.offsetParent !== null);
  const passed = shown.filter(([, part]) => part.getBoundingClientRect().top < innerHeight / 3);
  const [current] = passed[passed.length - 1] || shown[0] || [];
  for (const [link] of entries) link.toggleAttribute("aria-current", link === current);
  current?.setAttribute("aria-current", "true");
}
let waiting = false;
addEventListener("scroll", () => {
  if (!waiting) requestAnimationFrame(() => { waiting = false; follow(); });
  waiting = true;
}, { passive: true });
follow();
