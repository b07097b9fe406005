import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { RunConfig } from '../config/index.js';
import type { ModelSource } from '../run/index.js';
import { readState, runOf } from '../run/index.js';
import type { StreamState, TrainerState } from '../run/index.js';

/** What the native side says of an export. */
export interface Exported {
  config: {
    architecture: string;
    hidden_size: number;
    intermediate_size: number;
    num_hidden_layers: number;
    num_attention_heads: number;
    num_key_value_heads: number;
    head_dim: number;
    vocab_size: number;
    max_position_embeddings: number;
    tie_word_embeddings: boolean;
  };
  parameters: number;
  bytes: number;
  files: string[];
}

const count = (n: number): string => n.toLocaleString('en-US');

/** The README.md of an exported model: what is known of it, and nothing that is not. */
export async function modelCard(
  name: string,
  { directory, checkpoint }: ModelSource,
  exported: Exported,
  dtype: string,
): Promise<string> {
  const run = checkpoint === null ? null : await runFacts(directory);
  const datasets = run === null ? [] : run.sources.filter(({ hub }) => hub).map(({ dataset }) => dataset);
  const { config } = exported;
  const family = config.architecture === 'qwen3' ? 'Qwen3' : 'Llama';
  const parts = [
    frontMatter(datasets),
    `# ${name}`,
    `A ${family}-shaped language model of ${count(exported.parameters)} parameters, trained with ` +
      `[candlewick](https://github.com/candlewick/candlewick) and exported as ${dtype}.`,
    '## Use',
    '```python\n' +
      'from transformers import AutoModelForCausalLM, AutoTokenizer\n\n' +
      'path = "."  # this directory\n' +
      'tokenizer = AutoTokenizer.from_pretrained(path)\n' +
      'model = AutoModelForCausalLM.from_pretrained(path)\n' +
      'inputs = tokenizer("Once upon a time", return_tensors="pt")\n' +
      'print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64, do_sample=True)[0]))\n' +
      '```',
    'It is a base model: it continues text, and follows no instructions. What it writes may be wrong, offensive, or a ' +
      'passage of its training data.',
    ...(run === null
      ? ['## Training', 'This directory was not exported from a run: nothing is known here of its training.']
      : trainingParts(run)),
    '## Architecture',
    table([
      ['class', `${family}ForCausalLM`],
      ['parameters', count(exported.parameters)],
      ['layers', count(config.num_hidden_layers)],
      [
        'hidden size',
        `${count(config.hidden_size)}, ${count(config.intermediate_size)} in the feed-forward part`,
      ],
      [
        'heads',
        `${config.num_attention_heads} of ${config.head_dim}, ${config.num_key_value_heads} for keys and values`,
      ],
      [
        'vocabulary',
        `${count(config.vocab_size)} tokens${config.tie_word_embeddings ? ', embeddings tied' : ''}`,
      ],
      ['context', `${count(config.max_position_embeddings)} tokens`],
    ]),
    '## License',
    'No license has been chosen for these weights. Whoever publishes them has to choose one, in the first lines of this ' +
      'file too, that the training data allow.',
  ];
  return `${parts.join('\n\n')}\n`;
}

function frontMatter(datasets: readonly string[]): string {
  return [
    '---',
    'license: unknown',
    'library_name: transformers',
    'pipeline_tag: text-generation',
    'tags: [candlewick]',
    ...(datasets.length === 0 ? [] : ['datasets:', ...datasets.map((dataset) => `- ${dataset}`)]),
    '---',
  ].join('\n');
}

interface RunFacts {
  trainer: TrainerState;
  stream: StreamState;
  sources: { dataset: string; hub: boolean; details: string }[];
  /** Of the last row at or before the checkpoint. */
  loss: number | null;
  evaluation: { eval_loss: number; bits_per_byte: number; step: number } | null;
}

async function runFacts(checkpoint: string): Promise<RunFacts> {
  const trainer = await readState<TrainerState>(checkpoint, 'trainer.json');
  const stream = await readState<StreamState>(checkpoint, 'stream.json');
  const rows = await rowsUpTo(join(runOf(checkpoint), 'metrics.jsonl'), trainer.step);
  const loss = rows.findLast((row) => typeof row['loss'] === 'number')?.['loss'] ?? null;
  const last = rows.findLast((row) => typeof row['bits_per_byte'] === 'number');
  return {
    trainer,
    stream,
    sources: sourcesOf(trainer.configuration),
    loss,
    evaluation:
      last === undefined
        ? null
        : {
            eval_loss: last['eval_loss'] ?? Number.NaN,
            bits_per_byte: last['bits_per_byte'] ?? Number.NaN,
            step: last['step'] ?? 0,
          },
  };
}

async function rowsUpTo(path: string, step: number): Promise<Record<string, number>[]> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text.split('\n').flatMap((line) => {
    try {
      const row = JSON.parse(line) as Record<string, number>;
      return typeof row['step'] === 'number' && row['step'] <= step ? [row] : [];
    } catch {
      return [];
    }
  });
}

/** Local files are named without their folders, which concern nobody who gets the model. */
function sourcesOf({ data }: RunConfig): RunFacts['sources'] {
  const sources = data.sources ?? [{ ...data, dataset: data.dataset ?? 'unknown' }];
  return sources.map((source) => {
    const hub = /^[\w.-]+\/[\w.-]+$/.test(source.dataset) && !source.dataset.startsWith('.');
    const details = [
      source.config_name === null ? null : `configuration ${source.config_name}`,
      `split ${source.split}`,
      source.revision === null ? null : `revision ${source.revision}`,
      'weight' in source ? `weight ${source.weight}` : null,
    ].filter((detail) => detail !== null);
    return {
      dataset: hub || source.dataset === 'sample' ? source.dataset : basename(source.dataset),
      hub,
      details: details.join(', '),
    };
  });
}

function trainingParts({ trainer, stream, sources, loss, evaluation }: RunFacts): string[] {
  const { training, data, optimizer, schedule } = trainer.configuration;
  const named = sources.map(({ dataset, hub, details }) => {
    const linked = hub
      ? `[${dataset}](https://huggingface.co/datasets/${dataset})`
      : dataset === 'sample'
        ? '`sample`, the texts of a Python installation'
        : `\`${dataset}\` (not on the Hub)`;
    return `${linked}, ${details}`;
  });
  const begun = trainer.configuration.init_from ?? null;
  return [
    '## Training',
    table([
      ['data', named.join('; ')],
      ['tokens', count(trainer.tokens)],
      ['documents', `${count(trainer.documents)}, in epoch ${trainer.epoch}`],
      [
        'steps',
        `${count(trainer.step)} of ${training.global_batch_size} sequences of ${data.sequence_length} tokens`,
      ],
      ...(begun === null
        ? []
        : ([['started from', `the weights of \`${basename(begun)}\``]] as [string, string][])),
      [
        'optimizer',
        `${optimizer.name}, lr ${optimizer.lr}, betas ${optimizer.betas.join(', ')}, weight decay ${optimizer.weight_decay}`,
      ],
      ['schedule', `${schedule.name}, ${count(schedule.warmup_steps)} steps of warm-up`],
      ['precision', training.precision],
      ['seed', `${training.seed} for the weights, ${data.seed} for the order`],
      ['stream hash', stream.hash === null ? 'none' : `\`${stream.hash}\``],
    ]),
    '## Results',
    table([
      ['loss of the last step', loss === null ? 'not logged' : `${loss.toFixed(4)} nats a token`],
      ...(evaluation === null
        ? ([['validation', 'none was made']] as [string, string][])
        : ([
            [
              'validation loss',
              `${evaluation.eval_loss.toFixed(4)} nats a token, at step ${count(evaluation.step)}`,
            ],
            ['bits per byte', evaluation.bits_per_byte.toFixed(4)],
          ] as [string, string][])),
    ]),
  ];
}

function table(rows: readonly (readonly [string, string])[]): string {
  const cell = (text: string) => text.replaceAll('|', '\\|');
  return ['| | |', '|---|---|', ...rows.map(([key, value]) => `| ${key} | ${cell(value)} |`)].join('\n');
}
