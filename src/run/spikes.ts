/** Rows that the mean and the deviation are taken over. */
export const SPIKE_WINDOW = 100;

/** Rows before anything is said. */
const FEWEST = 20;

/** Deviations above the mean that make a spike: of normal noise one row in a billion. */
export const SPIKE_Z = 6;

/**
 * How unusual a loss is among those of the rows before it: z = (loss − mean) / standard deviation over the last 100
 * rows. The window is rebuilt from `metrics.jsonl`, so that a resumed run says what an uninterrupted one would.
 */
export class LossWindow {
  readonly #losses: number[] = [];

  /** z of the next loss, which then joins the window; null before there are 20 rows, and where none differs. */
  next(loss: number): number | null {
    const losses = this.#losses;
    const mean = this.mean;
    const variance = losses.reduce((sum, value) => sum + (value - mean) ** 2, 0) / losses.length;
    const z = losses.length < FEWEST || variance === 0 ? null : (loss - mean) / Math.sqrt(variance);
    this.add(loss);
    return z;
  }

  get mean(): number {
    return this.#losses.reduce((sum, value) => sum + value, 0) / this.#losses.length;
  }

  add(loss: number): void {
    this.#losses.push(loss);
    if (this.#losses.length > SPIKE_WINDOW) this.#losses.shift();
  }
}
