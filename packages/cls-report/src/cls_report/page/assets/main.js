// What is on the page already is made usable at once; the rest is built when it comes near.

offerThemes();
markCurrentSection();
document.querySelectorAll(".code.block").forEach(offerCopy);
document.querySelectorAll(".table.block").forEach((block) => new SortedTable(block));
document.querySelectorAll(".chart.block").forEach((block) => buildLater(block, () => new ReadChart(block)));
document.querySelectorAll(".confusion.block").forEach((block) => buildLater(block, buildConfusion));
document.querySelectorAll(".gallery.block").forEach((block) => buildLater(block, fillGallery));
