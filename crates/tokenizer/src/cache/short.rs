//! Words of up to 15 bytes.

use std::ops::{Deref, DerefMut};

use crate::pages::zeros;
use crate::prefetch::prefetch;

/// Slots at first, without those at the end; the table grows fourfold when half are used.
const FIRST_SLOTS: usize = 1 << 12;
/// From its own on, the slots in which a word may be.
const NEAR: usize = 16;
/// Ids that a slot holds.
const INLINE: usize = 4;
/// The last id's bits that are an id; those above it count the ids.
const ID_BITS: u32 = 24;
const ID: u32 = (1 << ID_BITS) - 1;

/// A word of at most 15 bytes: the bytes, zeros, and the length in the last byte. Zero is no word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[repr(C, align(16))]
pub(crate) struct Key {
    low: u64,
    high: u64,
}

impl Key {
    /// Bytes of the longest word that has a key.
    pub(crate) const LONGEST: usize = 15;

    /// The key of the first `length` bytes of a window; zero when they are too many.
    #[inline(always)]
    pub(crate) fn new(window: &[u8; 16], length: usize) -> Self {
        let bytes = u128::from_le_bytes(*window);
        let [kept, count] = PARTS[length.min(16)];
        Self { low: bytes as u64 & kept.low, high: (bytes >> 64) as u64 & kept.high | count.high }
    }

    /// The key of a word of at most 15 bytes.
    pub(crate) fn of(word: &[u8]) -> Self {
        let mut window = [0; 16];
        let length = word.len().min(16);
        window[..length].copy_from_slice(&word[..length]);
        Self::new(&window, word.len())
    }

    /// The bytes of the word.
    pub(crate) fn bytes(self) -> ([u8; 16], usize) {
        let bytes = (u128::from(self.high) << 64 | u128::from(self.low)).to_le_bytes();
        (bytes, usize::from(bytes[Self::LONGEST]))
    }

    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self.high == 0
    }

    /// Well-spread bits of the word. The same for as long as the process lasts, not on every processor.
    #[inline(always)]
    pub(crate) fn hash(self) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("aes") {
            // SAFETY: AES is there, and a key is 16 bytes.
            return unsafe { hash_aes(std::mem::transmute::<Self, std::arch::x86_64::__m128i>(self)) };
        }
        let product =
            u128::from(self.low ^ 0xA076_1D64_78BD_642F) * u128::from(self.high ^ 0xE703_7ED1_A0B4_28DB);
        product as u64 ^ (product >> 64) as u64
    }
}

/// Three rounds of AES: after two, every bit depends on every byte, but as a sum of one function of each. Less work than
/// multiplying.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "aes")]
#[inline]
pub(crate) fn hash_aes(key: std::arch::x86_64::__m128i) -> u64 {
    use std::arch::x86_64::{_mm_aesenc_si128, _mm_cvtsi128_si64, _mm_set_epi64x};
    let round = _mm_set_epi64x(0xA076_1D64_78BD_642F_u64 as i64, 0xE703_7ED1_A0B4_28DB_u64 as i64);
    let mixed = _mm_aesenc_si128(_mm_aesenc_si128(key, round), round);
    _mm_cvtsi128_si64(_mm_aesenc_si128(mixed, round)) as u64
}

/// For each length the bytes of a window that are the word's, and the length in its place; zeros for 0 and for 16.
pub(crate) static PARTS: [[Key; 2]; 17] = parts();

const fn parts() -> [[Key; 2]; 17] {
    const NONE: Key = Key { low: 0, high: 0 };
    let mut parts = [[NONE; 2]; 17];
    let mut length = 1;
    while length <= Key::LONGEST {
        let all = (1u128 << (8 * length)) - 1;
        let kept = Key { low: all as u64, high: (all >> 64) as u64 };
        parts[length] = [kept, Key { low: 0, high: (length as u64) << 56 }];
        length += 1;
    }
    parts
}

/// The ids of a word, two in each half; the uppermost byte counts them, up to four. Where it is zero: in the lower half where
/// they are in a list of ids and how many, and of which list in the upper half. All zero where there are none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[repr(C)]
pub(crate) struct Ids([u64; 2]);

impl Ids {
    /// The bits of the halves that are ids when they are counted.
    pub(crate) const BITS: [u64; 2] = [u64::MAX, (ID as u64) << 32 | u32::MAX as u64];

    /// `None` where they are none, too many or too large.
    pub(crate) fn pack(ids: &[u32]) -> Option<Self> {
        if ids.is_empty() || ids.len() > INLINE || ids.iter().any(|&id| id > ID) {
            return None;
        }
        let id = |at: usize| u64::from(ids.get(at).copied().unwrap_or_default());
        let count = (ids.len() as u64) << (32 + ID_BITS);
        Some(Self([id(0) | id(1) << 32, id(2) | id(3) << 32 | count]))
    }

    /// How many they are, from none to four.
    #[inline(always)]
    pub(crate) fn count(self) -> usize {
        (self.0[1] >> (32 + ID_BITS)) as usize
    }

    /// The ids, of which the first [`Ids::count`] are meant, two in each half.
    #[inline(always)]
    pub(crate) fn all(self) -> [u64; 2] {
        [self.0[0] & Self::BITS[0], self.0[1] & Self::BITS[1]]
    }

    /// The ids one by one.
    fn list(self) -> ([u32; INLINE], usize) {
        let [first, last] = self.all();
        ([first as u32, (first >> 32) as u32, last as u32, (last >> 32) as u32], self.count())
    }
}

/// The table: each word is in the slot that its hash names or in one of the next ones.
pub(crate) struct ShortWords {
    /// As many as a power of two, and [`NEAR`] more.
    slots: Slots,
    used: usize,
    most_slots: usize,
    many: Many,
}

/// A word and its ids.
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
pub(crate) struct Slot {
    pub(crate) word: Key,
    pub(crate) ids: Ids,
}

/// The ids of words that have too many of them for a slot.
struct Many {
    ids: Vec<u32>,
    most: usize,
    /// How often they have been forgotten.
    list: u32,
}

impl Many {
    fn put(&mut self, ids: &[u32]) -> Ids {
        if self.ids.len() + ids.len() > self.most {
            self.ids.clear();
            self.list = self.list.wrapping_add(1);
        }
        let start = self.ids.len() as u64;
        self.ids.extend_from_slice(ids);
        Ids([start | (ids.len() as u64) << 32, u64::from(self.list)])
    }

    fn get(&self, Ids([place, list]): Ids) -> Option<&[u32]> {
        let (start, count) = (place as u32 as usize, (place >> 32) as usize);
        if count == 0 || list != u64::from(self.list) {
            return None;
        }
        self.ids.get(start..start + count)
    }
}

/// Where a word is: the hash in its table.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place(pub(crate) u64);

/// The slots of the table, until it changes.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    slots: &'a [Slot],
    /// The largest number of a slot that a hash may name, and a mask of those numbers.
    first: usize,
}

impl Table<'_> {
    /// The number of the first slot where a word may be; it is one of a slot.
    #[inline(always)]
    fn first_of(&self, Place(hash): Place) -> usize {
        hash as usize & self.first
    }

    /// That slot.
    #[inline(always)]
    pub(crate) fn slot(&self, place: Place) -> &Slot {
        // SAFETY: the number is at most `first`, which is less than there are slots.
        unsafe { self.slots.get_unchecked(self.first_of(place)) }
    }
}

impl ShortWords {
    pub(super) fn new() -> Self {
        let many = Many { ids: Vec::new(), most: 1 << 10, list: 0 };
        Self { slots: Slots::free(FIRST_SLOTS), used: 0, most_slots: FIRST_SLOTS, many }
    }

    /// Raises the budget to so many bytes, where it is less, and a twelfth more for the ids of some words.
    pub(super) fn allow(&mut self, budget: usize) {
        self.many.most = self.many.most.max(budget / 12 / size_of::<u32>());
        self.most_slots = self.most_slots.max(1 << (budget / size_of::<Slot>()).max(1).ilog2());
    }

    /// Makes room for so many words, within the budget, and leaves most slots free: a word that is in its own slot, as
    /// nearly all are then, costs no wrong guess.
    pub(super) fn expect(&mut self, words: usize) {
        let slots = (words * 4).next_power_of_two().min(self.most_slots);
        if slots > self.slots.len() {
            self.resize(slots);
        }
    }

    /// Where a word is if it is known; asks the processor for it.
    #[inline(always)]
    pub(crate) fn place(&self, word: Key) -> Place {
        let place = Place(word.hash());
        prefetch(self.table().slot(place));
        place
    }

    /// The ids of a word; none when it is not known.
    #[inline(always)]
    pub(crate) fn get(&self, word: Key, place: Place) -> Ids {
        let near = self.near(place);
        if near[0].word == word {
            return near[0].ids;
        }
        // The next slot may be in another line of memory, which is waited for only where it can have the word.
        for pair in near.windows(2) {
            if pair[0].word.is_none() {
                break;
            }
            if pair[1].word == word {
                return pair[1].ids;
            }
        }
        Ids::default()
    }

    /// Appends the ids of a word, of which `known` is what the table has; false when they are not known.
    pub(crate) fn take(&self, known: Ids, ids: &mut Vec<u32>) -> bool {
        let (list, count) = known.list();
        match count {
            0 => self.many.get(known).map(|many| ids.extend_from_slice(many)).is_some(),
            _ => {
                ids.extend_from_slice(&list[..count]);
                true
            }
        }
    }

    /// Whether the ids of a word are known, of which `known` is what the table has.
    pub(crate) fn is_known(&self, known: Ids) -> bool {
        known.count() > 0 || self.many.get(known).is_some()
    }

    /// Remembers a word that is not known; returns what the table has of it now. In a full table it takes the place of another.
    pub(crate) fn put(&mut self, word: Key, ids: &[u32]) -> Ids {
        let ids = Ids::pack(ids).unwrap_or_else(|| self.many.put(ids));
        self.put_slot(Slot { word, ids });
        ids
    }

    /// Remembers those words of another table that are not known and whose ids are in their slots.
    pub(crate) fn adopt(&mut self, words: &[Slot]) {
        /// Words whose places are asked for ahead.
        const AHEAD: usize = 32;
        for (at, &slot) in words.iter().enumerate() {
            if let Some(ahead) = words.get(at + AHEAD) {
                self.place(ahead.word);
            }
            let known = self.get(slot.word, Place(slot.word.hash()));
            if slot.ids.count() > 0 && known == Ids::default() {
                self.put_slot(slot);
            }
        }
    }

    fn put_slot(&mut self, slot: Slot) {
        if self.used * 2 >= self.slots.len() && self.slots.len() < self.most_slots {
            self.grow();
        }
        self.insert(slot);
    }

    /// The table as it is now.
    #[inline(always)]
    pub(crate) fn table(&self) -> Table<'_> {
        Table { slots: &self.slots, first: self.slots.len() - NEAR - 1 }
    }

    /// The slots where a word may be.
    #[inline(always)]
    fn near(&self, place: Place) -> &[Slot; NEAR] {
        let first = self.table().first_of(place);
        // SAFETY: there are `NEAR` slots more than a power of two, below which the first one is.
        unsafe { &*self.slots.as_ptr().add(first).cast() }
    }

    fn insert(&mut self, slot: Slot) {
        let hash = slot.word.hash();
        let first = self.table().first_of(Place(hash));
        let is_full = self.used * 2 >= self.slots.len();
        let near = &mut self.slots[first..first + NEAR];
        // Half of a full table stays free, so that what is not there is not looked for long.
        let reach = if is_full { 2 } else { NEAR };
        let at = near[..reach].iter().position(|other| other.word.is_none() || other.word == slot.word);
        let at = at.unwrap_or((hash >> 56) as usize % reach);
        self.used += usize::from(near[at].word.is_none());
        near[at] = slot;
    }

    #[cold]
    fn grow(&mut self) {
        let slots = (self.slots.len() - NEAR) * 4;
        self.resize(slots);
    }

    fn resize(&mut self, slots: usize) {
        let more = Slots::free(slots.min(self.most_slots));
        self.used = 0;
        for &slot in std::mem::replace(&mut self.slots, more).iter() {
            if !slot.word.is_none() {
                self.insert(slot);
            }
        }
    }
}

/// Slots in memory that is zero as it comes from the system, so that none is written before a word is.
struct Slots {
    memory: Vec<u64>,
    /// Where in it the first slot is, on the border that it needs.
    start: usize,
    count: usize,
}

impl Slots {
    /// Free slots, a power of two and [`NEAR`] more.
    fn free(count: usize) -> Self {
        let count = count + NEAR;
        let (memory, start) = zeros(count * size_of::<Slot>() / size_of::<u64>(), align_of::<Slot>());
        Self { memory, start, count }
    }
}

impl Deref for Slots {
    type Target = [Slot];

    #[inline(always)]
    fn deref(&self) -> &[Slot] {
        // SAFETY: `zeros` made room for the numbers of so many slots from `start` on, which is on the border that a slot needs.
        // A slot consists of four numbers, of which any will do.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(self.start).cast(), self.count) }
    }
}

impl DerefMut for Slots {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [Slot] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().add(self.start).cast(), self.count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_bytes_and_their_number() {
        let text = *b"0123456789abcdef";
        for length in 0..=16 {
            let key = Key::new(&text, length);
            assert_eq!(key, Key::of(&text[..length]));
            assert_eq!(key.is_none(), length == 0 || length == 16);
        }
        assert_ne!(Key::of(b"a"), Key::of(b"a\0"), "a zero byte is part of the word");
        assert_eq!(Key::of(&[b'x'; 40]), Key::default());
    }

    #[test]
    fn words_come_back_as_they_were_put_in_a_full_table_too() {
        let mut table = ShortWords::new();
        table.allow(1 << 20);
        let key = |number: u32| Key::of(format!("w{number}").as_bytes());
        let ids = |number: u32| (0..number % 6 + 1).map(|i| number + i).collect::<Vec<u32>>();
        let (mut early, mut late) = (0, 0);
        for number in 0u32..200_000 {
            let word = key(number);
            assert_eq!(table.get(word, table.place(word)), Ids::default());
            table.put(word, &ids(number));
            let found = |word: Key| {
                let mut found = Vec::new();
                let known = table.get(word, table.place(word));
                assert_eq!(table.take(known, &mut found), table.is_known(known));
                found
            };
            assert_eq!(found(word), ids(number));
            let earlier = number / 2;
            let list = found(key(earlier));
            assert!(list.is_empty() || list == ids(earlier), "{earlier} after {number}");
            *if number < 10_000 { &mut early } else { &mut late } += usize::from(list.is_empty());
        }
        assert!(table.many.ids.capacity() * size_of::<u32>() <= 1 << 18 && table.many.list > 0);
        assert!(size_of_val(&*table.slots) <= (1 << 20) + NEAR * size_of::<Slot>());
        assert!(early < 20 && late > 1000, "{early} words forgotten in an empty table, {late} in a full one");
        assert_eq!(table.get(Key::default(), table.place(Key::default())), Ids::default());
    }

    #[test]
    fn ids_too_large_for_a_slot_are_not_taken() {
        assert_eq!(Ids::pack(&[1 << ID_BITS]), None);
        assert_eq!(Ids::pack(&[ID; 4]).unwrap().list(), ([ID; 4], 4));
        assert_eq!(Ids::pack(&[1, 2]).unwrap().list(), ([1, 2, 0, 0], 2));
        assert_eq!(Ids::default().count(), 0);
    }
}
