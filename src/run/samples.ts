import { appendFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { diskError, errnoOf, onDisk, replaceFile } from './disk.js';

const HEADING = /^## Step (\d+)$/gm;

/** `samples.md`: what the model made of the prompts as it learned. */
export class SamplesFile {
  readonly #path: string;
  /** Step of the last samples, 0 for none. */
  readonly last: number;

  private constructor(path: string, last: number) {
    this.#path = path;
    this.last = last;
  }

  /** Opens the file cut back to `step`, from where the run goes on. */
  static async open(path: string, step: number): Promise<SamplesFile> {
    return onDisk(path, async () => {
      const text = await readFile(path, 'utf8').catch((cause: unknown) => {
        if (errnoOf(cause) === 'ENOENT') return '';
        throw cause;
      });
      let last = 0;
      for (const heading of text.matchAll(HEADING)) {
        const at = Number(heading[1]);
        if (at > step) {
          await replaceFile(path, text.slice(0, heading.index));
          break;
        }
        last = at;
      }
      return new SamplesFile(path, last);
    });
  }

  append(step: number, samples: readonly { prompt: string; text: string }[]): void {
    const parts = samples.map(
      ({ prompt, text }) => `Prompt:\n\n${block(prompt)}\n\nText:\n\n${block(text)}\n`,
    );
    try {
      appendFileSync(this.#path, `## Step ${step}\n\n${parts.join('\n')}\n`);
    } catch (cause) {
      throw diskError(cause, this.#path);
    }
  }
}

/** Indented, which Markdown shows as it is; so no line of a text can be taken for a heading. */
function block(text: string): string {
  return text
    .split(/\r\n|[\n\r\u2028\u2029]/)
    .map((line) => `    ${line}`)
    .join('\n');
}
