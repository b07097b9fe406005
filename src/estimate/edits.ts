import type { ResolvedConfig } from '../config/index.js';

/** A change to the configuration, and what it would save. */
export interface Edit {
  key: string;
  from: number;
  to: number;
  /** Bytes of what is required. */
  saves: number;
  /** Whether it is enough by itself; of two that are not, both are needed. */
  enough: boolean;
}

/** What of a run's memory has to fit. */
interface Needed {
  required: number;
}

interface Lever {
  key: string;
  read: (config: ResolvedConfig) => number;
  write: (config: ResolvedConfig, value: number) => void;
  /** Values below the present one, largest first. */
  lower: (config: ResolvedConfig) => number[];
}

const halves = (value: number, least: number): number[] => {
  const found: number[] = [];
  for (let half = Math.floor(value / 2); half >= least; half = Math.floor(half / 2)) found.push(half);
  return found;
};

/** In the order in which they are proposed: those that leave what is learned alone come first. */
const levers: readonly Lever[] = [
  {
    key: 'training.micro_batch_size',
    read: ({ training }) => training.micro_batch_size,
    write: ({ training }, value) => {
      training.micro_batch_size = value;
    },
    lower: ({ training: { micro_batch_size: micro, global_batch_size: global } }) =>
      Array.from({ length: micro - 1 }, (_, i) => micro - 1 - i).filter((size) => global % size === 0),
  },
  {
    key: 'data.shuffle_buffer_size',
    read: ({ data }) => data.shuffle_buffer_size,
    write: ({ data }, value) => {
      data.shuffle_buffer_size = value;
    },
    lower: ({ data }) => halves(data.shuffle_buffer_size, 1000),
  },
  {
    key: 'data.sequence_length',
    read: ({ data }) => data.sequence_length,
    write: ({ data }, value) => {
      data.sequence_length = value;
    },
    lower: ({ data }) => halves(data.sequence_length, 128),
  },
  {
    key: 'model.num_hidden_layers',
    read: ({ model }) => model.num_hidden_layers,
    write: ({ model }, value) => {
      model.num_hidden_layers = value;
    },
    lower: ({ model }) =>
      Array.from({ length: model.num_hidden_layers - 1 }, (_, i) => model.num_hidden_layers - 1 - i),
  },
];

/**
 * Two edits that bring what is required to `budget` bytes or below: each by itself where the first lever is enough,
 * else together, the second the one that takes the smallest share of what it changes; else the two that save the most.
 */
export function editsThatFit(
  config: ResolvedConfig,
  budget: number,
  memoryOf: (config: ResolvedConfig) => Needed,
): Edit[] {
  const [gentle, ...drastic] = levers
    .map((lever) => least(lever, config, budget, memoryOf))
    .filter((tried) => tried !== null);
  if (gentle === undefined) return [];
  if (gentle.edit.enough) {
    const others = drastic.map(({ edit }) => edit).filter(({ saves }) => saves > 0);
    const enough = others.filter((edit) => edit.enough);
    const most = others.sort((a, b) => b.saves - a.saves);
    return [gentle.edit, ...enough, ...most].slice(0, 2);
  }
  // Beside the first at its lowest.
  const seconds = levers
    .filter(({ key }) => key !== gentle.edit.key)
    .map((lever) => least(lever, gentle.config, budget, memoryOf))
    .filter((tried) => tried !== null)
    .map(({ edit }) => edit);
  const kept = ({ from, to }: Edit) => to / from;
  const [second] = seconds.sort(
    (a, b) => Number(b.enough) - Number(a.enough) || (a.enough ? kept(b) - kept(a) : b.saves - a.saves),
  );
  return second === undefined ? [gentle.edit] : [gentle.edit, { ...second, enough: false }];
}

/** The smallest change of one key that fits, or the largest there is where none does; null where there is none. */
function least(
  { key, read, write, lower }: Lever,
  config: ResolvedConfig,
  budget: number,
  memoryOf: (config: ResolvedConfig) => Needed,
): { edit: Edit; config: ResolvedConfig } | null {
  const from = read(config);
  const before = memoryOf(config).required;
  let tried: { edit: Edit; config: ResolvedConfig } | null = null;
  for (const to of lower(config)) {
    const changed = structuredClone(config);
    write(changed, to);
    const { required } = memoryOf(changed);
    const enough = required <= budget;
    tried = { edit: { key, from, to, saves: before - required, enough }, config: changed };
    if (enough) break;
  }
  return tried;
}
