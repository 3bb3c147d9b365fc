// Apply the reader's saved color scheme before the first paint.
try {
  const theme = localStorage.getItem("cls-report-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // Browsers may deny storage to pages opened from disk.
}
