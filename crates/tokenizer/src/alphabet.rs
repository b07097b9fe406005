//! The byte-level alphabet: each of the 256 bytes has a printable character that stands for it in vocabulary
//! files. Method: GPT-2's `bytes_to_unicode`.

/// The character that stands for `byte`: itself when it prints, else U+0100 onwards in byte order.
pub(crate) const fn byte_to_char(byte: u8) -> char {
    if prints(byte) {
        return byte as char;
    }
    let mut before = 0;
    let mut other = 0;
    while other < byte {
        if !prints(other) {
            before += 1;
        }
        other += 1;
    }
    match char::from_u32(0x100 + before) {
        Some(mapped) => mapped,
        None => panic!("at most 68 bytes do not print"),
    }
}

/// The byte that `mapped` stands for, or `None` for a character outside the alphabet.
pub(crate) fn char_to_byte(mapped: char) -> Option<u8> {
    let code = mapped as usize;
    if code < BYTE_OF.len() { u8::try_from(BYTE_OF[code]).ok() } else { None }
}

/// The alphabet's bytes in the order of their mapped characters: the order in which they get their ids.
pub(crate) fn bytes_by_mapped_char() -> [u8; 256] {
    let mut bytes: [u8; 256] = std::array::from_fn(|i| i as u8);
    bytes.sort_unstable_by_key(|&byte| byte_to_char(byte));
    bytes
}

/// `bytes` spelled in the alphabet, as vocabulary files spell a token.
pub(crate) fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| CHAR_OF[byte as usize]).collect()
}

/// The bytes that a token's spelling stands for, or `None` when a character is outside the alphabet.
pub(crate) fn unspell(spelling: &str) -> Option<Vec<u8>> {
    spelling.chars().map(char_to_byte).collect()
}

const fn prints(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

const CHAR_OF: [char; 256] = {
    let mut table = ['\0'; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte_to_char(byte as u8);
        byte += 1;
    }
    table
};

const BYTE_OF: [u16; 0x144] = {
    let mut table = [u16::MAX; 0x144];
    let mut byte = 0;
    while byte < 256 {
        table[CHAR_OF[byte] as usize] = byte as u16;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_the_crates() {
        let ours: std::collections::HashSet<char> = (0..=255).map(byte_to_char).collect();
        let theirs: std::collections::HashSet<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn spelling_every_byte_and_back_changes_nothing() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unspell(&spell(&bytes)), Some(bytes));
        assert_eq!(unspell("a b"), None, "a space is not in the alphabet");
    }
}
