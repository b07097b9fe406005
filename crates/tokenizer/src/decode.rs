//! From ids back to text, all at once or as they come.

use crate::tokenizer::Tokenizer;

/// Turns ids into text one by one, holding back bytes until they complete a character.
///
/// What `push` and `finish` return, put together, is what [`Tokenizer::decode`] gives for all ids. Where the
/// `tokenizers` crate serves a file that is not byte-level, its decoder may go back on text that was already handed
/// out (WordPiece closes up punctuation); that part then stays as it was.
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    skip_special: bool,
    held: Held,
}

/// What has not been handed out yet.
enum Held {
    /// The bytes of a byte-level tokenizer that are not a character yet.
    Bytes(Vec<u8>),
    /// Ids for the file's own decoder, the first `told` of them handed out: spaces depend on the token before.
    Ids { ids: Vec<u32>, told: usize },
}

impl StreamDecoder {
    pub(crate) fn new(tokenizer: Tokenizer, skip_special: bool) -> Self {
        let held = if tokenizer.decodes_bytes() {
            Held::Bytes(Vec::new())
        } else {
            Held::Ids { ids: Vec::new(), told: 0 }
        };
        Self { tokenizer, skip_special, held }
    }

    /// The characters that `id` completes; often a whole token, sometimes nothing. An unknown id adds nothing.
    pub fn push(&mut self, id: u32) -> String {
        let mut complete = String::new();
        if self.skip_special && self.tokenizer.is_special(id) {
            return complete;
        }
        match &mut self.held {
            Held::Bytes(held) => {
                held.extend_from_slice(self.tokenizer.token_bytes(id).unwrap_or_default());
                let taken = take_complete(held, &mut complete);
                held.drain(..taken);
            }
            Held::Ids { ids, told } => {
                ids.push(id);
                let text = self.tokenizer.decode(ids, false);
                // Bytes that are half a character decode as U+FFFD until the rest comes.
                if !text.ends_with(char::REPLACEMENT_CHARACTER) {
                    complete.push_str(beyond(&self.tokenizer.decode(&ids[..*told], false), &text));
                    // The last step's ids stay, as what the next ones follow.
                    ids.drain(..*told);
                    *told = ids.len();
                }
            }
        }
        complete
    }

    /// What is still held back: U+FFFD when the last character never became complete.
    pub fn finish(&mut self) -> String {
        match &mut self.held {
            Held::Bytes(held) => String::from_utf8_lossy(&std::mem::take(held)).into_owned(),
            Held::Ids { ids, told } => {
                let text = self.tokenizer.decode(ids, false);
                let rest = beyond(&self.tokenizer.decode(&ids[..*told], false), &text).to_owned();
                (*ids, *told) = (Vec::new(), 0);
                rest
            }
        }
    }
}

/// What `text` has beyond the beginning that it shares with `before`.
fn beyond<'a>(before: &str, text: &'a str) -> &'a str {
    let shared = before.chars().zip(text.chars()).take_while(|(a, b)| a == b);
    &text[shared.map(|(character, _)| character.len_utf8()).sum()..]
}

/// Appends every complete character of `bytes`, invalid sequences as U+FFFD; returns how many bytes that took.
fn take_complete(bytes: &[u8], complete: &mut String) -> usize {
    let mut taken = 0;
    loop {
        match std::str::from_utf8(&bytes[taken..]) {
            Ok(text) => {
                complete.push_str(text);
                return bytes.len();
            }
            Err(error) => {
                let valid = &bytes[taken..taken + error.valid_up_to()];
                complete.push_str(&String::from_utf8_lossy(valid));
                taken += error.valid_up_to();
                match error.error_len() {
                    Some(length) => {
                        complete.push(char::REPLACEMENT_CHARACTER);
                        taken += length;
                    }
                    None => return taken,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::take_complete;

    #[test]
    fn bytes_fed_one_by_one_give_the_lossy_text() {
        let cases: [&[u8]; 5] = [
            b"plain",
            "h\u{e9}\u{4e2d}\u{1f600}".as_bytes(),
            b"a\xff\xe4\xb8b\xf0\x9f",
            b"\xc3\xc3\xa9",
            b"\xe4\xb8",
        ];
        for bytes in cases {
            let (mut held, mut text) = (Vec::new(), String::new());
            for &byte in bytes {
                held.push(byte);
                let kept = take_complete(&held, &mut text);
                held.drain(..kept);
            }
            text.push_str(&String::from_utf8_lossy(&held));
            assert_eq!(text, String::from_utf8_lossy(bytes));
        }
    }
}
