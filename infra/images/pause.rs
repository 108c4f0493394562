//! The process that holds a pod's sandbox open: it sleeps, reaps what is left to it, and ends on SIGTERM or SIGINT.
#![no_std]
#![no_main]

use core::ffi::{c_int, c_void};

/// `sigset_t` of glibc and musl on Linux: 1024 bits.
#[repr(C, align(8))]
struct Set([u8; 128]);

const SIG_BLOCK: c_int = 0;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
const WNOHANG: c_int = 1;

unsafe extern "C" {
    fn sigemptyset(set: *mut Set) -> c_int;
    fn sigaddset(set: *mut Set, signal: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const Set, old: *mut Set) -> c_int;
    fn sigwait(set: *const Set, signal: *mut c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn _exit(code: c_int) -> !;
}

#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_void) -> c_int {
    let mut set = Set([0; 128]);
    let mut signal = 0;
    // SAFETY: `set` is as large and as aligned as the C library's sigset_t; every pointer is to a live local or null
    // where the function allows it.
    unsafe {
        sigemptyset(&mut set);
        for wanted in [SIGINT, SIGTERM, SIGCHLD] {
            sigaddset(&mut set, wanted);
        }
        sigprocmask(SIG_BLOCK, &set, core::ptr::null_mut());
        loop {
            sigwait(&set, &mut signal);
            if signal != SIGCHLD {
                _exit(0);
            }
            while waitpid(-1, core::ptr::null_mut(), WNOHANG) > 0 {}
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: ends the process; nothing is left to clean up.
    unsafe { _exit(1) }
}
