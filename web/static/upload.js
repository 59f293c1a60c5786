// The upload form at its best: drop, paste, previews, a list to prune, and a word about files
// that are too large before they are sent. Sending stays the browser's own form post, so the
// page works the same without this file.

const form = document.getElementById("upload");
const input = document.getElementById("images");
const drop = document.getElementById("drop");
const list = document.getElementById("files");
const say = document.getElementById("say");
const send = document.getElementById("send");
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

function reasonAgainst(file) {
  if (file.size === 0) return "The file is empty.";
  if (file.size > limits.image) return `Too large: ${megabytes(limits.image)} at most.`;
  if (file.type && !file.type.startsWith("image/")) return "Not an image.";
  return "";
}

function add(files) {
  const known = new Set(chosen.map(({ file }) => `${file.name}/${file.size}/${file.lastModified}`));
  for (const file of files) {
    if (known.has(`${file.name}/${file.size}/${file.lastModified}`)) continue;
    chosen.push({ file, reason: reasonAgainst(file) });
  }
  show();
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
  send.textContent = good().length > 1 ? `Caption ${good().length}` : "Caption";
  tell(summary(), Boolean(complaint()));
}

function row(entry) {
  const item = document.createElement("li");
  item.classList.toggle("refused", Boolean(entry.reason));
  const words = document.createElement("div");
  words.className = "name";
  words.title = entry.file.name;
  words.append(entry.file.name, document.createElement("br"), small(entry));
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
  const sent = `${good().length} to send, ${megabytes(total)}`;
  return left ? `${sent}; ${left} cannot be sent` : sent;
}

function tell(text, wrong = false) {
  say.textContent = text;
  say.classList.toggle("wrong", wrong);
}

function busy(on) {
  send.disabled = on;
  send.classList.toggle("busy", on);
  if (on) send.textContent = "Sending…";
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
  add([...event.dataTransfer.files]);
});

const candidates = document.getElementById("num_captions");
const fitCandidates = () => (candidates.disabled = decoding.value === "greedy");
decoding.addEventListener("change", fitCandidates);
fitCandidates();

form.addEventListener("submit", (event) => {
  const none = good().length === 0 && !address?.value.trim();
  const wrong = complaint() || (none && "Choose at least one photograph first.");
  if (wrong) {
    event.preventDefault();
    tell(wrong, true);
    input.focus();
    return;
  }
  const count = good().length + (address?.value.trim() ? 1 : 0);
  tell(`Sending ${count === 1 ? "one photograph" : `${count} photographs`}…`);
  busy(true);
});

// Coming back to the page: the browser may have kept it as it was left, or only the choice.
window.addEventListener("pageshow", () => {
  busy(false);
  if (chosen.length) show();
  else if (input.files.length) add([...input.files]);
  else send.textContent = "Caption";
});
