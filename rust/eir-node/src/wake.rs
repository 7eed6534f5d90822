//! An eventfd: what wakes the control plane, which has it among the descriptors that it waits for.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Readable from the time it is woken until it is cleared.
#[derive(Debug)]
pub struct Wake(OwnedFd);

impl Wake {
    /// One that is not readable.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers, and what it returns is checked and owned by nobody else.
        unsafe {
            let descriptor = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(OwnedFd::from_raw_fd(descriptor)))
        }
    }

    /// The descriptor.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Makes it readable.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the buffer is eight octets, which is what an eventfd takes; it cannot overflow by ones.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes it not readable.
    pub fn clear(&self) {
        let mut word = [0u8; 8];
        // SAFETY: the buffer is eight octets, which is what an eventfd gives; an error means that it was at zero.
        unsafe { libc::read(self.0.as_raw_fd(), word.as_mut_ptr().cast(), word.len()) };
    }
}
