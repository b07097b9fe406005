//! Our own encoder: scanner, word cache, merges.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::bpe::{Bpe, Workspace};
use crate::cache::{Ids, Key, Place, WordCache};
use crate::nfc::nfc;
use crate::pattern::Pattern;
use crate::scan::Cutter;
use crate::special::{AddedTokens, Piece};
use crate::split::Joints;

/// Words whose places in the cache are asked for before the first of them is looked up.
const GROUP: usize = 64;

/// Turns text into ids with the parts of one `tokenizer.json`.
pub(crate) struct Encoder {
    pattern: Pattern,
    nfc: bool,
    bpe: Bpe,
    /// `None` where the parts of a word could become other tokens than the word's own.
    joints: Option<Joints>,
    /// Added tokens found in text as it comes, and those found in what the normaliser left.
    raw: AddedTokens,
    normalized: AddedTokens,
    memories: Memories,
}

/// What a thread learns of words while it encodes.
pub(crate) struct Memory {
    cache: WordCache,
    cutter: Cutter,
    work: Workspace,
    parts: Vec<(usize, usize, Key, Place)>,
}

impl Encoder {
    pub(crate) fn new(
        pattern: Pattern,
        nfc: bool,
        bpe: Bpe,
        joints: Option<Joints>,
        raw: AddedTokens,
        normalized: AddedTokens,
    ) -> Self {
        Self { pattern, nfc, bpe, joints, raw, normalized, memories: Memories::new() }
    }

    pub(crate) fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// A memory whose words take up to `budget` bytes, for so many bytes of text, to be given back by
    /// [`Encoder::give_back`].
    pub(crate) fn borrow_memory(&self, budget: usize, bytes: usize) -> Box<Memory> {
        let mut memory = self.memories.take().unwrap_or_else(|| {
            Box::new(Memory {
                cache: WordCache::new(budget),
                cutter: Cutter::new(self.pattern),
                work: Workspace::default(),
                parts: Vec::new(),
            })
        });
        memory.cache.allow(budget);
        memory.cache.expect(bytes);
        memory
    }

    /// Keeps a memory for the next who borrows one.
    pub(crate) fn give_back(&self, memory: Box<Memory>) {
        self.memories.keep(memory);
    }

    /// Appends the ids of `text`; with `special`, special tokens in it are recognised.
    pub(crate) fn encode(&self, text: &str, special: bool, memory: &mut Memory, ids: &mut Vec<u32>) {
        self.raw.split(text, special, |piece| match piece {
            Piece::Token(id) => ids.push(id),
            Piece::Text(text) => {
                let text = if self.nfc { nfc(text) } else { Cow::Borrowed(text) };
                self.normalized.split(&text, special, |piece| match piece {
                    Piece::Token(id) => ids.push(id),
                    Piece::Text(text) => self.encode_plain(text, memory, ids),
                });
            }
        });
    }

    /// Whether `word`, taken whole, becomes the one token `id`.
    pub(crate) fn makes(&self, word: &[u8], id: u32, work: &mut Workspace) -> bool {
        self.bpe.encode_word(word, work);
        work.ids == [id]
    }

    fn encode_plain(&self, text: &str, memory: &mut Memory, ids: &mut Vec<u32>) {
        let Memory { cache, cutter, work, parts } = memory;
        let mut groups = [Group::new(), Group::new()];
        let mut from = 0;
        while from < text.len() {
            let words = cutter.cut(&text[from..]);
            let (mut start, mut noted) = (0, 0);
            // While the words of one group are looked up, those of the next are on their way from memory.
            for (at, ends) in words.ends.chunks(GROUP).enumerate() {
                groups[at % 2].note(words.bytes, noted, ends, cache);
                noted = ends[ends.len() - 1] as usize;
                if at > 0 {
                    let group = &groups[(at + 1) % 2];
                    let ends = &words.ends[(at - 1) * GROUP..at * GROUP];
                    start = self.encode_group(words.bytes, start, ends, group, cache, work, parts, ids);
                }
            }
            let last = (words.ends.len() - 1) / GROUP;
            let ends = &words.ends[last * GROUP..];
            self.encode_group(words.bytes, start, ends, &groups[last % 2], cache, work, parts, ids);
            from += noted;
        }
    }

    /// Appends the ids of the words of a group; returns where the last one ends.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "the parts of a memory, borrowed one by one")]
    fn encode_group(
        &self,
        bytes: &[u8],
        mut start: usize,
        ends: &[u32],
        group: &Group,
        cache: &mut WordCache,
        work: &mut Workspace,
        parts: &mut Vec<(usize, usize, Key, Place)>,
        ids: &mut Vec<u32>,
    ) -> usize {
        let mut long = group.long;
        while long != 0 {
            cache.long.prefetch(group.words[long.trailing_zeros() as usize].1);
            long &= long - 1;
        }
        let mut room = Room::of(ids);
        for (&(key, place), &end) in group.words.iter().zip(ends) {
            let end = end as usize;
            let known = cache.short.get(key, place);
            if known.count() > 0 {
                // SAFETY: a group has at most `GROUP` words, and room for all of them was made before the first and
                // after each that needed more than four.
                unsafe { room.push(known) };
            } else {
                room.close();
                let word = &bytes[start..end];
                if key.is_none() {
                    self.encode_long(word, place, cache, work, parts, ids);
                } else {
                    self.encode_short(word, key, known, cache, work, ids);
                }
                room = Room::of(ids);
            }
            start = end;
        }
        room.close();
        start
    }

    /// Appends the ids of a word that is too long for the table of short ones.
    #[inline(never)]
    fn encode_long(
        &self,
        word: &[u8],
        place: Place,
        cache: &mut WordCache,
        work: &mut Workspace,
        parts: &mut Vec<(usize, usize, Key, Place)>,
        ids: &mut Vec<u32>,
    ) {
        if cache.long.take(word, place, ids) {
            return;
        }
        let Some(joints) = &self.joints else {
            self.merge_long(word, place, cache, work, ids);
            return;
        };
        let begin = ids.len();
        let mut look_up = |parts: &mut Vec<(usize, usize, Key, Place)>| {
            for (start, end, key, place) in parts.iter_mut() {
                *place = cache.place(*key, || &word[*start..*end]);
            }
            for (start, end, key, place) in parts.drain(..) {
                let part = &word[start..end];
                if !key.is_none() {
                    let known = cache.short.get(key, place);
                    self.encode_short(part, key, known, cache, work, ids);
                } else if part.len() == word.len() || !cache.long.take(part, place, ids) {
                    self.merge_long(part, place, cache, work, ids);
                }
            }
        };
        let mut count = 0;
        joints.split(word, |start, end| {
            parts.push((start, end, Key::of(&word[start..end]), Place::default()));
            count += 1;
            if parts.len() == GROUP {
                look_up(parts);
            }
        });
        look_up(parts);
        if count > 1 {
            cache.long.put(word, place, &ids[begin..]);
        }
    }

    fn merge_long(
        &self,
        word: &[u8],
        place: Place,
        cache: &mut WordCache,
        work: &mut Workspace,
        ids: &mut Vec<u32>,
    ) {
        self.bpe.encode_word(word, work);
        cache.long.put(word, place, &work.ids);
        ids.extend_from_slice(&work.ids);
    }

    /// Appends the ids of a short word, of which `known` is what its table has.
    #[inline(never)]
    fn encode_short(
        &self,
        word: &[u8],
        key: Key,
        known: Ids,
        cache: &mut WordCache,
        work: &mut Workspace,
        ids: &mut Vec<u32>,
    ) {
        if known.count() > 0 {
            let (list, count) = known.list();
            ids.extend_from_slice(&list[..count]);
        } else if known == Ids::ELSEWHERE {
            if !cache.take_elsewhere(key, ids) {
                self.merge_long(word, cache.long.place(word), cache, work, ids);
            }
        } else {
            self.bpe.encode_word(word, work);
            cache.put_short(key, &work.ids);
            ids.extend_from_slice(&work.ids);
        }
    }
}

/// Words that are about to be looked up.
struct Group {
    /// What each is called in the table of short words, and where it is in its own.
    words: [(Key, Place); GROUP],
    /// A bit for each long one.
    long: u64,
}

impl Group {
    fn new() -> Self {
        Self { words: [Default::default(); GROUP], long: 0 }
    }

    /// Notes the words of `bytes` from `start` on, at most as many as the group has room for.
    #[inline(always)]
    fn note(&mut self, bytes: &[u8], mut start: usize, ends: &[u32], cache: &WordCache) {
        self.long = 0;
        let last = ends.last().map_or(0, |&end| end as usize);
        let whole = last + 16 <= bytes.len();
        for (at, (slot, &end)) in self.words.iter_mut().zip(ends).enumerate() {
            let end = end as usize;
            let key = if whole {
                // SAFETY: words follow each other, so each starts before the last one ends, and that is 16 bytes or
                // more before the end; the read needs no alignment.
                let window = unsafe { bytes.as_ptr().add(start).cast::<[u8; 16]>().read() };
                Key::new(&window, end - start)
            } else {
                Key::of(&bytes[start..end])
            };
            if key.is_none() {
                self.long |= 1 << at;
            }
            *slot = (key, cache.place(key, || &bytes[start..end]));
            start = end;
        }
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

/// The memories that no thread uses now.
struct Memories(Mutex<Vec<(usize, Box<Memory>)>>);

impl Memories {
    fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The one that this thread used last, so that it finds what is in its processor's cache; else any.
    fn take(&self) -> Option<Box<Memory>> {
        let thread = thread_number();
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = memories.iter().rposition(|&(last, _)| last == thread);
        match own {
            Some(own) => Some(memories.swap_remove(own).1),
            None => memories.pop().map(|(_, memory)| memory),
        }
    }

    fn keep(&self, memory: Box<Memory>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((thread_number(), memory));
    }
}

/// A number that no other thread of the process has.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}
