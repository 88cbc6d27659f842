// A ball-and-stick drawing of one molecule in several conformations; drag or arrow keys turn it.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("structures").textContent);
  const canvas = document.getElementById("viewer");
  const context = canvas.getContext("2d");
  const buttons = [...document.querySelectorAll("[data-conformation]")];
  // Colour, and radius of the ball [nm].
  const ELEMENTS = {
    H: ["#f4f4f4", 0.024], C: ["#6b7075", 0.036], N: ["#2f62d9", 0.036],
    O: ["#d8352a", 0.036], S: ["#d9a800", 0.042],
  };
  const OTHER = ["#b05cc9", 0.04];
  const STICK_NM = 0.014;
  const CAMERA_NM = 3;
  const style = data.elements.map((element) => ELEMENTS[element] ?? OTHER);
  const reach = Math.max(...data.conformations.flatMap((conformation) =>
    conformation.positions_nm.map((position) => Math.hypot(...position)))) + 0.05;
  let chosen = 0;
  let axes = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];

  const multiply = (a, b) => a.map((row) =>
    [0, 1, 2].map((column) => row.reduce((sum, value, k) => sum + value * b[k][column], 0)));

  function turn(right, down) {
    const [c, s, d, t] = [Math.cos(right), Math.sin(right), Math.cos(down), Math.sin(down)];
    const step = multiply([[1, 0, 0], [0, d, -t], [0, t, d]], [[c, 0, s], [0, 1, 0], [-s, 0, c]]);
    axes = multiply(step, axes);
    draw();
  }

  function project() {
    const { width, height } = canvas;
    const scale = Math.min(width, height) / (2 * reach);
    return data.conformations[chosen].positions_nm.map((position) => {
      const [x, y, z] = axes.map((axis) => axis.reduce((sum, a, k) => sum + a * position[k], 0));
      const zoom = scale * CAMERA_NM / (CAMERA_NM - z);
      return { x: width / 2 + zoom * x, y: height / 2 - zoom * y, z, zoom };
    });
  }

  function stick(from, to, colour) {
    const width = STICK_NM * from.zoom * 2;
    for (const [stroke, lineWidth] of [["#3a3d40", width * 1.25], [colour, width]]) {
      context.beginPath();
      context.moveTo(from.x, from.y);
      context.lineTo(to.x, to.y);
      context.strokeStyle = stroke;
      context.lineWidth = lineWidth;
      context.stroke();
    }
  }

  function ball(at, [colour, radiusNm]) {
    const radius = radiusNm * at.zoom;
    const light = context.createRadialGradient(
      at.x - radius / 3, at.y - radius / 3, radius / 10, at.x, at.y, radius);
    light.addColorStop(0, "#ffffff");
    light.addColorStop(0.35, colour);
    light.addColorStop(1, colour);
    context.beginPath();
    context.arc(at.x, at.y, radius, 0, 2 * Math.PI);
    context.fillStyle = light;
    context.fill();
    context.strokeStyle = "#3a3d40";
    context.lineWidth = radius / 12;
    context.stroke();
  }

  function draw() {
    const atoms = project();
    const parts = atoms.map((atom, i) => ({ z: atom.z, paint: () => ball(atom, style[i]) }));
    for (const [i, j] of data.bonds) {
      const middle = { x: (atoms[i].x + atoms[j].x) / 2, y: (atoms[i].y + atoms[j].y) / 2 };
      for (const [end, other] of [[i, j], [j, i]]) {
        const z = 0.75 * atoms[end].z + 0.25 * atoms[other].z;
        parts.push({ z, paint: () => stick(atoms[end], middle, style[end][0]) });
      }
    }
    context.clearRect(0, 0, canvas.width, canvas.height);
    parts.sort((a, b) => a.z - b.z).forEach((part) => part.paint());
  }

  function choose(index) {
    chosen = index;
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
    draw();
  }

  buttons.forEach((button, i) => button.addEventListener("click", () => choose(i)));
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) turn(event.movementX / 100, event.movementY / 100);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (!(event.key in step)) return;
    event.preventDefault();
    turn(...step[event.key]);
  });
  new ResizeObserver(() => {
    canvas.width = canvas.clientWidth * devicePixelRatio;
    canvas.height = canvas.clientHeight * devicePixelRatio;
    draw();
  }).observe(canvas);
  choose(0);
})();
