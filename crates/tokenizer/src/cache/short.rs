//! Words of up to 15 bytes with up to four ids.

use super::prefetch;
use crate::pages::advise_large_pages;

/// Slots at first, without those at the end; the table grows fourfold when half are used.
const FIRST_SLOTS: usize = 1 << 12;
/// From its own on, the slots in which a word may be.
const NEAR: usize = 8;
/// Ids that a slot holds.
const INLINE: usize = 4;
/// The last id's bits that are an id; those above it count the ids.
const ID_BITS: u32 = 24;
const ID: u32 = (1 << ID_BITS) - 1;

/// A word of at most 15 bytes: the bytes, zeros, and the length in the last byte. Zero is no word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
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
        const MASKS: [(u64, u64, u64); 17] = masks();
        let bytes = u128::from_le_bytes(*window);
        let (low, high, count) = MASKS[length.min(16)];
        Self { low: bytes as u64 & low, high: (bytes >> 64) as u64 & high | count }
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

    #[inline(always)]
    fn hash(self) -> u64 {
        let product =
            u128::from(self.low ^ 0xA076_1D64_78BD_642F) * u128::from(self.high ^ 0xE703_7ED1_A0B4_28DB);
        product as u64 ^ (product >> 64) as u64
    }
}

/// For each length: the bytes of the lower and of the upper half that are the word's, and the length in its place.
const fn masks() -> [(u64, u64, u64); 17] {
    let mut masks = [(0, 0, 0); 17];
    let mut length = 1;
    while length <= Key::LONGEST {
        let all = (1u128 << (8 * length)) - 1;
        masks[length] = (all as u64, (all >> 64) as u64, (length as u64) << 56);
        length += 1;
    }
    masks
}

/// The ids of a word, two in each half; the upper bits of the last one count them. All zero where there are none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Ids([u64; 2]);

impl Ids {
    /// None here: those of the word are among the long ones'.
    pub(crate) const ELSEWHERE: Self = Self([1, 0]);

    fn pack(ids: &[u32]) -> Option<Self> {
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
        let [first, last] = self.0;
        [first, last & (u64::from(ID) << 32 | u64::from(u32::MAX))]
    }

    /// The ids one by one.
    pub(crate) fn list(self) -> ([u32; INLINE], usize) {
        let [first, last] = self.all();
        ([first as u32, (first >> 32) as u32, last as u32, (last >> 32) as u32], self.count())
    }
}

/// The table: each word is in the slot that its hash names or in one of the next ones.
pub(crate) struct ShortWords {
    /// As many as a power of two, and [`NEAR`] more.
    slots: Vec<Slot>,
    used: usize,
    most_slots: usize,
}

/// A word and its ids.
#[derive(Clone, Copy, Default)]
#[repr(align(32))]
struct Slot {
    word: Key,
    ids: Ids,
}

/// Where a word is: the hash in its table.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place(pub(super) u64);

impl ShortWords {
    pub(super) fn new() -> Self {
        Self { slots: free_slots(FIRST_SLOTS), used: 0, most_slots: FIRST_SLOTS }
    }

    pub(super) fn allow(&mut self, budget: usize) {
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
    pub(super) fn place(&self, word: Key) -> Place {
        let place = Place(word.hash());
        prefetch(&self.near(place)[0]);
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

    /// Remembers a word that is not known; false when its ids do not fit, and are to be put elsewhere. In a full table
    /// it takes the place of another.
    pub(super) fn put(&mut self, word: Key, ids: &[u32]) -> bool {
        let packed = Ids::pack(ids);
        if self.used * 2 >= self.slots.len() && self.slots.len() < self.most_slots {
            self.grow();
        }
        self.insert(Slot { word, ids: packed.unwrap_or(Ids::ELSEWHERE) });
        packed.is_some()
    }

    /// The slots where a word may be.
    #[inline(always)]
    fn near(&self, Place(hash): Place) -> &[Slot; NEAR] {
        let first = hash as usize & (self.slots.len() - NEAR - 1);
        // SAFETY: there are `NEAR` slots more than a power of two, below which the first one is.
        unsafe { &*self.slots.as_ptr().add(first).cast() }
    }

    fn insert(&mut self, slot: Slot) {
        let hash = slot.word.hash();
        let first = hash as usize & (self.slots.len() - NEAR - 1);
        let is_full = self.used * 2 >= self.slots.len();
        let near = &mut self.slots[first..first + NEAR];
        // Half of a full table stays free, so that what is not there is not looked for long.
        let reach = if is_full { 2 } else { NEAR };
        let free = near[..reach].iter().position(|slot| slot.word.is_none());
        let at = free.unwrap_or((hash >> 56) as usize % reach);
        self.used += usize::from(free.is_some());
        near[at] = slot;
    }

    #[cold]
    fn grow(&mut self) {
        let slots = (self.slots.len() - NEAR) * 4;
        self.resize(slots);
    }

    fn resize(&mut self, slots: usize) {
        let more = free_slots(slots.min(self.most_slots));
        self.used = 0;
        for slot in std::mem::replace(&mut self.slots, more) {
            if !slot.word.is_none() {
                self.insert(slot);
            }
        }
    }
}

/// Free slots, a power of two and [`NEAR`] more.
fn free_slots(count: usize) -> Vec<Slot> {
    let mut slots = Vec::with_capacity(count + NEAR);
    advise_large_pages(&mut slots);
    slots.resize(count + NEAR, Slot::default());
    slots
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
            let fits = table.put(word, &ids(number));
            assert_eq!(fits, number % 6 < INLINE as u32);
            assert_eq!(table.get(word, table.place(word)).count() > 0, fits);
            assert_eq!(table.get(word, table.place(word)) == Ids::ELSEWHERE, !fits);
            let earlier = number / 2;
            let (list, count) = table.get(key(earlier), table.place(key(earlier))).list();
            assert!(count == 0 || list[..count] == ids(earlier), "{earlier} after {number}");
            let forgets = count == 0 && earlier % 6 < INLINE as u32;
            *if number < 10_000 { &mut early } else { &mut late } += usize::from(forgets);
        }
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
