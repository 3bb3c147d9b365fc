// What a confusion holds: which images lie in which cell. Sparse, for a thousand classes have a million cells.

function countConfusion(data) {
  const cells = new Map();
  const size = data.classes.length;
  const perTruth = new Uint32Array(size);
  let mistakes = 0;
  data.truth.forEach((truth, index) => {
    const answer = data.answer[index];
    const key = truth * size + answer;
    const cell = cells.get(key);
    if (cell) cell.images.push(index);
    else cells.set(key, { truth, answer, images: [index] });
    perTruth[truth] += 1;
    mistakes += truth !== answer;
  });
  const all = [...cells.values()];
  const wrong = all
    .filter((cell) => cell.truth !== cell.answer)
    .sort((one, other) => other.images.length - one.images.length);
  return {
    size,
    all,
    wrong,
    mistakes,
    perTruth,
    images: data.truth.length,
    at: (truth, answer) => cells.get(truth * size + answer) ?? { truth, answer, images: [] },
  };
}

// The classes of the largest confusions, as many as wanted, in index order.
function ofLargestConfusions(counts, wanted) {
  const classes = new Set();
  for (const { truth, answer } of counts.wrong) {
    if (classes.size + !classes.has(truth) + !classes.has(answer) > wanted) break;
    classes.add(truth).add(answer);
  }
  return [...classes].sort((one, other) => one - other);
}
