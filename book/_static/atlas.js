// Filters of the paper index. Every row is in the page, so that it reads without this script and from a folder.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("paper-filters");
  if (!form) return;

  const rows = [...document.querySelectorAll(".dla-paper")];
  const text = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const sections = [...new Set(rows.map((row) => row.closest("section")))];
  const fields = form.elements;

  const shown = (row) => {
    const { part, kind, verdicts } = row.dataset;
    return (
      (!fields.part.value || part === fields.part.value) &&
      (!fields.kind.value || kind === fields.kind.value) &&
      (!fields.verdict.value || verdicts.split(" ").includes(fields.verdict.value)) &&
      fields.text.value.toLowerCase().split(/\s+/).every((word) => text.get(row).includes(word))
    );
  };

  const update = () => {
    for (const row of rows) row.hidden = !shown(row);
    for (const section of sections) section.classList.toggle("dla-empty", !section.querySelector(".dla-paper:not([hidden])"));
    const count = rows.filter((row) => !row.hidden).length;
    form.querySelector("output").textContent = `${count} of ${rows.length} papers shown`;
  };

  // The front page and the part openers link here with a filter: paper_index.html?verdict=supported
  for (const [name, value] of new URLSearchParams(location.search)) if (fields[name]) fields[name].value = value;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  fields.clear.addEventListener("click", () => {
    form.reset();
    update();
  });
  update();
});
