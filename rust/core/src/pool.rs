//! A rayon pool that survives `fork`.
//!
//! A forked child inherits the memory of a thread pool but none of its threads, and would wait for them for ever. The
//! pool therefore remembers the process that started it. A child starts its own pool when it first needs one.
//!
//! The threads of a pool compute with [`IeeeFloats`], whatever settings the thread that started them has.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

struct Pool {
    process: u32,
    threads: rayon::ThreadPool,
}

/// There is no lock: a lock that another thread holds at the moment of a fork would never be free in the child.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());

/// Runs `work` in the pool of this process. Parallel iterators inside use its threads.
///
/// There is one thread for each CPU that this process may use, or `RAYON_NUM_THREADS` threads.
///
/// # Panics
/// When the system cannot start a thread.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    current().threads.install(work)
}

/// Like [`run`], and the calling thread calls `watch` every `pause` until the work is done.
///
/// # Panics
/// Like [`run`], and when the work panics.
pub fn run_watched<T: Send>(work: impl FnOnce() -> T + Send, pause: Duration, mut watch: impl FnMut()) -> T {
    let (sender, receiver) = mpsc::channel();
    let mut done = None;
    current().threads.in_place_scope(|scope| {
        scope.spawn(move |_| sender.send(work()).expect("the receiver lives until the work is done"));
        loop {
            match receiver.recv_timeout(pause) {
                Ok(result) => break done = Some(result),
                Err(RecvTimeoutError::Timeout) => watch(),
                Err(RecvTimeoutError::Disconnected) => break, // the work has panicked, and this scope will panic too
            }
        }
    });
    done.expect("the work is done or has panicked")
}

fn current() -> &'static Pool {
    let process = std::process::id();
    let found = POOL.load(Ordering::Acquire);
    // SAFETY: a pointer in POOL is null or comes from `Box::into_raw` below. It is never freed once it is in POOL.
    if let Some(pool) = unsafe { found.as_ref() }
        && pool.process == process
    {
        return pool;
    }
    let threads = rayon::ThreadPoolBuilder::new()
        .thread_name(|index| format!("langptune-{index}"))
        .start_handler(|_| std::mem::forget(IeeeFloats::on_this_thread()))
        .build()
        .expect("the system can start threads");
    let made = Box::into_raw(Box::new(Pool { process, threads }));
    match POOL.compare_exchange(found, made, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: `made` was just leaked into POOL, where it stays. If `found` is the pool of the parent process, it
        // stays too: its threads do not exist here, and dropping it would wait for them.
        Ok(_) => unsafe { &*made },
        Err(_) => {
            // SAFETY: the exchange failed, so `made` never reached POOL, and no other thread has seen it.
            drop(unsafe { Box::from_raw(made) });
            current()
        }
    }
}

/// While this value lives, its thread computes by IEEE 754, as Rust assumes: it rounds to nearest and keeps numbers
/// below the normal range. Other code may have set the thread to treat such numbers as 0.
pub struct IeeeFloats {
    before: floats::Control,
    /// The value must stay on its thread.
    of_this_thread: PhantomData<*const ()>,
}

impl IeeeFloats {
    /// Changes the settings of this thread until the value is dropped.
    #[must_use]
    pub fn on_this_thread() -> Self {
        let before = floats::get();
        floats::set(floats::IEEE);
        Self { before, of_this_thread: PhantomData }
    }
}

impl Drop for IeeeFloats {
    fn drop(&mut self) {
        floats::set(self.before);
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod floats {
    use std::arch::asm;

    pub type Control = u32;
    /// All exceptions are masked, and all other bits are 0.
    pub const IEEE: Control = 0x1f80;

    pub fn get() -> Control {
        let mut control = 0;
        // SAFETY: every 64-bit x86 CPU has the register, and its 32 bits are written to `control`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack, preserves_flags)) };
        control
    }

    pub fn set(control: Control) {
        // SAFETY: the register takes either `IEEE`, which Rust expects, or the value that it held before.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack, preserves_flags, readonly)) };
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod floats {
    use std::arch::asm;

    pub type Control = u64;
    pub const IEEE: Control = 0;

    pub fn get() -> Control {
        let control;
        // SAFETY: every 64-bit ARM CPU has the register, and any program may read it.
        unsafe { asm!("mrs {}, fpcr", out(reg) control, options(nomem, nostack, preserves_flags)) };
        control
    }

    pub fn set(control: Control) {
        // SAFETY: the register takes either `IEEE`, which Rust expects, or the value that it held before.
        unsafe { asm!("msr fpcr, {}", in(reg) control, options(nostack, preserves_flags)) };
    }
}

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod floats {
    pub type Control = ();
    pub const IEEE: Control = ();

    pub fn get() -> Control {}

    pub fn set((): Control) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_threads_get_one_pool() {
        let pools: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| ptr::from_ref(current()) as usize)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(pools.iter().all(|pool| *pool == pools[0]));
    }

    #[test]
    fn watched_work_is_watched_and_ends() {
        let mut times = 0;
        run_watched(|| std::thread::sleep(Duration::from_millis(60)), Duration::from_millis(1), || times += 1);
        assert!(times > 1);
        assert_eq!(run_watched(|| 7, Duration::from_secs(1000), || {}), 7);
    }

    #[test]
    #[should_panic(expected = "the work's own panic")]
    fn watched_work_may_panic() {
        run_watched(|| panic!("the work's own panic"), Duration::from_secs(1000), || {});
    }

    #[test]
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fn small_numbers_are_kept_with_any_settings_of_the_thread() {
        let square = || std::hint::black_box(1e-20_f32) * std::hint::black_box(1e-20_f32);
        let kept = square();
        // The two bits make results below the normal range 0, and such operands too.
        floats::set(floats::IEEE | 0x8040);
        let flushed = square();
        let under_guard = {
            let _floats = IeeeFloats::on_this_thread();
            square()
        };
        let after = square();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .start_handler(|_| std::mem::forget(IeeeFloats::on_this_thread()))
            .build()
            .unwrap();
        let in_pool = pool.install(square);
        floats::set(floats::IEEE);
        assert!(kept > 0.0);
        assert_eq!((flushed, under_guard, after, in_pool), (0.0, kept, 0.0, kept));
    }

    #[test]
    fn work_runs_in_the_pool() {
        let name = run(|| std::thread::current().name().map(str::to_owned));
        assert!(name.unwrap().starts_with("langptune-"));
    }
}
