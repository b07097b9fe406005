//! Classification by AVX2 and by AVX-512.

use std::arch::x86_64::*;

use super::super::class::{Classes, LETTER, LOWER, NUMBER, OTHER, SPACE, UPPER};
use super::{Alike, Ascii, BLOCK, Beyond, Instructions};

/// AVX2: two halves of 32 bytes, each comparison a byte of ones.
pub(in super::super) struct Avx2;

impl Instructions for Avx2 {
    #[inline(always)]
    unsafe fn ascii(block: &[u8; BLOCK]) -> Ascii {
        // SAFETY: the caller says that AVX2 is there.
        unsafe { ascii_avx2(block) }
    }

    #[inline(always)]
    unsafe fn beyond(block: &[u8; BLOCK]) -> Beyond {
        // SAFETY: the caller says that AVX2 is there.
        unsafe { beyond_avx2(block) }
    }
}

/// AVX-512 with byte instructions: 64 bytes at once, each comparison a bit.
pub(in super::super) struct Avx512;

impl Instructions for Avx512 {
    #[inline(always)]
    unsafe fn ascii(block: &[u8; BLOCK]) -> Ascii {
        // SAFETY: the caller says that AVX-512BW is there.
        unsafe { ascii_avx512(block) }
    }

    #[inline(always)]
    unsafe fn beyond(block: &[u8; BLOCK]) -> Beyond {
        // SAFETY: the caller says that AVX-512BW is there.
        unsafe { beyond_avx512(block) }
    }
}

/// The same with a look-up of 64 bytes in 64 others.
pub(in super::super) struct Avx512Vbmi;

impl Instructions for Avx512Vbmi {
    #[inline(always)]
    unsafe fn ascii(block: &[u8; BLOCK]) -> Ascii {
        // SAFETY: the caller says that AVX-512BW is there, too.
        unsafe { Avx512::ascii(block) }
    }

    #[inline(always)]
    unsafe fn beyond(block: &[u8; BLOCK]) -> Beyond {
        // SAFETY: as above.
        unsafe { Avx512::beyond(block) }
    }

    #[inline(always)]
    unsafe fn alike(bytes: &[u8], at: usize, first: usize, classes: &Classes) -> Option<Alike> {
        // SAFETY: the caller says that AVX-512VBMI is there.
        unsafe { alike_avx512(bytes, at, first, classes) }
    }
}

type Halves = [__m256i; 2];

#[target_feature(enable = "avx2")]
#[inline]
fn halves(block: &[u8; BLOCK]) -> Halves {
    let start = block.as_ptr().cast::<__m256i>();
    // SAFETY: both loads, which need no alignment, lie within the 64 bytes of the block.
    unsafe { [_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))] }
}

#[target_feature(enable = "avx2")]
#[inline]
fn bits(halves: Halves) -> u64 {
    let [low, high] = halves.map(|half| u64::from(_mm256_movemask_epi8(half) as u32));
    low | high << 32
}

#[target_feature(enable = "avx2")]
#[inline]
fn equal(halves: Halves, byte: u8) -> u64 {
    bits(halves.map(|half| _mm256_cmpeq_epi8(half, _mm256_set1_epi8(byte as i8))))
}

/// The bytes in `first..first + count`.
#[target_feature(enable = "avx2")]
#[inline]
fn within(halves: Halves, first: u8, count: u8) -> u64 {
    bits(halves.map(|half| {
        let above = _mm256_sub_epi8(half, _mm256_set1_epi8(first as i8));
        _mm256_cmpeq_epi8(_mm256_min_epu8(above, _mm256_set1_epi8((count - 1) as i8)), above)
    }))
}

#[target_feature(enable = "avx2")]
#[inline]
fn ascii_avx2(block: &[u8; BLOCK]) -> Ascii {
    let halves = halves(block);
    let blank = equal(halves, b' ');
    Ascii {
        upper: within(halves, b'A', 26),
        lower: within(halves, b'a', 26),
        number: within(halves, b'0', 10),
        space: blank | within(halves, b'\t', 5),
        blank,
        newline: equal(halves, b'\n') | equal(halves, b'\r'),
        apostrophe: equal(halves, b'\''),
        slash: equal(halves, b'/'),
        beyond: bits(halves),
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn beyond_avx2(block: &[u8; BLOCK]) -> Beyond {
    let halves = halves(block);
    Beyond {
        tail: within(halves, 0x80, 64),
        cyrillic: within(halves, 0xD0, 2),
        three: within(halves, 0xE5, 5) | within(halves, 0xEB, 2),
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn whole(block: &[u8; BLOCK]) -> __m512i {
    // SAFETY: the load, which needs no alignment, is of the 64 bytes of the block.
    unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn equal_512(whole: __m512i, byte: u8) -> u64 {
    _mm512_cmpeq_epi8_mask(whole, _mm512_set1_epi8(byte as i8))
}

/// The bytes in `first..first + count`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn within_512(whole: __m512i, first: u8, count: u8) -> u64 {
    let above = _mm512_sub_epi8(whole, _mm512_set1_epi8(first as i8));
    _mm512_cmplt_epu8_mask(above, _mm512_set1_epi8(count as i8))
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn ascii_avx512(block: &[u8; BLOCK]) -> Ascii {
    let whole = whole(block);
    let blank = equal_512(whole, b' ');
    Ascii {
        upper: within_512(whole, b'A', 26),
        lower: within_512(whole, b'a', 26),
        number: within_512(whole, b'0', 10),
        space: blank | within_512(whole, b'\t', 5),
        blank,
        newline: equal_512(whole, b'\n') | equal_512(whole, b'\r'),
        apostrophe: equal_512(whole, b'\''),
        slash: equal_512(whole, b'/'),
        beyond: _mm512_movepi8_mask(whole),
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn beyond_avx512(block: &[u8; BLOCK]) -> Beyond {
    let whole = whole(block);
    Beyond {
        tail: within_512(whole, 0x80, 64),
        cyrillic: within_512(whole, 0xD0, 2),
        three: within_512(whole, 0xE5, 5) | within_512(whole, 0xEB, 2),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
#[inline]
fn alike_avx512(bytes: &[u8], at: usize, first: usize, classes: &Classes) -> Option<Alike> {
    let block: &[u8; BLOCK + 2] = bytes.get(at..)?.first_chunk()?;
    // The block's bytes, and those one and two behind each.
    let from = |offset: usize| block[offset..].first_chunk().map(|bytes| whole(bytes));
    let character = block.get(first..first + 3)?;
    let (lead, second) = (character[0], character[1]);
    let leads = equal_512(from(0)?, lead);
    let (page, firsts, last) = match lead {
        0xC0..0xE0 => (usize::from(lead & 0x1F), leads, from(1)?),
        0xE0..0xF0 => {
            let page = usize::from(lead & 0x0F) << 6 | usize::from(second & 0x3F);
            (page, leads & equal_512(from(1)?, second), from(2)?)
        }
        _ => return None,
    };
    // Of each last byte the look-up takes the six bits that differ.
    let found = _mm512_permutexvar_epi8(last, whole(classes.page(page)));
    let of = |class: u8| _mm512_test_epi8_mask(found, _mm512_set1_epi8(class as i8));
    Some(Alike {
        firsts,
        length: if lead < 0xE0 { 2 } else { 3 },
        letter: of(LETTER),
        number: of(NUMBER),
        space: of(SPACE),
        other: of(OTHER),
        upper: of(UPPER),
        lower: of(LOWER),
    })
}
