/**
 * A hub in a process of its own. The first line of its stdin are its options in JSON, and its address is the first line
 * of its stdout. Further lines are commands, each answered by a line of JSON; the end of stdin is its end.
 */
import { createInterface } from 'node:readline';
import { type FaultRule, randomFaults, type RandomKind, scriptOf } from './hub-faults.js';
import type { Repository } from './hub-repository.js';
import { LocalHub } from './hub.js';

/** How to start it. */
export interface HubProcessOptions {
  repositories: Record<string, string | Repository>;
  pageSize?: number;
}

/** What it can be told. */
export type HubCommand =
  /** Answered by null. */
  | { rules: readonly FaultRule[] }
  /** Answered by null. */
  | { random: { seed: number; rate: number; kinds?: readonly RandomKind[] } }
  /** Answered by how many requests there were, the bytes of files sent, and seconds of processor time. */
  | { report: true };

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const options = JSON.parse((await lines.next()).value as string) as HubProcessOptions;
const hub = await LocalHub.start(options.repositories);
if (options.pageSize !== undefined) hub.pageSize = options.pageSize;
process.stdout.write(`${hub.url}\n`);

for await (const line of { [Symbol.asyncIterator]: () => lines }) {
  process.stdout.write(`${JSON.stringify(obey(JSON.parse(line) as HubCommand))}\n`);
}
await hub.close();

function obey(command: HubCommand): object | null {
  if ('rules' in command) hub.script = scriptOf(command.rules);
  else if ('random' in command) {
    const { kinds, rate, seed } = command.random;
    hub.script = randomFaults(seed, rate, kinds);
  } else {
    const { system, user } = process.cpuUsage();
    return { requests: hub.requests.length, bytes: hub.bytesServed, seconds: (system + user) / 1e6 };
  }
  return null;
}
