// The dashboard in the page: an anywidget module (AFM), one `render` a view, no build and no other file.
//
// The kernel sends one trait, `snapshot` (see dashboard/snapshot.py); this keeps the depths of the last minute,
// scrolls them once a second while the view is looked at, and says when it is and when it isn't. Clicks go to
// the kernel as one word; it answers when it is free. Text is set with textContent alone, whatever it holds.

const WINDOW = 60, GAP = 5, WIDTH = 100, HEIGHT = 30;
const PATIENCE = 250; // ms until a click that was not heard says so
const SAID = 8000; // ms for which the kernel's answer is shown
const OLD = 10000; // ms after which numbers that a page opens with are no news
const MARKS = { done: "✓", failed: "✕", retrying: "↻", cancelled: "⊘" };
const NARROW = "nbq-hide-narrow";
const COLUMNS = [
  ["Queue", "96px", ""], [`Last ${WINDOW} s`, "", "nbq-left"], ["Waiting", "80px", ""], ["Running", "82px", ""],
  ["Done", "72px", ""], ["Per s", "64px", NARROW], ["Median", "86px", NARROW], ["Failed", "72px", ""],
];
const RESULT_COLUMNS = [["116px", ""], ["32%", ""], ["", ""], ["82px", ""], ["82px", NARROW]];
const TILES = [
  ["Waiting", "total-depth"], ["Running", "total-running"], ["Done", "total-done"],
  ["Per second", "rate"], ["Retrying", "retries"], ["Failed", "total-failed"],
];

// -- elements ------------------------------------------------------------------------------------------------

/** Make an element: attributes whose value is null are left out, children are elements or text. */
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "line", "polygon", "polyline"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Set an element's text, and touch the page only when it is another. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function mark(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Make `parent` hold one child a row: those that are there are kept, so that focus and selection are. */
function fill(parent, rows, add, change) {
  while (parent.children.length > rows.length) parent.lastElementChild.remove();
  rows.forEach((row, number) => {
    const node = parent.children[number] ?? parent.appendChild(add());
    change(node, row);
  });
}

// -- numbers -------------------------------------------------------------------------------------------------

const number = (value) => (value === null ? "–" : value.toLocaleString("en-US"));

/** Return a duration as `cards/words.py` does. */
function duration(milliseconds) {
  if (milliseconds === null) return "";
  const seconds = milliseconds / 1000;
  if (seconds < 0.9995) return `${Math.round(milliseconds)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  for (const [length, unit, smaller, part] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (whole >= length) {
      const rest = Math.floor((whole % length) / smaller);
      return `${Math.floor(whole / length)} ${unit}${rest ? ` ${rest} ${part}` : ""}`;
    }
  }
  return `${whole} s`;
}

function ago(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 1) return "now";
  if (seconds < 60) return `${seconds} s ago`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min ago` : `${Math.floor(seconds / 3600)} h ago`;
}

// -- the sparkline -------------------------------------------------------------------------------------------

/** The depths of each queue in the last minute, as [when it was looked at (ms), how many waited]. */
class Depths {
  queues = new Map();

  add(queues, now) {
    for (const { name, depth } of queues) {
      if (!this.queues.has(name)) this.queues.set(name, []);
      const seen = this.queues.get(name);
      if (seen.length && now - seen.at(-1)[0] < 500) seen.pop(); // one a second is drawn
      seen.push([now, depth]);
      while (seen[0][0] < now - WINDOW * 1000) seen.shift();
    }
    const names = new Set(queues.map((queue) => queue.name));
    for (const name of this.queues.keys()) if (!names.has(name)) this.queues.delete(name);
  }

  /** Draw a queue's; where nobody looked there is a gap. */
  draw(svg, name, now) {
    const seen = this.queues.get(name) ?? [];
    const highest = Math.max(0, ...seen.map(([, depth]) => depth));
    const runs = [];
    for (const [at, depth] of seen) {
      if (!runs.length || at - runs.at(-1).at(-1)[0] > GAP * 1000) runs.push([]);
      runs.at(-1).push([at, depth]);
    }
    const shapes = runs.flatMap((run) => {
      const points = run.map(([at, depth]) => {
        const x = Math.max(0, WIDTH * (1 - (now - at) / (WINDOW * 1000)));
        return [x.toFixed(1), (HEIGHT - 2 - ((HEIGHT - 4) * depth) / Math.max(highest, 1)).toFixed(1)];
      });
      const floor = HEIGHT - 1;
      return [
        ["polygon", "nbq-area", [[points[0][0], floor], ...points, [points.at(-1)[0], floor]]],
        ["polyline", "nbq-stroke", points],
      ];
    });
    const kept = [...svg.children].slice(1);
    if (kept.length !== shapes.length) {
      kept.forEach((node) => node.remove());
      svg.append(...shapes.map(([shape, kind]) => make(shape, { class: kind })));
    }
    shapes.forEach(([, , points], at) => mark(svg.children[at + 1], "points", points.map((p) => p.join(",")).join(" ")));
    mark(svg, "aria-label", `depth over the last ${WINDOW} seconds, highest ${number(highest)}`);
  }
}

// -- the parts of the board ----------------------------------------------------------------------------------

function columns(list) {
  return make("colgroup", {}, ...list.map(([width, kind]) => make("col", {
    style: width ? `width:${width}` : null, class: kind || null,
  })));
}

function tiles() {
  const list = make("dl", { class: "nbq-tiles" });
  for (const [title, part] of TILES) {
    list.append(make("div", {}, make("dt", {}, title), make("dd", { "data-nbqueue-part": part })));
  }
  return list;
}

function showTiles(list, totals) {
  const values = [totals.depth, totals.running, totals.done, totals.rate, totals.retries, totals.failed];
  values.forEach((value, at) => {
    const tile = list.children[at], node = tile.lastElementChild;
    if (at === 1 && totals.threads) {
      if (!node.firstElementChild) node.replaceChildren("", make("small"));
      if (node.firstChild.data !== `${number(value)} `) node.firstChild.data = `${number(value)} `;
      write(node.firstElementChild, `of ${number(totals.threads)}`);
    } else {
      write(node, number(value));
    }
    mark(tile, "data-nbqueue-alert", at === 5 && value ? "" : null);
  });
}

function queueRow() {
  const cell = (part, kind = null) => make("td", { "data-nbqueue-part": part, class: kind });
  const svg = make("svg", {
    "data-nbqueue-part": "sparkline", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
  }, make("line", { class: "nbq-base", x1: 0, y1: HEIGHT - 1, x2: WIDTH, y2: HEIGHT - 1 }));
  return make("tr", { "data-nbqueue": "queue" },
    make("td", { class: "nbq-mono" }), make("td", {}, svg), cell("depth"), cell("running"), cell("done"),
    cell("queue-rate", NARROW), cell("median", NARROW), cell("failed"));
}

function showQueue(node, row) {
  mark(node, "data-nbqueue-name", row.name);
  const texts = [row.name, null, number(row.depth), number(row.running), number(row.done), number(row.rate),
    duration(row.median), number(row.failed)];
  texts.forEach((text, at) => text !== null && write(node.children[at], text));
  mark(node.firstElementChild, "title", row.name);
}

function resultRow() {
  const chip = make("span", { class: "nbq-chip", "data-nbqueue-part": "state" },
    make("i", { "aria-hidden": "true" }), make("span"));
  return make("tr", { "data-nbqueue": "result" }, make("td", {}, chip), make("td", { class: "nbq-mono nbq-left" }),
    make("td", { class: "nbq-mono nbq-left" }), make("td"), make("td", { class: NARROW }));
}

function showResult(node, row, now) {
  const [chip, call, text, took, when] = node.children;
  mark(node, "data-nbqueue-state", row.state);
  write(chip.firstElementChild.firstElementChild, MARKS[row.state] ?? "");
  write(chip.firstElementChild.lastElementChild, row.state);
  const due = row.due !== null && row.due > now ? ` in ${duration(Math.ceil((row.due - now) / 1000) * 1000)}` : "";
  for (const [cell, shown] of [[call, row.call], [text, row.text + due]]) {
    write(cell, shown);
    mark(cell, "title", shown);
  }
  write(took, duration(row.took));
  write(when, row.at === null ? "" : ago(now - row.at));
}

// -- buttons -------------------------------------------------------------------------------------------------

/** The buttons of a view. `send` takes a word to the kernel. */
class Buttons {
  waiting = new Map(); // words that were not heard yet, with the timers that say so
  asking = false;
  snapshot = null;
  stopped = false;

  constructor(send) {
    this.send = send;
    this.pause = this.button("pause", () => this.click(this.pause.dataset.nbqueueAction));
    this.retry = this.button("retry", () => this.click("retry"));
    this.flush = this.button("flush", (event) => {
      if (!this.asking) this.ask(true);
      else if (event.detail < 2) { // the second half of a double click is no answer
        this.ask(false);
        this.click("flush");
      }
    });
    this.keep = this.button("keep", (event) => event.detail < 2 && this.ask(false));
    this.question = make("span", { class: "nbq-question" });
    this.node = make("span", { class: "nbq-actions" }, this.pause, this.retry, this.question, this.flush, this.keep);
    this.node.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.asking) {
        event.stopPropagation();
        this.ask(false);
      }
    });
  }

  button(action, click) {
    const node = make("button", { type: "button", "data-nbqueue-action": action });
    node.addEventListener("click", click);
    return node;
  }

  /** Ask in place whether to drop what waits. */
  ask(asking) {
    this.asking = asking;
    this.show();
    (asking ? this.keep : this.flush).focus();
  }

  click(word) {
    const timer = setTimeout(() => {
      this.waiting.set(word, null);
      this.show();
    }, PATIENCE);
    this.waiting.set(word, timer);
    this.show();
    this.send(word);
  }

  /** The kernel has done what a word says. */
  heard(word) {
    clearTimeout(this.waiting.get(word));
    this.waiting.delete(word);
    this.show();
  }

  show(snapshot = this.snapshot) {
    this.snapshot = snapshot;
    if (!snapshot) return;
    // While a click on it is under way, the button stays what it was.
    const under = ["pause", "resume"].find((word) => this.waiting.has(word));
    const next = under ?? (snapshot.live === "paused" ? "resume" : "pause");
    mark(this.pause, "data-nbqueue-action", next);
    this.label(this.pause, next, next === "pause" ? "Pause" : "Resume", snapshot.no_pause, snapshot.pauses);
    this.label(this.retry, "retry", `Retry ${number(snapshot.dead)} failed`, "", "");
    this.retry.hidden = !snapshot.dead && !this.waiting.has("retry");
    const nothing = snapshot.droppable ? "" : "Nothing waits.";
    this.label(this.flush, "flush", this.asking ? "Drop" : "Flush…", nothing, "");
    write(this.keep, "Keep");
    this.keep.disabled = this.stopped;
    write(this.question, this.asking ? snapshot.question : "");
    for (const node of [this.question, this.keep]) node.hidden = !this.asking;
    for (const node of [this.pause]) node.hidden = this.asking;
    if (this.asking) this.retry.hidden = true;
  }

  label(node, word, text, reason, title) {
    const busy = this.waiting.has(word);
    write(node, busy && this.waiting.get(word) === null && !this.stopped ? "queued, the kernel is busy" : text);
    node.disabled = this.stopped || busy || Boolean(reason);
    mark(node, "title", reason || title || null);
  }

  /** The kernel has gone: nothing can be done. */
  stop(stopped) {
    this.stopped = stopped;
    if (stopped) {
      this.asking = false;
      for (const timer of this.waiting.values()) clearTimeout(timer);
      this.waiting.clear();
    }
    this.show();
  }

  close() {
    for (const timer of this.waiting.values()) clearTimeout(timer);
  }
}

// -- a view --------------------------------------------------------------------------------------------------

/** Whether the kernel was shut down, where the front end can tell: of that a model isn't told. */
function isGone(model) {
  const kernel = model.widget_manager?.kernel;
  return kernel === null || kernel?.isDisposed === true || kernel?.status === "dead";
}

class View {
  id = Array.from(crypto.getRandomValues(new Uint32Array(3)), (part) => part.toString(36)).join("");
  depths = new Depths();
  inView = true;
  told = null; // what the kernel was told last: whether this is looked at
  timer = null;
  skew = 0; // ms by which the kernel's clock is behind the page's
  lastSeen = new Date();
  stopped = false; // whether the kernel has gone
  greyed = false;

  constructor(model, el) {
    this.model = model;
    this.buttons = new Buttons((word) => this.tell({ do: word }));
    this.broker = make("span");
    this.workers = make("span");
    this.live = make("span", { class: "nbq-live", "data-nbqueue-part": "live" });
    this.tiles = tiles();
    this.queues = make("tbody");
    this.results = make("tbody");
    this.resultsTitle = make("h4");
    this.resultsTable = make("table", {}, columns(RESULT_COLUMNS), this.results);
    this.resultsPart = make("div", { class: "nbq-results" }, this.resultsTitle, this.resultsTable);
    this.note = make("div", { class: "nbq-note" });
    this.said = make("span", { class: "nbq-said", role: "status" });
    const heads = COLUMNS.map(([title, , kind]) => make("th", { scope: "col", class: kind || null }, title));
    this.empty = make("div", { class: "nbq-note" }, "No queue yet: declare an actor.");
    const board = make("div", { class: "nbq-dash" },
      make("div", { class: "nbq-bar-top" }, make("strong", {}, "nbqueue"), this.broker, this.workers, this.live,
        this.said, this.buttons.node),
      this.tiles,
      make("table", { class: "nbq-queues" }, columns(COLUMNS.map(([, width, kind]) => [width, kind])),
        make("thead", {}, make("tr", {}, ...heads)), this.queues),
      this.empty, this.resultsPart, this.note);
    this.root = make("div", {
      class: "nbqueue", "data-nbqueue": "dashboard", role: "region", "aria-label": "nbqueue dashboard",
    }, board);
    this.say("");
    el.append(this.root);
    this.show();
    // A page that is loaded again, or a document without a kernel: honest until there is news.
    const since = this.snapshot ? new Date(this.snapshot.now) : this.lastSeen;
    if (Date.now() - since > OLD) this.grey("as of ", since);
  }

  /** Take in what the kernel sent. */
  show() {
    const snapshot = this.model.get("snapshot");
    if (!snapshot || !snapshot.totals) return;
    const arrived = Date.now();
    this.snapshot = snapshot;
    this.skew = arrived - snapshot.now;
    this.lastSeen = new Date(arrived);
    if (this.greyed) {
      this.greyed = this.stopped = false;
      this.root.classList.remove("nbq-stopped");
      this.buttons.stop(false);
    }
    write(this.broker, snapshot.broker);
    write(this.workers, snapshot.workers);
    this.workers.hidden = !snapshot.workers;
    mark(this.live, "data-nbqueue-state", snapshot.live);
    write(this.live, snapshot.status);
    showTiles(this.tiles, snapshot.totals);
    this.buttons.show(snapshot);
    fill(this.queues, snapshot.queues, queueRow, showQueue);
    this.empty.hidden = snapshot.queues.length > 0;
    this.resultsPart.hidden = snapshot.results === null;
    this.resultsTable.hidden = !snapshot.results?.length;
    write(this.resultsTitle, snapshot.results?.length ? "Latest results" : "Latest results: none yet");
    write(this.note, snapshot.note);
    this.note.hidden = !snapshot.note;
    this.tick();
  }

  /** Draw what moves by itself: the sparklines, and how long ago things were. */
  tick() {
    if (!this.snapshot || this.stopped) return;
    if (isGone(this.model)) {
      this.stop();
      return;
    }
    const now = Date.now();
    this.depths.add(this.snapshot.queues, now);
    this.snapshot.queues.forEach((row, at) => {
      this.depths.draw(this.queues.children[at].querySelector("svg"), row.name, now);
    });
    fill(this.results, this.snapshot.results ?? [], resultRow, (node, row) => showResult(node, row, now - this.skew));
  }

  /** The kernel has gone. */
  stop() {
    this.stopped = true;
    this.grey("the kernel stopped, last seen ", this.lastSeen);
    this.run();
  }

  /** Show grey numbers, no buttons, and since when; the next snapshot undoes that. */
  grey(text, since) {
    this.greyed = true;
    this.root.classList.add("nbq-stopped");
    this.buttons.stop(true);
    mark(this.live, "data-nbqueue-state", "stopped");
    const time = since.toLocaleTimeString([], { hour12: false });
    this.live.replaceChildren(text, make("time", { datetime: since.toISOString() }, time));
    this.say("");
  }

  say(text) {
    clearTimeout(this.saying);
    write(this.said, text);
    this.said.hidden = !text;
    if (text) this.saying = setTimeout(() => this.say(""), SAID);
  }

  hear(content) {
    if (content?.view !== this.id || typeof content.done !== "string") return;
    this.buttons.heard(content.done);
    this.say(String(content.said ?? ""));
  }

  /** Go on while this is looked at, and tell the kernel when that changes. */
  run() {
    const shown = this.inView && document.visibilityState === "visible" && !this.stopped;
    if (shown && this.timer === null) {
      this.timer = setInterval(() => this.tick(), 1000);
    } else if (!shown && this.timer !== null) {
      clearInterval(this.timer);
      this.timer = null;
    }
    if (shown !== this.told && !this.stopped) {
      this.told = shown;
      this.tell({ shown });
    }
  }

  tell(content) {
    try {
      this.model.send({ view: this.id, ...content });
    } catch (error) { // there is no kernel any more to send it to
      console.debug("nbqueue: the kernel can't be reached.", error);
      this.stop();
    }
  }

  close() {
    clearInterval(this.timer);
    clearTimeout(this.saying);
    this.buttons.close();
    if (this.told && !this.stopped) this.tell({ shown: false });
    this.told = false;
  }
}

function render({ model, el }) {
  const view = new View(model, el);
  const changed = () => view.show();
  const heard = (content) => view.hear(content);
  const gone = () => view.stop();
  const seen = () => view.run();
  model.on("change:snapshot", changed);
  model.on("msg:custom", heard);
  // A model that has lost its kernel says so; should it come back, the next snapshot does.
  model.on("comm_live_update", gone);
  const closing = () => view.close();
  document.addEventListener("visibilitychange", seen);
  window.addEventListener("pagehide", closing);
  const observer = new IntersectionObserver((entries) => {
    view.inView = entries.at(-1).isIntersecting;
    view.run();
  });
  observer.observe(view.root);
  return () => {
    observer.disconnect();
    document.removeEventListener("visibilitychange", seen);
    window.removeEventListener("pagehide", closing);
    model.off("change:snapshot", changed);
    model.off("msg:custom", heard);
    model.off("comm_live_update", gone);
    view.close();
    view.root.remove();
  };
}

export default { render };
