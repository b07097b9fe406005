/**
 * The verbs of `candlewick`, and what its `--help` says of them. A verb's own module, and with it most of the package, is
 * loaded when the verb is used: `--help` is answered within 150 ms of Node's start.
 */
import type { Command } from 'commander';

export interface Verb {
  name: string;
  /** Its arguments, as commander spells them. */
  words: string;
  description: string;
  /** Whether it has options itself; those of a verb with verbs of its own are theirs. */
  options: boolean;
  load: () => Promise<Command>;
}

export const verbs: readonly Verb[] = [
  {
    name: 'train',
    words: '',
    description: 'train a model from a stream of documents; the same command again goes on where it stopped',
    options: true,
    load: async () => (await import('./train.js')).trainCommand('train', 'candlewick train'),
  },
  {
    name: 'train-tokenizer',
    words: '',
    description: 'train a byte-level BPE tokenizer from a stream of documents',
    options: true,
    load: async () =>
      (await import('./train-tokenizer.js')).trainTokenizerCommand(
        'train-tokenizer',
        'candlewick train-tokenizer',
      ),
  },
  {
    name: 'estimate',
    words: '<config>',
    description: 'what a run will take: parameters, FLOPs, memory, disk, time and money',
    options: true,
    load: async () => (await import('./estimate.js')).estimateCommand(),
  },
  {
    name: 'generate',
    words: '<dir>',
    description: 'continue a text with a trained model',
    options: true,
    load: async () => (await import('./generate.js')).generateCommand(),
  },
  {
    name: 'export',
    words: '<dir>',
    description: 'write a model as a directory that transformers loads, with its tokenizer and a model card',
    options: true,
    load: async () => (await import('./export.js')).exportCommand(),
  },
  {
    name: 'runs',
    words: '[dir]',
    description: 'list runs: state, step, loss, speed, age, size; or compare several',
    options: true,
    load: async () => (await import('./runs.js')).runsCommand(),
  },
  {
    name: 'tokenizer',
    words: '',
    description: 'look at what a tokenizer does',
    options: false,
    load: async () => (await import('./tokenizer.js')).tokenizerCommand(),
  },
  {
    name: 'data',
    words: '',
    description: 'look at the stream that a run is trained on',
    options: false,
    load: async () => (await import('./data.js')).dataCommand(),
  },
  {
    name: 'dash',
    words: '[runs...]',
    description: 'show the curves of runs, live, on a page of this machine',
    options: true,
    load: async () => (await import('./dash.js')).dashCommand(),
  },
  {
    name: 'setup',
    words: '',
    description: 'make the Python environment that streams datasets, and bring what a GPU lacks of CUDA',
    options: true,
    load: async () => (await import('./setup.js')).setupCommand(),
  },
  {
    name: 'doctor',
    words: '',
    description: 'check this machine: Node, the binding, processor, memory, GPU, Python, the hub, the disk',
    options: true,
    load: async () => (await import('./doctor.js')).doctorCommand(),
  },
];
