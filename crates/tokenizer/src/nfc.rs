//! Normalisation form C, as the `tokenizers` crate has it (tables of Unicode 9).

use std::borrow::Cow;

use unicode_normalization_alignments::UnicodeNormalization;

use crate::scan::is_nfc_inert;

/// `text` in NFC; borrowed where no character of it could change.
pub(crate) fn nfc(text: &str) -> Cow<'_, str> {
    if is_nfc_inert(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().nfc().map(|(character, _)| character).collect())
}
