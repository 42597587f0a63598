// A table that scrolls sideways takes the keyboard's focus, as the theme has it for code: Safari gives it to nothing by itself.
const tables = new ResizeObserver(() => {
  for (const table of document.querySelectorAll("article table")) {
    const scroller = table.closest(".md-typeset__scrollwrap") ?? table; // the theme wraps it a moment after the start
    if (scroller.scrollWidth > scroller.clientWidth) scroller.tabIndex = 0;
    else scroller.removeAttribute("tabindex");
  }
});
tables.observe(document.querySelector("article"));
