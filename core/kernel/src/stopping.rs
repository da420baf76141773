//! The end of the process, for answers that would not end by themselves.

use tokio::sync::watch;

/// Tells that the process stops.
#[derive(Debug, Clone)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Begins when `stop` turns true, or is dropped.
    pub fn new(stop: watch::Receiver<bool>) -> Stopping {
        Stopping(stop)
    }

    /// Waits until the process stops.
    pub async fn begun(mut self) {
        // A sender that is gone says the same.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}
