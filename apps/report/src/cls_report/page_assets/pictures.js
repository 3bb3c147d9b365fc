// Pictures of galleries, each given its address when it comes near the screen.

function showPicture(image) {
  const address = pictureAt(Number(image.dataset.picture));
  if (address) image.src = address;
}
