// Highlight the current section in the navigation, and switch the color scheme.

function highlightCurrentSection() {
  const sections = [...document.querySelectorAll("main > section")];
  const visible = new Set();
  let currentLink = null;

  function update() {
    const section = sections.find((each) => visible.has(each));
    const link = section && findLink(section);
    if (!link || link === currentLink) return;
    currentLink?.removeAttribute("aria-current");
    link.setAttribute("aria-current", "true");
    currentLink = link;
    const list = link.closest("ul");
    list.scrollTo({ left: link.offsetLeft - list.clientWidth / 3 });
  }

  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) visible.add(target);
        else visible.delete(target);
      }
      update();
    },
    { rootMargin: "-80px 0px -55% 0px" },
  );
  for (const section of sections) observer.observe(section);
}

function findLink(section) {
  const hash = `#${encodeURIComponent(section.id)}`;
  const links = [...document.querySelectorAll("nav.sections a")];
  return links.find((link) => link.hash === hash);
}

function isDarkTheme() {
  const chosen = document.documentElement.dataset.theme;
  if (chosen) return chosen === "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function addThemeButton() {
  const button = createHtml(
    "button",
    { type: "button", class: "theme", click: switchTheme },
    "Dark mode",
  );
  const updateButton = () => button.setAttribute("aria-pressed", isDarkTheme());
  onThemeChange(updateButton);
  updateButton();
  document.querySelector(".masthead").append(button);
}

function switchTheme() {
  const theme = isDarkTheme() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("cls-report-theme", theme);
  } catch {
    // Browsers may deny storage to pages opened from disk.
  }
  document.dispatchEvent(new Event("themechange"));
}
