//! The classes of 64 bytes as bits: bit k speaks of byte k. All bytes of a character have its class.

use super::class::{Classes, LETTER, LOWER, NUMBER, OTHER, SPACE, UPPER};

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// What a block consists of. Bytes past the end of the text are in no mask.
#[derive(Clone, Copy, Default)]
pub(super) struct Masks {
    /// `\p{L}`
    pub(super) letter: u64,
    /// `\p{N}`
    pub(super) number: u64,
    /// `\s`
    pub(super) space: u64,
    /// `[^\s\p{L}\p{N}]`
    pub(super) other: u64,
    /// The space character.
    pub(super) blank: u64,
    /// `[\r\n]`
    pub(super) newline: u64,
    /// `'`
    pub(super) apostrophe: u64,
    /// `/`
    pub(super) slash: u64,
    /// Letters that are in upper case only, and in lower case only.
    pub(super) upper: u64,
    pub(super) lower: u64,
    /// Letters without case and marks.
    pub(super) caseless: u64,
    /// Bytes of characters beyond ASCII, and those of them that begin none.
    pub(super) beyond: u64,
    pub(super) tail: u64,
}

/// The classes of ASCII characters in a block, and where others are.
#[derive(Clone, Copy, Default)]
pub(super) struct Ascii {
    pub(super) upper: u64,
    pub(super) lower: u64,
    pub(super) number: u64,
    pub(super) space: u64,
    pub(super) blank: u64,
    pub(super) newline: u64,
    pub(super) apostrophe: u64,
    pub(super) slash: u64,
    pub(super) beyond: u64,
}

/// Where some characters beyond ASCII are whose class needs no table.
#[derive(Clone, Copy, Default)]
pub(super) struct Beyond {
    /// Bytes that continue a character.
    pub(super) tail: u64,
    /// First bytes of U+0400 to U+047F: letters of two bytes, with case.
    pub(super) cyrillic: u64,
    /// First bytes of U+5000 to U+9FFF and U+B000 to U+CFFF: letters of three bytes, without case.
    pub(super) three: u64,
}

/// Characters of a block that differ in their last six bits alone; each has the bit of its first byte.
pub(super) struct Alike {
    pub(super) firsts: u64,
    /// Bytes of each.
    pub(super) length: usize,
    /// Those of each class, as in [`Masks`]; letters without case are in `upper` and in `lower`.
    pub(super) letter: u64,
    pub(super) number: u64,
    pub(super) space: u64,
    pub(super) other: u64,
    pub(super) upper: u64,
    pub(super) lower: u64,
}

/// A set of instructions that classifies a block.
///
/// # Safety
/// Its functions may be called only where the processor has the instructions.
pub(super) trait Instructions {
    /// # Safety
    /// The processor has the instructions.
    unsafe fn ascii(block: &[u8; BLOCK]) -> Ascii;
    /// # Safety
    /// The processor has the instructions.
    unsafe fn beyond(block: &[u8; BLOCK]) -> Beyond;
    /// The characters of the block at `at` that are like the one whose first byte is `first` there; those that reach into the
    /// next block, too. `None` where one character is not worth looking for others.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    unsafe fn alike(_bytes: &[u8], _at: usize, _first: usize, _classes: &Classes) -> Option<Alike> {
        None
    }
}

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, Avx512Vbmi};

/// Reads the blocks of a text in order.
pub(super) struct Blocks<'a> {
    /// UTF-8, then zeros up to a whole block.
    bytes: &'a [u8],
    at: usize,
    length: usize,
    classes: &'static Classes,
    /// Class of the character that the last block ended in, and the bits it has in the next.
    cut: (u8, u64),
}

impl<'a> Blocks<'a> {
    pub(super) fn new(bytes: &'a [u8], length: usize) -> Self {
        Self { bytes, at: 0, length, classes: Classes::get(), cut: (0, 0) }
    }

    /// The next block; of nothing, past the end. `CASED` asks for `upper`, `lower` and `caseless`.
    ///
    /// # Safety
    /// The processor has the instructions `I`.
    #[inline(always)]
    pub(super) unsafe fn next<I: Instructions, const CASED: bool>(&mut self) -> Masks {
        let at = self.at;
        let left = self.length.saturating_sub(at);
        self.at += BLOCK;
        match self.bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
            Some(block) if left > 0 => {
                let inside = if left < BLOCK { !0 >> (BLOCK - left) } else { !0 };
                // SAFETY: as the caller says.
                unsafe { self.classify::<I, CASED>(block, at, inside) }
            }
            _ => Masks::default(),
        }
    }

    /// # Safety
    /// The processor has the instructions `I`.
    #[inline(always)]
    unsafe fn classify<I: Instructions, const CASED: bool>(
        &mut self,
        block: &[u8; BLOCK],
        at: usize,
        inside: u64,
    ) -> Masks {
        // SAFETY: as the caller says.
        let ascii = unsafe { I::ascii(block) };
        let letter = ascii.upper | ascii.lower;
        let mut masks = Masks {
            letter,
            number: ascii.number,
            space: ascii.space,
            other: !(letter | ascii.number | ascii.space | ascii.beyond) & inside,
            blank: ascii.blank,
            newline: ascii.newline,
            apostrophe: ascii.apostrophe,
            slash: ascii.slash,
            upper: ascii.upper,
            lower: ascii.lower,
            caseless: 0,
            beyond: ascii.beyond,
            tail: 0,
        };
        if ascii.beyond != 0 {
            // SAFETY: as the caller says.
            unsafe {
                let beyond = I::beyond(block);
                self.place::<I, CASED>(&mut masks, beyond, at);
            }
        }
        masks
    }

    /// Gives the bytes of characters beyond ASCII their classes.
    ///
    /// # Safety
    /// The processor has the instructions `I`.
    #[inline(always)]
    unsafe fn place<I: Instructions, const CASED: bool>(
        &mut self,
        masks: &mut Masks,
        known: Beyond,
        at: usize,
    ) {
        masks.tail = known.tail;
        let put = |masks: &mut Masks, class: u8, bits: u64| {
            let of = |bit: u8| if class & bit != 0 { bits } else { 0 };
            masks.letter |= of(LETTER);
            masks.number |= of(NUMBER);
            masks.space |= of(SPACE);
            masks.other |= of(OTHER);
            if CASED {
                let (upper, lower) = (of(UPPER), of(LOWER));
                masks.upper |= upper & !lower;
                masks.lower |= lower & !upper;
                masks.caseless |= upper & lower;
            }
        };
        let (class, bits) = self.cut;
        self.cut = (0, 0);
        put(masks, class, bits);
        let mut rest = masks.beyond & !bits;
        // Characters that reach into the next block are left to the loop.
        let three = known.three & !0 >> 2;
        let three = three | three << 1 | three << 2;
        put(masks, LETTER | UPPER | LOWER, three);
        rest &= !three;
        if !CASED {
            let cyrillic = known.cyrillic & !0 >> 1;
            let cyrillic = cyrillic | cyrillic << 1;
            put(masks, LETTER, cyrillic);
            rest &= !cyrillic;
        }
        while rest != 0 {
            let first = rest.trailing_zeros() as usize;
            // SAFETY: as the caller says.
            if let Some(alike) = unsafe { I::alike(self.bytes, at, first, self.classes) } {
                let inside = alike.firsts & rest & !0 >> (alike.length - 1);
                if inside & 1 << first != 0 {
                    rest &= !alike.put::<CASED>(masks, inside);
                    continue;
                }
            }
            let (class, length) = self.classes.beyond_ascii(self.bytes, at + first);
            let bytes = (1u64 << length) - 1;
            put(masks, class, bytes << first);
            rest &= !(bytes << first);
            if first + length > BLOCK {
                self.cut = (class, bytes >> (BLOCK - first));
            }
        }
    }
}

impl Alike {
    /// Gives all bytes of the characters of `firsts` their classes; returns those bytes.
    #[inline(always)]
    fn put<const CASED: bool>(&self, masks: &mut Masks, firsts: u64) -> u64 {
        let bytes = |of: u64| {
            let two = of & firsts | (of & firsts) << 1;
            if self.length == 3 { two | two << 1 } else { two }
        };
        masks.letter |= bytes(self.letter);
        masks.number |= bytes(self.number);
        masks.space |= bytes(self.space);
        masks.other |= bytes(self.other);
        if CASED {
            masks.upper |= bytes(self.upper & !self.lower);
            masks.lower |= bytes(self.lower & !self.upper);
            masks.caseless |= bytes(self.upper & self.lower);
        }
        bytes(firsts)
    }
}

/// What any processor can do.
pub(super) struct Portable;

impl Instructions for Portable {
    #[inline(always)]
    unsafe fn ascii(block: &[u8; BLOCK]) -> Ascii {
        let bits = |is: fn(u8) -> bool| bits_of(block, is);
        Ascii {
            upper: bits(|byte| byte.is_ascii_uppercase()),
            lower: bits(|byte| byte.is_ascii_lowercase()),
            number: bits(|byte| byte.is_ascii_digit()),
            space: bits(|byte| byte == b' ' || byte.wrapping_sub(9) < 5),
            blank: bits(|byte| byte == b' '),
            newline: bits(|byte| byte == b'\n' || byte == b'\r'),
            apostrophe: bits(|byte| byte == b'\''),
            slash: bits(|byte| byte == b'/'),
            beyond: bits(|byte| byte >= 0x80),
        }
    }

    #[inline(always)]
    unsafe fn beyond(block: &[u8; BLOCK]) -> Beyond {
        Beyond {
            tail: bits_of(block, |byte| byte & 0xC0 == 0x80),
            cyrillic: bits_of(block, |byte| byte & 0xFE == 0xD0),
            three: bits_of(block, |byte| matches!(byte, 0xE5..=0xE9 | 0xEB | 0xEC)),
        }
    }
}

/// One bit a byte.
#[inline(always)]
fn bits_of(block: &[u8; BLOCK], is: fn(u8) -> bool) -> u64 {
    let mut bits = 0;
    for (group, eight) in block.chunks_exact(8).enumerate() {
        let mut flags = [0; 8];
        for (flag, &byte) in flags.iter_mut().zip(eight) {
            *flag = u8::from(is(byte));
        }
        // Eight bytes of 0 or 1 become eight bits in the uppermost byte.
        let gathered = u64::from_le_bytes(flags).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        bits |= gathered << (8 * group);
    }
    bits
}
