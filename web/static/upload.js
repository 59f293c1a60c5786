// The upload form at its best: drop, paste, folders, previews, a list to prune, a word about files
// that are too large before they are sent, and how far each has come. What is sent, and what is
// answered, is the same as of the browser's own form post, so the page works without this file.

import { send, shares } from "./sending.js";

const form = document.getElementById("upload");
const input = document.getElementById("images");
const drop = document.getElementById("drop");
const list = document.getElementById("files");
const say = document.getElementById("say");
const button = document.getElementById("send");
const stop = document.getElementById("stop");
const folder = document.getElementById("folder");
const chooseFolder = document.getElementById("choose-folder");
const address = document.getElementById("image_url"); // null where the service fetches none
const decoding = document.getElementById("decoding");

const limits = {
  image: Number(form.dataset.maxImageBytes),
  upload: Number(form.dataset.maxUploadBytes),
  images: Number(form.dataset.maxImages),
};
const megabytes = (bytes) =>
  bytes < 1e5 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

// Everything chosen so far: { file, reason }. A reason keeps a file from being sent.
let chosen = [];
let leftAlone = 0;

function reasonAgainst(file) {
  if (file.size === 0) return "The file is empty.";
  if (file.size > limits.image) return `Too large: ${megabytes(limits.image)} at most.`;
  if (file.type && !file.type.startsWith("image/")) return "Not an image.";
  return "";
}

const known = (file) => `${file.webkitRelativePath}/${file.name}/${file.size}/${file.lastModified}`;

function add(files) {
  const before = new Set(chosen.map(({ file }) => known(file)));
  for (const file of files) {
    if (!before.has(known(file))) chosen.push({ file, reason: reasonAgainst(file) });
  }
  show();
}

// Of a folder, its images: nobody chose the notes and the hidden files that lie beside them.
function addOfFolder(files) {
  const image = (file) =>
    !file.name.startsWith(".") &&
    (file.type.startsWith("image/") || /\.(jpe?g|png|webp|gif|avif|hei[cf])$/i.test(file.name));
  const images = files.filter(image);
  leftAlone += files.length - images.length;
  add(images);
}

async function filesIn(entry) {
  if (entry.isFile) return [await new Promise((found, lost) => entry.file(found, lost))];
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const some = await new Promise((found, lost) => reader.readEntries(found, lost)); // 100 at most
    if (some.length === 0) return files;
    for (const each of some) files.push(...(await filesIn(each)));
  }
}

async function addDropped(transfer) {
  // Both go when the event is over.
  const files = [...transfer.files];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return add(files);
  for (const entry of entries) {
    try {
      addOfFolder(await filesIn(entry));
    } catch {
      tell(`${entry.name} cannot be read.`, true);
    }
  }
}

function good() {
  return chosen.filter(({ reason }) => !reason).map(({ file }) => file);
}

function show() {
  for (const image of list.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  list.replaceChildren(...chosen.map(row));
  document.getElementById("chosen").hidden = chosen.length === 0;
  const transfer = new DataTransfer();
  for (const file of good()) transfer.items.add(file);
  input.files = transfer.files;
  button.textContent = good().length > 1 ? `Caption ${good().length}` : "Caption";
  tell(summary(), Boolean(complaint()));
}

function row(entry) {
  const item = document.createElement("li");
  item.classList.toggle("refused", Boolean(entry.reason));
  const words = document.createElement("div");
  words.className = "name";
  words.title = entry.file.webkitRelativePath || entry.file.name;
  words.append(entry.file.name, document.createElement("br"), small(entry));
  entry.bar = document.createElement("progress");
  entry.bar.hidden = true;
  entry.bar.setAttribute("aria-label", `Sent of ${entry.file.name}`);
  words.append(entry.bar);
  const remove = document.createElement("button");
  remove.type = "button";
  remove.textContent = "×";
  remove.setAttribute("aria-label", `Remove ${entry.file.name}`);
  remove.addEventListener("click", () => {
    const place = chosen.indexOf(entry);
    chosen.splice(place, 1);
    show();
    (list.querySelectorAll("button")[Math.min(place, chosen.length - 1)] ?? input).focus();
  });
  item.append(preview(entry), words, remove);
  return item;
}

function small({ file, reason }) {
  const text = document.createElement("span");
  text.className = "quiet";
  text.textContent = reason || megabytes(file.size);
  return text;
}

function preview({ file, reason }) {
  const blank = document.createElement("span");
  blank.className = "blank";
  if (reason) return blank;
  const image = document.createElement("img");
  image.alt = "";
  image.src = URL.createObjectURL(file);
  image.addEventListener("error", () => image.replaceWith(blank));
  return image;
}

function complaint() {
  const total = good().reduce((sum, file) => sum + file.size, 0);
  if (good().length > limits.images) return `At most ${limits.images} photographs at a time.`;
  if (total > limits.upload) return `At most ${megabytes(limits.upload)} at a time. Send them in parts.`;
  return "";
}

function summary() {
  if (complaint() || chosen.length === 0) return complaint();
  const left = chosen.length - good().length;
  const total = good().reduce((sum, file) => sum + file.size, 0);
  const parts = [`${good().length} to send, ${megabytes(total)}`];
  if (left) parts.push(`${left} cannot be sent`);
  if (leftAlone) parts.push(leftAlone === 1 ? "one other file left alone" : `${leftAlone} other files left alone`);
  return parts.join("; ");
}

function tell(text, wrong = false) {
  say.textContent = text;
  say.classList.toggle("wrong", wrong);
}

function busy(on) {
  button.disabled = on;
  button.classList.toggle("busy", on);
  stop.hidden = !on;
  form.classList.toggle("sending", on);
  for (const remove of list.querySelectorAll("button")) remove.disabled = on;
  for (const { bar } of chosen) bar.hidden = !on;
  if (on) button.textContent = "Sending…";
}

// What went wrong with the whole, where the page itself says so when it comes from the server.
function complain(text) {
  document.getElementById("refusal")?.remove();
  if (!text) return;
  const words = document.createElement("h2");
  words.textContent = text;
  const notice = document.createElement("section");
  notice.id = "refusal";
  notice.className = "notice bad";
  notice.setAttribute("role", "alert");
  notice.append(words);
  form.before(notice);
}

function sendAll() {
  const sent = good();
  const entries = chosen.filter(({ reason }) => !reason);
  const byAddress = address?.value.trim() ? 1 : 0; // comes first
  const count = sent.length + byAddress;
  complain("");
  tell(`Sending ${count === 1 ? "one photograph" : `${count} photographs`}…`);
  const abort = send(form, {
    progress(part) {
      shares(sent.map(({ size }) => size), part).forEach((share, i) => (entries[i].bar.value = share));
      if (part < 1) return;
      stop.hidden = true; // the service has them, and what it makes of them would go on
      tell("Sent. Each is looked at now…");
    },
    done(where) {
      location.assign(where);
    },
    refused(reason, each) {
      for (const [index, why] of each) if (index >= byAddress) entries[index - byAddress].reason = why;
      busy(false);
      show();
      complain(reason);
    },
  });
  stop.onclick = abort;
  busy(true);
}

const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");

document.documentElement.classList.add("js");

input.addEventListener("change", () => add([...input.files]));
document.addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) add([...event.clipboardData.files]);
});
// Anywhere on the page: a photograph dropped beside the target must not replace the page.
document.addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  drop.classList.remove("over");
  addDropped(event.dataTransfer);
});

chooseFolder.hidden = !("webkitdirectory" in folder);
chooseFolder.addEventListener("click", () => folder.click());
folder.addEventListener("change", () => {
  addOfFolder([...folder.files]);
  folder.value = "";
});

const candidates = document.getElementById("num_captions");
const fitCandidates = () => (candidates.disabled = decoding.value === "greedy");
decoding.addEventListener("change", fitCandidates);
fitCandidates();

form.addEventListener("submit", (event) => {
  const none = good().length === 0 && !address?.value.trim();
  const wrong = complaint() || (none && "Choose at least one photograph first.");
  event.preventDefault();
  if (wrong) {
    tell(wrong, true);
    input.focus();
  } else sendAll();
});

// Who comes back to the page and sends the same photographs again means to.
function renew() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const token = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  for (const field of document.querySelectorAll("input[name=once]")) field.value = token;
}

// Coming back to the page: the browser may have kept it as it was left, or only the choice.
window.addEventListener("pageshow", (event) => {
  const [shown] = performance.getEntriesByType("navigation");
  if (event.persisted || shown?.type === "back_forward") renew();
  busy(false);
  if (chosen.length) show();
  else if (input.files.length) add([...input.files]);
  else button.textContent = "Caption";
});
