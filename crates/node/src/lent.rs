//! Lists of ids that JavaScript has, and how their memory comes back.

use std::{
    collections::HashMap,
    mem::ManuallyDrop,
    sync::{Mutex, PoisonError},
};

use candlewick_tokenizer::recycle;
use napi::bindgen_prelude::{ArrayBuffer, Uint32Array};

/// A list that JavaScript has. What it points to is touched by JavaScript alone as long as it is in [`LENT`].
struct Lent {
    /// No other list has this number, though another may later lie at the same address.
    number: u64,
    list: ManuallyDrop<Vec<u32>>,
}

/// Those that are out, by address.
static LENT: Mutex<Option<Lists>> = Mutex::new(None);

#[derive(Default)]
struct Lists {
    by_address: HashMap<usize, Lent>,
    given: u64,
}

/// Takes a list back once: from its owner, or because nobody has it any more; whichever comes first.
fn take(address: usize, number: Option<u64>) -> Option<Vec<u32>> {
    let mut lent = LENT.lock().unwrap_or_else(PoisonError::into_inner);
    let lists = &mut lent.as_mut()?.by_address;
    if number.is_some_and(|number| lists.get(&address).is_none_or(|lent| lent.number != number)) {
        return None;
    }
    lists.remove(&address).map(|lent| ManuallyDrop::into_inner(lent.list))
}

/// Ids as JavaScript has them; the memory comes back when it needs them no longer.
pub(crate) fn lend(ids: Vec<u32>) -> Uint32Array {
    if ids.is_empty() {
        return ids.into();
    }
    let mut list = ManuallyDrop::new(ids);
    let (start, length) = (list.as_mut_ptr(), list.len());
    let mut lent = LENT.lock().unwrap_or_else(PoisonError::into_inner);
    let lists = lent.get_or_insert_default();
    lists.given += 1;
    let number = lists.given;
    lists.by_address.insert(start.addr(), Lent { number, list });
    drop(lent);
    // SAFETY: start and length are those of a list that is kept, and not touched, until it is taken back: by the
    // callback, which comes when the memory is no longer used, or by `give_back`, after which JavaScript cannot reach it.
    unsafe {
        Uint32Array::with_external_data(start, length, move |start, _| {
            take(start.addr(), Some(number)).into_iter().for_each(recycle);
        })
    }
}

/// Takes back the lists behind buffers of [`lend`] at once; JavaScript's views of them are empty afterwards. Leaves other
/// buffers alone.
pub(crate) fn give_back(buffers: Vec<ArrayBuffer>) -> napi::Result<()> {
    for buffer in buffers {
        let address = buffer.as_ptr().addr();
        let is_ours = {
            let lent = LENT.lock().unwrap_or_else(PoisonError::into_inner);
            lent.as_ref().is_some_and(|lists| lists.by_address.contains_key(&address))
        };
        if is_ours {
            // Detached first: from here on only we reach the memory.
            buffer.detach()?;
            take(address, None).into_iter().for_each(recycle);
        }
    }
    Ok(())
}
