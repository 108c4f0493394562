//! The pause container's program: it holds a sandbox's namespaces, reaps what is orphaned into them, and ends on TERM.
//! A static binary without the C library; compiled by the build script, x86-64 and AArch64 Linux.
#![no_std]
#![no_main]

use core::arch::asm;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const SIGPROCMASK: usize = 14;
    pub const SIGTIMEDWAIT: usize = 128;
    pub const WAIT4: usize = 61;
    pub const EXIT_GROUP: usize = 231;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const SIGPROCMASK: usize = 135;
    pub const SIGTIMEDWAIT: usize = 137;
    pub const WAIT4: usize = 260;
    pub const EXIT_GROUP: usize = 94;
}

const INT: isize = 2;
const TERM: isize = 15;
const CHLD: isize = 17;
const ANY_CHILD: usize = usize::MAX;
const NO_HANG: usize = 1;

#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            out("rcx") _, out("r11") _);
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d);
    }
    result
}

#[unsafe(no_mangle)]
pub extern "C" fn _start() -> ! {
    let set: u64 = 1 << (INT - 1) | 1 << (TERM - 1) | 1 << (CHLD - 1);
    let set = &raw const set as usize;
    // SAFETY: `set` is a valid signal set of eight bytes, and the other pointers are null, as these calls allow.
    unsafe {
        call(number::SIGPROCMASK, 0, set, 0, 8);
        loop {
            match call(number::SIGTIMEDWAIT, set, 0, 0, 8) {
                INT | TERM => {
                    call(number::EXIT_GROUP, 0, 0, 0, 0);
                }
                CHLD => while call(number::WAIT4, ANY_CHILD, 0, NO_HANG, 0) > 0 {},
                _ => {}
            }
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
