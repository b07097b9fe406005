/** A random case, whole from its seed: what is streamed, how, and what goes wrong meanwhile. */
import type { OnExhausted } from '../../src/corpus/index.js';
import { type FaultScript, quickFaults, randomFaults, type RandomKind } from '../support/hub-faults.js';
import type { Blow } from './blows.js';
import { type DataFile, datasetOf } from './dataset.js';
import { Random } from './random.js';

export interface CaseSource {
  /** Name on the hub. */
  dataset: string;
  files: DataFile[];
  weight: number;
  onExhausted: OnExhausted;
}

export interface Case {
  seed: number;
  /** `trainer`: the real `train-streaming` with a tiny model; `loader`: a program of the test over the Node API. */
  kind: 'loader' | 'trainer';
  sources: CaseSource[];
  /** Seed of the order. */
  order: number;
  window: number;
  rows: number;
  sequenceLength: number;
  epochs: number;
  maxSamples: number | null;
  /** Documents of each source that are held out; only the trainer can. */
  heldOut: number;
  /** Share of the hub's answers that are faults. */
  faultRate: number;
  faults: FaultScript;
  /** Draws what happens to each leg, once it is known how long the stream is. */
  random: Random;
}

/** Where a dataset is opened every fault costs a new process, so there are fewer of them there. */
function faultsOf(seed: number, rate: number, kinds: readonly RandomKind[]): FaultScript {
  const [opening, reading] = [
    randomFaults(seed, Math.min(rate, 0.03), kinds),
    randomFaults(seed, rate, kinds),
  ];
  return (request) => (request.range === null ? opening : reading)(request);
}

/** Everything in a case that it depends on nothing but the seed for. */
export function caseOf(seed: number): Case {
  const random = new Random(`soak|${seed}`);
  const kind = seed % 10 === 9 ? 'trainer' : 'loader';
  const many = kind === 'loader' && random.oneIn(4) ? 2 + random.below(2) : 1;
  const sources = Array.from(
    { length: many },
    (_, s): CaseSource => ({
      dataset: `soak/case-${seed}-${s}`,
      files: datasetOf(random),
      weight: 1 + random.below(4),
      onExhausted: many === 1 ? 'stop' : random.of(['stop', 'drop', 'repeat'] as const),
    }),
  );
  const repeats = sources.some(({ onExhausted }) => onExhausted === 'repeat');
  const limited = repeats || random.oneIn(3);
  const faultRate = kind === 'trainer' ? 0.05 : random.of([0, 0.05, 0.15, 0.3]);
  // A stall takes as long as the client's patience, so only some cases have any.
  const kinds = random.oneIn(5) ? [...quickFaults, 'stall' as const] : quickFaults;
  const documents = sources[0]?.files.flatMap((file) => file.documents).filter(Boolean).length ?? 0;
  return {
    seed,
    kind,
    sources,
    order: random.below(1000),
    window: random.of([1, 7, 20, 50, 300]),
    rows: 1 + random.below(4),
    sequenceLength: 16 << random.below(3),
    epochs: 1 + random.below(3),
    maxSamples: limited ? 30 + random.below(200) : null,
    heldOut: kind === 'trainer' ? Math.min(4, Math.floor(documents / 20)) : 0,
    faultRate,
    faults: faultsOf(seed, faultRate, kinds),
    random,
  };
}

/** What happens to a leg that `batches` batches are left for; to the last one only what a run survives. */
export function blowsOf(random: Random, batches: number, isLast: boolean): Blow[] {
  const blows: Blow[] = [];
  const place = (action: Blow['action']): Blow => {
    const at = random.of(['batch', 'batch', 'request', 'save'] as const);
    const most = { batch: Math.max(1, Math.ceil(batches / 3)), request: 20, save: 2 }[at];
    return { action, at, count: 1 + random.below(most), racing: random.oneIn(2) };
  };
  for (let deaths = random.below(3); deaths > 0; deaths -= 1) blows.push(place('streamer'));
  if (!isLast) blows.push(place(random.of(['SIGKILL', 'SIGKILL', 'SIGKILL', 'SIGINT', 'SIGTERM'] as const)));
  return blows;
}
