//! Which threads go first: those that answer, and those that an answer may wait for.
//!
//! A Linux thread that wakes waits for the running one's slice to end, about three milliseconds, unless its own slice is
//! shorter (`sched_setattr(2)`, from Linux 6.12 on). Asking for a short slice needs no privilege and takes no processor
//! time from anybody; older kernels ignore it.

/// Nanoseconds: the shortest slice that Linux grants.
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr` of the kernel, version 1.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// Lets the calling thread run soon when it wakes. Where the kernel will not, it runs as any other.
pub fn wake_soon() {
    let mut attr = SchedAttr::default();
    let size = size_of::<SchedAttr>() as u32;
    // SAFETY: both calls are about the calling thread (0) and a structure of the size that they are told.
    unsafe {
        if libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) == 0 && attr.policy == 0 {
            attr.runtime = SLICE_NS;
            libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_an_ordinary_one() {
        wake_soon();
        // SAFETY: asks for the policy of the calling thread.
        assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_OTHER);
    }
}
