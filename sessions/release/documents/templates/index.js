(() => {
  const id = name => document.getElementById(name);
  const form = id("choose"), said = id("said");
  const rows = [...document.querySelectorAll("#wheels tbody tr")];
  const here = new URL(".", location.href).href;
  for (const place of document.querySelectorAll(".here")) place.textContent = here;
  const fits = (row, name) => {
    const want = form.elements[name].value;
    return !want || row.dataset[name].split(" ").includes(want);
  };
  const show = () => {
    let count = 0;
    for (const row of rows) {
      row.hidden = !["gpu", "system", "python"].every(name => fits(row, name));
      count += !row.hidden;
      for (const line of row.querySelectorAll("[data-tool]")) {
        line.hidden = line.dataset.tool !== form.elements.tool.value;
      }
    }
    id("none").hidden = count > 0;
    id("wheels").hidden = count === 0;
    said.textContent = count === 1 ? "1 wheel fits." : `${count} wheels fit.`;
  };
  const copied = async button => {
    const code = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {  // not a page of https: the text is selected, and copied the older way
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    said.textContent = "The command was copied.";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
  for (const code of document.querySelectorAll("[data-tool] code")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy: ${code.dataset.about}`);
    button.addEventListener("click", () => copied(button));
    code.after(button);
  }
  if (/Windows/.test(navigator.userAgent) && [...form.elements.system.options].some(o => o.value === "windows-x86_64")) {
    form.elements.system.value = "windows-x86_64";
  }
  form.hidden = false;
  form.addEventListener("change", show);
  form.addEventListener("submit", event => event.preventDefault());
  show();
})();
