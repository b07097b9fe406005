/** Rows of `metrics.jsonl`, as a run writes them. */

/** The loss of `stepRow`. */
export function lossAt(step: number): number {
  return 2 + 8 * Math.exp(-step / 400) + 0.05 * Math.sin(step * 12.9898);
}

/** A step's row; `more` replaces or adds. */
export function stepRow(step: number, more: object = {}): string {
  const row = {
    step,
    loss: lossAt(step),
    grad_norm: 0.5 + 2 * Math.exp(-step / 100),
    lr: 1e-3 * Math.min(1, step / 100),
    tokens: step * 4096,
    documents: Math.floor(step * 3.7),
    epoch: 1,
    tokens_per_second: 8000 + 100 * Math.cos(step),
    samples_per_second: 7.25,
    data_wait: 0.01,
    memory: 412_000_000 + step,
    stream_hash: (step % 4096).toString(16).padStart(16, '0'),
    time: 1_790_000_000 + step * 0.5,
    ...more,
  };
  return `${JSON.stringify(row)}\n`;
}

export function evalRow(step: number): string {
  const eval_loss = 2.05 + 8 * Math.exp(-step / 400);
  return `${JSON.stringify({ step, eval_loss, bits_per_byte: eval_loss / 2, time: 1_790_000_000 + step * 0.5 })}\n`;
}

/** Rows of steps `first` to `last`, with an evaluation every `evalEvery`. */
export function rowsOf(first: number, last: number, evalEvery = 100, more: object = {}): string {
  let text = '';
  for (let step = first; step <= last; step++) {
    text += stepRow(step, more);
    if (step % evalEvery === 0) text += evalRow(step);
  }
  return text;
}
