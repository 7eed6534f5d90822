//! Where a benchmark runs.

use std::io;

/// Binds this thread, and those that it starts from now on, to one processor.
///
/// # Errors
/// The kernel's, for a processor that is not there.
pub fn pin(processor: usize) -> io::Result<()> {
    if processor >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a cpu_set_t is a bit set, for which all zero is the empty set; CPU_SET stays inside it by the check above.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        set
    };
    // SAFETY: the set is initialised and its size is given; 0 is the calling thread.
    let outcome = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
