/** Runs a program and strikes it, or its streamer, at events: a number of its lines, or of the hub's requests. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { LocalHub } from '../support/hub.js';
import type { FaultScript } from '../support/hub-faults.js';
import { python, repository } from '../support/python.js';

/** What is done to a program, once. */
export interface Blow {
  /** `streamer`: SIGKILL for one of its streamers. */
  action: 'streamer' | 'SIGKILL' | 'SIGINT' | 'SIGTERM';
  at: 'batch' | 'save' | 'request';
  /** So many of them, from 1. */
  count: number;
  /** Let the program go on first, so that it is struck in the middle of whatever comes next. */
  racing: boolean;
}

/** What was really done. */
export interface Tally {
  kills: number;
  stops: number;
  streamerKills: number;
  faults: number;
  requests: number;
  legs: number;
}

export interface Leg {
  argv: readonly string[];
  env: Record<string, string>;
  blows: readonly Blow[];
  /** What a line of stdout means. */
  meaning: (line: string) => 'batch' | 'save' | null;
  hub: LocalHub;
  faults: FaultScript;
}

/** Runs the program until its end. Returns its exit code or the signal that ended it, and its stderr. */
export async function runLeg(leg: Leg, tally: Tally): Promise<{ end: number | string; stderr: string }> {
  const { argv, blows, env, faults, hub, meaning } = leg;
  const child = spawn(process.execPath, [...argv], {
    cwd: repository,
    env: { ...process.env, CANDLEWICK_PYTHON: python, ...env },
  });
  tally.legs += 1;
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin.on('error', () => {});
  const seen = { batch: 0, save: 0, request: 0 };
  let over = false;
  const strike = ({ action }: Blow) => {
    if (over || child.pid === undefined) return;
    if (action === 'streamer') {
      const [pid] = streamersOf(child.pid);
      if (pid === undefined) return;
      process.kill(pid, 'SIGKILL');
      tally.streamerKills += 1;
    } else if (child.kill(action)) {
      if (action === 'SIGKILL') tally.kills += 1;
      else tally.stops += 1;
    }
  };
  const happened = (what: Blow['at']) => {
    seen[what] += 1;
    const due = blows.filter(({ at, count }) => at === what && count === seen[what]);
    for (const blow of due.filter(({ racing }) => !racing)) strike(blow);
    if (what === 'batch' && child.stdin.writable) child.stdin.write('\n');
    for (const blow of due.filter(({ racing }) => racing)) strike(blow);
  };
  hub.script = (request) => {
    tally.requests += 1;
    happened('request');
    const fault = faults(request) ?? null;
    if (fault) tally.faults += 1;
    return fault;
  };
  createInterface({ input: child.stdout }).on('line', (line) => {
    const what = meaning(line);
    if (what) happened(what);
  });
  child.once('exit', () => {
    over = true;
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  // The causes of errors are long; the error itself comes first.
  return {
    end: code ?? signal ?? 'nothing',
    stderr: stderr.length > 4000 ? `${stderr.slice(0, 4000)}…` : stderr,
  };
}

/** Process ids of the streamers of a process. */
function streamersOf(parent: number): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        if (!pid) return false;
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        const isChild = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === parent;
        return isChild && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('streamer.py');
      } catch {
        // It ended while it was looked at.
        return false;
      }
    });
}
