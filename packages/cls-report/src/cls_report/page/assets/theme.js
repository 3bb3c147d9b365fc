// Before anything is painted: the reader's own choice of light or dark, where there is one.
try {
  const theme = localStorage.getItem("cls-report-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  /* a browser may deny storage to files */
}
