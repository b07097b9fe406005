//! Texts from JavaScript, read where they are.

use std::{
    borrow::Cow,
    ops::Range,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

use candlewick_tokenizer::Text;
use napi::{
    Env, JsValue,
    bindgen_prelude::{Array, FromNapiValue, Object, ObjectRef},
    check_status, sys,
};

use crate::failure::Failure;

/// The strings and `Uint8Array`s of an array. Bytes are not copied here: the array keeps them alive until it is
/// released.
pub(crate) struct Texts {
    entries: Vec<Entry>,
    array: ObjectRef,
}

/// One of them.
pub(crate) enum Entry {
    String(String),
    Bytes(Bytes),
}

/// The bytes of a `Uint8Array`.
pub(crate) struct Bytes {
    start: *const u8,
    length: usize,
}

// SAFETY: the memory belongs to an `ArrayBuffer` that is alive as long as `Texts` has its array, is neither resizable nor
// shared (TypeScript copies those), and must not be transferred meanwhile, which the documentation of `encodeBatch`
// says. It is only read, by atomic loads, so a write by JavaScript meanwhile gives one text or the other, mixed at
// worst, and what was read is looked at only after it was copied.
unsafe impl Send for Bytes {}
// SAFETY: as above; reading it from several threads changes nothing.
unsafe impl Sync for Bytes {}

impl Texts {
    /// The texts of an array that nobody else changes. `USAGE` when one is neither a string nor a `Uint8Array`.
    pub(crate) fn of(env: &Env, array: Array) -> napi::Result<Self> {
        let mut entries = Vec::with_capacity(array.len() as usize);
        for at in 0..array.len() {
            entries.push(entry(env, &array, at)?);
        }
        let object = Object::from_raw(env.raw(), array.raw());
        Ok(Self { entries, array: object.create_ref()? })
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Lets go of the array. On JavaScript's thread.
    pub(crate) fn release(self, env: &Env) -> napi::Result<()> {
        self.array.unref(env)
    }
}

fn entry(env: &Env, array: &Array, at: u32) -> napi::Result<Entry> {
    let mut value = std::ptr::null_mut();
    // SAFETY: both handles are of this environment and of the running call.
    check_status!(unsafe { sys::napi_get_element(env.raw(), array.raw(), at, &mut value) })?;
    let (mut kind, mut length, mut start) = (0, 0, std::ptr::null_mut());
    // SAFETY: as above; the call fails for what is not a typed array, and a null pointer says that a result is not
    // wanted.
    let status = unsafe {
        sys::napi_get_typedarray_info(
            env.raw(),
            value,
            &mut kind,
            &mut length,
            &mut start,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    if status == sys::Status::napi_ok && kind == sys::TypedarrayType::uint8_array {
        return Ok(Entry::Bytes(Bytes { start: start.cast(), length }));
    }
    // SAFETY: `value` is a handle of this environment and of the running call.
    unsafe { String::from_napi_value(env.raw(), value) }.map(Entry::String).map_err(|_| {
        let message = format!("text {at} is neither a string nor a Uint8Array");
        Failure { code: "USAGE".into(), message, hint: "give strings, or UTF-8 bytes".into() }.into()
    })
}

impl Text for Entry {
    fn length(&self) -> usize {
        match self {
            Entry::String(text) => text.len(),
            Entry::Bytes(bytes) => bytes.length,
        }
    }

    fn addresses(&self) -> Range<usize> {
        let start = match self {
            Entry::String(text) => text.as_ptr(),
            Entry::Bytes(bytes) => bytes.start,
        };
        start.addr()..start.addr() + self.length()
    }

    fn read<'a>(&'a self, room: &'a mut Vec<u8>) -> Cow<'a, str> {
        match self {
            Entry::String(text) => Cow::Borrowed(text),
            Entry::Bytes(bytes) => {
                bytes.copy(room);
                match simdutf8::basic::from_utf8(room) {
                    Ok(text) => Cow::Borrowed(text),
                    Err(_) => String::from_utf8_lossy(room),
                }
            }
        }
    }
}

impl Bytes {
    /// Leaves a copy in `room`.
    fn copy(&self, room: &mut Vec<u8>) {
        room.clear();
        room.reserve(self.length);
        // SAFETY: the memory is alive, as `Send` above says. The address is aligned for each load, and each is within the
        // length. The list has room for as many bytes, and all of them are written before they count.
        unsafe {
            let mut at = 0;
            let to = room.as_mut_ptr();
            let byte = |at: usize| AtomicU8::from_ptr(self.start.add(at).cast_mut()).load(Ordering::Relaxed);
            while at < self.length && !self.start.add(at).cast::<u64>().is_aligned() {
                to.add(at).write(byte(at));
                at += 1;
            }
            while at + 8 <= self.length {
                let eight = AtomicU64::from_ptr(self.start.add(at).cast_mut().cast()).load(Ordering::Relaxed);
                to.add(at).cast::<u64>().write_unaligned(eight);
                at += 8;
            }
            while at < self.length {
                to.add(at).write(byte(at));
                at += 1;
            }
            room.set_len(self.length);
        }
    }
}
