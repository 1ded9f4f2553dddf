// Plays trajectories step by step. Every element of class "viewer" holds one as JSON in data-trajectory; its
// text is written as text, never as markup. Without scripts the finished completion stands there.
(() => {
  "use strict";
  const PAUSE_MS = 400;

  const control = (name, symbol, act) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = symbol;
    button.setAttribute("aria-label", name);
    button.addEventListener("click", act);
    return button;
  };

  const ready = (root) => {
    if (root.dataset.ready) return;
    root.dataset.ready = "yes";
    const { tokens, steps } = JSON.parse(root.dataset.trajectory);
    const text = document.createElement("div");
    text.className = "text";
    const spans = tokens.map((token) => {
      const span = document.createElement("span");
      span.textContent = token.text;
      const sure = `${(token.probability * 100).toFixed(1)}%`;
      span.title = token.step === null ? "after the end" : `step ${token.step + 1}, probability ${sure}`;
      text.append(span);
      return span;
    });
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: steps, value: steps });
    slider.setAttribute("aria-label", "unmask step");
    const progress = document.createElement("output");
    const wrote = document.createElement("p");
    wrote.className = "wrote faint";
    let timer = null;

    const show = (step) => {
      slider.value = step;
      progress.textContent = `step ${step} of ${steps}`;
      tokens.forEach((token, index) => {
        const written = token.step === null ? step === steps : token.step < step;
        const fresh = token.step !== null && token.step === step - 1;
        const unsure = token.probability < 0.5;
        spans[index].className =
          `token${written ? "" : " masked"}${fresh ? " fresh" : ""}${written && unsure ? " unsure" : ""}`;
        // All masks have the same width, whatever their token.
        spans[index].textContent = written ? token.text : "░░";
      });
      const fresh = tokens.filter((token) => token.step !== null && token.step === step - 1);
      // The end token has no text.
      const named = (token) => (token.text === "" ? "the end" : `“${token.text}”`);
      const quoted = fresh.map((token) => `${named(token)} ${(token.probability * 100).toFixed(1)}%`);
      wrote.textContent = quoted.length ? `wrote ${quoted.join(", ")}` : "all is masked";
      root.dataset.step = step;
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "▶";
      play.setAttribute("aria-label", "play");
    };
    const move = (by) => {
      stop();
      show(Math.min(steps, Math.max(0, Number(slider.value) + by)));
    };
    const play = control("play", "▶", () => {
      if (timer !== null) return stop();
      if (Number(slider.value) === steps) show(0);
      play.textContent = "❙❙";
      play.setAttribute("aria-label", "pause");
      timer = setInterval(() => {
        show(Number(slider.value) + 1);
        if (Number(slider.value) >= steps) stop();
      }, PAUSE_MS);
    });
    slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
    const controls = document.createElement("div");
    controls.className = "controls";
    controls.append(
      control("to the beginning", "«", () => move(-steps)),
      control("one step back", "‹", () => move(-1)),
      play,
      control("one step on", "›", () => move(1)),
      control("to the end", "»", () => move(steps)),
      slider,
      progress,
    );
    root.replaceChildren(controls, text, wrote);
    show(steps);
  };

  window.agrpoViewers = (scope) => scope.querySelectorAll(".viewer").forEach(ready);
  document.addEventListener("DOMContentLoaded", () => window.agrpoViewers(document));
})();
