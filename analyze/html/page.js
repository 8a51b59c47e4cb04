"use strict";
// The tables are in the page already; this adds sorting, filters and the treemap. Every string from the image is put
// into the page as text, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);

  const make = (tag, cls, text) => {
    const e = document.createElement(tag);
    if (cls) e.className = cls;
    if (text !== undefined) e.textContent = text;
    return e;
  };
  const bytes = (n) => {
    if (n < 1000) return n + "B";
    for (const u of ["kB", "MB", "GB"]) if ((n /= 1000) < 999.995) return n.toFixed(2) + u;
    return (n / 1000).toFixed(2) + "TB";
  };
  const percent = (part, all) => (all > 0 ? (100 * part / all).toFixed(1) + "%" : "0%");

  // A node is [name, live, dead, children, reason, creator, killer]; a name that is a number is that many small ones.
  const nameOf = (n) => typeof n[0] !== "number" ? n[0] : n[0] === 1 ? "1 smaller file" : n[0].toLocaleString("en") + " smaller files";
  const sizeOf = (n) => n[1] + n[2];
  const places = new Map(); // of a node among its siblings
  const placeOf = (parent, n) => {
    if (!places.has(n)) parent[3].forEach((c, i) => places.set(c, i));
    return places.get(n);
  };
  const isDir = (n) => Array.isArray(n[3]);

  // Tables.

  const cellValue = (row, i) => {
    const td = row.cells[i];
    return td.dataset.v !== undefined ? Number(td.dataset.v) : td.textContent.trim().toLowerCase();
  };
  const sortBy = (table, th, dir) => {
    const body = table.tBodies[0], i = th.cellIndex, sign = dir === "ascending" ? 1 : -1;
    const rows = Array.from(body.rows, (row) => [cellValue(row, i), row]);
    rows.sort((a, b) => (a[0] < b[0] ? -sign : a[0] > b[0] ? sign : 0));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", dir);
    body.append(...rows.map((r) => r[1]));
  };
  for (const table of document.querySelectorAll("table.sort")) {
    for (const th of table.tHead.rows[0].cells) {
      if (!th.classList.contains("s")) continue;
      const button = make("button", "", th.textContent);
      button.type = "button";
      th.replaceChildren(button);
      button.addEventListener("click", () => {
        const first = th.classList.contains("n") ? "descending" : "ascending";
        const now = th.getAttribute("aria-sort");
        sortBy(table, th, now ? (now === "ascending" ? "descending" : "ascending") : first);
      });
    }
    const tools = $(table.id + "-tools");
    if (!tools) continue;
    tools.hidden = false;
    const count = tools.querySelector(".count");
    const filter = () => {
      const text = tools.querySelector("input[type=search]").value.toLowerCase();
      const picks = Array.from(tools.querySelectorAll("select"), (s) => [s.dataset.key, s.value]);
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        row.hidden = (text !== "" && !row.textContent.toLowerCase().includes(text)) ||
          picks.some(([key, value]) => value !== "" && row.dataset[key] !== value);
        if (!row.hidden) shown++;
      }
      const all = table.tBodies[0].rows.length;
      count.textContent = shown === all ? all + " rows" : shown + " of " + all + " rows";
    };
    tools.addEventListener("input", filter);
    tools.addEventListener("submit", (e) => e.preventDefault());
    filter();
  }

  // The treemap. Where it stands is in the address, so that a browser's back works.

  if (!data.views.length) return;
  const map = $("map"), crumbs = $("crumbs"), told = $("told"), select = $("view");
  const list = $("contents"), listNote = $("contents-note"), onlyDead = $("only-dead");
  const tip = make("div", "", "");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "tooltip");
  document.body.append(tip);
  $("treemap").hidden = false;
  data.views.forEach((v, i) => {
    const o = make("option", "", v.label + " – " + bytes(sizeOf(v.tree)) + (v.tree[2] ? ", dead " + bytes(v.tree[2]) : ""));
    o.value = String(i);
    select.append(o);
  });
  // A path is places in lists of children, because different names may look the same.
  let at = { view: 0, path: [] };

  const parse = () => {
    const [view, ...path] = location.hash.slice(1).split("/").map(Number);
    at = { view: data.views[view] ? view : 0, path };
  };
  const go = (view, path) => {
    location.hash = "#" + [view, ...path].join("/"); // a hashchange follows where it is another
  };
  // resolve gives the nodes from the root to where we are.
  const resolve = () => {
    const nodes = [data.views[at.view].tree];
    for (const i of at.path) {
      const last = nodes[nodes.length - 1], next = isDir(last) && last[3][i];
      if (!next || !isDir(next)) break;
      nodes.push(next);
    }
    at.path = at.path.slice(0, nodes.length - 1);
    return nodes;
  };
  // named gives the place of the directory with the same names in another view, or of the nearest above it.
  const named = (view, names) => {
    const path = [];
    let n = data.views[view].tree;
    for (const name of names) {
      const i = isDir(n) ? n[3].findIndex((c) => c[0] === name && isDir(c)) : -1;
      if (i < 0) break;
      path.push(i);
      n = n[3][i];
    }
    return path;
  };
  const weight = (n) => (onlyDead.checked ? n[2] : sizeOf(n));

  // squarify (Bruls, Huizing, van Wijk 2000): rows of rectangles as near to squares as can be.
  const squarify = (node, x, y, w, h, place) => {
    const nodes = (isDir(node) ? node[3] : []).filter((n) => weight(n) > 0).sort((a, b) => weight(b) - weight(a));
    let total = 0;
    for (const n of nodes) total += weight(n);
    if (!(total > 0) || w <= 0 || h <= 0) return;
    const scale = w * h / total;
    let i = 0;
    while (i < nodes.length) {
      const side = Math.min(w, h);
      let sum = 0, worst = Infinity, j = i;
      const max = weight(nodes[i]) * scale;
      for (; j < nodes.length; j++) {
        const a = weight(nodes[j]) * scale, s = sum + a;
        const ratio = Math.max(side * side * max / (s * s), s * s / (side * side * a));
        if (ratio > worst) break;
        worst = ratio;
        sum = s;
      }
      const last = j === nodes.length;
      const thick = last ? (w >= h ? w : h) : sum / side;
      let offset = 0;
      for (let k = i; k < j; k++) {
        const long = weight(nodes[k]) * scale / sum * side;
        if (w >= h) place(nodes[k], x, y + offset, thick, long);
        else place(nodes[k], x + offset, y, long, thick);
        offset += long;
      }
      if (w >= h) { x += thick; w -= thick; } else { y += thick; h -= thick; }
      i = j;
    }
  };

  const maxCells = 2500;
  let cells = [], queue = [], room = 0;

  const namesOf = (nodes) => nodes.slice(1).map(nameOf);
  const describe = (n, names) => {
    const v = data.views[at.view], all = sizeOf(v.tree);
    const out = ["/" + names.join("/") + (isDir(n) && names.length ? "/" : "")];
    out.push(bytes(sizeOf(n)) + ", " + percent(sizeOf(n), all) + " of " + (v.short || "the image") +
      (n[2] ? n[1] ? "; dead: " + bytes(n[2]) + " (" + percent(n[2], sizeOf(n)) + ")" : "; all of it is dead" : ""));
    if (n[4]) out.push("Dead because: " + data.reasons[n[4]]);
    if (n[5] >= 0) out.push("Created by: " + data.steps[n[5]]);
    if (n[6] >= 0) out.push("Made dead by: " + data.steps[n[6]]);
    return out;
  };
  const tell = (box, n, names) => box.replaceChildren(...describe(n, names).map((t) => make("p", "", t)));

  // Colours go by directory: by those in the root and, where one of them has the most of all, by those in it.
  const spine = new Set();
  const hueOf = (parent, n, hue) => (spine.has(parent) ? placeOf(parent, n) % 6 : hue);

  // lay gives the rectangles of what is in a directory, in whole pixels; too small ones are left out.
  const lay = (n, x, y, w, h) => {
    const out = [];
    squarify(n, x, y, w, h, (c, cx, cy, cw, ch) => {
      const l = Math.round(cx), t = Math.round(cy), r = Math.round(cx + cw), b = Math.round(cy + ch);
      if (r - l >= 3 && b - t >= 3) out.push([c, l, t, r - l, b - t]);
    });
    return out;
  };

  // draw makes a cell, as if there were nothing in it.
  const draw = (n, path, names, x, y, w, h, depth, hue, parent) => {
    const e = make("div", "cell h" + hue), dir = isDir(n);
    e.style.left = x + "px"; e.style.top = y + "px"; e.style.width = w + "px"; e.style.height = h + "px";
    if (n[2] > 0) {
      const lost = make("i", "lost");
      if (n[1] === 0) e.classList.add("whole");
      else lost.style.height = Math.max(3, Math.round(h * n[2] / sizeOf(n))) + "px";
      e.append(lost);
    }
    if (h >= 17 && w >= 30) {
      e.append(make("span", "", nameOf(n) + (dir ? "/" : "")));
      if (h >= 34 && w >= 50) e.append(make("span", "size", bytes(weight(n))));
    }
    if (dir || depth > 0) e.classList.add("go");
    if (depth === 0) {
      e.setAttribute("role", "button");
      e.setAttribute("aria-label", describe(n, names).join(". "));
      e.tabIndex = cells.length === 0 ? 0 : -1;
      cells.push({ e, x: x + w / 2, y: y + h / 2 });
    } else e.setAttribute("aria-hidden", "true");
    e.node = n;
    e.path = path;
    e.names = names;
    parent.append(e);
    room--;
    if (dir && w > 26 && h > 34) queue.push({ e, w, h, depth, hue });
  };

  // fill shows what is in a cell, if so many more can be had.
  const fill = ({ e, w, h, depth, hue }) => {
    const n = e.node, rects = lay(n, 2, 17, w - 6, h - 21);
    if (rects.length === 0 || rects.length > room) return;
    e.className = "cell dir go";
    e.replaceChildren(make("span", "", nameOf(n) + "/" + (w > 110 ? "  " + bytes(weight(n)) : "")));
    for (const [c, ...at] of rects) draw(c, e.path.concat(placeOf(n, c)), e.names.concat(nameOf(c)), ...at, depth + 1, hueOf(n, c, hue), e);
  };

  const render = () => {
    const nodes = resolve(), node = nodes[nodes.length - 1], width = map.clientWidth, height = map.clientHeight;
    select.value = String(at.view);
    cells = [];
    room = maxCells;
    tip.hidden = true;
    map.replaceChildren();
    const names = namesOf(nodes);
    map.setAttribute("aria-label", "Treemap of /" + names.join("/") + " in " + data.views[at.view].label);
    queue = [];
    spine.clear();
    for (let n = nodes[0]; isDir(n) && n[3].length; n = n[3][0]) {
      spine.add(n);
      if (sizeOf(n[3][0]) < 0.6 * sizeOf(n)) break;
    }
    const hue = nodes.reduce((h, n, i) => (i ? hueOf(nodes[i - 1], n, h) : h), 0);
    for (const [c, ...rect] of lay(node, 0, 0, width, height)) {
      draw(c, at.path.concat(placeOf(node, c)), names.concat(nameOf(c)), ...rect, 0, hueOf(node, c, hue), map);
    }
    // Level by level, so that where cells run out it is the small ones that are missing.
    for (let i = 0; i < queue.length; i++) fill(queue[i]);
    if (cells.length === 0) {
      map.append(make("p", "empty", onlyDead.checked && sizeOf(node) > 0 ? "Nothing here is dead." : "There are no bytes here."));
    }
    tell(told, node, names);
    crumbs.replaceChildren(...nodes.map((n, i) => {
      const li = make("li"), name = i === 0 ? data.views[at.view].short || "image" : n[0];
      if (i === nodes.length - 1) {
        const here = make("span", "", name);
        here.setAttribute("aria-current", "location");
        li.append(here);
      } else {
        const b = make("button", "", name);
        b.type = "button";
        b.addEventListener("click", () => go(at.view, at.path.slice(0, i)));
        li.append(b);
      }
      return li;
    }));
    contents(node, names);
  };

  const maxRows = 100;
  const contents = (node, names) => {
    const all = (node[3] || []).filter((n) => weight(n) > 0), rows = [];
    for (const n of all.slice(0, maxRows)) {
      const tr = make("tr"), name = make("td", "w path"), size = make("td", "n", bytes(sizeOf(n)));
      const dead = make("td", "n lost-n", n[2] ? bytes(n[2]) : ""), why = make("td", "w", n[4] ? data.reasons[n[4]] : "");
      if (isDir(n)) {
        const b = make("button", "", nameOf(n) + "/");
        b.type = "button";
        b.addEventListener("click", () => go(at.view, at.path.concat(placeOf(node, n))));
        name.append(b);
      } else name.textContent = nameOf(n);
      size.dataset.label = "Size";
      dead.dataset.label = "Dead";
      for (const td of [name, size, dead, why]) td.setAttribute("role", "cell");
      tr.setAttribute("role", "row");
      tr.append(name, size, dead, why);
      rows.push(tr);
    }
    list.replaceChildren(...rows);
    listNote.textContent = "Contents of /" + names.join("/") + (all.length > maxRows ? " (the largest " + maxRows + " of " + all.length + ")" : "");
  };

  const cellAt = (e) => e.target instanceof Element ? e.target.closest(".cell") : null;
  const open = (cell) => {
    const n = cell.node, to = isDir(n) ? cell.path : cell.path.slice(0, -1);
    if (to.length === at.path.length) tell(told, n, cell.names);
    else go(at.view, to);
  };
  map.addEventListener("click", (e) => { const c = cellAt(e); if (c) open(c); });
  map.addEventListener("pointermove", (e) => {
    const c = e.pointerType === "mouse" ? cellAt(e) : null;
    tip.hidden = !c;
    if (!c) return;
    if (tip.node !== c.node) { tell(tip, c.node, c.names); tip.node = c.node; }
    const r = tip.getBoundingClientRect();
    const x = e.clientX + 14, y = e.clientY + 16;
    tip.style.left = Math.max(4, Math.min(x, innerWidth - r.width - 4)) + "px";
    tip.style.top = (y + r.height > innerHeight ? Math.max(4, e.clientY - r.height - 10) : y) + "px";
  });
  map.addEventListener("pointerleave", () => { tip.hidden = true; });
  map.addEventListener("focusin", (e) => { const c = cellAt(e); if (c) tell(told, c.node, c.names); });
  map.addEventListener("keydown", (e) => {
    const i = cells.findIndex((c) => c.e === document.activeElement);
    if (i < 0 || e.ctrlKey || e.altKey || e.metaKey) return;
    const here = cells[i], by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    let to = null;
    if (by) {
      let best = Infinity;
      for (const c of cells) {
        const along = (c.x - here.x) * by[0] + (c.y - here.y) * by[1];
        const across = Math.abs((c.x - here.x) * by[1] + (c.y - here.y) * by[0]);
        if (along > 0.5 && along + 2 * across < best) { best = along + 2 * across; to = c; }
      }
    } else if (e.key === "Home") to = cells[0];
    else if (e.key === "End") to = cells[cells.length - 1];
    else if (e.key === "Enter" || e.key === " ") { refocus = true; open(here.e); }
    else if ((e.key === "Escape" || e.key === "Backspace") && at.path.length) { refocus = true; go(at.view, at.path.slice(0, -1)); }
    else return;
    e.preventDefault();
    if (to) { here.e.tabIndex = -1; to.e.tabIndex = 0; to.e.focus(); }
  });

  let refocus = false; // the keyboard moved the map: its focus moves along
  const moved = () => {
    parse();
    render();
    if (refocus && cells.length) cells[0].e.focus();
    refocus = false;
  };
  select.addEventListener("change", () => {
    const view = Number(select.value);
    go(view, named(view, namesOf(resolve())));
  });
  onlyDead.addEventListener("change", render);
  addEventListener("hashchange", moved);
  for (const b of document.querySelectorAll("button[data-view]")) {
    b.hidden = false;
    b.addEventListener("click", () => {
      go(Number(b.dataset.view), []);
      $("treemap").scrollIntoView();
      select.focus({ preventScroll: true });
    });
  }
  let frame = 0;
  new ResizeObserver(() => { cancelAnimationFrame(frame); frame = requestAnimationFrame(render); }).observe(map);
  moved();
})();
