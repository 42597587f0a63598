// Runs before the first paint, so that a chosen theme never flashes.
(() => {
  const read = () => { try { return localStorage.getItem("antiphon.theme"); } catch { return null; } };
  const chosen = read();
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
