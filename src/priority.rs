//! The priority of a thread. One call of the system that no safe library makes for a single thread.
#![allow(unsafe_code)]

use std::{cell::Cell, io};

thread_local! {
    static RUNS_WHEN_IDLE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread has asked for [`run_when_idle`], and got it.
pub fn runs_when_idle() -> bool {
    RUNS_WHEN_IDLE.get()
}

/// Puts the calling thread, and those that it starts from now on, under the scheduler's idle policy: it runs on cores that no other
/// thread wants (beside busy ones it gets three thousandths of one), and is interrupted at once where one of them wakes.
///
/// # Errors
/// Where the system forbids it; the thread then keeps the priority that it has.
pub fn run_when_idle() -> io::Result<()> {
    // The idle policy knows no other static priority.
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 names the calling thread, and the pointer is read during the call alone.
    let refused = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if refused != 0 {
        return Err(io::Error::last_os_error());
    }
    RUNS_WHEN_IDLE.set(true);
    Ok(())
}
