import type { LoadedConfig } from '../config/index.js';
import { limitsInWords } from '../run/index.js';
import type { RunPlan } from '../run/index.js';

const count = (n: number) => n.toLocaleString('en-US');

/** What a run decided and why, one line each, before its first step. */
export function planInWords(plan: RunPlan, loaded: LoadedConfig): string[] {
  const { config, ready, parameters, tokenizer, heldOut, resumedFrom } = plan;
  const { data, training, checkpoint } = config;
  const why = (key: string) => {
    const decision = loaded.decisions.find((made) => made.key === key);
    return decision === undefined ? '' : ` (${decision.reason})`;
  };
  const dataset = [
    ready.config_name === null ? ready.dataset : `${ready.dataset}/${ready.config_name}`,
    `split ${ready.split}`,
    ready.revision === null ? null : `revision ${ready.revision.slice(0, 12)}`,
    `${count(ready.files.length)} ${ready.files.length === 1 ? 'file' : 'files'}`,
    `window of ${count(data.shuffle_buffer_size)} documents`,
    heldOut === null ? null : `${count(heldOut.documents)} held out`,
  ].filter((part) => part !== null);
  const rows: [string, string][] = [
    [
      'model',
      `${config.model.architecture}, ${config.model.num_hidden_layers} layers, ${count(parameters.total)} parameters ` +
        `(${count(parameters.blocks)} without embeddings)`,
    ],
    ['data', dataset.join(', ')],
    [
      'tokenizer',
      `${count(tokenizer.size)} tokens, ${tokenizer.path}${tokenizer.trained ? ' (trained from this data)' : ''}`,
    ],
    [
      'step',
      `${count(training.global_batch_size)} sequences of ${count(data.sequence_length)} = ${count(plan.tokensPerStep)} tokens` +
        (training.micro_batch_size === training.global_batch_size
          ? ''
          : `, ${count(training.micro_batch_size)} sequences at a time`),
    ],
    ['until', limitsInWords(config)],
    [
      'device',
      `${training.device}${why('training.device')}, ${training.precision}${why('training.precision')}, ` +
        `${training.threads} ${training.threads === 1 ? 'thread' : 'threads'}${why('training.threads')}`,
    ],
    [
      'writes to',
      `${plan.output}, a checkpoint ${checkpoint.every_steps === null ? 'at the end' : `each ${count(checkpoint.every_steps)} steps`}`,
    ],
    [
      'starts',
      resumedFrom === null
        ? 'from new weights'
        : `after step ${count(resumedFrom.step)}, from ${resumedFrom.path}`,
    ],
  ];
  return rows.map(([name, text]) => `${name.padEnd(10)} ${text}`);
}
