//! What an input costs: its largest allocation, and whether it ever ends.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

struct Measuring;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Measuring {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Measuring = Measuring;

/// Bytes of the largest allocation since the last reset.
pub fn largest_allocation() -> usize {
    LARGEST.load(Ordering::Relaxed)
}

pub fn reset_allocations() {
    LARGEST.store(0, Ordering::Relaxed);
}

/// Ends the process, naming the input, if one takes too long: there is no other way to end a loop.
pub struct Watch {
    shared: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    input: String,
    since: Instant,
    done: bool,
}

impl Watch {
    pub fn new(limit: Duration) -> Self {
        let state = State {
            input: String::new(),
            since: Instant::now(),
            done: false,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let watched = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let (state, woken) = &*watched;
            let mut state = state.lock().unwrap();
            while !state.done {
                if state.since.elapsed() > limit {
                    eprintln!("{} has not ended after {limit:?}", state.input);
                    std::process::abort();
                }
                state = woken.wait_timeout(state, Duration::from_secs(1)).unwrap().0;
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    pub fn begin(&self, input: String) {
        let mut state = self.shared.0.lock().unwrap();
        (state.input, state.since) = (input, Instant::now());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.0.lock().unwrap().done = true;
        self.shared.1.notify_all();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
