// Which section is being read, and the choice of light or dark.

function markCurrentSection() {
  const links = new Map([...document.querySelectorAll("nav.sections a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...document.querySelectorAll("main > section")];
  const seen = new Set();
  let current = null;
  const mark = () => {
    const section = sections.find((each) => seen.has(each));
    const link = section && links.get(encodeURIComponent(section.id));
    if (!link || link === current) return;
    current?.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    current = link;
    const list = link.closest("ul");
    list.scrollTo({ left: link.offsetLeft - list.clientWidth / 3 });
  };
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) isIntersecting ? seen.add(target) : seen.delete(target);
      mark();
    },
    { rootMargin: "-80px 0px -55% 0px" },
  );
  sections.forEach((section) => watcher.observe(section));
}

function offerThemes() {
  const root = document.documentElement;
  const isDark = () =>
    (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const button = make("button", { type: "button", class: "theme", click: toggle }, "Dark");
  const show = () => button.setAttribute("aria-pressed", isDark());
  function toggle() {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("cls-report-theme", root.dataset.theme);
    } catch {
      /* a browser may deny storage to files */
    }
    document.dispatchEvent(new Event("themechange"));
  }
  onThemeChange(show);
  show();
  document.querySelector(".masthead").append(button);
}
