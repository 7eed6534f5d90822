//! Which threads go first: those that answer, and those that an answer may wait for.
//!
//! An ordinary Linux thread that wakes may wait for the running one's tick, up to four milliseconds, however low the
//! running one's priority is. Real-time threads do not. Where the process may have them (`RLIMIT_RTPRIO`, which the unit
//! file grants), these become the lowest real-time threads; the kernel keeps a share of every processor for ordinary
//! ones. Where it may not, they ask for the shortest slice (`sched_setattr(2)`), which needs no privilege and helps some.

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

/// Lets the calling thread run as soon as it wakes, as far as the process may have that.
pub fn wake_soon() {
    let lowest = libc::sched_param { sched_priority: 1 };
    let mut attr = SchedAttr::default();
    let size = size_of::<SchedAttr>() as u32;
    // SAFETY: all calls are about the calling thread (0) and structures of the size that they are told.
    unsafe {
        if libc::sched_setscheduler(0, libc::SCHED_RR, &raw const lowest) == 0 {
            return;
        }
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
    fn a_thread_is_real_time_where_that_is_allowed_and_ordinary_where_not() {
        let policy = std::thread::spawn(|| {
            wake_soon();
            // SAFETY: asks for the policy of the calling thread.
            unsafe { libc::sched_getscheduler(0) }
        });
        assert!([libc::SCHED_RR, libc::SCHED_OTHER].contains(&policy.join().unwrap()));
    }
}
