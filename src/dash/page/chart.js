/** One chart: a canvas with axes, curves, a crosshair, and the values under it. */
import { nearest } from './curves.js';
import { clockSteps, duration, logTicks, short, ticks } from './numbers.js';

const LEFT = 58;
const RIGHT = 12;
const TOP = 8;
const BOTTOM = 26;
/** A drag shorter than this is a click. */
const DRAG = 5;
/** What the horizontal axis counts. */
const axisNames = { step: 'steps', tokens: 'tokens', time: 'elapsed' };

export class Chart {
  /**
   * @param {import('./metrics.js').Metric} metric
   * @param {{hover(where: number | null): void, zoom(from: number, to: number): void, reset(): void, changed(): void}} page
   */
  constructor(metric, page) {
    this.metric = metric;
    this.page = page;
    this.log = false;
    this.lines = [];
    this.view = { axis: 'step', from: 0, to: 1 };
    this.where = null;
    this.drag = null;
    this.element = this.#build();
    this.context = this.canvas.getContext('2d');
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  #build() {
    const { title, unit } = this.metric;
    const element = node('article', 'chart');
    element.dataset.metric = this.metric.id;
    const head = node('div', 'head');
    this.logButton = node('button', '', 'log');
    this.logButton.title = 'Logarithmic axis';
    this.logButton.addEventListener('click', () => this.setLog(!this.log, true));
    this.wideButton = node('button', '', 'wide');
    this.wideButton.title = 'Use the whole width';
    this.wideButton.addEventListener('click', () => this.setWide(!this.wide, true));
    for (const button of [this.logButton, this.wideButton]) {
      button.type = 'button';
      button.setAttribute('aria-pressed', 'false');
    }
    head.append(node('h2', '', title), node('span', 'unit', unit), this.logButton, this.wideButton);
    this.canvas = node('canvas');
    this.canvas.setAttribute('role', 'img');
    this.key = node('div', 'key');
    this.tip = node('div', 'tip');
    this.tip.hidden = true;
    element.append(head, this.canvas, this.key, this.tip);
    this.#listen();
    return element;
  }

  setLog(log, tell = false) {
    this.log = log;
    this.logButton.setAttribute('aria-pressed', String(log));
    this.draw();
    if (tell) this.page.changed();
  }

  get wide() {
    return this.element.classList.contains('wide');
  }

  setWide(wide, tell = false) {
    this.element.classList.toggle('wide', wide);
    this.wideButton.setAttribute('aria-pressed', String(wide));
    if (tell) this.page.changed();
  }

  #listen() {
    const { canvas } = this;
    const at = (event) => event.clientX - canvas.getBoundingClientRect().left;
    canvas.addEventListener('pointermove', (event) => {
      if (this.drag !== null) this.drag.to = at(event);
      this.page.hover(this.#valueAt(at(event)));
    });
    canvas.addEventListener('pointerleave', () => {
      if (this.drag === null) this.page.hover(null);
    });
    canvas.addEventListener('pointerdown', (event) => {
      if (event.button !== 0 || event.pointerType === 'touch') return;
      canvas.setPointerCapture(event.pointerId);
      this.drag = { from: at(event), to: at(event) };
    });
    canvas.addEventListener('pointerup', () => {
      const { drag } = this;
      this.drag = null;
      if (drag === null) return;
      const [from, to] = [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)];
      if (to - from >= DRAG) this.page.zoom(this.#valueAt(from), this.#valueAt(to));
      else this.draw();
    });
    canvas.addEventListener('pointercancel', () => {
      this.drag = null;
      this.draw();
    });
    canvas.addEventListener('dblclick', () => this.page.reset());
  }

  /** @param lines {{name: string, colour: string, curve: object, points: boolean, dash: number[]}[]} */
  show(lines, view) {
    this.lines = lines;
    this.view = view;
    this.#describe();
    this.draw();
  }

  /** Shows the values at a place of the axis; null: none. */
  hover(where) {
    this.where = where;
    this.draw();
  }

  #describe() {
    const { title, format } = this.metric;
    const kinds = new Map();
    for (const line of this.lines) {
      if (line.kind !== null && !kinds.has(line.kind)) kinds.set(line.kind, line);
    }
    this.key.replaceChildren(
      ...[...kinds].map(([name, line]) => {
        const item = node('span', line.points ? 'points' : line.dash.length > 0 ? 'dashed' : '', name);
        if (line.kindColour) item.style.setProperty('--run', line.colour);
        return item;
      }),
    );
    const values = this.lines.map(({ name, curve }) => `${name} ${format(curve.high.at(-1) ?? Number.NaN)}`);
    this.canvas.setAttribute('aria-label', `${title}: ${values.join(', ') || 'no values'}`);
  }

  get #box() {
    const { clientWidth, clientHeight } = this.canvas;
    return {
      left: LEFT,
      top: TOP,
      width: Math.max(1, clientWidth - LEFT - RIGHT),
      height: Math.max(1, clientHeight - TOP - BOTTOM),
    };
  }

  #valueAt(pixel) {
    const { left, width } = this.#box;
    const share = Math.min(1, Math.max(0, (pixel - left) / width));
    return this.view.from + share * (this.view.to - this.view.from);
  }

  /** Ends of the vertical axis: of all that is seen. */
  #range() {
    let low = Infinity;
    let high = -Infinity;
    for (const { curve } of this.lines) {
      for (let i = 0; i < curve.x.length; i++) {
        if (curve.x[i] < this.view.from || curve.x[i] > this.view.to) continue;
        if (curve.high[i] > high) high = curve.high[i];
        if (curve.low[i] < low && !(this.log && curve.low[i] <= 0)) low = curve.low[i];
      }
    }
    if (!(low <= high)) return this.log ? [0.1, 1] : [0, 1];
    if (this.log) {
      if (high <= 0) return [0.1, 1];
      const room = (high / low) ** 0.04;
      return high === low ? [low / 2, high * 2] : [low / room, high * room];
    }
    const room = high === low ? Math.abs(high) * 0.1 || 1 : (high - low) * 0.06;
    const fromZero = this.metric.fromZero && low >= 0;
    return [fromZero ? 0 : low - room, high + room];
  }

  draw() {
    const { canvas, context, view } = this;
    const { clientWidth, clientHeight } = canvas;
    if (clientWidth === 0) return;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, clientWidth, clientHeight);
    const box = this.#box;
    const [low, high] = this.#range();
    const toX = (value) => box.left + ((value - view.from) / (view.to - view.from)) * box.width;
    const scale = this.log ? Math.log10 : (value) => value;
    const toY = (value) =>
      box.top + box.height - ((scale(value) - scale(low)) / (scale(high) - scale(low))) * box.height;
    this.#axes(box, low, high, toX, toY);
    context.save();
    context.beginPath();
    context.rect(box.left, box.top - 4, box.width + 4, box.height + 8);
    context.clip();
    for (const line of this.lines) this.#line(line, toX, toY);
    if (this.drag !== null && Math.abs(this.drag.to - this.drag.from) >= DRAG) {
      context.fillStyle = colour('--selection');
      context.fillRect(this.drag.from, box.top, this.drag.to - this.drag.from, box.height);
    }
    context.restore();
    this.#crosshair(box, toX, toY);
  }

  #axes(box, low, high, toX, toY) {
    const { context, view, metric } = this;
    context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    context.lineWidth = 1;
    const marks = this.log
      ? logTicks(low, high, Math.max(2, box.height / 40))
      : ticks(
          low,
          high,
          Math.max(2, box.height / 44),
          metric.steps ? byteMarks(metric.steps, low, high, box.height / 44) : null,
        );
    const texts = labels(marks, metric, this.log);
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    for (const [i, mark] of marks.entries()) {
      const y = Math.round(toY(mark)) + 0.5;
      if (y < box.top - 1 || y > box.top + box.height + 1) continue;
      context.strokeStyle = colour('--grid');
      context.beginPath();
      context.moveTo(box.left, y);
      context.lineTo(box.left + box.width, y);
      context.stroke();
      context.fillStyle = colour('--muted');
      context.fillText(texts[i], box.left - 8, y);
    }
    context.textBaseline = 'top';
    const isTime = view.axis === 'time';
    const count = Math.max(2, box.width / 80);
    const bottom = box.top + box.height;
    const along = ticks(view.from, view.to, count, isTime ? clockSteps : null).filter(
      (mark) => isTime || view.axis !== 'step' || Number.isInteger(mark),
    );
    for (const mark of along) {
      const x = Math.round(toX(mark)) + 0.5;
      context.strokeStyle = colour('--line');
      context.beginPath();
      context.moveTo(x, bottom);
      context.lineTo(x, bottom + 4);
      context.stroke();
      const text = isTime ? duration(mark) : short(mark);
      const half = context.measureText(text).width / 2;
      const right = box.left + box.width + RIGHT;
      // Left of it is the axis' name.
      if (x - half < box.left - 2) continue;
      context.textAlign = 'center';
      context.fillStyle = colour('--muted');
      context.fillText(text, Math.min(x, right - half), bottom + 8);
    }
    context.textAlign = 'right';
    context.fillStyle = colour('--faint');
    context.fillText(axisNames[view.axis], box.left - 8, bottom + 8);
    context.strokeStyle = colour('--line');
    context.beginPath();
    context.moveTo(box.left, bottom + 0.5);
    context.lineTo(box.left + box.width, bottom + 0.5);
    context.stroke();
  }

  /** The band between the least and the largest value of each pixel is the curve; behind a smoothed one it is faint. */
  #line({ curve, colour: stroke, points, dash }, toX, toY) {
    const { context, log } = this;
    const { x, low, high, smooth } = curve;
    const path = (values, ends) => {
      context.beginPath();
      let open = false;
      for (let i = 0; i < x.length; i++) {
        const value = values[i];
        if (!Number.isFinite(value) || (log && value <= 0)) {
          open = false;
          continue;
        }
        const at = toX(x[i]);
        if (open) context.lineTo(at, toY(value));
        else context.moveTo(at, toY(value));
        open = true;
        if (ends !== null && ends[i] !== value && !(log && ends[i] <= 0)) {
          context.lineTo(at, toY(ends[i]));
          // From where a spike went back to, so that the next line begins in the middle of the band.
          context.lineTo(at, toY(log ? Math.sqrt(value * ends[i]) : (value + ends[i]) / 2));
        }
      }
      context.stroke();
    };
    context.lineJoin = 'round';
    context.strokeStyle = stroke;
    context.setLineDash(dash);
    if (points) {
      context.lineWidth = 1.5;
      context.globalAlpha = 0.55;
      context.setLineDash([3, 3]);
      path(high, null);
      context.setLineDash([]);
      context.globalAlpha = 1;
      if (x.length <= 150) this.#dots(curve, stroke, toX, toY);
      return;
    }
    context.globalAlpha = smooth === null ? 0.85 : 0.28;
    context.lineWidth = smooth === null ? 1.4 : 1;
    path(high, low);
    context.globalAlpha = 1;
    if (smooth !== null) {
      context.lineWidth = 1.9;
      path(smooth, null);
    }
    context.setLineDash([]);
    if (x.length === 1) this.#dots(curve, stroke, toX, toY);
  }

  #dots({ x, high }, stroke, toX, toY) {
    const { context } = this;
    context.lineWidth = 1.6;
    for (let i = 0; i < x.length; i++) {
      if (!Number.isFinite(high[i]) || (this.log && high[i] <= 0)) continue;
      context.beginPath();
      context.arc(toX(x[i]), toY(high[i]), 3, 0, 2 * Math.PI);
      context.fillStyle = colour('--card');
      context.fill();
      context.stroke();
    }
    context.strokeStyle = stroke;
  }

  #crosshair(box, toX, toY) {
    const { context, where, tip, metric } = this;
    const found =
      where === null
        ? []
        : this.lines.flatMap((line) => {
            const { x } = line.curve;
            // A run that ended before this place has no value here.
            const near = (this.view.to - this.view.from) * 0.02;
            if (where < x[0] - near || where > x[x.length - 1] + near) return [];
            const at = nearest(x, where);
            return at === -1 || !Number.isFinite(line.curve.high[at]) ? [] : [{ ...line, at }];
          });
    tip.hidden = found.length === 0;
    if (found.length === 0) return;
    const x = Math.round(toX(where)) + 0.5;
    context.strokeStyle = colour('--faint');
    context.lineWidth = 1;
    context.setLineDash([2, 3]);
    context.beginPath();
    context.moveTo(x, box.top);
    context.lineTo(x, box.top + box.height);
    context.stroke();
    context.setLineDash([]);
    const rows = found.map(({ name, colour: fill, curve, at }) => {
      const { low, high, smooth } = curve;
      const value = smooth === null ? (low[at] + high[at]) / 2 : smooth[at];
      if (!(this.log && value <= 0)) {
        context.fillStyle = fill;
        context.beginPath();
        context.arc(toX(curve.x[at]), toY(value), 3.2, 0, 2 * Math.PI);
        context.fill();
      }
      const row = node('div', 'row');
      row.style.setProperty('--run', fill);
      const range =
        low[at] === high[at]
          ? metric.format(high[at])
          : `${metric.format(low[at])} … ${metric.format(high[at])}`;
      row.append(
        node('i'),
        node('span', '', name),
        node('b', '', smooth === null ? range : metric.format(value)),
      );
      return row;
    });
    tip.replaceChildren(
      node('div', 'where', placeName(this.view.axis, found[0].curve.x[found[0].at])),
      ...rows,
    );
    const left = x + this.canvas.offsetLeft;
    const flip = left + tip.offsetWidth + 20 > this.element.clientWidth;
    tip.style.left = `${Math.max(2, flip ? left - tip.offsetWidth - 12 : left + 12)}px`;
    tip.style.top = `${this.canvas.offsetTop + box.top + 6}px`;
  }
}

function placeName(axis, value) {
  if (axis === 'time') return `after ${duration(value)}`;
  if (axis === 'tokens') return `${short(value)} tokens`;
  return `step ${Math.round(value).toLocaleString('en-US')}`;
}

/** A step in a power of two and its halves, so that memory is marked in round numbers. */
function byteMarks(steps, low, high, count) {
  const found = steps.find((size) => (high - low) / size <= Math.max(2, count)) ?? steps.at(-1);
  return [found];
}

/** The marks' texts: all with as many digits as their distance needs. */
function labels(marks, metric, log) {
  const plain = metric.format === short || metric.decimals === true;
  if (!plain) return marks.map((mark) => tidy(metric.format(mark)));
  const step = marks.length < 2 ? 0 : marks[1] - marks[0];
  if (log || step < 1e-5 || Math.abs(marks.at(-1)) >= 1000) return marks.map((mark) => short(mark + 0));
  let digits = 0;
  while (digits < 6 && Math.abs(step - Number(step.toFixed(digits))) > step * 1e-6) digits++;
  return marks.map((mark) => mark.toFixed(digits).replace(/^-(0(\.0*)?)$/, '$1'));
}

/** 1.000e−3 as 1e−3. */
function tidy(text) {
  return text
    .replace(/\.?0+e/, 'e')
    .replace(/e\+?/, 'e')
    .replace(/^0e0$/, '0');
}

const cache = new Map();

/** The value of a CSS colour; looked up once until the scheme changes. */
export function colour(name) {
  let value = cache.get(name);
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    cache.set(name, value);
  }
  return value;
}

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => cache.clear());

export function node(tag, className = '', text = '') {
  const element = document.createElement(tag);
  if (className !== '') element.className = className;
  if (text !== '') element.textContent = text;
  return element;
}
