//! Our own encoder: scanner, word cache, merges.

use std::borrow::Cow;

use crate::bpe::{Bpe, Workspace};
use crate::cache::{Ids, Key, Place, Slot};
use crate::group::{GROUP, Group};
use crate::memory::{Memories, Memory, Part, Tools};
use crate::nfc::nfc;
use crate::pattern::Pattern;
use crate::scan::Words;
use crate::special::{AddedTokens, Piece};
use crate::split::Joints;

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

/// Words that every memory knows from the beginning, at most.
const KNOWN: usize = 1 << 15;

impl Encoder {
    /// Of `words`, the first that are short are known before they are met in a text.
    pub(crate) fn new(
        pattern: Pattern,
        nfc: bool,
        bpe: Bpe,
        joints: Option<Joints>,
        raw: AddedTokens,
        normalized: AddedTokens,
        words: &[Vec<u8>],
    ) -> Self {
        let keys: Vec<Key> =
            words.iter().map(|word| Key::of(word)).filter(|key| !key.is_none()).take(KNOWN).collect();
        let mut known = Vec::with_capacity(keys.len());
        bpe.encode_words(keys.iter().map(|key| key.bytes()), |number, ids| {
            known.extend(Ids::pack(ids).map(|ids| Slot { word: keys[number], ids }));
        });
        Self { pattern, nfc, bpe, joints, raw, normalized, memories: Memories::new(known) }
    }

    pub(crate) fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// [`Memories::borrow`].
    pub(crate) fn borrow_memory(&self, budget: usize, bytes: usize, shares: bool) -> Box<Memory> {
        self.memories.borrow(self.pattern, budget, bytes, shares)
    }

    /// [`Memories::give_back`].
    pub(crate) fn give_back(&self, memory: Box<Memory>) {
        self.memories.give_back(memory);
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
        let Memory { tools, cutter, ahead, .. } = memory;
        let mut groups = [Group::new(), Group::new()];
        let mut from = 0;
        while from < text.len() {
            let words = cutter.cut(&text[from..]);
            let start_of = |at: usize| if at == 0 { 0 } else { words.ends[at * GROUP - 1] as usize };
            let mut last: Option<(usize, &[u32])> = None;
            for (at, ends) in words.ends.chunks(GROUP).enumerate() {
                // While the words of one group are looked up, those of the next are on their way from memory.
                if last.is_some() {
                    groups[(at + 1) % 2].fetch_long(&tools.cache);
                }
                tools.lookup.note(&mut groups[at % 2], words.bytes, start_of(at), ends, &tools.cache);
                ahead.fetch();
                if let Some((at, ends)) = last {
                    self.encode_group(&words, start_of(at), ends, &groups[at % 2], tools, ids);
                }
                last = Some((at, ends));
            }
            if let Some((at, ends)) = last {
                self.encode_group(&words, start_of(at), ends, &groups[at % 2], tools, ids);
            }
            from += words.ends.last().map_or(text.len(), |&end| end as usize);
        }
    }

    /// Appends the ids of the words of a group, which start at `start` and end at `ends`.
    #[inline(always)]
    fn encode_group(
        &self,
        words: &Words,
        start: usize,
        ends: &[u32],
        group: &Group,
        tools: &mut Tools,
        ids: &mut Vec<u32>,
    ) {
        let mut at = 0;
        loop {
            at = tools.lookup.take(group, tools.cache.short.table(), at, ends.len(), ids);
            if at == ends.len() {
                return;
            }
            let start = if at == 0 { start } else { ends[at - 1] as usize };
            let word = &words.bytes[start..ends[at] as usize];
            let (key, place) = (group.keys[at], group.places[at]);
            if key.is_none() {
                self.encode_long(word, place, tools, ids);
            } else {
                let rest = group.keys[at..ends.len()].iter().zip(&group.places[at..]);
                self.encode_short(key, place, rest.map(|(&key, &place)| (key, place)), tools, ids);
            }
            at += 1;
        }
    }

    /// Appends the ids of a word that is too long for the table of short ones.
    #[inline(never)]
    fn encode_long(&self, word: &[u8], place: Place, tools: &mut Tools, ids: &mut Vec<u32>) {
        if tools.cache.long.take(word, place, ids) {
            return;
        }
        let Some(joints) = &self.joints else {
            self.merge_long(word, place, tools, ids);
            return;
        };
        let begin = ids.len();
        let mut parts = std::mem::take(&mut tools.parts);
        let mut count = 0;
        joints.split(word, |start, end| {
            parts.push((start, end, Key::of(&word[start..end]), Place::default()));
            count += 1;
            if parts.len() == GROUP {
                self.encode_parts(word, &mut parts, tools, ids);
            }
        });
        self.encode_parts(word, &mut parts, tools, ids);
        tools.parts = parts;
        if count > 1 {
            tools.cache.long.put(word, place, &ids[begin..]);
        }
    }

    /// Appends the ids of parts of a long word, and forgets the parts.
    fn encode_parts(&self, word: &[u8], parts: &mut Vec<Part>, tools: &mut Tools, ids: &mut Vec<u32>) {
        for (start, end, key, place) in parts.iter_mut() {
            *place = tools.cache.place(*key, || &word[*start..*end]);
        }
        for (at, &(start, end, key, place)) in parts.iter().enumerate() {
            let part = &word[start..end];
            if !key.is_none() {
                let rest = parts[at..].iter().map(|&(_, _, key, place)| (key, place));
                self.encode_short(key, place, rest, tools, ids);
            } else if part.len() == word.len() || !tools.cache.long.take(part, place, ids) {
                self.merge_long(part, place, tools, ids);
            }
        }
        parts.clear();
    }

    fn merge_long(&self, word: &[u8], place: Place, tools: &mut Tools, ids: &mut Vec<u32>) {
        self.bpe.encode_word(word, &mut tools.work);
        tools.cache.long.put(word, place, &tools.work.ids);
        ids.extend_from_slice(&tools.work.ids);
    }

    /// Appends the ids of a short word. Where it is not known, all of `words` are learnt, which begin with it: words are merged
    /// faster together.
    #[inline]
    fn encode_short(
        &self,
        key: Key,
        place: Place,
        words: impl Iterator<Item = (Key, Place)>,
        tools: &mut Tools,
        ids: &mut Vec<u32>,
    ) {
        if tools.cache.short.take(tools.cache.short.get(key, place), ids) {
            return;
        }
        self.learn(words, tools);
        // In a full table another may have taken its place already.
        if !tools.cache.short.take(tools.cache.short.get(key, place), ids) {
            let (bytes, length) = key.bytes();
            self.bpe.encode_word(&bytes[..length], &mut tools.work);
            ids.extend_from_slice(&tools.work.ids);
        }
    }

    /// Remembers those of some words that are short and not known.
    #[inline(never)]
    fn learn(&self, words: impl Iterator<Item = (Key, Place)>, tools: &mut Tools) {
        let Tools { cache, new, learnt, .. } = tools;
        new.clear();
        for (key, place) in words {
            if !key.is_none() && !cache.short.is_known(cache.short.get(key, place)) && !new.contains(&key) {
                new.push(key);
            }
        }
        let words = new.iter().map(|key| key.bytes());
        self.bpe.encode_words(words, |number, ids| {
            let word = new[number];
            let ids = cache.short.put(word, ids);
            if let Some(learnt) = learnt {
                learnt.push(Slot { word, ids });
            }
        });
    }
}
