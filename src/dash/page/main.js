/** The page: which runs there are, what is shown of them, and when it is fetched again. */
import { Chart, colour, node } from './chart.js';
import { fetchCurves } from './curves.js';
import { metricsFor } from './metrics.js';
import { duration, short } from './numbers.js';

const COLOURS = 8;
const REMEMBERED = 'candlewick-dash';
/** Between two looks at a run that grows. */
const REFRESH_MS = 500;
/** Dashes that tell the sources of a mixture apart. */
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [1, 4], [10, 4]];

const $ = (id) => document.getElementById(id);

const settings = { axis: 'step', smooth: 0, log: [], wide: [], hidden: [], ...remembered() };
/** The part of the axis that is shown; null: all of it. */
let zoom = null;
/** @type {Map<number, object>} */
const runs = new Map();
/** @type {Map<number, {rows: number, extent: (number | null)[], curves: Map<string, object>}>} */
const curves = new Map();
/** @type {Map<string, Chart>} */
const charts = new Map();

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(REMEMBERED) ?? '{}');
  } catch {
    return {};
  }
}

function remember() {
  settings.log = [...charts.values()].filter((chart) => chart.log).map(({ metric }) => metric.id);
  settings.wide = [...charts.values()].filter((chart) => chart.wide).map(({ metric }) => metric.id);
  try {
    localStorage.setItem(REMEMBERED, JSON.stringify(settings));
  } catch {
    // A browser that keeps nothing: the page works all the same.
  }
}

const runColour = (id) => colour(`--run-${id % COLOURS}`);
const isShown = ({ path }) => !settings.hidden.includes(path);
const shownRuns = () => [...runs.values()].filter(isShown);
/** Rows that smoothing takes the mean of: the slider counts in powers. */
const smoothRows = () => (settings.smooth === 0 ? 1 : Math.round(10 ** (settings.smooth / 10) * 1.25));

// What the controls do.

for (const button of document.querySelectorAll('[data-axis]')) {
  button.addEventListener('click', () => {
    settings.axis = button.dataset.axis;
    zoom = null;
    showControls();
    remember();
    refresh();
  });
}
$('smooth').addEventListener('input', () => {
  settings.smooth = Number($('smooth').value);
  showControls();
  remember();
  refresh();
});
$('reset').addEventListener('click', () => setZoom(null));
addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && zoom !== null) setZoom(null);
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  showRuns();
  draw();
  showSamples();
});
let resized = 0;
addEventListener('resize', () => {
  clearTimeout(resized);
  resized = setTimeout(refresh, 150);
});

function setZoom(window) {
  zoom = window;
  // The cursor is at another place of the axis now.
  page.hover(null);
  showControls();
  refresh();
}

function showControls() {
  for (const button of document.querySelectorAll('[data-axis]')) {
    button.setAttribute('aria-pressed', String(button.dataset.axis === settings.axis));
  }
  $('smooth').value = String(settings.smooth);
  $('smooth-value').textContent = settings.smooth === 0 ? 'off' : `${short(smoothRows())} rows`;
  $('reset').hidden = zoom === null;
}

// Runs.

function showRuns() {
  const list = $('runs');
  for (const run of runs.values()) {
    let card = list.querySelector(`[data-run="${run.id}"]`);
    if (card === null) {
      card = node('button', 'run');
      card.type = 'button';
      card.dataset.run = String(run.id);
      card.addEventListener('click', () => toggle(run.path));
      card.append(
        node('i', 'swatch'),
        node('span', 'name'),
        node('span', 'state'),
        node('span', 'facts'),
        node('span', 'about'),
      );
      list.append(card);
    }
    describe(card, run);
  }
}

function describe(card, { id, name, path, live, last, limits, about, problem }) {
  card.style.setProperty('--run', runColour(id));
  card.setAttribute('aria-pressed', String(!settings.hidden.includes(path)));
  card.title = `${path}\nClick to show or hide`;
  const part = (selector) => card.querySelector(selector);
  part('.name').textContent = name;
  part('.state').textContent = live ? 'live' : 'not running';
  part('.state').classList.toggle('live', live);
  part('.about').textContent = about;
  const facts = [];
  const fact = (label, value) => facts.push([label, value]);
  if (last.step !== undefined)
    fact(
      'step',
      `${last.step.toLocaleString('en-US')}${limits.steps === null ? '' : ` / ${limits.steps.toLocaleString('en-US')}`}`,
    );
  if (last.loss !== undefined) fact('loss', last.loss.toFixed(4));
  if (last.bits_per_byte !== undefined) fact('bits/byte', last.bits_per_byte.toFixed(4));
  if (last.tokens !== undefined) fact('tokens', short(last.tokens));
  if (live && last.tokens_per_second !== undefined) {
    fact('tok/s', short(last.tokens_per_second));
    const left =
      limits.steps !== null && last.step > 0
        ? ((limits.steps - last.step) * (last.tokens / last.step)) / last.tokens_per_second
        : limits.tokens !== null
          ? (limits.tokens - last.tokens) / last.tokens_per_second
          : null;
    if (left !== null && left > 0) fact('left', duration(left));
  }
  if (problem !== null) fact('', problem);
  else if (facts.length === 0) fact('', 'waiting for the first step');
  part('.facts').replaceChildren(
    ...facts.flatMap(([label, value], i) => [
      document.createTextNode(`${i === 0 ? '' : '  ·  '}${label}${label === '' ? '' : ' '}`),
      node('b', '', value),
    ]),
  );
  const share =
    limits.steps !== null
      ? last.step / limits.steps
      : limits.tokens !== null
        ? last.tokens / limits.tokens
        : null;
  let bar = part('progress');
  if (share === null || !Number.isFinite(share)) bar?.remove();
  else {
    if (bar === null) {
      bar = node('progress');
      card.append(bar);
    }
    bar.value = Math.min(1, share);
  }
}

function toggle(path) {
  settings.hidden = settings.hidden.includes(path)
    ? settings.hidden.filter((other) => other !== path)
    : [...settings.hidden, path];
  remember();
  showRuns();
  refresh();
  showSamples();
}

// Curves.

let fetching = null;
let wanted = false;

/** Fetches what is shown; while that goes on, once more is remembered. */
function refresh() {
  wanted = true;
  // Tests, and whoever automates this page, see here whether what is asked for is drawn.
  document.documentElement.dataset.busy = 'true';
  fetching ??= fetchAll().finally(() => {
    fetching = null;
    if (wanted) refresh();
    else document.documentElement.dataset.busy = 'false';
  });
}

async function fetchAll() {
  wanted = false;
  const canvas = document.querySelector('.chart.wide canvas') ?? document.querySelector('.chart canvas');
  const points = Math.round(Math.max(300, canvas?.clientWidth ?? 600) * (devicePixelRatio || 1));
  const window = {
    axis: settings.axis,
    from: zoom?.from ?? null,
    to: zoom?.to ?? null,
    points,
    smooth: smoothRows(),
  };
  try {
    await Promise.all(
      shownRuns().map(async ({ id }) => {
        curves.set(id, await fetchCurves(id, window, AbortSignal.timeout(60_000)));
      }),
    );
    draw();
  } catch (cause) {
    // What the connection says when it is lost is better than that a request failed.
    if ($('connection').classList.contains('lost')) return;
    $('connection').classList.add('lost');
    $('connection').textContent = `the curves could not be fetched: ${cause.message}`;
  }
}

function draw() {
  const shown = shownRuns().filter(({ id }) => (curves.get(id)?.curves.size ?? 0) > 0);
  const keys = new Set(shown.flatMap(({ id }) => [...(curves.get(id)?.curves.keys() ?? [])]));
  const sources = shown.find((run) => run.sources.length > 0)?.sources ?? [];
  const main = $('charts');
  main.querySelector('.empty')?.remove();
  const metrics = metricsFor(keys, sources).filter(({ keys: own }) =>
    shown.some(({ id }) => own.some((key) => hasValues(curves.get(id)?.curves.get(key)))),
  );
  if (metrics.length === 0) {
    const waiting =
      runs.size === 0
        ? 'There is no run yet.'
        : shownRuns().length === 0
          ? 'Every run is hidden.'
          : 'Waiting for the first step.';
    main.append(node('p', 'empty', waiting));
  }
  for (const [id, chart] of charts) {
    if (metrics.some((metric) => metric.id === id)) continue;
    chart.element.remove();
    charts.delete(id);
  }
  const extents = shown
    .flatMap(({ id }) => [curves.get(id)?.extent ?? []])
    .filter(([from]) => Number.isFinite(from));
  const from = zoom?.from ?? Math.min(...extents.map(([first]) => first));
  const to = zoom?.to ?? Math.max(...extents.map(([, last]) => last));
  const view = { axis: settings.axis, from, to: to > from ? to : from + 1 };
  let before = null;
  for (const metric of metrics) {
    let chart = charts.get(metric.id);
    if (chart === undefined) {
      chart = new Chart(metric, page);
      charts.set(metric.id, chart);
      if (settings.log.includes(metric.id)) chart.setLog(true);
      if (settings.wide.includes(metric.id)) chart.setWide(true);
    }
    if (
      before === null ? main.firstElementChild !== chart.element : before.nextElementSibling !== chart.element
    ) {
      if (before === null) main.prepend(chart.element);
      else before.after(chart.element);
    }
    before = chart.element;
    chart.metric = metric;
    chart.show(linesOf(metric, shown), view);
  }
}

const hasValues = (curve) => curve !== undefined && curve.high.some((value) => Number.isFinite(value));

function linesOf(metric, shown) {
  return shown.flatMap((run) =>
    metric.keys.flatMap((key, i) => {
      const curve = curves.get(run.id)?.curves.get(key);
      if (!hasValues(curve)) return [];
      const several = metric.keys.length > 1;
      const kind = several ? (metric.names?.[i] ?? key) : null;
      // With one run, colours tell the sources apart; with several, colours are the runs'.
      const own = metric.lines && shown.length === 1;
      return [
        {
          name: several ? (shown.length === 1 ? kind : `${run.name}, ${kind}`) : run.name,
          kind,
          kindColour: own,
          colour: own ? runColour(i) : runColour(run.id),
          curve,
          points: metric.lines !== true && (i > 0 || key === 'bits_per_byte' || key === 'eval_loss'),
          dash: metric.lines && !own ? (DASHES[i % DASHES.length] ?? []) : [],
        },
      ];
    }),
  );
}

const page = {
  hover(where) {
    for (const chart of charts.values()) chart.hover(where);
  },
  zoom(from, to) {
    if (to > from) setZoom({ from, to });
  },
  reset: () => setZoom(null),
  changed() {
    remember();
    refresh();
  },
};

// Samples.

/** Steps that were chosen by hand, by run; the newest otherwise. */
const chosen = new Map();
/** Bytes of samples.md when it was last fetched. */
const fetchedSamples = new Map();
const sampleTexts = new Map();

async function showSamples() {
  const shown = shownRuns().filter(({ samples }) => samples > 0);
  $('samples').hidden = shown.length === 0;
  for (const { id, samples } of shown) {
    if (fetchedSamples.get(id) === samples) continue;
    fetchedSamples.set(id, samples);
    const response = await fetch(`/api/samples?run=${id}`).catch(() => null);
    if (response?.ok) sampleTexts.set(id, parseSamples(await response.text()));
  }
  $('sample-columns').replaceChildren(
    ...shown.flatMap((run) => {
      const steps = sampleTexts.get(run.id) ?? [];
      return steps.length === 0 ? [] : [sampleCard(run, steps)];
    }),
  );
}

/** `samples.md`: a heading a step, prompts and texts indented below it. */
function parseSamples(text) {
  const steps = [];
  for (const [i, part] of text.split(/^## /m).entries()) {
    if (i === 0) continue;
    const heading = part.slice(0, part.indexOf('\n')).trim();
    const samples = [];
    for (const block of part.split(/^Prompt:$/m).slice(1)) {
      const [prompt = '', continued = ''] = block.split(/^Text:$/m).map(unindent);
      samples.push({ prompt, continued });
    }
    steps.push({ heading, samples });
  }
  return steps;
}

function unindent(block) {
  const lines = block.split('\n').filter((line) => line.startsWith('    '));
  return lines.map((line) => line.slice(4)).join('\n');
}

function sampleCard(run, steps) {
  const card = node('article', 'sample');
  card.style.setProperty('--run', runColour(run.id));
  const head = node('div', 'head');
  const select = node('select');
  select.setAttribute('aria-label', `Step of the samples of ${run.name}`);
  select.append(...steps.toReversed().map(({ heading }) => node('option', '', heading)));
  const show = () => {
    const step = steps.find(({ heading }) => heading === select.value) ?? steps.at(-1);
    for (const old of card.querySelectorAll('pre')) old.remove();
    for (const { prompt, continued } of step.samples) {
      const pre = node('pre');
      pre.append(
        node('mark', '', prompt),
        document.createTextNode(continued.startsWith(prompt) ? continued.slice(prompt.length) : continued),
      );
      card.append(pre);
    }
  };
  select.addEventListener('change', () => {
    if (select.value === steps.at(-1).heading) chosen.delete(run.id);
    else chosen.set(run.id, select.value);
    show();
  });
  const wantedStep = chosen.get(run.id);
  select.value = steps.some(({ heading }) => heading === wantedStep) ? wantedStep : steps.at(-1).heading;
  head.append(node('i'), node('b', '', run.name), select);
  card.append(head);
  show();
  return card;
}

// What the server tells.

let pending = 0;

function listen() {
  const events = new EventSource('/api/events');
  events.addEventListener('runs', (event) => {
    for (const run of JSON.parse(event.data)) runs.set(run.id, run);
    showRuns();
    connection(true);
    if (pending === 0) {
      pending = setTimeout(
        () => {
          pending = 0;
          refresh();
          showSamples();
        },
        runs.size > 0 && curves.size === 0 ? 0 : REFRESH_MS,
      );
    }
  });
  events.addEventListener('error', () => connection(false));
}

function connection(there) {
  const live = [...runs.values()].filter((run) => run.live).length;
  $('connection').classList.toggle('lost', !there);
  $('connection').textContent = there
    ? `${runs.size === 1 ? '1 run' : `${runs.size} runs`}${live > 0 ? `, ${live} live` : ''}`
    : 'candlewick dash is not running any more; the curves stay as they are';
}

showControls();
listen();
