// Every text on the page whose contrast to what is behind it is below WCAG's AA for small text, as "contrast text".
() => {
  const brush = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const read = (color) => {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = color;
    brush.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = brush.getImageData(0, 0, 1, 1).data;
    return { rgb: [red, green, blue], alpha: alpha / 255 };
  };
  const over = ({ rgb, alpha }, below) => rgb.map((part, n) => part * alpha + below[n] * (1 - alpha));
  const surface = (node) => node ? over(read(getComputedStyle(node).backgroundColor), surface(node.parentElement)) : [255, 255, 255];
  const luminance = (rgb) => rgb
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, n) => sum + part * [0.2126, 0.7152, 0.0722][n], 0);

  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    const said = texts.currentNode.textContent.trim();
    if (!said || !node.checkVisibility({ visibilityProperty: true }) || getComputedStyle(node).clipPath !== "none") continue;
    let [text, behind] = [over(read(getComputedStyle(node).color), surface(node)), surface(node)];
    for (let group = node; group; group = group.parentElement) {
      const alpha = Number(getComputedStyle(group).opacity);
      [text, behind] = [text, behind].map((rgb) => over({ rgb, alpha }, surface(group.parentElement)));
    }
    const [dark, light] = [luminance(text), luminance(behind)].sort((one, other) => one - other);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) faint.push(`${contrast.toFixed(2)} ${said}`);
  }
  return faint;
}
