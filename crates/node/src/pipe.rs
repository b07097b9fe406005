use napi_derive::napi;

/// The two ends of a pipe as file descriptors, both closed on exec and both the caller's to close.
#[napi(object)]
pub struct NativePipe {
    /// Where bytes come out.
    pub read: i32,
    /// Where they go in.
    pub write: i32,
}

/// A new pipe; null where a child cannot be given one by its number (Windows).
///
/// Node makes pipes to its children, too, but reads them into a new buffer each time.
#[napi]
#[cfg(unix)]
pub fn create_pipe() -> napi::Result<Option<NativePipe>> {
    use std::os::fd::IntoRawFd;

    let (read, write) =
        std::io::pipe().map_err(|e| crate::failure::Failure::internal(format!("no pipe: {e}")))?;
    Ok(Some(NativePipe { read: read.into_raw_fd(), write: write.into_raw_fd() }))
}

/// A new pipe; null where a child cannot be given one by its number (Windows).
#[napi]
#[cfg(not(unix))]
pub fn create_pipe() -> napi::Result<Option<NativePipe>> {
    Ok(None)
}
