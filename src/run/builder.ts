import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { configFromValues, configToYaml, loadConfig, vocabSizeFor } from '../config/index.js';
import type { LoadedConfig, Override, ResolvedConfig } from '../config/index.js';
import { ordinalOf, pythonEnvironments } from '../cuda/index.js';
import { CandlewickError, errorFor } from '../errors.js';
import { fitToMemory, openIn } from '../estimate/fit.js';
import { gpuAvailable, outOfGpuMemory } from '../estimate/gpu.js';
import { requireMemory } from '../estimate/preflight.js';
import { mfuOf } from '../estimate/speed.js';
import type { NativeBinding, NativeTokenizer, NativeTrainer } from '../native/binding.js';
import { CheckpointStore, runOf } from './checkpoint.js';
import { RunDirectory, readRunConfig } from './directory.js';
import { exists, onDisk, samePlace, sha256 } from './disk.js';
import { environmentOf } from './environment.js';
import type { SetupEvent } from './events.js';
import { evaluationSource, readEvaluationData } from './evaluation.js';
import type { HeldOut } from './held-out.js';
import { compareIdentity, compareTokenizer, identityOf } from './identity.js';
import { findInit, initVocabSize } from './init-from.js';
import type { InitSource } from './init-from.js';
import { Journal } from './journal.js';
import { TrainingLoop } from './loop.js';
import { MetricsFile } from './metrics.js';
import { EventFile } from './tensorboard.js';
import { continueConfig, differencesOf, findResumed, pinned, startOf } from './resume.js';
import type { Resumed } from './resume.js';
import { SamplesFile } from './samples.js';
import { withoutSecrets } from './secrets.js';
import { named, overridesOf, writeSources } from './source.js';
import type { OpenCorpus, OpenStream, SourceHooks, SourceNotice } from './source.js';
import { requireSpace } from './space.js';
import { Stops } from './stops.js';
import { heldOutDocuments, heldOutOf, streamFeed } from './stream.js';
import { byteTokenizer, holdsTokenizer, saveTokenizer, trainTokenizer } from './tokenizer.js';
import type { Opened, RunPlan, TrainerOptions, TrainerParts } from './trainer.js';

/** What a trainer consists of. */
interface Built {
  plan: RunPlan;
  loop: TrainingLoop;
  journal: Journal;
}

/** The steps of `Trainer.create`, in their order. */
export class Builder {
  readonly #options: TrainerOptions;
  readonly #binding: NativeBinding;
  readonly #openCorpus: OpenCorpus;
  readonly #opened: Opened;
  /** Aborts what goes on before the first step. A run that has begun is stopped instead, so that it can save. */
  readonly #setup = new AbortController();
  /** Held-out documents are read twice where a tokenizer is trained between. */
  #hasHeldOut = false;
  #notice = (notice: SourceNotice): void => this.#say({ type: 'source', ...notice });
  readonly #stops: Stops;
  /** What was told before there was a journal. */
  readonly #said: { event: SetupEvent; time: Date }[] = [];
  #journal: Journal | null = null;

  constructor(options: TrainerOptions, parts: TrainerParts, opened: Opened) {
    this.#options = options;
    this.#binding = parts.binding;
    this.#openCorpus = parts.openCorpus;
    this.#opened = opened;
    this.#stops = new Stops(options.signal, (notice) => this.#say(notice));
  }

  /** Whether it was told to stop meanwhile. */
  get isStopped(): boolean {
    return this.#stops.signal.aborted;
  }

  async build(): Promise<Built> {
    const abort = () => this.#setup.abort();
    this.#opened.add(() => this.#stops.close());
    this.#stops.signal.addEventListener('abort', abort, { once: true });
    try {
      return await this.#build();
    } catch (cause) {
      // What a stop broke off is no failure.
      if (!this.isStopped) this.#journal?.failed(cause);
      throw cause;
    } finally {
      this.#stops.signal.removeEventListener('abort', abort);
    }
  }

  async #build(): Promise<Built> {
    const loaded = await this.#load();
    const output = this.#options.output ?? loaded.output;
    const known = await this.#knownTokenizer(loaded.config);
    const init = await findInit(this.#binding, loaded.config, output, (message) => this.#warn(message));
    // What can be wrong is found before anything is written.
    const size = this.#size(
      loaded.config,
      known?.vocabSize() ?? loaded.config.tokenizer.train?.vocab_size ?? 0,
      init,
    );
    known?.endOfText();
    const tokenizerSize = known?.vocabSize() ?? loaded.config.tokenizer.train?.vocab_size;
    const sizes = tokenizerSize === undefined ? {} : { tokenizerSize };
    const open = openIn(loaded);
    loaded.decisions.push(...fitToMemory(this.#binding, loaded.config, open, sizes));
    requireMemory(this.#binding, loaded.config, sizes);

    const directory = await RunDirectory.open(output);
    this.#opened.add(() => directory.release());
    if (await this.#stops.watch(directory.stop, loaded.config.training.max_minutes)) {
      this.#warn(`${directory.stop} was there from before: it is taken away, and the run begins`);
    }
    await requireSpace(directory.path, directory.checkpoints, loaded.config, size.total);
    const store = new CheckpointStore(directory.checkpoints);
    const resume = this.#options.resume ?? loaded.config.checkpoint.resume;
    const resumed = await findResumed(resume, directory.path, store, (message) => this.#warn(message));
    const { config, fresh } = await this.#continue(loaded, directory, resumed);
    // A resumed run keeps its micro-batch; what that takes decides anew.
    if (resumed !== null) fitToMemory(this.#binding, config, { ...open, microBatch: false }, sizes);
    config.output = directory.path;
    if (this.#options.tokenizer !== undefined) config.tokenizer = { path: directory.tokenizer, train: null };

    const source = await this.#openStream(config);
    const tokenizer = known ?? (await this.#ownTokenizer(config, directory, source, resumed, fresh, init));
    const parameters = this.#size(config, tokenizer.vocabSize(), init);
    tokenizer.endOfText();
    const heldOut = await this.#heldOut(config, source, tokenizer);
    const identity = identityOf(config, source.sources, tokenizer);
    if (resumed !== null) {
      const compare = this.#reset ? compareTokenizer : compareIdentity;
      compare(runOf(resumed.checkpoint.path), resumed.stream.identity, identity);
    }
    // The run directory has its tokenizer, so that its checkpoints can be used by themselves.
    if (known !== null && (resumed === null || !(await holdsTokenizer(directory.tokenizer)))) {
      await saveTokenizer(tokenizer, directory.tokenizer);
    }
    const apart = await this.#readApart(config, tokenizer);
    const yaml = configToYaml(config);
    await directory.writeConfig(yaml);
    await directory.writeOrigin(
      withoutSecrets(loaded.input),
      environmentOf(this.#binding.version(), source.sources),
    );
    const journal = await this.#openJournal(directory, resumed);

    this.#phase('model', `building the model: ${parameters.total.toLocaleString('en-US')} parameters`);
    const native = await this.#trainer(config, source, tokenizer, heldOut, resumed, init);
    const start = startOf(resumed, this.#reset);
    await this.#takeHistory(directory, resumed);
    await store.clean();
    if (resumed !== null) await store.abandonAfter(start.step);
    const metrics = await MetricsFile.open(directory.metrics, start.step);
    this.#opened.add(() => metrics.close());
    if (config.logging.tensorboard) metrics.mirror(EventFile.open(directory.tensorboard, start.step));
    const samples = await SamplesFile.open(directory.samples, start.step);
    const loop = new TrainingLoop({
      native,
      config,
      digest: sha256(yaml),
      identity,
      tokenizer,
      store,
      metrics,
      samples,
      heldOut: apart ?? heldOut,
      mfu: mfuOf(config, this.#gpuName(config)),
      start,
    });
    this.#opened.add(() => loop.settle());
    this.#notice = (notice) => loop.notice(notice);
    this.#check();
    this.#stops.tell((notice) => loop.stop(notice));
    return {
      loop,
      journal,
      plan: {
        config,
        output: directory.path,
        sources: source.sources,
        tokenizer: {
          size: tokenizer.vocabSize(),
          path: config.tokenizer.path ?? directory.tokenizer,
          trained: known === null && config.init_from === null,
        },
        parameters,
        tokensPerStep: config.training.global_batch_size * config.data.sequence_length,
        heldOut: heldOut === null ? null : { documents: heldOut.documents, bytes: heldOut.bytes },
        evaluatedOn:
          apart === null
            ? null
            : {
                dataset: config.evaluation.dataset ?? named(config.data),
                split: config.evaluation.split ?? 'train',
                documents: apart.documents,
                bytes: apart.bytes,
              },
        resumedFrom:
          resumed === null
            ? null
            : { path: resumed.checkpoint.path, step: resumed.checkpoint.step, reset: this.#reset },
      },
    };
  }

  get #hooks(): SourceHooks {
    return { signal: this.#setup.signal, notice: (notice) => this.#notice(notice) };
  }

  get #reset(): boolean {
    return this.#options.resetStream === true;
  }

  async #load(): Promise<LoadedConfig> {
    const { config, corpus, tokenizer, output } = this.#options;
    const given: Override[] = [];
    if (tokenizer !== undefined) {
      given.push({ key: 'tokenizer.path', value: join(output ?? '', 'tokenizer'), flag: 'tokenizer' });
    }
    if (corpus !== undefined) given.push(...overridesOf(corpus));
    if (typeof config === 'string') return loadConfig(config, given);
    return isLoaded(config) ? config : configFromValues(config, given);
  }

  /** The tokenizer that was given or named; null for one that is to be trained. */
  async #knownTokenizer(config: ResolvedConfig): Promise<NativeTokenizer | null> {
    if (this.#options.tokenizer !== undefined) return this.#options.tokenizer.native;
    const { path } = config.tokenizer;
    return path === null ? null : this.#binding.tokenizerFromPath(path);
  }

  /** Counts parameters, after setting the vocabulary. Throws TOKENIZER_MISMATCH, CONFIG_INVALID. */
  #size(config: ResolvedConfig, tokens: number, init: InitSource | null): RunPlan['parameters'] {
    const vocab_size =
      config.init_from === null
        ? vocabSizeFor(config.model.vocab_size, tokens)
        : initVocabSize(config, init, tokens);
    const parameters = this.#binding.parameterCount(JSON.stringify({ ...config.model, vocab_size }));
    config.model.vocab_size = vocab_size;
    return JSON.parse(parameters) as RunPlan['parameters'];
  }

  /** The configuration to run with, and whether nothing of an earlier run may be used. Throws RESUME_MISMATCH. */
  async #continue(
    loaded: LoadedConfig,
    directory: RunDirectory,
    resumed: Resumed | null,
  ): Promise<{ config: ResolvedConfig; fresh: boolean }> {
    const there = await directory.readConfig();
    if (resumed !== null) {
      const old = resumed.trainer.configuration;
      return {
        config: continueConfig(runOf(resumed.checkpoint.path), old, loaded.config, loaded.given, this.#reset),
        fresh: false,
      };
    }
    const config = structuredClone(loaded.config);
    // A run that left no checkpoint is begun again; its tokenizer serves if it would come out the same.
    const same = there !== null && differencesOf(there, config).length === 0;
    if (same) config.data = pinned(config.data, loaded.given.data, there.data);
    return { config, fresh: !same };
  }

  async #openStream(config: ResolvedConfig): Promise<OpenStream> {
    this.#phase('data', `opening ${named(config.data)}`);
    const corpus = this.#options.corpus ?? this.#openCorpus(config.data, this.#hooks);
    if (this.#options.corpus === undefined) this.#opened.add(() => corpus.close());
    const source = await corpus.open();
    this.#opened.add(() => source.release());
    writeSources(config, source.sources, this.#options.corpus !== undefined);
    this.#check();
    return source;
  }

  /** The run's own tokenizer: trained before, or trained now. */
  async #ownTokenizer(
    config: ResolvedConfig,
    directory: RunDirectory,
    source: OpenStream,
    resumed: Resumed | null,
    fresh: boolean,
    init: InitSource | null,
  ): Promise<NativeTokenizer> {
    if (!fresh && (await holdsTokenizer(directory.tokenizer))) {
      return this.#binding.tokenizerFromPath(directory.tokenizer);
    }
    const before = resumed === null ? null : join(runOf(resumed.checkpoint.path), 'tokenizer');
    if (before !== null && (await holdsTokenizer(before))) {
      const tokenizer = await this.#binding.tokenizerFromPath(before);
      await saveTokenizer(tokenizer, directory.tokenizer);
      return tokenizer;
    }
    if (config.init_from !== null) return this.#initTokenizer(config.init_from, init, directory);
    const { train } = config.tokenizer;
    if (train === null)
      throw errorFor('INTERNAL', 'no tokenizer is configured', 'report this with config.yaml');
    const skipped = await this.#heldOut(config, source, await byteTokenizer(this.#binding));
    await directory.writeConfig(configToYaml(config));
    this.#phase('tokenizer', `training a tokenizer of ${train.vocab_size.toLocaleString('en-US')} tokens`);
    const tokenizer = await trainTokenizer(this.#binding, source.sources, {
      vocabSize: train.vocab_size,
      pattern: train.pattern,
      specialTokens: train.special_tokens,
      maxSamples: train.max_samples,
      batchSize: config.data.batch_size,
      threads: config.data.threads,
      heldOut: skipped?.ends ?? [],
      signal: this.#setup.signal,
      onProgress: (event) => this.#say(event),
    });
    await saveTokenizer(tokenizer, directory.tokenizer);
    return tokenizer;
  }

  /** The tokenizer of the model that the run starts from, saved as the run's own. */
  async #initTokenizer(
    named: string,
    init: InitSource | null,
    directory: RunDirectory,
  ): Promise<NativeTokenizer> {
    if (init === null || init.tokenizer === null) {
      throw errorFor('TOKENIZER_INVALID', `${named} has no tokenizer`, 'name one with --tokenizer');
    }
    const tokenizer = await this.#binding.tokenizerFromPath(init.tokenizer);
    await saveTokenizer(tokenizer, directory.tokenizer);
    return tokenizer;
  }

  async #heldOut(
    config: ResolvedConfig,
    source: OpenStream,
    tokenizer: NativeTokenizer,
  ): Promise<HeldOut | null> {
    const documents = heldOutDocuments(config);
    if (documents === 0) return null;
    if (!this.#hasHeldOut)
      this.#phase('held-out', `holding out ${documents.toLocaleString('en-US')} documents`);
    this.#hasHeldOut = true;
    const heldOut = await heldOutOf(
      { binding: this.#binding, config, sources: source.sources, tokenizer },
      this.#setup.signal,
    );
    this.#check();
    return heldOut;
  }

  /** The documents of other data to evaluate on, where the configuration names some. */
  async #readApart(config: ResolvedConfig, tokenizer: NativeTokenizer): Promise<HeldOut | null> {
    const from = evaluationSource(config);
    if (from === null) return null;
    const { documents } = config.evaluation;
    const what = `split ${from.split} of ${from.dataset ?? ''}`;
    this.#phase(
      'evaluation',
      `reading ${documents.toLocaleString('en-US')} documents to evaluate on, ${what}`,
    );
    const parts = { binding: this.#binding, openCorpus: this.#openCorpus, tokenizer, config };
    const apart = await readEvaluationData(parts, from, this.#hooks);
    this.#check();
    return apart;
  }

  /** Opens events and log, and writes down what was said so far. */
  async #openJournal(directory: RunDirectory, resumed: Resumed | null): Promise<Journal> {
    const journal = await Journal.open(directory.events, directory.log, resumed?.checkpoint.step ?? null);
    this.#opened.add(() => journal.close());
    for (const { event, time } of this.#said.splice(0)) journal.setup(event, time);
    this.#journal = journal;
    return journal;
  }

  async #trainer(
    config: ResolvedConfig,
    source: OpenStream,
    tokenizer: NativeTokenizer,
    heldOut: HeldOut | null,
    resumed: Resumed | null,
    init: InitSource | null,
  ): Promise<NativeTrainer> {
    const { data, training } = config;
    const parts = { binding: this.#binding, config, sources: source.sources, tokenizer, heldOut };
    const feed = streamFeed(parts, { state: resumed?.stream.state ?? null, reset: this.#reset });
    this.#opened.add(() => feed.close());
    // There is one optimizer, so that its name says nothing there.
    const { name: _, ...optimizer } = config.optimizer;
    const build = this.#binding.createTrainer(
      JSON.stringify({
        model: config.model,
        sequence_length: data.sequence_length,
        micro_batch_size: training.micro_batch_size,
        global_batch_size: training.global_batch_size,
        optimizer,
        schedule: config.schedule,
        limits: {
          max_steps: training.max_steps,
          max_tokens: training.max_tokens,
          max_samples: data.max_samples,
        },
        threads: training.threads,
        device: training.device,
        seed: training.seed,
        z_loss: training.z_loss,
        recompute: training.recompute,
        max_skipped_steps: training.max_skipped_steps,
        checkpoint: resumed?.checkpoint.path ?? null,
        init_from: init?.directory ?? null,
      }),
      feed,
      tokenizer,
    );
    const native = await build.catch((cause: unknown) => {
      if (!(cause instanceof CandlewickError) || cause.code !== 'OUT_OF_MEMORY_DEVICE') throw cause;
      // The driver knows what it was asked for; what that is for, and what to change, is known here.
      const free = gpuAvailable(this.#binding, config);
      throw outOfGpuMemory(this.#binding, config, free, { tokenizerSize: tokenizer.vocabSize() }, cause);
    });
    this.#opened.add(() => native.close());
    return native;
  }

  /** A run that goes on from another's checkpoint takes over its history. */
  async #takeHistory(directory: RunDirectory, resumed: Resumed | null): Promise<void> {
    if (resumed === null) return;
    const run = runOf(resumed.checkpoint.path);
    const from = join(run, 'metrics.jsonl');
    if (samePlace(run, directory.path) || !(await exists(from)) || (await readRunConfig(run)) === null)
      return;
    await onDisk(directory.metrics, () => cp(from, directory.metrics));
  }

  /** As the driver has it; null on the CPU. */
  #gpuName({ training: { device } }: ResolvedConfig): string | null {
    if (device === 'cpu') return null;
    const ordinal = ordinalOf(device);
    return this.#binding.cudaReport(pythonEnvironments(), ordinal).gpus[ordinal]?.name ?? null;
  }

  #phase(phase: (SetupEvent & { type: 'phase' })['phase'], message: string): void {
    this.#check();
    this.#say({ type: 'phase', phase, message });
  }

  #warn(message: string): void {
    this.#say({ type: 'warning', message });
  }

  #say(event: SetupEvent): void {
    if (this.#journal !== null) this.#journal.setup(event);
    else if (event.type !== 'tokenizer') this.#said.push({ event, time: new Date() });
    this.#options.onSetup?.(event);
  }

  #check(): void {
    if (this.isStopped) {
      throw errorFor('ABORTED', 'stopped before the first step', 'run the same command to begin again');
    }
  }
}

function isLoaded(config: Record<string, unknown> | LoadedConfig): config is LoadedConfig {
  return 'given' in config && 'decisions' in config;
}
