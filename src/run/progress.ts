import type { ResolvedConfig } from '../config/index.js';
import type { DoneEvent, SetupEvent, TrainerEvent } from './events.js';
import { progressOf } from './limits.js';
import type { SourceNotice } from './source.js';

/** Where people's text goes: a terminal, a pipe or a file. */
export interface Screen {
  write(text: string): unknown;
  isTTY?: boolean | undefined;
  columns?: number | undefined;
}

/** Between two lines about a source that is waited for, where lines stay. */
const WAIT_EVERY_MS = 30_000;

/** Seconds over which samples/s is shown: documents are long beside steps, and most steps end none. */
const RECENT_SECONDS = 20;

/** A smoothing factor a step of the speed that the ETA rests on. */
const SMOOTHING = 0.1;

/**
 * People's view of a run. On a terminal one line is written over and over; elsewhere there is a line every so many
 * steps. The cursor is never hidden, so that nothing has to be restored however the process ends.
 */
export class Progress {
  readonly #screen: Screen;
  readonly #quiet: boolean;
  readonly #colour: boolean;
  #lineIsOpen = false;
  #lastReport = 0;
  #isWaiting = false;
  #lastWait = 0;
  readonly #recent: { time: number; documents: number }[] = [];
  #pace: { progress: number; time: number; perSecond: number | null } | null = null;

  constructor(screen: Screen, options: { quiet?: boolean; colour?: boolean } = {}) {
    this.#screen = screen;
    this.#quiet = options.quiet === true;
    this.#colour = screen.isTTY === true && (options.colour ?? (process.env['NO_COLOR'] ?? '') === '');
  }

  /** A line that stays. */
  say(text: string): void {
    if (this.#quiet) return;
    this.#closeLine();
    this.#screen.write(`${text}\n`);
  }

  /** A line that stays and must be seen, even when quiet. */
  warn(text: string): void {
    this.#closeLine();
    this.#screen.write(`${this.#paint('33', 'warning:')} ${text}\n`);
  }

  /** How far something is; a later one replaces it. */
  status(text: string): void {
    this.#update(text, 5_000);
  }

  setup(event: SetupEvent): void {
    if (event.type === 'warning') this.warn(event.message);
    else if (event.type === 'source') this.#source(event);
    else if (event.type === 'phase' || event.type === 'stopping') this.say(event.message);
    else this.#update(tokenizerLine(event), 5_000);
  }

  training(event: TrainerEvent, config: ResolvedConfig): void {
    switch (event.type) {
      case 'step': {
        const every = config.logging.every_steps;
        const shown = { ...event, samples_per_second: this.#samplesPerSecond(event) };
        const eta = this.#eta(config, event);
        if (this.#screen.isTTY === true) this.#update(stepLine(shown, config, eta, this.#width()), 0);
        else if (event.step % every === 0) this.say(stepLine(shown, config, eta, Infinity));
        return;
      }
      case 'eval':
        this.say(
          `${this.#paint('36', 'evaluation')} at step ${event.step}: loss ${event.eval_loss.toFixed(4)}, ` +
            `${event.bits_per_byte.toFixed(4)} bits per byte ` +
            `(unigram ${event.unigram_bits_per_byte.toFixed(4)}, gzip -9 ${event.gzip_bits_per_byte.toFixed(4)})` +
            (event.one_token_loss === undefined
              ? ''
              : `; loss ${event.one_token_loss.toFixed(4)} with one token of context`),
        );
        return;
      case 'checkpoint':
        this.say(
          `${this.#paint('32', 'saved')} ${event.path}, ${short(event.bytes)}B in ${duration(event.seconds)}` +
            (event.held_seconds < 1 ? '' : `; steps stood still for ${duration(event.held_seconds)}`),
        );
        return;
      case 'sample':
        this.say(
          `${this.#paint('36', 'sample')} ${JSON.stringify(event.prompt)} ${JSON.stringify(event.text)}`,
        );
        return;
      case 'skipped':
        this.warn(
          `no update after step ${event.step}: the ${event.loss === null ? 'loss' : 'gradient'} of its batch is not a ` +
            `finite number (${event.in_a_row} of ${event.limit} in a row, then the run ends)`,
        );
        return;
      case 'spike':
        this.warn(
          `the loss of step ${event.step}, ${event.loss.toFixed(4)}, is ${event.z.toFixed(1)} standard deviations ` +
            `above its mean of ${event.mean.toFixed(4)}`,
        );
        return;
      case 'stopping':
        this.say(event.message);
        return;
      case 'source':
        this.#source(event);
        return;
      case 'done':
        this.say(doneInWords(event));
    }
  }

  /** What a source is waited for is one line that changes; elsewhere than on a terminal there is one now and then. */
  #source({ kind, message }: Partial<SourceNotice> & { message: string }): void {
    if (kind === 'notice' || kind === 'restart') this.warn(message);
    else if (kind !== 'retry') this.say(message);
    else if (this.#screen.isTTY === true) this.#update(message, 0);
    else if (!this.#isWaiting || Date.now() - this.#lastWait >= WAIT_EVERY_MS) {
      this.#lastWait = Date.now();
      this.say(message);
    }
    this.#isWaiting = kind === 'retry';
  }

  /** Leaves the terminal at the start of a line. */
  close(): void {
    this.#closeLine();
  }

  /** On a terminal rewrites the line; elsewhere writes one when the last is old enough. */
  #update(text: string, everyMs: number): void {
    if (this.#quiet) return;
    if (this.#screen.isTTY !== true) {
      if (Date.now() - this.#lastReport < everyMs) return;
      this.#lastReport = Date.now();
      this.#screen.write(`${text}\n`);
      return;
    }
    const columns = this.#width();
    this.#screen.write(`\r\u001B[2K${text.length < columns ? text : `${text.slice(0, columns - 2)}…`}`);
    this.#lineIsOpen = true;
  }

  /** Columns of the terminal; one that does not know them (0) is taken as wide enough. */
  #width(): number {
    return this.#screen.columns === 0 ? Infinity : (this.#screen.columns ?? 80);
  }

  #closeLine(): void {
    if (this.#lineIsOpen) this.#screen.write('\n');
    this.#lineIsOpen = false;
  }

  #paint(code: string, text: string): string {
    return this.#colour ? `\u001B[${code}m${text}\u001B[0m` : text;
  }

  /** Documents a second over the last while. */
  #samplesPerSecond({ time, documents, samples_per_second }: TrainerEvent & { type: 'step' }): number {
    this.#recent.push({ time, documents });
    while (this.#recent.length > 2 && time - (this.#recent[1]?.time ?? time) > RECENT_SECONDS)
      this.#recent.shift();
    const first = this.#recent[0];
    if (first === undefined || time - first.time < 1) return samples_per_second;
    return (documents - first.documents) / (time - first.time);
  }

  /** Seconds to the end at the present pace; null without a limit or before there is a pace. */
  #eta(config: ResolvedConfig, event: TrainerEvent & { type: 'step' }): number | null {
    const progress = progressOf(config, event);
    if (progress === null) return null;
    const { time } = event;
    const last = this.#pace;
    if (last === null) {
      this.#pace = { progress, time, perSecond: null };
      return null;
    }
    if (time - last.time > 0.2) {
      const now = (progress - last.progress) / (time - last.time);
      const perSecond = last.perSecond === null ? now : last.perSecond + SMOOTHING * (now - last.perSecond);
      this.#pace = { progress, time, perSecond };
    }
    const perSecond = this.#pace?.perSecond ?? null;
    return perSecond === null || perSecond <= 0 ? null : (1 - progress) / perSecond;
  }
}

const endings = { limit: 'done', ended: 'done: the data ended', stopped: 'stopped' };

function doneInWords(event: DoneEvent): string {
  const count = (n: number) => n.toLocaleString('en-US');
  return (
    `${endings[event.reason]} after step ${count(event.step)}, ${count(event.tokens)} tokens, ` +
    `${count(event.documents)} documents; stream hash ${event.stream_hash ?? 'none'}`
  );
}

/** All that is promised, at length; in a narrow terminal briefly, and then without the least of it. */
function stepLine(
  event: TrainerEvent & { type: 'step' },
  config: ResolvedConfig,
  eta: number | null,
  width: number,
): string {
  const { max_steps: last } = config.training;
  const memory = `${short(process.memoryUsage.rss())}B`;
  const end = eta === null ? '–' : duration(eta);
  const long = [
    `step ${event.step}${last === null ? '' : `/${last}`}`,
    `loss ${event.loss.toFixed(4)}`,
    `grad norm ${event.grad_norm.toPrecision(3)}`,
    `lr ${event.lr.toExponential(2)}`,
    `${short(event.tokens_per_second)} tok/s`,
    ...(typeof event.mfu === 'number' ? [`MFU ${(100 * event.mfu).toFixed(1)}%`] : []),
    `${short(event.samples_per_second)} samples/s`,
    `data wait ${Math.round(event.data_wait * 100)}%`,
    `mem ${memory}`,
    `${short(event.tokens)} tokens`,
    `ETA ${end}`,
  ].join('  ');
  if (long.length < width) return long;
  const [step, loss, norm, lr, speed, samples, wait, mem, seen, left] = [
    `${event.step}${last === null ? '' : `/${last}`}`,
    `loss ${event.loss.toFixed(3)}`,
    `norm ${event.grad_norm.toPrecision(2)}`,
    `lr ${event.lr.toExponential(1)}`,
    `${short(event.tokens_per_second)} tok/s`,
    `${short(event.samples_per_second)} samples/s`,
    `wait ${Math.round(event.data_wait * 100)}%`,
    memory,
    `${short(event.tokens)}`,
    `ETA ${end}`,
  ];
  const brief = [
    [step, loss, norm, lr, speed, samples, wait, mem, seen, left],
    [step, loss, norm, lr, speed, samples, wait, left],
    [step, loss, speed, samples, wait, left],
    [step, loss, samples, left],
  ].map((parts) => parts.join(' '));
  return brief.find((line) => line.length < width) ?? `${step} ${loss}`;
}

function tokenizerLine(event: SetupEvent & { type: 'tokenizer' }): string {
  const { documents, bytes, merges, target, limit, seconds } = event;
  const eta = `ETA ${event.eta_seconds === null ? '–' : duration(event.eta_seconds)}`;
  const whole = (value: number) => value.toLocaleString('en-US');
  if (merges > 0)
    return `tokenizer: ${whole(merges)}/${whole(target)} merges  ${short(documents)} documents  ${duration(seconds)}  ${eta}`;
  return [
    `tokenizer: ${whole(documents)}${limit === null ? '' : `/${whole(limit)}`} documents`,
    `${short(bytes)}B`,
    `${short(event.bytes_per_second)}B/s`,
    `${short(event.samples_per_second)} samples/s`,
    `mem ${short(process.memoryUsage.rss())}B`,
    eta,
  ].join('  ');
}

/** A number in three digits: 1.23k, 45.6M. */
export function short(value: number): string {
  const units = ['', 'k', 'M', 'G', 'T'];
  let unit = 0;
  let scaled = value;
  while (Math.abs(scaled) >= 999.5 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  const digits = unit === 0 && Number.isInteger(scaled) ? String(scaled) : scaled.toPrecision(3);
  return `${digits}${units[unit] ?? ''}`;
}

/** Seconds as people say them: 4.2 s, 3m05s, 2h07m, 3d04h. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const two = (n: number) => String(n).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86_400)}d${two(Math.floor((whole % 86_400) / 3600))}h`;
}
