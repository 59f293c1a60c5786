// Copies captions, and puts the focus back after one was edited in place. Without this file the
// forms do their work by themselves, and the buttons that copy are not there.

document.documentElement.classList.add("js");

async function write(text) {
  // Browsers give the clipboard to pages over TLS or on this very machine only.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "away";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("nothing was copied");
}

function say(text) {
  const line = document.createElement("p");
  line.textContent = text;
  document.getElementById("announcement")?.replaceChildren(line);
}

document.addEventListener("click", async ({ target }) => {
  const button = target.closest("[data-copy]");
  if (!button) return;
  const one = button.closest("[data-text]"); // a card; a button outside is about all of them
  const cards = one ? [one] : [...document.querySelectorAll("[data-text]")];
  const mark = (name) => {
    button.classList.add(name);
    setTimeout(() => button.classList.remove(name), 2000);
  };
  try {
    await write(cards.map((card) => card.dataset[button.dataset.copy]).join("\n"));
    mark("done");
    say("Copied");
  } catch {
    mark("failed");
    say("The browser refused to copy.");
  }
  button.focus();
});

document.addEventListener("htmx:afterSettle", ({ detail }) => {
  const form = detail.requestConfig?.elt;
  if (!form?.closest(".editor")) return;
  document.querySelector(`${form.getAttribute("hx-target")} summary`)?.focus();
});

// What htmx was refused is asked for as without it: the answer is a page that says why.
for (const name of ["htmx:responseError", "htmx:sendError"]) {
  document.addEventListener(name, ({ detail: { elt, xhr } }) => {
    if (elt.matches("form") && !xhr.getResponseHeader("HX-Redirect")) elt.submit();
  });
}
