//! Writes `src/scan/unicode_table.rs` to stdout: the class of every code point, as the regular expressions of
//! the `tokenizers` crate see it (Oniguruma, Unicode 16), and whether its NFC (Unicode 9) leaves it alone.
//!
//! `cargo run -p candlewick-tokenizer --example unicode_table > crates/tokenizer/src/scan/unicode_table.rs`

use tokenizers::utils::SysRegex;
use unicode_normalization_alignments::char::canonical_combining_class;
use unicode_normalization_alignments::{IsNormalized, is_nfc_quick};

/// Expression and bit, as `src/scan/class.rs` names the bits.
const CLASSES: [(&str, u8); 6] = [
    (r"\p{L}", 1),
    (r"\p{N}", 2),
    (r"\s", 4),
    (r"[\r\n]", 8),
    (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", 16),
    (r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", 32),
];

/// Texts made only of such characters are in NFC.
const NFC_INERT: u8 = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text: String = (0..=0x10FFFF).filter_map(char::from_u32).collect();
    let mut classes = vec![0u8; 0x110000];
    for (expression, bit) in CLASSES {
        let regex = SysRegex::new(expression).map_err(|error| error.to_string())?;
        for (start, _) in regex.find_iter(&text) {
            let character = text[start..].chars().next().ok_or("a match holds a character")?;
            classes[character as usize] |= bit;
        }
    }

    for character in text.chars() {
        let starter = canonical_combining_class(character) == 0;
        if starter && is_nfc_quick(std::iter::once(character)) == IsNormalized::Yes {
            classes[character as usize] |= NFC_INERT;
        }
    }

    println!("//! Written by `examples/unicode_table.rs`: do not edit.\n");
    println!(
        "/// Runs of equal class, as (first code point, class); the next run's start ends it. Unicode 16."
    );
    println!("#[rustfmt::skip]");
    println!("pub(super) const RUNS: &[(u32, u8)] = &[");
    let runs = (0..classes.len()).filter(|&at| at == 0 || classes[at] != classes[at - 1]);
    let runs: Vec<String> = runs.map(|at| format!("(0x{at:X}, {})", classes[at])).collect();
    for line in runs.chunks(8) {
        println!("    {},", line.join(", "));
    }
    println!("];");
    Ok(())
}
