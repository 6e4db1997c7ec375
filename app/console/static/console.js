// Makes the console nicer: copying, the keyboard, menus that close, and events as they happen. Everything also works without it.
"use strict";

(() => {
  const DONE_MS = 1200;
  const CHORD_MS = 1000;
  const REFRESH_MS = 1000;
  let chordUntil = 0;

  // navigator.clipboard is missing on plain HTTP.
  const copy = (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "sr";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    return Promise.resolve();
  };

  const reveal = () => document.querySelectorAll(".copy[hidden], #keys-button[hidden]").forEach((each) => { each.hidden = false; });

  // For a moment the button of a dialog that was just closed still has the focus.
  const isTyping = (target) => target.closest("input, select, textarea, [contenteditable], dialog[open]");

  const rows = () => [...document.querySelectorAll("table.rows tbody tr")];

  const step = (by) => {
    const all = rows();
    const place = all.findIndex((row) => row.classList.contains("is-chosen"));
    const next = all[Math.min(Math.max(place + by, 0), all.length - 1)];
    if (!next) return;
    all.forEach((row) => row.classList.remove("is-chosen"));
    next.classList.add("is-chosen");
    next.querySelector("a")?.focus({preventScroll: true});
    next.scrollIntoView({block: "nearest"});
  };

  const show = () => document.getElementById("keys")?.showModal();

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) {
      copy(button.dataset.copy).then(() => {
        button.classList.add("is-done");
        setTimeout(() => button.classList.remove("is-done"), DONE_MS);
      }, () => {});
    }
    if (event.target.closest("#keys-button")) show();
    document.querySelectorAll("details.menu[open]").forEach((menu) => {
      if (!menu.contains(event.target)) menu.open = false;
    });
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.querySelectorAll("details.menu[open]").forEach((menu) => { menu.open = false; });
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    if (Date.now() < chordUntil) {
      chordUntil = 0;
      const link = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    const actions = {
      "/": () => (document.querySelector("[data-search]") ?? document.querySelector('[data-go="v"]'))?.focus(),
      g: () => { chordUntil = Date.now() + CHORD_MS; },
      j: () => step(1),
      k: () => step(-1),
      "?": show,
    };
    if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
  });

  // The stream only says that there is something new; the list comes from the server, in the language of the page.
  const follow = () => {
    const place = document.querySelector("[data-follow]");
    if (!place) return;
    let source = null;
    let timer = null;
    const refresh = () => {
      timer ??= setTimeout(() => { timer = null; htmx.trigger(place, "changed"); }, REFRESH_MS);
    };
    const connect = () => {
      source = new EventSource(place.dataset.follow);
      place.dataset.types.split(" ").forEach((type) => source.addEventListener(type, refresh));
    };
    document.addEventListener("visibilitychange", () => {
      source?.close();
      if (!document.hidden) { connect(); refresh(); }
    });
    connect();
  };

  document.addEventListener("DOMContentLoaded", reveal);
  document.addEventListener("DOMContentLoaded", follow);
  // After htmx has put new rows into the page.
  new MutationObserver(reveal).observe(document.documentElement, {childList: true, subtree: true});
})();
