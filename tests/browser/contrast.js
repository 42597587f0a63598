// Gives the page `contrast(node)`: how much a node's text differs from everything behind it, from 1 to 21 (WCAG 2.2). Colours
// are read once each: what a canvas shows of one is the dearest part.
() => {
  const brush = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const colors = new Map();
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

  window.contrast = (node) => {
    let behind = surface(node);
    let text = over(read(getComputedStyle(node).color), behind);
    for (let group = node; group; group = group.parentElement) {
      const alpha = Number(getComputedStyle(group).opacity);
      if (alpha < 1) [text, behind] = [text, behind].map((rgb) => over({ rgb, alpha }, surface(group.parentElement)));
    }
    const [dark, light] = [text, behind].map(luminance).sort((one, other) => one - other);
    return (light + 0.05) / (dark + 0.05);
  };
}
