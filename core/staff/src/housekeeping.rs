//! What goes in the background: used states whose log-in would have expired.

use crate::log_in::StaffLogin;
use futures::FutureExt;
use futures::future::BoxFuture;
use heyuan_kernel::Problem;
use heyuan_kernel::lease::Fence;
use heyuan_kernel::processor::{Progress, Task, Waits};
use std::time::Duration;

/// Sweeps; the processor's.
#[derive(Clone)]
pub struct Housekeeping(StaffLogin);

impl Housekeeping {
    /// Sweeps for this log-in.
    pub fn new(login: StaffLogin) -> Housekeeping {
        Housekeeping(login)
    }
}

impl Task for Housekeeping {
    fn name(&self) -> &'static str {
        "staff housekeeping"
    }

    fn waits(&self) -> Waits {
        // At rest about once an hour: what it removes is used up and harms nobody.
        Waits::time(Duration::from_secs(60))
    }

    fn step<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<Progress, Problem>> {
        async move {
            let swept = self.0.sweep(Some(fence)).await?;
            Ok(if swept == 0 { Progress::Idle } else { Progress::Busy })
        }
        .boxed()
    }
}
