/** What happens to a source, for programs and for people. */
import type { GivenUp } from './retry.js';

/** Something that happened to the source. Times are in seconds. */
export type SourceEvent =
  | { type: 'loading'; phase: string; seconds: number }
  | { type: 'ready'; seconds: number }
  | { type: 'notice'; message: string }
  /** The process failed and is started again. */
  | { type: 'restart'; attempt: number; code: string; message: string }
  /** The source failed and is asked again after `delay`; `waited` of `budget` are over. */
  | { type: 'retry'; attempt: number; cause: string; delay: number; waited: number; budget: number }
  /** The first answer after failures. */
  | { type: 'recovered'; attempts: number; waited: number };

/** An event in words; null for those that are of no interest to people. */
export function sourceInWords(event: SourceEvent): string | null {
  switch (event.type) {
    case 'notice':
      return event.message;
    case 'restart':
      return `the streamer is started again (attempt ${event.attempt}): ${event.code}: ${event.message}`;
    case 'retry':
      return (
        `waiting for the data: ${event.cause}, attempt ${event.attempt}, next in ${rough(event.delay)}, ` +
        `${rough(event.waited)} of ${rough(event.budget)}`
      );
    case 'recovered':
      return `the data are back after ${rough(event.waited)} and ${times(event.attempts, 'attempt')}`;
    case 'loading':
    case 'ready':
      return null;
  }
}

/** What was tried before a source was given up. */
export function triedInWords({ attempts, reason, waited }: GivenUp, retryAfter: number | null): string {
  const tried = `given up after ${times(attempts, 'more attempt')} in ${rough(waited)}`;
  if (reason !== 'asked to wait longer') return tried;
  return `${tried}: it asks to wait ${rough(retryAfter ?? 0)}, more than what is left of the retry budget`;
}

function times(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

function rough(seconds: number): string {
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  return seconds < 120 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}
