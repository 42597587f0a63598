// Puts each article of the site into this page, whose theme and width they all share, and returns "path: fault" for each that
// is wider than the window or has text that is too faint in a scheme. Text of one kind, by its tags and classes, is looked at
// once: thousands of words are coloured alike. `kinds` is how many were.
(articles) => {
  const faults = [], seen = new Set(), colors = new Map();
  document.head.append(Object.assign(document.createElement("style"), { textContent: "* { transition: none !important }" }));
  const brush = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const read = (color) => {
    if (!colors.has(color)) {
      brush.clearRect(0, 0, 1, 1);
      brush.fillStyle = color;
      brush.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = brush.getImageData(0, 0, 1, 1).data;
      colors.set(color, { rgb: [red, green, blue], alpha: alpha / 255 });
    }
    return colors.get(color);
  };
  const over = ({ rgb, alpha }, below) => rgb.map((part, n) => part * alpha + below[n] * (1 - alpha));
  const surface = (node) => node ? over(read(getComputedStyle(node).backgroundColor), surface(node.parentElement)) : [255, 255, 255];
  const luminance = (rgb) => rgb
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, n) => sum + part * [0.2126, 0.7152, 0.0722][n], 0);
  const contrast = (node) => {
    const behind = surface(node);
    const [dark, light] = [over(read(getComputedStyle(node).color), behind), behind].map(luminance).sort((one, other) => one - other);
    return (light + 0.05) / (dark + 0.05);
  };
  const kind = (node) => (node.localName === "article" ? "" : `${kind(node.parentElement)}>${node.localName}.${node.className}`);

  const place = document.querySelector("article").parentElement;
  for (const [path, html] of Object.entries(articles)) {
    place.innerHTML = html;
    const article = place.querySelector("article");
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth > clientWidth) faults.push(`${path}: ${scrollWidth} pixels in ${clientWidth}`);
    const fresh = new Map();
    const texts = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const node = texts.currentNode.parentElement, name = kind(node);
      if (!texts.currentNode.data.trim() || seen.has(name) || !node.checkVisibility({ opacityProperty: true })) continue;
      seen.add(name);
      fresh.set(node, texts.currentNode.data.trim());
    }
    for (const scheme of fresh.size ? ["default", "slate"] : []) {
      document.body.dataset.mdColorScheme = scheme;
      for (const [node, said] of fresh)
        if (contrast(node) < 4.5) faults.push(`${path}: contrast ${contrast(node).toFixed(2)} in ${scheme}: ${said}`);
    }
  }
  return { faults, kinds: seen.size };
}
