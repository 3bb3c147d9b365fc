// Group the images of a confusion matrix by cell. Only cells with images are stored, because
// 1,000 classes have a million cells.

function countConfusions(data) {
  const size = data.classes.length;
  const cells = new Map();
  const labelCounts = new Uint32Array(size);
  data.labels.forEach((label, image) => {
    const predicted = data.predicted[image];
    const key = label * size + predicted;
    if (!cells.has(key)) cells.set(key, { label, predicted, images: [] });
    cells.get(key).images.push(image);
    labelCounts[label] += 1;
  });

  const allCells = [...cells.values()];
  const wrongCells = allCells.filter((cell) => cell.label !== cell.predicted);
  wrongCells.sort((first, second) => second.images.length - first.images.length);
  const emptyCell = (label, predicted) => ({ label, predicted, images: [] });
  return {
    size,
    allCells,
    wrongCells,
    labelCounts,
    images: data.labels.length,
    mistakes: wrongCells.reduce((sum, cell) => sum + cell.images.length, 0),
    cell: (label, predicted) =>
      cells.get(label * size + predicted) ?? emptyCell(label, predicted),
  };
}

// The classes of the most frequent confusions, at most `limit` of them, in index order.
function mostConfusedClasses(counts, limit) {
  const classes = new Set();
  for (const { label, predicted } of counts.wrongCells) {
    const added = new Set([...classes, label, predicted]);
    if (added.size > limit) break;
    classes.add(label).add(predicted);
  }
  return [...classes].sort((first, second) => first - second);
}
