// Sends a form by XMLHttpRequest, which tells how far it has come, as fetch does not. The server
// is asked for nothing else than by the browser's own form post, and answers with the same pages.

// How much of each file has been sent, when so much of the whole has: they go one after the other.
export function shares(sizes, part) {
  let left = part * sizes.reduce((sum, size) => sum + size, 0);
  return sizes.map((size) => {
    const share = size ? Math.min(left / size, 1) : 1;
    left = Math.max(left - size, 0);
    return share;
  });
}

// Calls back `progress(part)`, then one of `done(address)`, `refused(reason, [[index, reason]])`.
export function send(form, { progress, done, refused }) {
  const request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.responseType = "document";
  request.upload.addEventListener("progress", ({ loaded, total, lengthComputable }) => {
    if (lengthComputable) progress(loaded / total);
  });
  request.upload.addEventListener("load", () => progress(1));
  request.addEventListener("load", () => {
    const led = request.responseURL.replace(/[?#].*/, "") !== form.action;
    if (request.status === 200 && led) done(request.responseURL);
    else refused(...read(request.response));
  });
  request.addEventListener("error", () => refused("The connection broke. Try again.", []));
  request.addEventListener("abort", () => refused("Stopped. Nothing was sent.", []));
  request.send(new FormData(form));
  return () => request.abort();
}

// The page that says what was wrong, with the whole and with each file.
function read(page) {
  const said = page?.querySelector("#refusal h2, p#refusal, .problem .lead");
  const each = [...(page?.querySelectorAll(".rejections [data-index]") ?? [])];
  return [
    said?.textContent ?? "The service did not answer. Try again in a while.",
    each.map((item) => [Number(item.dataset.index), item.querySelector("span").textContent]),
  ];
}
