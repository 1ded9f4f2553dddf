// Follows a run: after an event of the server, fetches the page and replaces its parts that are marked with data-live
// and have changed, but none that has the focus.
(() => {
  "use strict";
  const refresh = async () => {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelectorAll("[data-live]").forEach((part) => {
      const fresh = next.getElementById(part.id);
      if (!fresh || fresh.innerHTML === part.dataset.shown) return;
      const differs = part.dataset.shown !== undefined || part.innerHTML !== fresh.innerHTML;
      part.dataset.shown = fresh.innerHTML;
      if (!differs || part.contains(document.activeElement)) return;
      part.replaceChildren(...fresh.childNodes);
      window.agrpoViewers(part);
    });
  };
  document.addEventListener("DOMContentLoaded", () => {
    const state = document.getElementById("connection");
    const say = (text) => { if (state) state.textContent = text; };
    const events = new EventSource("/events");
    let busy = false;
    let again = false;
    const changed = async () => {
      if (busy) { again = true; return; }
      busy = true;
      do {
        again = false;
        try { await refresh(); say("live"); } catch (error) { say(`not live: ${error.message}`); }
      } while (again);
      busy = false;
    };
    events.addEventListener("open", () => say("live"));
    events.addEventListener("error", () => say("not live: the server is unreachable; retrying"));
    events.addEventListener("changed", changed);
  });
})();
