//! Runs work on foreign input on a thread of its own, with a limit on its memory and its time.
//!
//! A template engine or a normaliser can be made to double a string forever in very few steps, and
//! Rust ends the process when memory is out. So every allocation of a guarded thread is counted;
//! one that would pass the limit is never made: the thread reports, and sleeps for good. It keeps
//! what it had, at most the limit, so whoever calls must not run the same input again. The large
//! stack is for values nested as deeply as the memory allows, which are dropped recursively; it is
//! address space, not memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicIsize, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

const STACK_BYTES: usize = 1 << 30;

#[derive(Clone, Copy)]
pub struct Limits {
    pub memory_bytes: usize,
    pub time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Memory,
    Time,
    Panic,
    Thread,
}

const RUNNING: u8 = 0;
const DONE: u8 = 1;
const OUT_OF_MEMORY: u8 = 2;
const STOPPED: u8 = 3;

struct Watch {
    bytes_left: AtomicIsize,
    state: AtomicU8,
    caller: Thread,
}

impl Watch {
    /// Counts an allocation; does not return when it may not be made.
    fn charge(&self, bytes: isize) {
        let left = self.bytes_left.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        if bytes <= 0 || (left >= 0 && self.state.load(Ordering::Relaxed) == RUNNING) {
            return;
        }
        let _ = self.finish(OUT_OF_MEMORY);
        loop {
            thread::park();
        }
    }

    fn finish(&self, state: u8) -> bool {
        let won = self
            .state
            .compare_exchange(RUNNING, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        self.caller.unpark();
        won
    }
}

thread_local! {
    static WATCH: Cell<*const Watch> = const { Cell::new(std::ptr::null()) };
}

/// The system's allocator, counting for guarded threads.
struct Metered;

impl Metered {
    fn charge(bytes: isize) {
        let watch = WATCH.with(Cell::get);
        if !watch.is_null() {
            // SAFETY: set by `run` to a watch that its thread keeps alive while it is set.
            unsafe { (*watch).charge(bytes) };
        }
    }
}

// SAFETY: passes every call on to the system's allocator. Sizes fit isize by Layout's contract.
unsafe impl GlobalAlloc for Metered {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::charge(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::charge(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::charge(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::charge(size as isize - layout.size() as isize);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Metered = Metered;

/// Panics are reported as errors, not on the program's standard error.
pub fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

/// The result of `work`, or why there is none. After `Memory` and `Time` the thread still exists
/// and holds what `work` was given.
pub fn run<T: Send + 'static>(
    limits: Limits,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let watch = Arc::new(Watch {
        bytes_left: AtomicIsize::new(limits.memory_bytes as isize),
        state: AtomicU8::new(RUNNING),
        caller: thread::current(),
    });
    let result = Arc::new(Mutex::new(None));
    let (thread_watch, thread_result) = (watch.clone(), result.clone());
    let handle = thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            WATCH.with(|cell| cell.set(Arc::as_ptr(&thread_watch)));
            let outcome = catch_unwind(AssertUnwindSafe(work));
            WATCH.with(|cell| cell.set(std::ptr::null()));
            if let Ok(mut slot) = thread_result.lock() {
                *slot = Some(outcome);
            }
            thread_watch.finish(DONE);
        })
        .map_err(|_| Failure::Thread)?;

    let start = Instant::now();
    while watch.state.load(Ordering::Acquire) == RUNNING {
        match limits.time.checked_sub(start.elapsed()) {
            Some(left) if !left.is_zero() => thread::park_timeout(left),
            // From now on the thread's next allocation puts it to sleep.
            _ => {
                if watch.finish(STOPPED) {
                    return Err(Failure::Time);
                }
            }
        }
    }
    if watch.state.load(Ordering::Acquire) == OUT_OF_MEMORY {
        return Err(Failure::Memory);
    }
    let joined = handle.join();
    let outcome = result.lock().ok().and_then(|mut slot| slot.take());
    match (joined, outcome) {
        (Ok(()), Some(Ok(value))) => Ok(value),
        _ => Err(Failure::Panic),
    }
}
