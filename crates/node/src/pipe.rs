use napi_derive::napi;

/// What an unprivileged process may ask for on Linux.
#[cfg(target_os = "linux")]
const PIPE_BYTES: libc::c_int = 1 << 20;

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
    let (read, write) = (read.into_raw_fd(), write.into_raw_fd());
    // A frame has megabytes; with the usual 64 KiB each of its many pieces costs a change of process. A kernel that
    // grants no more leaves the pipe as it was.
    #[cfg(target_os = "linux")]
    // SAFETY: `F_SETPIPE_SZ` takes an integer and touches no memory of ours; `write` is a pipe that was just opened.
    unsafe {
        libc::fcntl(write, libc::F_SETPIPE_SZ, PIPE_BYTES);
    }
    Ok(Some(NativePipe { read, write }))
}

/// A new pipe; null where a child cannot be given one by its number (Windows).
#[napi]
#[cfg(not(unix))]
pub fn create_pipe() -> napi::Result<Option<NativePipe>> {
    Ok(None)
}
