/** Where a run goes, by what its configuration says and what the machine has. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { configToYaml, loadConfig, parseConfig, parseSet } from '../src/config/index.js';
import { overridesOf, trainOptions } from '../src/cli/options.js';
import { continueConfig } from '../src/run/resume.js';
import type * as bindings from '../src/native/index.js';
import type { CudaReport } from '../src/cuda/index.js';
import { CandlewickError } from '../src/errors.js';
import { h100 } from './support/fake-cuda.js';

const machine = vi.hoisted(() => ({ report: {} as Partial<CudaReport>, asked: [] as number[] }));
vi.mock('../src/native/index.js', async (original) => {
  const real = await original<typeof bindings>();
  const cudaReport = (_environments: string[], ordinal: number): CudaReport => {
    machine.asked.push(ordinal);
    return {
      built: true,
      driver: null,
      gpus: [h100],
      libraries: [],
      wheels: [],
      trouble: null,
      ...machine.report,
    };
  };
  return { ...real, native: () => ({ ...real.native(), cudaReport }) };
});
afterEach(() => {
  machine.report = {};
  machine.asked = [];
});

const base = `tokenizer: {path: tok}
model: {architecture: qwen3, hidden_size: 256, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4}
data: {dataset: sample, sequence_length: 32}
training: {max_steps: 10}
`;
const load = (...sets: string[]) => parseConfig(base, 'run.yaml', sets.map(parseSet));
const refused = (...sets: string[]) => {
  try {
    load(...sets);
  } catch (cause) {
    if (cause instanceof CandlewickError) return cause;
  }
  throw new Error('nothing was refused');
};

describe('device auto', () => {
  it('takes the first GPU where one can be used, in bf16', () => {
    const { config, decisions, warnings } = load();
    expect(config.training).toMatchObject({ device: 'cuda', precision: 'bf16' });
    const decision = decisions.find(({ key }) => key === 'training.device');
    expect(decision).toMatchObject({ value: 'cuda', reason: expect.stringContaining(h100.name) as string });
    expect(warnings).toEqual([]);
  });

  it.each([
    ['model.head_dim=32', /head_dim is 32.*has to be 64 or 128.*--device cpu/],
    ['model.hidden_size=260', /hidden_size is 260.*multiple of 8/],
    ['training.precision=f32', /precision is f32.*set training\.precision to auto/],
  ])('with %s takes the CPU and says why', (set, words) => {
    const { config, warnings } = load(set, ...(set.includes('260') ? ['model.head_dim=64'] : []));
    expect(config.training).toMatchObject({ device: 'cpu', precision: 'f32' });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(h100.name);
    expect(warnings[0]).toMatch(words);
  });

  it('takes the CPU for the quickstart, whose heads the kernels are not made for', async () => {
    const { config, warnings } = await loadConfig('configs/quickstart.yaml');
    expect(config.training.device).toBe('cpu');
    expect(warnings.join()).toMatch(/head_dim/);
  });

  it('is silent where there is no GPU', () => {
    const trouble = { code: 'CUDA_UNAVAILABLE', message: 'no NVIDIA driver', hint: '' };
    machine.report = { gpus: [], trouble };
    const { config, decisions, warnings } = load();
    expect(config.training.device).toBe('cpu');
    expect(decisions.find(({ key }) => key === 'training.device')?.reason).toBe('no NVIDIA driver');
    expect(warnings).toEqual([]);
  });
});

describe('device cuda', () => {
  it('is GPU 0, and cuda:N the one of that number', () => {
    expect(load('training.device=cuda').config.training).toMatchObject({ device: 'cuda', precision: 'bf16' });
    expect(load('training.device=cuda:3').config.training.device).toBe('cuda:3');
    expect(machine.asked).toEqual([0, 3]);
  });

  it('that is not there is refused with what is missing', () => {
    const trouble = {
      code: 'CUDA_DRIVER_TOO_OLD',
      message: 'the driver knows CUDA 12.4',
      hint: 'a newer one',
    };
    machine.report = { trouble };
    const error = refused('training.device=cuda');
    expect(error).toMatchObject({ code: 'CUDA_DRIVER_TOO_OLD', exitCode: 3, hint: 'a newer one' });
    expect(error.message).toBe('training.device is cuda: the driver knows CUDA 12.4');
  });

  it('refuses a shape that the kernels are not made for, f32, and what is no device', () => {
    expect(refused('training.device=cuda', 'model.head_dim=32').message).toMatch(/head_dim is 32/);
    expect(refused('training.device=cuda', 'training.precision=f32').message).toMatch(/f32/);
    for (const name of ['gpu', 'cuda:', 'cuda:-1', 'cuda:x']) {
      expect(refused(`training.device="${name}"`).message).toContain(
        'expected auto, cpu, cuda, or cuda:N with the number of a GPU',
      );
    }
  });
});

it('a run goes on wherever there is hardware, in the precision of that', () => {
  const onGpu = load();
  const onCpu = load('training.device=cpu');
  for (const [old, now] of [
    [onGpu, onCpu],
    [onCpu, onGpu],
  ] as const) {
    const config = continueConfig('run', old.config, now.config, now.given);
    expect(config.training).toMatchObject({
      device: now.config.training.device,
      precision: now.config.training.precision,
    });
    // And from the run's own config.yaml, which has what was decided.
    const device = now.config.training.device;
    const flags = overridesOf({ device }, trainOptions);
    const again = parseConfig(configToYaml(old.config), 'config.yaml', flags);
    expect(continueConfig('run', old.config, again.config, again.given).training.device).toBe(device);
  }
});
