/** When a source is asked again and when it is given up, on a clock that the test turns. */
import { describe, expect, it } from 'vitest';
import { sourceInWords, triedInWords } from '../src/corpus/notices.js';
import { type Failure, isGivenUp, type Retry, RetryPolicy } from '../src/corpus/retry.js';

const clock = { time: 0 };
const policyOf = (budget: number, random = () => 1, base = 0.5) => {
  clock.time = 0;
  return new RetryPolicy({ budget, base, random, now: () => clock.time });
};
const failure = (changes: Partial<Failure> = {}): Failure => ({
  kind: 'hub',
  attempts: null,
  retryAfter: null,
  ...changes,
});

/** Fails again and again, waiting as told, until it is given up. */
function exhaust(policy: RetryPolicy, changes: Partial<Failure> = {}) {
  const delays: number[] = [];
  for (;;) {
    const decision = policy.failed(failure(changes));
    if (isGivenUp(decision)) return { delays, decision };
    delays.push(decision.delay);
    clock.time += decision.delay;
  }
}

describe('delays', () => {
  it('double up to 120 times the first and fill the budget exactly', () => {
    const { decision, delays } = exhaust(policyOf(300));
    expect(delays).toEqual([0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 56.5]);
    expect(decision).toEqual({ reason: 'budget', attempts: 11, waited: 300 });
  });

  it('are drawn from all of that range', () => {
    const draws = [0, 0.25, 0.5, 0.75];
    const policy = policyOf(300, () => draws.shift() as number);
    const delays = [1, 2, 3, 4].map(() => (policy.failed(failure()) as Retry).delay);
    expect(delays).toEqual([0, 0.25, 1, 3]);
  });

  it('are never shorter than the source asks', () => {
    expect(policyOf(300, () => 0).failed(failure({ retryAfter: 55 }))).toMatchObject({ delay: 55 });
    expect(policyOf(300, () => 0.1).failed(failure({ retryAfter: 0.01 }))).toMatchObject({ delay: 0.05 });
  });
});

describe('a source is given up', () => {
  it('at once where the budget is 0, or where it asks to wait longer than what is left', () => {
    expect(policyOf(0).failed(failure())).toEqual({ reason: 'budget', attempts: 0, waited: 0 });
    const policy = policyOf(60);
    policy.failed(failure());
    clock.time = 30;
    expect(policy.failed(failure({ retryAfter: 30 }))).toMatchObject({ attempt: 2, delay: 30 });
    expect(policy.failed(failure({ retryAfter: 31 }))).toEqual({
      reason: 'asked to wait longer',
      attempts: 2,
      waited: 30,
    });
  });

  it('after so many failures of one kind, whatever is left of the budget', () => {
    const policy = policyOf(1e9);
    for (let i = 0; i < 10; i++) policy.failed(failure());
    const { decision, delays } = exhaust(policy, { kind: 'gone', attempts: 3 });
    expect(delays).toHaveLength(3);
    expect(decision).toMatchObject({ reason: 'attempts', attempts: 13 });
  });

  it('never while it makes progress: that gives back all attempts and the whole budget', () => {
    const policy = policyOf(10);
    for (let round = 0; round < 100; round++) {
      expect(policy.progress()).toBeNull();
      expect(policy.failed(failure({ kind: 'gone', attempts: 1 }))).toMatchObject({ attempt: 1, waited: 0 });
      expect(policy.isTroubled).toBe(true);
      clock.time += 9;
      expect(policy.progress()).toEqual({ attempts: 1, waited: 9 });
      // Time in which nothing was wanted of it.
      clock.time += 1000;
    }
  });
});

describe('in words', () => {
  it('says what is waited for and for how long', () => {
    const cause = '503 from the hub';
    expect(sourceInWords({ type: 'retry', attempt: 4, cause, delay: 16.2, waited: 121, budget: 1800 })).toBe(
      'waiting for the data: 503 from the hub, attempt 4, next in 16 s, 2 min of 30 min',
    );
    expect(sourceInWords({ type: 'recovered', attempts: 1, waited: 3.21 })).toBe(
      'the data are back after 3.2 s and 1 attempt',
    );
    expect(triedInWords({ reason: 'budget', attempts: 41, waited: 1800 }, null)).toBe(
      'given up after 41 more attempts in 30 min',
    );
    expect(triedInWords({ reason: 'asked to wait longer', attempts: 0, waited: 0 }, 3600)).toContain(
      'it asks to wait 60 min, more than what is left',
    );
  });
});
