//! Words that are looked up together: while those of one group are, those of the next are on their way from memory.

use crate::cache::{Ids, Key, Place, Slot, Table, WordCache};
use crate::prefetch::prefetch;

/// Words of a group.
pub(crate) const GROUP: usize = 64;
/// Bytes of text that are read at a word's start, whatever its length.
const READ: usize = 16;

/// Words that are about to be looked up.
pub(crate) struct Group {
    /// What each is called in the table of short words; none for a long one.
    pub(crate) keys: [Key; GROUP],
    /// Where each is in its own table.
    pub(crate) places: [Place; GROUP],
    /// A bit for each long one.
    pub(crate) long: u64,
}

impl Group {
    pub(crate) fn new() -> Self {
        Self { keys: [Key::default(); GROUP], places: [Place::default(); GROUP], long: 0 }
    }

    /// Asks the processor for what the long words will be compared with; their places have been asked for before.
    #[inline(always)]
    pub(crate) fn fetch_long(&self, cache: &WordCache) {
        let mut long = self.long;
        while long != 0 {
            cache.long.prefetch(self.places[long.trailing_zeros() as usize]);
            long &= long - 1;
        }
    }
}

/// How groups are filled and looked up, with the widest instructions that the processor has.
#[derive(Clone, Copy)]
pub(crate) struct Lookup {
    /// May be called: the processor has its instructions.
    note: Note,
    /// As `note`.
    take: Take,
}

type Note = unsafe fn(&mut Group, &[u8], usize, &[u32], Table);
type Take = unsafe fn(&Group, Table, usize, usize, &mut Room) -> usize;

impl Lookup {
    pub(crate) fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("aes") {
            return Self { note: x86::note, take: x86::take };
        }
        Self::portable()
    }

    fn portable() -> Self {
        Self { note, take }
    }

    /// Fills a group with the words of `bytes` from `start` on, at most [`GROUP`], and asks the processor for their places.
    #[inline(always)]
    pub(crate) fn note(self, group: &mut Group, bytes: &[u8], start: usize, ends: &[u32], cache: &WordCache) {
        let table = cache.short.table();
        if ends.last().is_some_and(|&end| end as usize + READ <= bytes.len()) && ends.len() <= GROUP {
            // SAFETY: the processor has the instructions. Words follow each other, so each starts before the last one ends,
            // and that is as many bytes before the end as are read.
            unsafe { (self.note)(group, bytes, start, ends, table) };
        } else {
            note_near_end(group, bytes, start, ends, table);
        }
        let mut long = group.long;
        while long != 0 {
            let at = long.trailing_zeros() as usize;
            let start = if at == 0 { start } else { ends[at - 1] as usize };
            group.places[at] = cache.long.place(&bytes[start..ends[at] as usize]);
            long &= long - 1;
        }
    }

    /// Appends the ids of words of the group from number `from` to `to`, at most [`GROUP`], up to the first that is not in the
    /// slot which its hash names; returns its number, or `to`.
    #[inline(always)]
    pub(crate) fn take(
        self,
        group: &Group,
        table: Table,
        from: usize,
        to: usize,
        ids: &mut Vec<u32>,
    ) -> usize {
        assert!(to <= GROUP);
        let mut room = Room::of(ids);
        // SAFETY: the processor has the instructions. The room is new, so it has place for the words of a group.
        let at = unsafe { (self.take)(group, table, from, to, &mut room) };
        room.close();
        at
    }
}

/// # Safety
/// From each word's start on [`READ`] bytes can be read.
unsafe fn note(group: &mut Group, bytes: &[u8], mut start: usize, ends: &[u32], table: Table) {
    group.long = 0;
    for (at, &end) in ends.iter().enumerate() {
        let end = end as usize;
        // SAFETY: as the caller says; the read needs no alignment.
        let window = unsafe { bytes.as_ptr().add(start).cast::<[u8; READ]>().read() };
        group.set(at, Key::new(&window, end - start), table);
        start = end;
    }
}

#[cold]
fn note_near_end(group: &mut Group, bytes: &[u8], mut start: usize, ends: &[u32], table: Table) {
    group.long = 0;
    for (at, &end) in ends.iter().take(GROUP).enumerate() {
        group.set(at, Key::of(&bytes[start..end as usize]), table);
        start = end as usize;
    }
}

impl Group {
    #[inline(always)]
    fn set(&mut self, at: usize, key: Key, table: Table) {
        let place = Place(key.hash());
        prefetch(table.slot(place));
        self.long |= u64::from(key.is_none()) << at;
        self.keys[at] = key;
        self.places[at] = place;
    }
}

/// # Safety
/// There is room for as many words as are from `from` to `to`.
unsafe fn take(group: &Group, table: Table, from: usize, to: usize, room: &mut Room) -> usize {
    for at in from..to {
        let Slot { word, ids } = *table.slot(group.places[at]);
        if word != group.keys[at] || ids.count() == 0 {
            return at;
        }
        // SAFETY: once for each of those words, for which the caller says that there is room.
        unsafe { room.push(ids) };
    }
    to
}

/// The same with registers of 16 bytes.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Group, READ, Room};
    use crate::cache::{Ids, PARTS, Place, Table, hash_aes};
    use crate::prefetch::prefetch;

    /// # Safety
    /// The processor has AVX2 and AES. From each word's start on [`READ`] bytes can be read. At most as many words as a
    /// group has.
    #[target_feature(enable = "avx2,aes")]
    pub(super) unsafe fn note(group: &mut Group, bytes: &[u8], mut start: usize, ends: &[u32], table: Table) {
        let mut long = 0;
        let (keys, places) = (group.keys.as_mut_ptr().cast::<__m128i>(), group.places.as_mut_ptr());
        for (at, &end) in ends.iter().enumerate() {
            let end = end as usize;
            let length = (end - start).min(READ);
            // SAFETY: the parts are two times 16 bytes for each length up to 16, and the caller says that 16 bytes can be
            // read from `start` on; the latter need no alignment.
            let key = unsafe {
                let parts = PARTS.as_ptr().add(length).cast::<__m128i>();
                let window = _mm_loadu_si128(bytes.as_ptr().add(start).cast());
                _mm_or_si128(_mm_and_si128(window, _mm_load_si128(parts)), _mm_load_si128(parts.add(1)))
            };
            let place = Place(hash_aes(key));
            prefetch(table.slot(place));
            long |= u64::from(length == READ) << at;
            // SAFETY: a group has room for that many words; a key is 16 bytes, aligned to as many.
            unsafe {
                _mm_store_si128(keys.add(at), key);
                *places.add(at) = place;
            }
            start = end;
        }
        group.long = long;
    }

    /// # Safety
    /// The processor has AVX2 and AES. There is room for as many words as are from `from` to `to`, and the group has as many.
    #[target_feature(enable = "avx2,aes")]
    pub(super) unsafe fn take(group: &Group, table: Table, from: usize, to: usize, room: &mut Room) -> usize {
        let [low, high] = Ids::BITS;
        let bits = _mm_set_epi64x(high as i64, low as i64);
        let mut end = room.end;
        let mut at = from;
        while at < to {
            // SAFETY: the group has a word of that number; a key is 16 bytes, aligned to as many, and a slot is two times as
            // many: the word, then its ids. The uppermost byte of these counts them, up to four, and there is room for four
            // at each of so many ends; that write needs no alignment.
            unsafe {
                let slot = std::ptr::from_ref(table.slot(*group.places.as_ptr().add(at))).cast::<__m128i>();
                let key = _mm_load_si128(group.keys.as_ptr().add(at).cast());
                let differs = _mm_xor_si128(key, _mm_load_si128(slot));
                let count = usize::from(*slot.cast::<u8>().add(31));
                if _mm_testz_si128(differs, differs) == 0 || count == 0 {
                    break;
                }
                _mm_storeu_si128(end.cast(), _mm_and_si128(_mm_load_si128(slot.add(1)), bits));
                end = end.add(count);
            }
            at += 1;
        }
        room.end = end;
        at
    }
}

/// Room at the end of a list of ids for those of a group. What is pushed counts once it is closed.
struct Room<'a> {
    ids: &'a mut Vec<u32>,
    end: *mut u32,
}

impl<'a> Room<'a> {
    fn of(ids: &'a mut Vec<u32>) -> Self {
        ids.reserve(4 * GROUP);
        let end = ids.spare_capacity_mut().as_mut_ptr().cast();
        Self { ids, end }
    }

    /// Appends ids of the cache; writes all four, so that nothing depends on how many are meant.
    ///
    /// # Safety
    /// At most [`GROUP`] times.
    #[inline(always)]
    unsafe fn push(&mut self, of_word: Ids) {
        const { assert!(cfg!(target_endian = "little"), "two ids in a `u64` are two `u32` in their order") };
        // SAFETY: there was room for four ids each time, and the end moves by four at most; the write needs no alignment.
        unsafe {
            self.end.cast::<[u64; 2]>().write_unaligned(of_word.all());
            self.end = self.end.add(of_word.count().min(4));
        }
    }

    fn close(self) {
        // SAFETY: the end is in the list's room, behind its start; what is between them was written.
        unsafe {
            let length = self.end.offset_from_unsigned(self.ids.as_ptr());
            self.ids.set_len(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;
    use crate::sample_text::{Random, random_text, seed};
    use crate::scan::Cutter;

    #[test]
    fn registers_note_and_take_the_same_words_as_any_processor() {
        let mut random = Random(seed());
        let mut cache = WordCache::new(1 << 20);
        let mut cutter = Cutter::new(Pattern::Gpt2);
        let (fast, portable) = (Lookup::new(), Lookup::portable());
        let (mut long, mut taken) = (0, 0);
        for round in 0..2000 {
            let text = format!("{} averylongwordwithoutanyspaces", random_text(&mut random, 40));
            let words = cutter.cut(&text);
            let ends = &words.ends[..words.ends.len().min(GROUP)];
            let (mut ours, mut theirs) = (Group::new(), Group::new());
            fast.note(&mut ours, words.bytes, 0, ends, &cache);
            portable.note(&mut theirs, words.bytes, 0, ends, &cache);
            let count = ends.len();
            assert_eq!(ours.long, theirs.long);
            assert_eq!(ours.keys[..count], theirs.keys[..count]);
            assert!((0..count).all(|at| ours.places[at].0 == theirs.places[at].0));
            long += ours.long.count_ones();
            for at in 0..count {
                let start = if at == 0 { 0 } else { ends[at - 1] as usize };
                assert_eq!(ours.keys[at], Key::of(&words.bytes[start..ends[at] as usize]));
                // Not every word, and some with more ids than a slot holds.
                if !ours.keys[at].is_none()
                    && !cache.short.is_known(cache.short.get(ours.keys[at], ours.places[at]))
                    && random.below(3) > 0
                {
                    let ids: Vec<u32> = (0..=random.below(5) as u32).map(|id| round * 64 + id).collect();
                    cache.short.put(ours.keys[at], &ids);
                }
            }
            let (mut one, mut other) = (vec![7], vec![7]);
            let mut from = 0;
            while from < count {
                let at = fast.take(&ours, cache.short.table(), from, count, &mut one);
                assert_eq!(at, portable.take(&theirs, cache.short.table(), from, count, &mut other));
                assert_eq!(one, other);
                taken += at - from;
                from = at + 1;
            }
        }
        assert!(long > 100 && taken > 1000, "{long} long words, {taken} taken");
    }

    #[test]
    fn words_at_the_end_of_what_may_be_read_are_noted() {
        let cache = WordCache::new(1 << 20);
        let mut group = Group::new();
        Lookup::new().note(&mut group, b"one two", 0, &[3, 7], &cache);
        assert_eq!(group.keys[..2], [Key::of(b"one"), Key::of(b" two")]);
        let many = [b'x'; GROUP + 1];
        let ends: Vec<u32> = (1..=many.len() as u32).collect();
        Lookup::new().note(&mut group, &many, 0, &ends, &cache);
        assert_eq!(group.keys[GROUP - 1], Key::of(b"x"));
    }
}
