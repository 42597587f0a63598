// Every text on the page whose contrast (contrast.js) is below WCAG's AA for small text, as "contrast text".
() => {
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    const said = texts.currentNode.textContent.trim();
    if (!said || !node.checkVisibility({ visibilityProperty: true }) || getComputedStyle(node).clipPath !== "none") continue;
    if (contrast(node) < 4.5) faint.push(`${contrast(node).toFixed(2)} ${said}`);
  }
  return faint;
}
