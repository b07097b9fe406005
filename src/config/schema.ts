import { z } from 'zod';

/**
 * The configuration's keys. Strict: an unknown key is an error. Every flag of the commands has its key here, so that
 * the `config.yaml` of a run directory repeats the run by itself.
 */

const natural = () => z.int().min(0);
const positive = () => z.int().min(1);
const above0 = () => z.number().gt(0);

/** A number of processors, or `auto`: as many as there are. */
const threads = () =>
  z.union([z.literal('auto'), positive()], { error: 'expected auto or a whole number of 1 or more' });

const tokenizer = z.strictObject({
  path: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Directory or tokenizer.json of a tokenizer that exists.'),
  train: z
    .strictObject({
      max_samples: positive()
        .nullable()
        .default(100_000)
        .describe('Documents to count; null: all of the stream.'),
      vocab_size: positive().default(32_000).describe('Tokens of the vocabulary, special tokens included.'),
      pattern: z
        .enum(['gpt2', 'cl100k', 'o200k', 'llama3', 'qwen2'])
        .default('gpt2')
        .describe('How text is cut into words before byte pairs are merged.'),
      special_tokens: z
        .array(z.string().min(1))
        .min(1)
        .default(['<|endoftext|>'])
        .describe('Special tokens; <|endoftext|> closes each document.'),
    })
    .nullable()
    .default(null)
    .describe('Trains a tokenizer from the stream first, into the run directory.'),
});

const model = z.strictObject({
  architecture: z.enum(['qwen3', 'llama']).describe('Family; it decides the class that transformers loads.'),
  hidden_size: positive().describe('Width of the residual stream.'),
  intermediate_size: positive().describe('Width inside the feed-forward part.'),
  num_hidden_layers: positive().describe('Number of blocks.'),
  num_attention_heads: positive().describe('Query heads a block.'),
  num_key_value_heads: positive()
    .nullable()
    .default(null)
    .describe('Key and value heads; null: num_attention_heads.'),
  head_dim: positive()
    .nullable()
    .default(null)
    .describe('Width of a head; null: hidden_size / num_attention_heads.'),
  rope_theta: above0().default(10_000).describe('Base of the rotary frequencies.'),
  rms_norm_eps: above0().default(1e-6).describe('Added to the mean square in every RMSNorm.'),
  tie_word_embeddings: z.boolean().default(false).describe('Whether the output matrix is the embedding.'),
  vocab_size: positive()
    .nullable()
    .default(null)
    .describe('Rows of the embedding; null: the tokenizer’s size, padded to 128.'),
  max_position_embeddings: positive()
    .nullable()
    .default(null)
    .describe('Longest context; null: data.sequence_length.'),
});

/** What names a source, alone or among several. */
const source = {
  config_name: z.string().min(1).nullable().default(null).describe('Configuration (subset) of the dataset.'),
  split: z.string().min(1).default('train').describe('Split to read.'),
  text_column: z.string().min(1).default('text').describe('Column that holds the text.'),
  text_template: z
    .string()
    .nullable()
    .default(null)
    .describe('Columns joined to a text, as "{title}\\n\\n{text}"; instead of text_column.'),
  revision: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Branch, tag or commit; null: the newest, then pinned.'),
};

const dataset = () => z.string().min(1);

const sources = z.array(
  z.strictObject({
    dataset: dataset().describe('Name on the Hugging Face Hub, a local path, or sample.'),
    ...source,
    weight: above0().default(1).describe('Share of the tokens, relative to the other sources.'),
    on_exhausted: z
      .enum(['repeat', 'stop', 'drop'])
      .default('stop')
      .describe('At its last epoch’s end: begin again, end the stream, or leave it to the others.'),
  }),
);

const data = z.strictObject({
  dataset: dataset()
    .nullable()
    .default(null)
    .describe('Name on the Hugging Face Hub, a local path, or sample.'),
  ...source,
  sources: sources
    .min(1)
    .nullable()
    .default(null)
    .describe('Several sources, each {dataset, …, weight, on_exhausted}; instead of dataset.'),
  sequence_length: positive().default(1024).describe('Tokens of a training sequence.'),
  shuffle_buffer_size: positive().default(10_000).describe('Documents of a shuffle window.'),
  batch_size: positive()
    .default(1000)
    .describe('Documents fetched at a time; changes speed, never what is learned.'),
  max_samples: positive()
    .nullable()
    .default(null)
    .describe('Training documents over all epochs; null: no limit.'),
  epochs: positive().nullable().default(null).describe('Passes over each source; null: no limit.'),
  seed: natural().default(1).describe('Seed of the order of documents.'),
  skip_steps: z
    .array(z.string())
    .default([])
    .describe(
      'Batches left out, as ["A:B"], both ends included; batch n is what step n trains on otherwise.',
    ),
  threads: threads().default('auto').describe('Threads that tokenize.'),
  python: z.string().min(1).nullable().default(null).describe('Python that streams; null: found by itself.'),
  load_timeout: above0().default(120).describe('Seconds that opening the dataset may take.'),
  retry_budget: z
    .number()
    .min(0)
    .default(1800)
    .describe('Seconds without progress after which a source that fails is given up.'),
});

const training = z.strictObject({
  global_batch_size: positive().default(16).describe('Sequences a step.'),
  micro_batch_size: z
    .union([z.literal('auto'), positive()], { error: 'expected auto or a whole number of 1 or more' })
    .nullable()
    .default(null)
    .describe('Sequences at a time; auto: as many as fit into memory; null: global_batch_size.'),
  recompute: z
    .enum(['none', 'norms_and_swiglu', 'auto'])
    .default('auto')
    .describe('What is computed again to save memory, with the same result; auto: none if it fits.'),
  max_steps: positive().nullable().default(null).describe('Optimizer steps in all; null: no limit.'),
  max_tokens: positive().nullable().default(null).describe('Target tokens in all; null: no limit.'),
  max_minutes: above0()
    .nullable()
    .default(null)
    .describe('Minutes after which a start of the run saves and stops, to be gone on from; null: no limit.'),
  precision: z.enum(['auto', 'f32', 'bf16']).default('auto').describe('auto: bf16 on CUDA, f32 on the CPU.'),
  device: z
    .union([z.enum(['auto', 'cpu', 'cuda']), z.templateLiteral(['cuda:', z.string().regex(/^\d+$/)])], {
      error: 'expected auto, cpu, cuda, or cuda:N with the number of a GPU',
    })
    .default('auto')
    .describe('Where the model trains; auto: the first GPU where one can be used, else the CPU.'),
  threads: threads().default('auto').describe('Threads of the CPU device.'),
  z_loss: z
    .number()
    .min(0)
    .default(0)
    .describe('Weight of the squared logarithm of the softmax’s sum in the gradient, such as 1e-5; 0: none.'),
  max_skipped_steps: positive()
    .default(5)
    .describe('Updates left out in a row, as loss or gradient is not finite, at which the run has diverged.'),
  seed: natural().default(1).describe('Seed of the initial weights.'),
});

const optimizer = z.strictObject({
  name: z.enum(['adamw']).default('adamw').describe('Kind of optimizer.'),
  lr: above0().default(1e-3).describe('Peak learning rate.'),
  betas: z
    .array(z.number().min(0).lt(1))
    .length(2)
    .default([0.9, 0.95])
    .describe('Decay of the first and second moment.'),
  eps: above0().default(1e-8).describe('Added to the root of the second moment.'),
  weight_decay: z.number().min(0).default(0.1).describe('Decay, on matrices only.'),
  clip_grad_norm: above0().nullable().default(1).describe('Largest norm of the gradients; null: no limit.'),
  moments: z
    .enum(['float32', 'bfloat16'])
    .default('float32')
    .describe('Type of the moments; bfloat16 takes half the memory, rounded stochastically.'),
});

const schedule = z.strictObject({
  name: z
    .enum(['cosine', 'wsd', 'linear', 'constant'])
    .default('cosine')
    .describe('Course of the learning rate.'),
  warmup_steps: natural().default(0).describe('Steps of linear warm-up.'),
  final_lr_ratio: z
    .number()
    .min(0)
    .max(1)
    .default(0.1)
    .describe('Learning rate at the end, as a share of the peak.'),
  decay_ratio: z.number().gt(0).max(1).default(0.2).describe('wsd: share of the run that decays.'),
});

const checkpoint = z.strictObject({
  every_steps: positive()
    .nullable()
    .default(1000)
    .describe('Steps between checkpoints; null: at the end only.'),
  keep_last: positive().default(2).describe('Newest checkpoints to keep.'),
  keep_every: positive()
    .nullable()
    .default(null)
    .describe('Keeps those of every so many steps too, a multiple of every_steps; null: none.'),
  keep_best: z
    .boolean()
    .default(true)
    .describe('Keeps the one with the lowest loss on the held-out documents too.'),
  resume: z.string().min(1).default('auto').describe('auto, never, or a checkpoint or run directory.'),
});

const evaluation = z.strictObject({
  every_steps: positive()
    .nullable()
    .default(1000)
    .describe('Steps between evaluations; null: at the end only.'),
  documents: natural()
    .default(0)
    .describe('First documents of the data to hold out, or of the other data to read; 0: no evaluation.'),
  dataset: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Other data to evaluate on, nothing is held out then; null: data.dataset.'),
  config_name: z.string().min(1).nullable().default(null).describe('Configuration (subset) of that data.'),
  split: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Split to evaluate on, such as validation; nothing is held out then.'),
  text_column: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Column of that data that holds the text.'),
  revision: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Branch, tag or commit of that data; null: the newest, then pinned.'),
  prompts: z
    .array(z.string())
    .default([])
    .describe('Texts that are continued at every evaluation; [] only continues prompt, at the end.'),
  prompt: z.string().default('The').describe('What the sample at the end continues, without prompts.'),
  sample_tokens: natural().default(64).describe('Tokens of a sample; 0: none.'),
});

const logging = z.strictObject({
  every_steps: positive().default(1).describe('Steps between rows of metrics.jsonl and lines of progress.'),
  tensorboard: z
    .boolean()
    .default(false)
    .describe('Whether rows are also written as event files, in tensorboard/.'),
});

/** The whole configuration. */
export const runSchema = z.strictObject({
  output: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Run directory; null: runs/<configuration’s name>.'),
  init_from: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Run, checkpoint or model directory whose weights the model starts from; null: fresh weights.'),
  tokenizer: tokenizer.prefault({}),
  model,
  data,
  training: training.prefault({}),
  optimizer: optimizer.prefault({}),
  schedule: schedule.prefault({}),
  checkpoint: checkpoint.prefault({}),
  evaluation: evaluation.prefault({}),
  logging: logging.prefault({}),
});

/** A checked configuration with its defaults filled in; `auto` and null still stand where they were not resolved. */
export type RunConfig = z.infer<typeof runSchema>;

/** The keys below `path`, or null where the schema has none there. */
export function keysAt(path: readonly PropertyKey[]): string[] | null {
  let schema: unknown = runSchema;
  for (const key of path) {
    const shape = shapeOf(schema);
    const element = typeof key === 'number' ? innermost(schema)?.element : undefined;
    if (element === undefined && (shape === null || !(String(key) in shape))) return null;
    schema = element ?? shape?.[String(key)];
  }
  const shape = shapeOf(schema);
  return shape === null ? null : Object.keys(shape);
}

/** Every key with a value of its own, as a dotted path. */
export function leafPaths(path: string[] = []): string[] {
  return (keysAt(path) ?? []).flatMap((key) => {
    const below = [...path, key];
    return keysAt(below) === null ? [below.join('.')] : leafPaths(below);
  });
}

interface Inside {
  shape?: Record<string, unknown>;
  element?: unknown;
  def?: { innerType?: unknown };
}

function shapeOf(schema: unknown): Record<string, unknown> | null {
  return innermost(schema)?.shape ?? null;
}

/** The schema without defaults and nulls around it. */
function innermost(schema: unknown): Inside | undefined {
  let inner = schema as Inside | undefined;
  while (inner?.def?.innerType !== undefined) inner = inner.def.innerType as Inside;
  return inner;
}
