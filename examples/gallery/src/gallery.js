// What the pages do beyond links and forms. Texts from the library reach the page as text only, never as HTML of ours.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const fragment = { headers: { "x-fragment": "1" } };

// A piece of a page from the server, which escapes it.
async function load(address, signal) {
  const response = await fetch(address, { ...fragment, signal });
  return response.text();
}

for (const place of all(".fragment[data-source]")) {
  load(place.dataset.source).then((text) => { place.innerHTML = text; watch(); });
}

// Plans on a click.
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a.plan");
  if (!link) return;
  event.preventDefault();
  link.textContent = "Explaining …";
  const text = await load(link.href);
  const holder = document.createElement("div");
  holder.className = "planned";
  holder.innerHTML = text;
  link.nextElementSibling?.remove();
  link.replaceWith(holder);
});

// Search as you type.
const form = $("#search");
let running;
let waiting;
function parameters() {
  const fields = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    if (typeof value === "string" && value && !(name === "diverse" && value === "0") && !(name === "weight" && value === "50")) fields.append(name, value);
  }
  return fields.toString();
}
async function search() {
  const asked = parameters();
  history.replaceState(null, "", asked ? `/?${asked}` : "/");
  running?.abort();
  running = new AbortController();
  const results = $("#results");
  results.classList.add("busy");
  try {
    results.innerHTML = await load(`/results?${asked}`, running.signal);
    results.classList.remove("busy");
    watch();
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
}
if (form) {
  form.addEventListener("input", (event) => {
    if (event.target.type === "file") return;
    clearTimeout(waiting);
    waiting = setTimeout(search, event.target.type === "search" ? 120 : 30);
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(waiting); search(); });
}

// Endless scrolling: the next page is fetched when its link comes near.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) more(entry.target);
}, { rootMargin: "900px" });
function watch() { all("a.more").forEach((link) => near.observe(link)); }
async function more(link) {
  near.unobserve(link);
  if (link.dataset.busy) return;
  link.dataset.busy = "1";
  const page = document.createElement("div");
  page.innerHTML = await load(link.href);
  if (!link.isConnected) return;
  const place = link.closest(".fragment") ?? document;
  const cards = $(".cards", page);
  if (cards) $(".cards", place).append(...cards.children);
  const next = $("a.more", page);
  if (next) { link.replaceWith(next); near.observe(next); } else link.remove();
}
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.more");
  if (link) { event.preventDefault(); more(link); }
});

// Marks and removals without a new page.
document.addEventListener("submit", async (event) => {
  const sent = event.target;
  if (sent.matches("form.marks")) {
    event.preventDefault();
    const body = new URLSearchParams(new FormData(sent));
    body.set("weight", event.submitter.value);
    const response = await fetch("/mark", { method: "POST", body, ...fragment });
    if (!response.ok) return;
    const had = sent.contains(document.activeElement) ? document.activeElement.className : null;
    const holder = document.createElement("div");
    holder.innerHTML = await response.text();
    const fresh = holder.firstElementChild;
    sent.replaceWith(fresh);
    if (had) $(`.${had}`, fresh)?.focus();
  } else if (sent.matches("form.remove")) {
    event.preventDefault();
    if (sent.dataset.confirm && !confirm(sent.dataset.confirm)) return;
    const response = await fetch("/remove", { method: "POST", body: new URLSearchParams(new FormData(sent)), ...fragment });
    if (!response.ok) return;
    const card = sent.closest(".card");
    const group = sent.closest(".group");
    if (!group) { location.href = "/"; return; }
    card?.remove();
    if (!card || all(".card", group).length < 2) group.remove();
  }
});

// Keys: a card has the focus, or the search does.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  const writes = target.matches("input:not([type=range], [type=checkbox]), textarea, select");
  if (event.key === "/" && !writes) { event.preventDefault(); const box = $("input[type=search]"); if (box) { box.focus(); box.select(); } else location.href = "/"; return; }
  if (event.key === "Escape" && target.type === "search") { $(".card .picture")?.focus(); return; }
  if (event.key === "ArrowDown" && target.type === "search") { event.preventDefault(); $(".card .picture")?.focus(); return; }
  if (writes || target.id === "map") return;
  const card = target.closest(".card, .one");
  if (!card) return;
  const click = (selector) => { event.preventDefault(); $(selector, card)?.click(); };
  switch (event.key.toLowerCase()) {
    case "l": click(".like"); break;
    case "d": click(".dislike"); break;
    case "m": click(".likewise"); break;
    case "arrowright": case "arrowleft": {
      const cards = all(".card .picture");
      const next = cards[cards.indexOf($(".picture", card)) + (event.key === "ArrowRight" ? 1 : -1)];
      if (next) { event.preventDefault(); next.focus(); next.scrollIntoView({ block: "nearest" }); }
      break;
    }
    default:
  }
});

// A picture as a query: chosen, dropped or pasted.
async function searchBy(file) {
  const response = await fetch("/asked", { method: "POST", body: file });
  const answer = await response.json().catch(() => ({ error: response.status === 413 ? "the picture is larger than 32 MB" : "the picture was not taken" }));
  if (!answer.id) { complain(answer); return; }
  const fields = new URLSearchParams(form ? parameters() : "");
  fields.delete("like");
  fields.set("picture", answer.id);
  location.href = `/?${fields}`;
}
function complain(answer) {
  const box = document.createElement("div");
  box.className = "problem";
  box.setAttribute("role", "alert");
  box.textContent = reason(answer);
  $("main").prepend(box);
}
function reason(answer) { return [answer.error, answer.detail, answer.hint].filter(Boolean).join(". ").replaceAll("..", "."); }
$("#by-picture")?.addEventListener("change", (event) => { if (event.target.files[0]) searchBy(event.target.files[0]); });
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((item) => item.type.startsWith("image/"));
  if (file && !$("#drop")) { event.preventDefault(); searchBy(file); }
});
document.addEventListener("dragover", (event) => { if (event.dataTransfer.types.includes("Files")) { event.preventDefault(); ($("#drop") ?? document.body).classList.add("over"); } });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) ($("#drop") ?? document.body).classList.remove("over"); });
document.addEventListener("drop", async (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  ($("#drop") ?? document.body).classList.remove("over");
  if ($("#drop")) { upload(await dropped(event.dataTransfer)); } else if (event.dataTransfer.files[0]) searchBy(event.dataTransfer.files[0]);
});

// Upload: files and folders, two at a time.
async function dropped(transfer) {
  const files = [];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, folder: "" }));
  const visit = async (entry, folder) => {
    if (entry.isFile) {
      files.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), folder });
    } else {
      const reader = entry.createReader();
      const path = folder ? `${folder}/${entry.name}` : entry.name;
      for (;;) {
        const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!batch.length) break;
        for (const inner of batch) await visit(inner, path);
      }
    }
  };
  for (const entry of entries) await visit(entry, "");
  return files;
}
async function upload(items) {
  const bar = $("#upload-progress");
  const list = $("#uploaded");
  const status = $("#upload-status");
  let done = 0, stored = 0, refused = 0;
  const told = items.length;
  bar.hidden = false;
  bar.max = told || 1;
  const queue = items.filter(({ file }) => !file.name.startsWith("."));
  done = told - queue.length;
  const tell = (name, text, isBad) => {
    const item = document.createElement("li");
    item.textContent = `${name}: ${text}`;
    if (isBad) item.className = "bad";
    list.prepend(item);
  };
  const work = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const { file, folder } = next;
      const name = folder ? `${folder}/${file.name}` : file.name;
      try {
        const fields = new URLSearchParams({ folder, name: file.name, year: new Date(file.lastModified).getFullYear() });
        const response = await fetch(`/pictures?${fields}`, { method: "POST", body: file });
        const answer = await response.json().catch(() => ({ error: response.status === 413 ? "it is larger than 32 MB" : `the gallery answered ${response.status}` }));
        if (answer.error) { refused += 1; tell(name, reason(answer), true); } else if (answer.id === null) tell(name, "is there already"); else { stored += 1; tell(name, "added"); }
      } catch (error) { refused += 1; tell(name, String(error.message), true); }
      done += 1;
      bar.value = done;
      status.textContent = `${done} of ${told}: ${stored} added, ${refused} refused`;
    }
  };
  await Promise.all([work(), work()]);
  status.textContent = `Done: ${stored} added, ${refused} refused`;
}
for (const input of all("#files, #folder")) {
  input.addEventListener("change", () => upload([...input.files].map((file) => ({ file, folder: file.webkitRelativePath.split("/").slice(0, -1).join("/") }))));
}

// The pictures that the gallery was started with.
async function importing() {
  const box = $("#importing");
  const { total, done, refused } = await (await fetch("/progress")).json();
  box.hidden = done >= total;
  box.textContent = `Embedding ${done} of ${total}${refused ? `, ${refused} refused` : ""}`;
  if (done < total) setTimeout(importing, 500);
}
importing();
all("input[type=range] + output").forEach((output) => output.previousElementSibling.addEventListener("input", (event) => { output.textContent = event.target.value; }));

// The map.
const canvas = $("#map");
if (canvas) drawMap(canvas);
async function drawMap(canvas) {
  const points = (await (await fetch("/map.json")).json()).map(([id, x, y, cluster, version, label, width, height]) => ({ id, x, y, cluster, version, label, ratio: width / height }));
  const context = canvas.getContext("2d");
  const images = new Map();
  const view = { x: 0, y: 0, zoom: 1 };
  let shown = [];
  let pending = false;
  const draw = () => { if (!pending) { pending = true; requestAnimationFrame(paint); } };
  const unit = () => 0.46 * Math.min(canvas.clientWidth, canvas.clientHeight);
  // The map is as wide as the canvas.
  const stretch = () => Math.min(2.2, canvas.clientWidth / canvas.clientHeight);
  const place = (point) => [canvas.clientWidth / 2 + (point.x - view.x) * unit() * view.zoom * stretch(), canvas.clientHeight / 2 + (point.y - view.y) * unit() * view.zoom];
  const tile = () => Math.max(3, Math.min(150, 0.95 * view.zoom * Math.sqrt(canvas.clientWidth * canvas.clientHeight / Math.max(1, points.length)) * 0.8));
  function image(point) {
    let found = images.get(point.id);
    if (!found) {
      found = new Image();
      found.onload = draw;
      found.src = `/thumbnail/${point.id}?v=${point.version}`;
      images.set(point.id, found);
    }
    return found.complete && found.naturalWidth ? found : null;
  }
  const color = (cluster) => cluster ? `hsl(${(cluster * 137.5) % 360} 55% 55%)` : "hsl(210 8% 62%)";
  function paint() {
    pending = false;
    const scale = devicePixelRatio;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    context.scale(scale, scale);
    const size = tile();
    shown = [];
    for (const point of points) {
      const [x, y] = place(point);
      if (x > -size && y > -size && x < canvas.clientWidth + size && y < canvas.clientHeight + size) shown.push({ point, x, y });
    }
    // Thumbnails where there is room for them, else dots.
    const asPictures = size >= 14 && shown.length <= 1500;
    for (const item of shown) {
      const { point, x, y } = item;
      const picture = asPictures ? image(point) : null;
      const width = picture ? size * Math.min(1, point.ratio) : Math.min(size, 9);
      const height = picture ? size * Math.min(1, 1 / point.ratio) : Math.min(size, 9);
      item.width = width; item.height = height;
      if (picture) {
        context.fillStyle = "#fff";
        context.fillRect(x - width / 2 - 1, y - height / 2 - 1, width + 2, height + 2);
        context.drawImage(picture, x - width / 2, y - height / 2, width, height);
        context.strokeStyle = color(point.cluster);
        context.lineWidth = Math.max(1, size / 40);
        context.strokeRect(x - width / 2 - 1, y - height / 2 - 1, width + 2, height + 2);
      } else {
        context.fillStyle = color(point.cluster);
        context.beginPath();
        context.arc(x, y, width / 2, 0, 7);
        context.fill();
      }
    }
    canvas.dataset.shown = String(shown.length);
  }
  const under = (x, y) => shown.findLast((item) => Math.abs(item.x - x) <= item.width / 2 + 2 && Math.abs(item.y - y) <= item.height / 2 + 2)?.point;
  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const before = view.zoom;
    view.zoom = Math.max(0.7, Math.min(120, view.zoom * factor));
    const moved = 1 / before - 1 / view.zoom;
    view.x += (x - canvas.clientWidth / 2) / (unit() * stretch()) * moved;
    view.y += (y - canvas.clientHeight / 2) / unit() * moved;
    draw();
  }
  const move = (dx, dy) => { view.x -= dx / (unit() * view.zoom * stretch()); view.y -= dy / (unit() * view.zoom); draw(); };
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY); }, { passive: false });
  const fingers = new Map();
  let dragged = false;
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); fingers.set(event.pointerId, event); dragged = false; });
  canvas.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) { const point = under(event.offsetX, event.offsetY); $("#at").textContent = point ? point.label : ""; canvas.style.cursor = point ? "pointer" : "grab"; return; }
    if (fingers.size === 2) {
      const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
      const distance = (a) => Math.hypot(a.offsetX - other.offsetX, a.offsetY - other.offsetY);
      zoom(distance(event) / Math.max(1, distance(last)), other.offsetX, other.offsetY);
      dragged = true;
    } else {
      const [dx, dy] = [event.offsetX - last.offsetX, event.offsetY - last.offsetY];
      if (dragged || Math.hypot(dx, dy) > 4) { dragged = true; move(dx, dy); } else return;
    }
    fingers.set(event.pointerId, event);
  });
  const end = (event) => {
    if (fingers.delete(event.pointerId) && !dragged && event.type === "pointerup") {
      const point = under(event.offsetX, event.offsetY);
      if (point) location.href = `/picture/${point.id}`;
    }
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("keydown", (event) => {
    const keys = { ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60), "+": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: () => { Object.assign(view, { x: 0, y: 0, zoom: 1 }); draw(); } };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  addEventListener("resize", draw);
  draw();
}
