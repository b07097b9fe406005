import type { LoadedConfig } from '../config/index.js';
import { limitsInWords } from '../run/index.js';
import type { RunPlan, SourceShare } from '../run/index.js';

const count = (n: number) => n.toLocaleString('en-US');

const ends = { repeat: 'repeated', stop: 'ends the stream', drop: 'dropped at its end' };

/** What a run decided and why, one line each, before its first step. */
export function planInWords(plan: RunPlan, loaded: LoadedConfig): string[] {
  const { config, parameters, tokenizer, heldOut, evaluatedOn, resumedFrom } = plan;
  const { data, training, checkpoint } = config;
  const why = (key: string) => {
    const decision = loaded.decisions.find((made) => made.key === key);
    return decision === undefined ? '' : ` (${decision.reason})`;
  };
  const order = [
    `window of ${count(data.shuffle_buffer_size)} documents${plan.sources.length > 1 ? ' of each' : ''}`,
    heldOut === null ? null : `${count(heldOut.documents)} held out`,
  ].filter((part) => part !== null);
  const [only, ...others] = plan.sources.map((source) => sourceInWords(source, plan.sources));
  const sources: [string, string][] =
    others.length === 0
      ? [['data', [only, ...order].join(', ')]]
      : [only, ...others]
          .map((words): [string, string] => ['data', words ?? ''])
          .concat([['order', order.join(', ')]]);
  const rows: [string, string][] = [
    [
      'model',
      `${config.model.architecture}, ${config.model.num_hidden_layers} layers, ${count(parameters.total)} parameters ` +
        `(${count(parameters.blocks)} without embeddings)`,
    ],
    ...sources,
    ...(evaluatedOn === null
      ? []
      : [
          [
            'evaluation',
            `${count(evaluatedOn.documents)} documents of ${evaluatedOn.dataset}, split ${evaluatedOn.split}`,
          ] as [string, string],
        ]),
    [
      'tokenizer',
      `${count(tokenizer.size)} tokens, ${tokenizer.path}${tokenizer.trained ? ' (trained from this data)' : ''}`,
    ],
    [
      'step',
      `${count(training.global_batch_size)} sequences of ${count(data.sequence_length)} = ${count(plan.tokensPerStep)} tokens` +
        (training.micro_batch_size === training.global_batch_size
          ? ''
          : `, ${count(training.micro_batch_size)} sequences at a time${why('training.micro_batch_size')}`) +
        (training.recompute === 'none' ? '' : `, norms and SwiGLU recomputed${why('training.recompute')}`),
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
        : `after step ${count(resumedFrom.step)}, from ${resumedFrom.path}` +
          (resumedFrom.reset ? '; the data start over, as --reset-stream says (leave it out next time)' : ''),
    ],
  ];
  return rows.map(([name, text]) => `${name.padEnd(10)} ${text}`);
}

/** One source, and its share where there are others. */
function sourceInWords(
  { ready, weight, on_exhausted }: RunPlan['sources'][number],
  all: RunPlan['sources'],
): string {
  const total = all.reduce((sum, source) => sum + source.weight, 0);
  return [
    ready.config_name === null ? ready.dataset : `${ready.dataset}/${ready.config_name}`,
    `split ${ready.split}`,
    ready.revision === null ? null : `revision ${ready.revision.slice(0, 12)}`,
    `${count(ready.files.length)} ${ready.files.length === 1 ? 'file' : 'files'}`,
    ...(all.length > 1 ? [`${((100 * weight) / total).toFixed(1)} % of the tokens`, ends[on_exhausted]] : []),
  ]
    .filter((part) => part !== null)
    .join(', ');
}

/** What each source gave, beside what it should have. */
export function mixInWords(mix: readonly SourceShare[], { sources }: RunPlan): string {
  const total = sources.reduce((sum, source) => sum + source.weight, 0);
  const percent = (part: number) => `${(100 * part).toFixed(1)} %`;
  const parts = mix.map(({ share, epoch }, i) => {
    const { ready, weight = 0 } = sources[i] ?? {};
    return `${ready?.dataset ?? i} ${percent(share)} (weight ${percent(weight / total)}, epoch ${epoch})`;
  });
  return `tokens came from ${parts.join(', ')}`;
}
