//! Classification by NEON: four quarters of 16 bytes, each comparison a byte of ones.

use std::arch::aarch64::*;

use super::{Ascii, BLOCK, Beyond, Instructions};

/// NEON, which every processor of this architecture has.
pub(in super::super) struct Neon;

type Quarters = [uint8x16_t; 4];

impl Instructions for Neon {
    #[inline(always)]
    unsafe fn ascii(block: &[u8; BLOCK]) -> Ascii {
        // SAFETY: the caller says that NEON is there.
        unsafe { ascii(block) }
    }

    #[inline(always)]
    unsafe fn beyond(block: &[u8; BLOCK]) -> Beyond {
        // SAFETY: the caller says that NEON is there.
        unsafe { beyond(block) }
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn quarters(block: &[u8; BLOCK]) -> Quarters {
    let start = block.as_ptr();
    // SAFETY: each load is of 16 of the block's 64 bytes.
    [0, 16, 32, 48].map(|at| unsafe { vld1q_u8(start.add(at)) })
}

/// One bit a byte: each keeps the bit of its place within eight, then neighbours are added three times.
#[target_feature(enable = "neon")]
#[inline]
fn bits(quarters: Quarters) -> u64 {
    const PLACES: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
    // SAFETY: the load is of the array's 16 bytes.
    let places = unsafe { vld1q_u8(PLACES.as_ptr()) };
    let [a, b, c, d] = quarters.map(|quarter| vandq_u8(quarter, places));
    let pairs = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
    vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(pairs, pairs)))
}

#[target_feature(enable = "neon")]
#[inline]
fn equal(quarters: Quarters, byte: u8) -> u64 {
    bits(quarters.map(|quarter| vceqq_u8(quarter, vdupq_n_u8(byte))))
}

/// The bytes in `first..first + count`.
#[target_feature(enable = "neon")]
#[inline]
fn within(quarters: Quarters, first: u8, count: u8) -> u64 {
    bits(quarters.map(|quarter| vcltq_u8(vsubq_u8(quarter, vdupq_n_u8(first)), vdupq_n_u8(count))))
}

#[target_feature(enable = "neon")]
#[inline]
fn ascii(block: &[u8; BLOCK]) -> Ascii {
    let quarters = quarters(block);
    let blank = equal(quarters, b' ');
    Ascii {
        upper: within(quarters, b'A', 26),
        lower: within(quarters, b'a', 26),
        number: within(quarters, b'0', 10),
        space: blank | within(quarters, b'\t', 5),
        blank,
        newline: equal(quarters, b'\n') | equal(quarters, b'\r'),
        apostrophe: equal(quarters, b'\''),
        slash: equal(quarters, b'/'),
        beyond: within(quarters, 0x80, 128),
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn beyond(block: &[u8; BLOCK]) -> Beyond {
    let quarters = quarters(block);
    Beyond {
        tail: within(quarters, 0x80, 64),
        cyrillic: within(quarters, 0xD0, 2),
        three: within(quarters, 0xE5, 5) | within(quarters, 0xEB, 2),
    }
}
