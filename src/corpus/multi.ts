/** Several corpora as one: a mixture by weights in tokens. */
import { CandlewickError, errorFor } from '../errors.js';
import {
  batchesOf,
  limit,
  type OnExhausted,
  type OpenCorpus,
  type OpenSource,
  once,
  positive,
  type StreamingCorpus,
  streamOf,
  usage,
} from './corpus.js';

/** A corpus of a mixture, its share, and what happens at its end. */
export interface Member {
  corpus: StreamingCorpus;
  /** Share of the tokens, relative to the other members'; default: 1. */
  weight?: number | undefined;
  /**
   * When its last epoch ends: `stop` ends the stream (default), `drop` lets the others go on without it, `repeat` begins
   * it again, whatever `epochs` says.
   */
  onExhausted?: OnExhausted | undefined;
}

/** Limits of the mixture as a whole. */
export interface MultiCorpusOptions {
  /** Length of the arrays that `batches()` yields; default: 1000. How much is fetched at a time each member decides. */
  batchSize?: number | undefined;
  /** Documents in all; default: no limit. */
  maxSamples?: number | null | undefined;
  /** Passes over each member that does not repeat; `null` or `Infinity`: no limit; default: 1. */
  epochs?: number | null | undefined;
}

const policies: readonly string[] = ['repeat', 'stop', 'drop'] satisfies OnExhausted[];

/**
 * Several corpora mixed document by document, so that each has its weight's share of the tokens: the next document comes
 * from the member that is furthest behind its share, the first of them if several are. Without a tokenizer (`stream()`,
 * `batches()`, training a tokenizer) bytes of text are counted instead.
 *
 * `maxSamples` and `epochs` belong to the mixture: members have none of their own. `close()` closes the members too.
 */
export class MultiCorpus implements StreamingCorpus {
  /** The members' names. */
  readonly dataset: string;
  readonly members: readonly CheckedMember[];
  readonly options: Readonly<MultiCorpusOptions>;
  readonly batchSize: number;
  /** Documents in all; null: no limit. */
  readonly maxSamples: number | null;
  /** Passes over each member; null: no limit. */
  readonly epochs: number | null;

  /** Throws `USAGE` for weights, policies and limits that make no sense. */
  constructor(members: readonly (StreamingCorpus | Member)[], options: MultiCorpusOptions = {}) {
    if (!Array.isArray(members) || members.length === 0)
      throw usage('a MultiCorpus of nothing', 'give it a list of corpora');
    this.members = members.map(checkedMember);
    this.dataset = this.members.map(({ corpus }) => corpus.dataset).join(', ');
    this.options = options;
    this.batchSize = positive('batchSize', options.batchSize ?? 1000);
    this.maxSamples = limit('maxSamples', options.maxSamples ?? null);
    // What repeats is repeated for the others' sake; alone it repeats by having no limit.
    const [alone, other] = this.members;
    const endless = other === undefined && alone?.onExhausted === 'repeat';
    this.epochs = endless ? null : limit('epochs', options.epochs === undefined ? 1 : options.epochs);
  }

  /** Every document, each member in its own order, null and empty ones left out. */
  async *stream(): AsyncGenerator<string, void, undefined> {
    yield* streamOf(this);
  }

  /** The same documents in arrays of `batchSize`; the last may be shorter. */
  async *batches(): AsyncGenerator<string[], void, undefined> {
    yield* batchesOf(this);
  }

  /** Opens every member. The error of one that cannot be opened names it. */
  async open(): Promise<OpenCorpus> {
    const opening = this.members.map(async ({ corpus }, i) => {
      try {
        return await corpus.open();
      } catch (cause) {
        throw named(cause, `sources[${i}] (${corpus.dataset})`);
      }
    });
    try {
      const opened = await Promise.all(opening);
      return {
        sources: opened.flatMap(({ sources }, i) => sources.map((source) => shared(source, this.members[i]))),
        release: once(() => {
          for (const { release } of opened) release();
        }),
      };
    } catch (cause) {
      for (const one of opening) {
        // The first failure is the one to report; those that opened, or will, are not needed.
        void one.then(
          ({ release }) => release(),
          () => {},
        );
      }
      throw cause;
    }
  }

  /** Ends every stream of this corpus, and closes its members. Resolves when their processes are gone. */
  async close(): Promise<void> {
    await Promise.all(this.members.map(({ corpus }) => corpus.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** A member with what was left out filled in. */
interface CheckedMember {
  corpus: StreamingCorpus;
  weight: number;
  onExhausted: OnExhausted;
}

function shared(source: OpenSource, member: CheckedMember | undefined): OpenSource {
  return member === undefined
    ? source
    : { ...source, weight: member.weight, on_exhausted: member.onExhausted };
}

function checkedMember(given: StreamingCorpus | Member, i: number): CheckedMember {
  const { corpus, weight = 1, onExhausted = 'stop' } = isMember(given) ? given : { corpus: given };
  const name = `sources[${i}]`;
  if (typeof corpus?.open !== 'function')
    throw usage(`${name} is no corpus`, 'give a corpus, or {corpus, weight, onExhausted}');
  if (corpus instanceof MultiCorpus)
    throw usage(`${name} is a mixture itself`, 'put its members into this one, with their weights');
  if (!(Number.isFinite(weight) && weight > 0))
    throw usage(`the weight of ${name} is ${weight}`, 'give a number above 0');
  if (!policies.includes(onExhausted))
    throw usage(`onExhausted of ${name} is ${onExhausted}`, `choose one of ${policies.join(', ')}`);
  if (corpus.maxSamples !== null)
    throw usage(
      `${name} has maxSamples ${corpus.maxSamples}, and a mixture counts its documents together`,
      'give maxSamples to the MultiCorpus',
    );
  if (corpus.epochs !== 1)
    throw usage(
      `${name} has epochs ${corpus.epochs ?? 'without limit'}, and a mixture counts passes for all of its members`,
      "give epochs to the MultiCorpus, or onExhausted: 'repeat' to this member",
    );
  return { corpus, weight, onExhausted };
}

function isMember(given: StreamingCorpus | Member): given is Member {
  return typeof given === 'object' && given !== null && 'corpus' in given;
}

/** An error that says whose it is. */
function named(cause: unknown, name: string): unknown {
  if (!(cause instanceof CandlewickError) || cause.code === 'ABORTED') return cause;
  return errorFor(cause.code, `${name}: ${cause.message}`, cause.hint, cause);
}
