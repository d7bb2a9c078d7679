//! Whether the matrix unit of Intel's server CPUs, AMX, can be used.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether this CPU has the unit and the operating system lets the process use it.
pub(crate) fn is_available() -> bool {
    // There is no lock: another thread may hold one at the moment of a fork, and the child would wait for it for ever.
    // Asking twice does no harm.
    const UNKNOWN: u8 = 2;
    static AVAILABLE: AtomicU8 = AtomicU8::new(UNKNOWN);
    let known = AVAILABLE.load(Ordering::Relaxed);
    if known != UNKNOWN {
        return known == 1;
    }
    let available = is_on_this_cpu() && is_granted();
    AVAILABLE.store(u8::from(available), Ordering::Relaxed);
    available
}

#[allow(unused_unsafe, reason = "CPUID is a safe function in newer versions of Rust")]
fn is_on_this_cpu() -> bool {
    const TILES_AND_BYTES: u32 = 1 << 24 | 1 << 25;
    if cfg!(miri) {
        return false;
    }
    // SAFETY: every 64-bit x86 CPU has the instruction.
    unsafe { __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILES_AND_BYTES == TILES_AND_BYTES }
}

/// Asks Linux to make room for the tiles in the saved state of each thread (`Documentation/arch/x86/xstate.rst`).
///
/// Linux grants this to all threads of the process, permanently, and to every process forked from it. After that Linux
/// refuses signal stacks that are too small for the larger state. It refuses the request where a thread already has
/// such a stack.
#[cfg(target_os = "linux")]
fn is_granted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let answer: i64;
    // SAFETY: the call only changes what this process may use. The kernel preserves all registers except these.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer, in("rdi") REQUEST, in("rsi") TILE_DATA,
            out("rcx") _, out("r11") _, options(nostack),
        );
    }
    answer == 0
}

/// How other systems grant the unit is not known here.
#[cfg(not(target_os = "linux"))]
fn is_granted() -> bool {
    false
}
