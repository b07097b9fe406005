//! From ids back to text, all at once or as they come.

use crate::tokenizer::Tokenizer;

/// Turns ids into text one by one, holding back bytes until they complete a character.
///
/// What `push` and `finish` return, put together, is `decode(ids, false)`.
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    held: Vec<u8>,
}

impl StreamDecoder {
    pub(crate) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, held: Vec::new() }
    }

    /// The characters that `id` completes; often a whole token, sometimes nothing. An unknown id adds nothing.
    pub fn push(&mut self, id: u32) -> String {
        if let Some(bytes) = self.tokenizer.token_bytes(id) {
            self.held.extend_from_slice(bytes);
        }
        let mut complete = String::new();
        let kept = take_complete(&self.held, &mut complete);
        self.held.drain(..kept);
        complete
    }

    /// What is still held back: U+FFFD when the last character never became complete.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        rest
    }
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
