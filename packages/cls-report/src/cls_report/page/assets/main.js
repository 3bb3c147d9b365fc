// Tables, code, and navigation are set up at once; other blocks when they come near the screen.

addThemeButton();
highlightCurrentSection();

for (const block of document.querySelectorAll(".code.block")) addCopyButton(block);
for (const block of document.querySelectorAll(".table.block")) new SortableTable(block);
for (const block of document.querySelectorAll(".chart.block")) {
  buildWhenNear(block, () => new InteractiveChart(block));
}
for (const block of document.querySelectorAll(".confusion-matrix.block")) {
  buildWhenNear(block, buildConfusionMatrix);
}
for (const block of document.querySelectorAll(".gallery.block")) {
  buildWhenNear(block, loadGallery);
}
