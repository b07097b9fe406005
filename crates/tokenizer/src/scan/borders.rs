//! Where words begin, 64 bytes at a time.
//!
//! A word's first byte follows from the classes of a few characters around it, so each rule of a pattern is a few
//! operations on masks. `before(m)` has the bits of `m` moved to the next byte, so that bit k tells of byte k − 1;
//! `after(m)` tells of byte k + 1. What is rare (contractions, long numbers, the last character of a run of spaces when it is
//! not ASCII) is looked at one by one. Where a rule would need more than that, the window is left to `scalar`.

use super::masks::{BLOCK, Blocks, Instructions, Masks};
use super::scalar::Scanner;

/// A part of a text that begins where a word does and ends at a character's border.
pub(super) struct Window<'a> {
    /// The text, then zeros up to a whole block and at least one.
    pub(super) bytes: &'a [u8],
    /// Bytes of text.
    pub(super) length: usize,
    /// Whether the text ends with the window.
    pub(super) is_last: bool,
    /// One bit a byte: a word begins there. All zero at first.
    pub(super) starts: &'a mut [u64],
}

/// Up to where the starts of a window are right: the byte after its last character that is not white space, since
/// what white space does depends on what follows. `None` where the window needs the scalar scanner.
pub(super) type Known = Option<usize>;

impl Window<'_> {
    /// A word begins at the byte `at`, unless the window ends there.
    #[inline(always)]
    fn begin(&mut self, at: usize) {
        if at < self.length {
            self.starts[at / BLOCK] |= 1 << (at % BLOCK);
        }
    }

    /// A word begins with the character whose last byte is `at`.
    #[inline(always)]
    fn begin_character(&mut self, at: usize) {
        self.begin(first_byte(self.bytes, at));
    }

    /// The bits of a block that are not the window's last byte.
    #[inline(always)]
    fn but_last(&self, block: usize) -> u64 {
        let last = self.length - 1;
        if last / BLOCK == block { !(1 << (last % BLOCK)) } else { !0 }
    }
}

/// The first byte of the character that has the byte `at`.
#[inline(always)]
fn first_byte(bytes: &[u8], mut at: usize) -> usize {
    while at > 0 && bytes[at] & 0xC0 == 0x80 {
        at -= 1;
    }
    at
}

#[inline(always)]
fn before(now: u64, last: u64) -> u64 {
    now << 1 | last >> 63
}

#[inline(always)]
fn after(now: u64, next: u64) -> u64 {
    now >> 1 | next << 63
}

/// Calls `each` with the bits of `mask` from the lowest on.
#[inline(always)]
fn each_bit(mut mask: u64, mut each: impl FnMut(usize)) {
    while mask != 0 {
        each(mask.trailing_zeros() as usize);
        mask &= mask - 1;
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
///
/// A word begins at each run of letters, of numbers and of others, but for a blank before it, with which it begins; at each run of
/// white space and, where text follows, at the run's last character; and after a contraction.
///
/// # Safety
/// The processor has the instructions `I`.
#[inline(always)]
pub(super) unsafe fn gpt2<I: Instructions>(window: &mut Window) -> Known {
    let mut blocks = Blocks::new(window.bytes, window.length);
    let mut last = Masks::default();
    // SAFETY: as the caller says, here and below.
    let mut now = unsafe { blocks.next::<I, false>() };
    let mut known = 0;
    // Bits of the next block that are inside a contraction.
    let mut inside = 0;
    for block in 0..window.starts.len() {
        // SAFETY: as above.
        let next = unsafe { blocks.next::<I, false>() };
        let start = block * BLOCK;
        let text = now.letter | now.number | now.other;
        if text != 0 {
            known = start + BLOCK - text.leading_zeros() as usize;
        }
        let after_other = before(now.other, last.other);
        let after_blank = before(now.blank, last.blank);
        let runs = now.letter & !before(now.letter, last.letter)
            | now.number & !before(now.number, last.number)
            | now.other & !after_other;
        let last_space = now.space & !after(now.space, next.space) & window.but_last(block);
        let mut starts =
            runs & !after_blank | now.space & !before(now.space, last.space) | last_space & !now.beyond;
        starts &= !std::mem::take(&mut inside);
        each_bit(last_space & now.beyond, |bit| window.begin_character(start + bit));
        each_bit(now.apostrophe & !after_other & !after_blank, |bit| {
            let at = start + bit;
            let length = match window.bytes.get(at + 1..) {
                Some([b's' | b't' | b'm' | b'd', ..]) => 2,
                Some([b'r' | b'v', b'e', ..] | [b'l', b'l', ..]) => 3,
                _ => return,
            };
            if bit == BLOCK - 1 {
                inside = 1;
            } else {
                starts &= !(2 << bit);
            }
            window.begin(at + length);
        });
        window.starts[block] |= starts;
        (last, now) = (now, next);
    }
    Some(known)
}

/// The patterns of cl100k and its kin. `DIGITS` is the length of a group of numbers, 1 or 3.
///
/// With `CASED`, that of o200k: words of letters also begin where the case rises, a contraction belongs to the word before it, and
/// slashes are eaten like line breaks. Letters without case and marks are left to the scalar scanner.
///
/// # Safety
/// The processor has the instructions `I`.
#[inline(always)]
pub(super) unsafe fn cl100k<I: Instructions, const DIGITS: usize, const CASED: bool>(
    window: &mut Window,
) -> Known {
    let scanner = Scanner::new(window.bytes);
    let mut blocks = Blocks::new(window.bytes, window.length);
    let mut last = Masks::default();
    // SAFETY: as the caller says, here and below.
    let mut now = unsafe { blocks.next::<I, CASED>() };
    let mut known = 0;
    // Of the block before: line breaks that belong to the punctuation before them, punctuation of one character
    // that begins a word, numbers after three others.
    let (mut last_eaten, mut last_single, mut last_fourth) = (0, 0, 0);
    // Bits of the next block that are inside a contraction, and where the last one ended.
    let (mut inside, mut contracted) = (0, usize::MAX);
    let mut far = (0, false);
    for block in 0..window.starts.len() {
        // SAFETY: as above.
        let next = unsafe { blocks.next::<I, CASED>() };
        let start = block * BLOCK;
        let text = now.letter | now.number | now.other;
        if text != 0 {
            known = start + BLOCK - text.leading_zeros() as usize;
        }
        let after_letter = before(now.letter, last.letter);
        let after_other = before(now.other, last.other);
        let after_blank = before(now.blank, last.blank);

        // `[\r\n]*` after punctuation: adding its first bit to a run of line breaks carries through the run.
        let first_eaten = now.newline & (after_other | last_eaten >> 63);
        let eaten = now.newline & !now.newline.wrapping_add(first_eaten);
        let space = now.space & !eaten;
        let last_space_left = last.space & !last_eaten;
        let newline = now.newline & !eaten;
        let flat = now.space & !now.newline;
        // `\s*[\r\n]+` takes white space up to the run's last line break. What follows it begins a word.
        let breaks_next = breaks_next(window, block, &next, flat, &mut far);
        let leads_to_break = fill_back(flat, after(now.newline, u64::from(breaks_next)));
        let after_break = before(newline, last.newline & !last_eaten);
        // Before text, the last character of a run begins a word.
        let last_space = flat & !after(now.space, next.space) & window.but_last(block);
        let mut starts = space & !before(space, last_space_left)
            | flat & after_break & !leads_to_break
            | last_space & !now.beyond;
        each_bit(last_space & now.beyond, |bit| window.begin_character(start + bit));

        // Letters go with white space or with a single character of punctuation before them.
        let first_letter = now.letter & !after_letter;
        let first_other = now.other & !after_other;
        let single = first_other & !after_blank & !after(now.other, next.other) & !now.beyond;
        let after_flat = before(flat, last.space & !last.newline);
        let mut letters = first_letter & !(after_flat | before(single, last_single));
        each_bit(first_letter & before(now.other & now.beyond, last.other & last.beyond), |bit| {
            let first = first_byte(window.bytes, start + bit - 1);
            // Of the character before the punctuation; at most five bytes back.
            let is = |now: u64, last: u64| {
                let both = u128::from(now) << 64 | u128::from(last);
                both >> (63 + first - start) & 1 == 1
            };
            if first == 0 || !is(now.other, last.other) && !is(now.blank, last.blank) {
                letters &= !(1 << bit);
            }
        });
        let mut others = first_other & !after_blank;
        if CASED {
            letters |= now.upper & before(now.lower, last.lower);
            if now.caseless | now.slash & before(eaten, last_eaten) != 0 {
                return None;
            }
        }

        // Numbers, in groups from the left.
        let first_number = now.number & !before(now.number, last.number);
        let mut fourth = 0;
        if DIGITS == 1 {
            starts |= now.number & !now.tail;
        } else {
            starts |= first_number;
            if now.number & now.beyond != 0 {
                return None;
            }
            let back = |by: u32| now.number << by | last.number >> (64 - by);
            fourth = now.number & back(1) & back(2) & back(3);
            each_bit(fourth & !before(fourth, last_fourth), |bit| {
                let mut at = start + bit;
                // The run is followed to its end, whatever blocks that is in.
                while window.bytes[at].is_ascii_digit() {
                    window.begin(at);
                    let group = window.bytes[at..].iter().take(3);
                    at += group.take_while(|byte| byte.is_ascii_digit()).count();
                }
            });
        }

        let outside = !std::mem::take(&mut inside);
        letters &= outside;
        let candidates = if CASED { after_letter } else { !after_other & !after_blank };
        each_bit(now.apostrophe & candidates, |bit| {
            let at = start + bit;
            if CASED && at == contracted {
                return;
            }
            let Some(end) = scanner.contraction_end(at) else { return };
            contracted = end;
            if CASED {
                // Neither the apostrophe nor what follows it begins a word.
                let bits = ((1u128 << (end - at)) - 1) << bit;
                others &= !(bits as u64);
                letters &= !(bits as u64);
                inside = (bits >> 64) as u64;
            }
            window.begin(end);
        });
        window.starts[block] |= starts | letters | others;
        (last_eaten, last_single, last_fourth) = (eaten, single, fourth);
        (last, now) = (now, next);
    }
    Some(known)
}

/// The bits of `through` from which `to`, whose bits tell of the byte after, is reached through `through` alone.
#[inline(always)]
fn fill_back(mut through: u64, to: u64) -> u64 {
    let mut reached = through & to;
    for by in [1, 2, 4, 8, 16, 32] {
        reached |= through & reached >> by;
        through &= through >> by;
    }
    reached
}

/// Whether the white space that a block ends in goes on to a line break in the window. `far` remembers up to where
/// a long run was followed, and to what.
#[inline(always)]
fn breaks_next(window: &Window, block: usize, next: &Masks, flat: u64, far: &mut (usize, bool)) -> bool {
    if flat >> 63 == 0 {
        return false;
    }
    let more = (next.space & !next.newline).trailing_ones();
    if more < 64 {
        return next.newline >> more & 1 == 1;
    }
    let at = first_byte(window.bytes, ((block + 2) * BLOCK).min(window.length - 1));
    if at >= far.0 {
        *far = Scanner::new(&window.bytes[..window.length]).white_space_end(at);
    }
    far.1
}
