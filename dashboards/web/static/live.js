// Keeps parts of a page up to date: each element with data-live is fetched again while the page is looked at. Without
// this file pages are the same, as of when they were opened.
(() => {
  "use strict";
  const parts = document.querySelectorAll("[data-live]");
  const state = document.querySelector("[data-state]");
  async function renew(part) {
    const answer = await fetch(part.dataset.live, { headers: { accept: "text/html" }, credentials: "same-origin" });
    if (answer.redirected || answer.status === 401) { location.reload(); return; }
    if (!answer.ok) { throw new Error(String(answer.status)); }
    const text = await answer.text();
    if (part.contains(document.activeElement) || String(getSelection()) !== "") { return; }
    const made = new DOMParser().parseFromString(text, "text/html");
    part.replaceChildren(...made.body.childNodes);
  }
  async function turn(part) {
    if (!document.hidden) {
      try {
        await renew(part);
        if (state) { state.textContent = "live"; state.className = "state fresh"; }
      } catch {
        if (state) { state.textContent = "not up to date"; state.className = "state behind"; }
      }
    }
    wait(part);
  }
  function wait(part) { setTimeout(() => turn(part), Number(part.dataset.every) || 2000); }
  parts.forEach(wait);
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent));
  }
})();
