/** Trained models: load one and let it continue a text. */
import { cudaReport, ordinalOf, troubleWith } from '../cuda/index.js';
import { errorFor } from '../errors.js';
import type { NativeModel } from '../native/binding.js';
import { native } from '../native/index.js';
import { findModel } from '../run/index.js';

/** How a model is loaded. */
export interface LoadOptions {
  /** Where it generates; `cuda` is GPU 0; default: `auto`, which is GPU 0 where it can be used. */
  device?: 'cpu' | 'cuda' | `cuda:${string}` | 'auto';
  /** Told of each damaged checkpoint that is passed over for the one before. */
  onSkipped?: (path: string, reason: string) => void;
}

/** How a text is continued. */
export interface GenerateOptions {
  /** Tokens at most; default: 100. */
  maxTokens?: number | undefined;
  /** Divides the logits; 0 always takes the likeliest token; default: 0.8. */
  temperature?: number | undefined;
  /** Only the k likeliest tokens; default: all. */
  topK?: number | undefined;
  /** Only the likeliest tokens that together have this probability; default: all. */
  topP?: number | undefined;
  /** Same seed, same text; default: 1. */
  seed?: number | undefined;
  /** Ends the text at the next token. */
  signal?: AbortSignal | undefined;
}

/** A model with its tokenizer, ready to continue texts. */
export class Model implements AsyncDisposable {
  readonly #native: NativeModel;

  private constructor(model: NativeModel) {
    this.#native = model;
  }

  /**
   * Loads the newest good checkpoint of a run, a checkpoint, or an exported directory, with the tokenizer beside it or
   * in the run. Throws CONFIG_INVALID, CHECKPOINT_CORRUPT, TOKENIZER_INVALID, TOKENIZER_MISMATCH, CUDA_UNAVAILABLE,
   * CUDA_DRIVER_TOO_OLD, OUT_OF_MEMORY_DEVICE.
   */
  static async load(path: string, options: LoadOptions = {}): Promise<Model> {
    const { directory } = await findModel(path, (damaged, reason) => options.onSkipped?.(damaged, reason));
    return new Model(await native().loadModel(directory, generatesOn(options.device ?? 'auto')));
  }

  /** Pieces of the text that follows `prompt`, complete characters only, until end-of-text or `maxTokens`. */
  async *generate(prompt: string, options: GenerateOptions = {}): AsyncGenerator<string, void, undefined> {
    const { maxTokens = 100, temperature = 0.8, topK, topP, seed = 1, signal } = options;
    const generation = this.#native.generate(
      prompt,
      JSON.stringify({
        max_tokens: maxTokens,
        temperature,
        top_k: topK ?? null,
        top_p: topP ?? null,
        seed,
      }),
    );
    const cancel = () => generation.cancel();
    if (signal?.aborted) return;
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      for (;;) {
        const piece = await generation.next();
        if (piece === null) return;
        yield piece;
      }
    } finally {
      signal?.removeEventListener('abort', cancel);
      cancel();
    }
  }

  /** Lets go of the model's memory. */
  async close(): Promise<void> {
    await this.#native.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** The device for a name; `auto` is the CPU where GPU 0 cannot be used. */
function generatesOn(device: NonNullable<LoadOptions['device']>): string {
  if (device === 'cpu') return device;
  const trouble = troubleWith(cudaReport(ordinalOf(device)));
  if (device === 'auto') return trouble === null ? 'cuda' : 'cpu';
  if (trouble !== null) throw errorFor(trouble.code, trouble.message, trouble.hint);
  return device;
}
