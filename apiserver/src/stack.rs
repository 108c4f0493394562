//! Work that recurses as deep as its input is nested. So that nobody's stack runs over, it gets one of its own: no more of it
//! is taken than is used.

use std::io;

/// Runs `work` on a thread of its own, with so much stack, and waits for it.
pub fn with_stack<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("deep".into()).stack_size(bytes).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
