//! A small runtime of its own for heavy work, so that a slow, deep or panicking query costs nobody else.

use crate::Error;
use std::future::Future;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Stack of each thread. Planner and operators walk an expression on the stack, and a query text of the longest size can nest that
/// deep; only pages that are touched cost memory.
const STACK_BYTES: usize = 128 << 20;
/// Threads for file reads.
const FILE_THREADS_MAX: usize = 4;

/// Threads that end with it: work that is still running is given up without waiting.
#[derive(Debug)]
pub(crate) struct Isolated {
    runtime: Option<Runtime>,
}

impl Isolated {
    pub(crate) fn new(name: &'static str, threads: usize) -> Result<Isolated, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(FILE_THREADS_MAX)
            .thread_stack_size(STACK_BYTES)
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(|source| heyuan_kernel::Error::File { doing: "start threads for", path: name.to_owned(), source })?;
        Ok(Isolated { runtime: Some(runtime) })
    }

    /// Starts work on the runtime's threads.
    pub(crate) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let runtime = self.runtime.as_ref().expect("the runtime is taken only when this is dropped");
        runtime.spawn(work)
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
