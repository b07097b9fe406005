//! Cuts a text window by window, with the widest instructions that the processor has.

use super::borders::{self, Known, Window};
use super::masks::{BLOCK, Instructions, Portable};
use super::scalar::Scanner;
use crate::pattern::Pattern;

/// Bytes of text that are looked at before their words are handed out; what is kept of them stays in the
/// processor's nearest cache.
const WINDOW: usize = 64 * BLOCK;

/// Finds the words of texts. Keeps buffers from text to text.
pub(crate) struct Cutter {
    pattern: Pattern,
    /// May be called: the processor has its instructions.
    find: Find,
    /// The window's text and zeros, so that whole blocks may be read.
    window: Box<[u8; WINDOW + BLOCK]>,
    starts: Box<[u64; WINDOW / BLOCK]>,
    ends: Vec<u32>,
}

/// Finds the starts in a window; with the bits that are known, puts them but the first into a list.
type Find = unsafe fn(Pattern, &mut Window, &mut Vec<u32>) -> Known;

/// Words that follow each other.
pub(crate) struct Words<'a> {
    /// Begins with the first word; goes on behind the last one, not always with the text.
    pub(crate) bytes: &'a [u8],
    /// Where each word ends; at least one.
    pub(crate) ends: &'a [u32],
}

impl Cutter {
    pub(crate) fn new(pattern: Pattern) -> Self {
        let (_, find) = available().next().unwrap_or(("portable", find_portable));
        Self::with(pattern, find)
    }

    fn with(pattern: Pattern, find: Find) -> Self {
        Self {
            pattern,
            find,
            window: Box::new([0; WINDOW + BLOCK]),
            starts: Box::new([0; WINDOW / BLOCK]),
            ends: Vec::new(),
        }
    }

    /// The first words of `text`, which is not empty and begins where a word does.
    #[inline]
    pub(crate) fn cut<'a>(&'a mut self, text: &'a str) -> Words<'a> {
        let mut length = text.len().min(WINDOW);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        self.window[..length].copy_from_slice(&text.as_bytes()[..length]);
        self.window[length..length.next_multiple_of(BLOCK) + 1].fill(0);
        let starts = &mut self.starts[..length.div_ceil(BLOCK)];
        starts.fill(0);
        let mut window = Window { bytes: &*self.window, length, is_last: length == text.len(), starts };
        self.ends.clear();
        // SAFETY: `available` gave it, so the processor has the instructions.
        let known = unsafe { (self.find)(self.pattern, &mut window, &mut self.ends) };
        let scanner = Scanner::new(text.as_bytes());
        let mut bytes: &[u8] = &*self.window;
        if known.is_none() {
            let mut at = 0;
            while at < length {
                at = scanner.end(self.pattern, at);
                self.ends.push(at as u32);
            }
            bytes = text.as_bytes();
        } else if length == text.len() {
            self.ends.push(length as u32);
        } else if self.ends.is_empty() {
            self.ends.push(scanner.end(self.pattern, 0) as u32);
            bytes = text.as_bytes();
        }
        Words { bytes, ends: &self.ends }
    }
}

/// What this processor can run, the fastest first.
fn available() -> impl Iterator<Item = (&'static str, Find)> {
    let mut found: Vec<(&'static str, Find)> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let bits = is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        if avx512 && is_x86_feature_detected!("avx512vbmi") && bits {
            found.push(("avx512 with vbmi", find_avx512_vbmi));
        }
        if avx512 && bits {
            found.push(("avx512", find_avx512));
        }
        if is_x86_feature_detected!("avx2") && bits {
            found.push(("avx2", find_avx2));
        }
    }
    #[cfg(target_arch = "aarch64")]
    found.push(("neon", find_neon));
    found.push(("portable", find_portable));
    found.into_iter()
}

/// # Safety
/// The processor has AVX-512F, BW and VBMI, BMI1, BMI2, LZCNT and POPCNT.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn find_avx512_vbmi(pattern: Pattern, window: &mut Window, ends: &mut Vec<u32>) -> Known {
    // SAFETY: as the caller says.
    unsafe { find::<super::masks::Avx512Vbmi>(pattern, window, ends) }
}

/// # Safety
/// The processor has AVX-512F and BW, BMI1, BMI2, LZCNT and POPCNT.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn find_avx512(pattern: Pattern, window: &mut Window, ends: &mut Vec<u32>) -> Known {
    // SAFETY: as the caller says.
    unsafe { find::<super::masks::Avx512>(pattern, window, ends) }
}

/// # Safety
/// The processor has AVX2, BMI1, BMI2, LZCNT and POPCNT.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn find_avx2(pattern: Pattern, window: &mut Window, ends: &mut Vec<u32>) -> Known {
    // SAFETY: as the caller says.
    unsafe { find::<super::masks::Avx2>(pattern, window, ends) }
}

/// # Safety
/// None: every processor of this architecture has NEON.
#[cfg(target_arch = "aarch64")]
unsafe fn find_neon(pattern: Pattern, window: &mut Window, ends: &mut Vec<u32>) -> Known {
    // SAFETY: NEON is there.
    unsafe { find::<super::masks::Neon>(pattern, window, ends) }
}

/// # Safety
/// None: it needs no instructions of its own.
unsafe fn find_portable(pattern: Pattern, window: &mut Window, ends: &mut Vec<u32>) -> Known {
    // SAFETY: any processor has what is portable.
    unsafe { find::<Portable>(pattern, window, ends) }
}

/// # Safety
/// The processor has the instructions `I`.
#[inline(always)]
unsafe fn find<I: Instructions>(pattern: Pattern, window: &mut Window, ends: &mut Vec<u32>) -> Known {
    // SAFETY: as the caller says.
    let known = unsafe {
        match pattern {
            Pattern::Gpt2 => borders::gpt2::<I>(window),
            Pattern::Cl100k | Pattern::Llama3 => borders::cl100k::<I, 3, false>(window),
            Pattern::Qwen2 => borders::cl100k::<I, 1, false>(window),
            Pattern::O200k => borders::cl100k::<I, 3, true>(window),
        }
    }?;
    // A contraction that the window ends in may have an apostrophe in the last two bytes that would not begin a word,
    // or a letter that would not.
    let known = if window.is_last { window.length } else { known.min(window.length.saturating_sub(3)) };
    let room = window.starts.len() * BLOCK + 8;
    ends.reserve(room);
    let mut written = 0;
    let list = ends.as_mut_ptr();
    for (block, &starts) in window.starts.iter().enumerate() {
        let base = block * BLOCK;
        if base >= known {
            break;
        }
        let mut rest = if known - base < BLOCK { starts & ((1 << (known - base)) - 1) } else { starts };
        if block == 0 {
            // The first word's start is not an end.
            rest &= !1;
        }
        let count = rest.count_ones() as usize;
        // Eight at a time, so that how many there are is rarely guessed wrong. What is written too much is
        // written over.
        let mut done = 0;
        while done < count {
            for at in 0..8 {
                // SAFETY: `written` counts bits of the blocks before, at most 64 each, and `done` is below the 64 at
                // most of this one, so with seven more the place is below `room`, which is reserved.
                unsafe { *list.add(written + done + at) = (base + rest.trailing_zeros() as usize) as u32 };
                rest &= rest.wrapping_sub(1);
            }
            done += 8;
        }
        written += count;
    }
    // SAFETY: the list was empty, has room, and that many were written.
    unsafe { ends.set_len(written) };
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample_text::{Random, random_text, seed};

    fn words(cutter: &mut Cutter, text: &str) -> Vec<usize> {
        let (mut from, mut ends) = (0, Vec::new());
        while from < text.len() {
            let words = cutter.cut(&text[from..]);
            assert!(
                words.bytes.starts_with(&text.as_bytes()[from..from + *words.ends.last().unwrap() as usize])
            );
            ends.extend(words.ends.iter().map(|&end| from + end as usize));
            from = *ends.last().unwrap();
        }
        ends
    }

    fn assert_same(text: &str) {
        let scanner = Scanner::new(text.as_bytes());
        for pattern in Pattern::ALL {
            let mut expected = Vec::new();
            while expected.last().copied().unwrap_or(0) < text.len() {
                expected.push(scanner.end(pattern, expected.last().copied().unwrap_or(0)));
            }
            for (name, find) in available() {
                let ours = words(&mut Cutter::with(pattern, find), text);
                if let Some(at) = ours.iter().zip(&expected).position(|(ours, expected)| ours != expected) {
                    let start = if at > 0 { ours[at - 1] } else { 0 };
                    let end = ours[at].max(expected[at]);
                    let word = text.get(start..(end + 20).min(text.len())).unwrap_or(&text[start..]);
                    panic!("{pattern}, {name}: {word:?} ends at {}, not {}", ours[at], expected[at]);
                }
            }
        }
    }

    #[test]
    fn every_set_of_instructions_finds_the_words_of_the_scalar_scanner() {
        let mut random = Random(seed());
        let rounds = std::env::var("CANDLEWICK_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4000);
        for _ in 0..rounds {
            assert_same(&random_text(&mut random, 60));
        }
    }

    #[test]
    fn what_crosses_the_border_of_a_block_or_of_a_window_is_found() {
        let mut random = Random(seed());
        for border in [BLOCK, 2 * BLOCK, WINDOW, WINDOW + BLOCK, 2 * WINDOW] {
            for _ in 0..40 {
                let crossing = random_text(&mut random, 6);
                for filler in [
                    "a",
                    "a ",
                    "Ab",
                    "\u{e9}",
                    "\u{4e2d}",
                    "\u{a0}",
                    " ",
                    "\n",
                    "!",
                    "7",
                    "\u{1f600}",
                    "\u{928}\u{964}",
                    "\u{628} ",
                ] {
                    let mut text = filler.repeat((border - 8) / filler.len());
                    text.push_str(&"x".repeat(random.below(10)));
                    text.push_str(&crossing);
                    text.push_str(&filler.repeat(3));
                    assert_same(&text);
                }
            }
        }
    }
}
