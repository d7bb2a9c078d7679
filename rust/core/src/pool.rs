//! A rayon pool that survives `fork`.
//!
//! A forked child inherits the memory of a thread pool but none of its threads, and would wait for them for ever.
//! So the pool remembers the process that started it, and a child makes its own the first time it needs one.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

struct Pool {
    process: u32,
    threads: rayon::ThreadPool,
}

/// No lock: one that another thread holds at the moment of a fork would never be free in the child.
static POOL: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());

/// Runs `work` in the pool of this process; parallel iterators inside use its threads.
///
/// The number of threads is that of the CPUs this process may use, or `RAYON_NUM_THREADS`.
///
/// # Panics
/// When the system lets no thread be started.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    current().threads.install(work)
}

/// As [`run`], while the calling thread calls `watch` again and again, `pause` apart, until the work is done.
///
/// # Panics
/// As [`run`], and when the work panics.
pub fn run_watched<T: Send>(work: impl FnOnce() -> T + Send, pause: Duration, mut watch: impl FnMut()) -> T {
    let (sender, receiver) = mpsc::channel();
    let mut done = None;
    current().threads.in_place_scope(|scope| {
        scope.spawn(move |_| sender.send(work()).expect("the receiver lives until the work is done"));
        loop {
            match receiver.recv_timeout(pause) {
                Ok(result) => break done = Some(result),
                Err(RecvTimeoutError::Timeout) => watch(),
                Err(RecvTimeoutError::Disconnected) => break, // the work panics, and so does this scope
            }
        }
    });
    done.expect("the work is done or has panicked")
}

fn current() -> &'static Pool {
    let process = std::process::id();
    let found = POOL.load(Ordering::Acquire);
    // SAFETY: a pointer in POOL is null or comes from `Box::into_raw` below and is never freed once it is in POOL.
    if let Some(pool) = unsafe { found.as_ref() }
        && pool.process == process
    {
        return pool;
    }
    let threads = rayon::ThreadPoolBuilder::new()
        .thread_name(|index| format!("langptune-{index}"))
        .build()
        .expect("the system lets threads be started");
    let made = Box::into_raw(Box::new(Pool { process, threads }));
    match POOL.compare_exchange(found, made, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: `made` was just leaked into POOL, where it stays. The pool of the parent process, if `found` was one,
        // stays too: its threads do not exist here, so dropping it would wait for them.
        Ok(_) => unsafe { &*made },
        Err(_) => {
            // SAFETY: the exchange failed, so `made` never reached POOL and nobody else has seen it.
            drop(unsafe { Box::from_raw(made) });
            current()
        }
    }
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
    #[should_panic(expected = "of its own")]
    fn watched_work_may_panic() {
        run_watched(|| panic!("of its own"), Duration::from_secs(1000), || {});
    }

    #[test]
    fn work_runs_in_the_pool() {
        let name = run(|| std::thread::current().name().map(str::to_owned));
        assert!(name.unwrap().starts_with("langptune-"));
    }
}
