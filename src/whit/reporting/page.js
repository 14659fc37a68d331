"use strict";
// Sorting, copying, and opening everything for print.

(() => {
  // Unknown values come after known ones and failed rows last, whatever the direction.
  function sortBy(table, column, falling) {
    const body = table.tBodies[0], rows = [...body.rows];
    const value = (row) => {
      const text = row.cells[column] && row.cells[column].dataset.value;
      return text === undefined ? null : Number(text);
    };
    const rank = (row) => (row.classList.contains("failed") ? 2 : value(row) === null ? 1 : 0);
    rows.sort((a, b) => rank(a) - rank(b) || (rank(a) ? 0 : (value(a) - value(b)) * (falling ? -1 : 1)));
    body.append(...rows);
  }

  function sortOnClick(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort"), first = button.dataset.first;
        const other = first === "ascending" ? "descending" : "ascending";
        const next = now === first ? other : first;
        heads.forEach((each) => each.setAttribute("aria-sort", each === head ? next : "none"));
        sortBy(table, column, next === "descending");
        const name = button.firstChild.textContent.trim();
        document.getElementById("sorted").textContent = `Sorted by ${name}, ${next}.`;
      });
    });
  }

  function select(source) {
    const range = document.createRange(), selection = getSelection();
    range.selectNodeContents(source);
    selection.removeAllRanges();
    selection.addRange(range);
  }

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    let done = false;
    try {
      await navigator.clipboard.writeText(source.textContent);
      done = true;
    } catch {
      // No clipboard for this page: the old way, which needs a selection.
      select(source);
      done = document.execCommand("copy");
    }
    button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2500);
  }

  document.querySelectorAll("table.sortable").forEach(sortOnClick);
  document.querySelectorAll("button[data-copy]").forEach((button) => {
    button.addEventListener("click", () => copy(button));
  });

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => { details.open = true; });
  });
  window.addEventListener("afterprint", () => {
    closed.forEach((details) => { details.open = false; });
  });

  // A link to a note or part inside a closed part opens it.
  window.addEventListener("hashchange", () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const around = target && target.closest("details:not([open])");
    if (around) around.open = true;
  });
})();
