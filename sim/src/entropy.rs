//! Randomness under control.
//!
//! What our own code draws comes from [`TracedEntropy`]. What dependencies draw from the operating system, such as the keys of a hash map
//! deep in a library, is covered by [`spawn_seeded`]: on such a thread the system's `getrandom` answers from a seed.

use std::{
    cell::Cell,
    sync::Arc,
    thread::{self, JoinHandle},
};

use loadgen::rng::{Rng, SeededEntropy};
use protocol::Entropy;

use crate::trace::{Trace, What};

/// Seeded bytes that leave their mark in the trace.
pub struct TracedEntropy {
    host: Arc<str>,
    bytes: SeededEntropy,
    trace: Trace,
}

impl TracedEntropy {
    /// The bytes of a seed, for a host.
    pub fn new(host: &Arc<str>, seed: u64, trace: &Trace) -> Self {
        Self { host: Arc::clone(host), bytes: SeededEntropy::new(seed), trace: trace.clone() }
    }
}

impl Entropy for TracedEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.bytes.fill(bytes);
        self.trace.note(&self.host, What::Drew(bytes.to_vec()));
    }
}

thread_local! {
    /// What the system's randomness is drawn from on this thread.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The stack of a run's thread: all hosts' tasks run on it.
const STACK_BYTES: usize = 16 << 20;

/// Runs `work` on a thread of its own on which the operating system's randomness follows from `seed`.
///
/// Of its own, since std keeps the keys of hash maps per thread.
pub fn spawn_seeded<T: Send + 'static>(
    seed: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let run = move || {
        STATE.set(Some(seed));
        work()
    };
    thread::Builder::new().stack_size(STACK_BYTES).spawn(run).expect("the system has threads")
}

/// The system call of the same name, for whoever asks the C library: seeded on a seeded thread.
///
/// # Safety
/// As for the C function: `buffer` is writable for `length` bytes.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "it takes the place of a C function")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    // A thread that is ending has no state any more.
    let Some(state) = STATE.try_with(Cell::get).ok().flatten() else {
        // SAFETY: the caller's arguments, handed on as they are.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as libc::ssize_t;
    };
    let mut rng = Rng::new(state);
    // SAFETY: the caller promises that so many bytes may be written.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&rng.number().to_le_bytes()[..chunk.len()]);
    }
    let _ = STATE.try_with(|state| state.set(Some(rng.number())));
    length as libc::ssize_t
}
