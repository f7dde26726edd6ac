// Contrast of text with what lies behind it (WCAG 2): every element of the article whose own text has less than 4.5 to 1.
() => {
  const parse = (colour) => {
    const [red, green, blue, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
    return { rgb: [red, green, blue], alpha };
  };
  const over = (top, below) => top.rgb.map((value, i) => top.alpha * value + (1 - top.alpha) * below[i]);
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const colour = parse(getComputedStyle(element).backgroundColor);
    return colour.alpha === 1 ? colour.rgb : over(colour, behind(element.parentElement));
  };
  const linear = (value) => (value <= 10 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = (rgb) => 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);
  const ratio = (element) => {
    const background = behind(element);
    const text = over(parse(getComputedStyle(element).color), background);
    const [dark, bright] = [luminance(text), luminance(background)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  return [...document.querySelectorAll("article *")]
    .filter((element) => hasText(element) && element.offsetParent && !element.closest("script, style, pre, mjx-container, .headerlink"))
    .map((element) => [Math.round(ratio(element) * 100) / 100, element.className, element.textContent.trim().slice(0, 60)])
    .filter(([value]) => value < 4.5);
}
