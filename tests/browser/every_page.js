// Puts each article of the site into this page, whose theme and width they all share, and returns "path: fault" for each that
// is wider than the window or has text that is too faint in a scheme (contrast.js). Text of one kind, by its tags and classes,
// is looked at once: thousands of words are coloured alike. `kinds` is how many were.
(articles) => {
  const faults = [], seen = new Set();
  document.head.append(Object.assign(document.createElement("style"), { textContent: "* { transition: none !important }" }));
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
