// A picture that is painted over, pixel by pixel: `element` holds an image, a canvas of the same pixels on it, and tools.
let mask = new Uint8Array(0), width = 0, height = 0, last = null;
const part = (name) => element.querySelector(name);

function draw() {
  const canvas = part("canvas"), pixels = new ImageData(width, height);
  for (let i = 0; i < mask.length; i++) if (mask[i]) pixels.data.set([70, 110, 220, 215], 4 * i);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function begin() {
  const image = part("img"), canvas = part("canvas");
  if (!image.naturalWidth) return;
  [width, height] = [image.naturalWidth, image.naturalHeight];
  [canvas.width, canvas.height] = [width, height];
  part(".sheet").style.width = `${24 * Math.min(1, width / height)}rem`;
  mask = new Uint8Array(width * height);
  draw();
}

function place(event) {
  const box = part("canvas").getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
}

function dot(x, y) {
  const radius = (part(".brush").value / 200) * Math.min(width, height), value = part(".erase").checked ? 0 : 1;
  const put = (i, j) => { if (i >= 0 && i < width && j >= 0 && j < height) mask[j * width + i] = value; };
  put(Math.floor(x), Math.floor(y));  // a brush thinner than a pixel paints the pixel that it is in
  for (let j = Math.floor(y - radius); j <= y + radius; j++)
    for (let i = Math.floor(x - radius); i <= x + radius; i++)
      if (Math.hypot(i + 0.5 - x, j + 0.5 - y) <= radius) put(i, j);
}

function stroke(event) {
  const [x, y] = place(event), [u, v] = last || [x, y];
  const radius = (part(".brush").value / 200) * Math.min(width, height);
  const dots = Math.ceil(Math.hypot(x - u, y - v) / Math.max(0.25, radius / 2)) || 1;
  for (let k = 1; k <= dots; k++) dot(u + ((x - u) * k) / dots, v + ((y - v) * k) / dots);
  last = [x, y];
  draw();
}

// the template may be drawn anew at any time: events are caught here, above it
element.addEventListener("load", begin, true);
element.addEventListener("pointerdown", (event) => {
  if (event.target !== part("canvas")) return;
  event.preventDefault();
  event.target.setPointerCapture(event.pointerId);
  last = null;
  stroke(event);
});
element.addEventListener("pointermove", (event) => {
  if (event.target === part("canvas") && event.buttons) stroke(event);
});
element.addEventListener("click", (event) => {
  if (event.target === part(".clear")) begin();
});

// lengths of runs, row by row: not painted, painted, not painted, ...
window.shortrunStrokes = () => {
  const runs = [];
  let value = 0, length = 0;
  for (const each of mask) {
    if (each === value) { length++; continue; }
    runs.push(length);
    [value, length] = [each, 1];
  }
  return [...runs, length].join(",");
};
begin();
