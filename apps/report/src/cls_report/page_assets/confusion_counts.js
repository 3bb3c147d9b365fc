// What a confusion holds: which images lie in which cell. Sparse, for a thousand classes have a million cells.

function countConfusion(data) {
  const cells = new Map();
  const size = data.classes.length;
  const perTruth = new Uint32Array(size);
  const mistakesOf = new Uint32Array(size); // those in which a class is the truth or the answer
  let mistakes = 0;
  data.truth.forEach((truth, index) => {
    const answer = data.answer[index];
    const key = truth * size + answer;
    const cell = cells.get(key);
    if (cell) cell.images.push(index);
    else cells.set(key, { truth, answer, images: [index] });
    perTruth[truth] += 1;
    if (truth === answer) return;
    mistakes += 1;
    mistakesOf[truth] += 1;
    mistakesOf[answer] += 1;
  });
  const all = [...cells.values()];
  const wrong = all.filter((cell) => cell.truth !== cell.answer).sort((one, other) => other.images.length - one.images.length);
  return {
    size, all, wrong, mistakes, perTruth, mistakesOf,
    images: data.truth.length,
    at: (truth, answer) => cells.get(truth * size + answer) ?? { truth, answer, images: [] },
  };
}

// The classes with the most mistakes, in index order.
function mostMistaken(counts, wanted) {
  const classes = Array.from({ length: counts.size }, (_, index) => index).filter((index) => counts.mistakesOf[index] > 0);
  return classes.sort((one, other) => counts.mistakesOf[other] - counts.mistakesOf[one]).slice(0, wanted).sort((one, other) => one - other);
}
