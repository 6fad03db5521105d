//! Threads that compute, and how a stop gets past them.
//!
//! A computation on the CPU cannot be interrupted, and one micro-batch may take many seconds. What can be given up is its
//! result: at a stop the trainer no longer waits, the thread ends by itself or with the process, and what it computed is
//! dropped. This changes no number, since a computation only reads what it shares with the trainer. Start at
//! [`Workers::run`].

use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::engine::device::ComputeDevice;
use crate::engine::error::EngineError;
use crate::run::{COMPUTE_STACK, StopFlag};

/// How long a stop may go unnoticed while a computation runs.
const STOP_CHECK: Duration = Duration::from_millis(20);

/// One computation; it must own what it reads, since nobody may be left who waits for it.
pub type Job<T> = Box<dyn FnOnce() -> T + Send>;

/// What computes, and the flag that ends the waiting for it.
#[derive(Debug, Clone, Copy)]
pub struct Workers<'a> {
    /// The device.
    pub device: &'a ComputeDevice,
    /// Raised when the run is to end.
    pub stop: &'a StopFlag,
}

impl Workers<'_> {
    /// Runs all `jobs` and returns their results in order, or `None` if the run is to end.
    ///
    /// On the CPU each job has a thread of its own. On a GPU they run here, one after the other: the host only queues the
    /// work, and each thread would have a queue of its own.
    ///
    /// # Errors
    /// When the system has no room for another thread.
    pub fn run<T: Send + 'static>(self, jobs: Vec<Job<T>>) -> Result<Option<Vec<T>>, EngineError> {
        if self.stop.is_raised() {
            return Ok(None);
        }
        if !self.device.is_cpu {
            return Ok(Some(jobs.into_iter().map(|job| job()).collect()));
        }
        let mut threads = Vec::with_capacity(jobs.len());
        for job in jobs {
            let (sender, result) = mpsc::channel();
            let thread = thread::Builder::new().name("compute".into()).stack_size(COMPUTE_STACK);
            // After a stop nobody receives the result, and nobody needs it.
            let handle = thread.spawn(move || drop(sender.send(job()))).map_err(EngineError::Thread)?;
            threads.push((handle, result));
        }
        let mut results = Vec::with_capacity(threads.len());
        for (handle, result) in threads {
            let value = loop {
                match result.recv_timeout(STOP_CHECK) {
                    Ok(value) => break Some(value),
                    Err(RecvTimeoutError::Timeout) if self.stop.is_raised() => return Ok(None),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break None,
                }
            };
            match (value, handle.join()) {
                (Some(value), Ok(())) => results.push(value),
                (_, Err(panic)) => resume_unwind(panic),
                (None, Ok(())) => unreachable!("a computing thread sends its result or panics"),
            }
        }
        Ok(Some(results))
    }

    /// As [`Self::run`], for one job.
    ///
    /// # Errors
    /// When the system has no room for another thread.
    pub fn run_one<T: Send + 'static>(self, job: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>, EngineError> {
        Ok(self.run(vec![Box::new(job) as Job<T>])?.and_then(|mut results| results.pop()))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::config::DeviceChoice;
    use crate::engine::device::find_device;
    use crate::run::StopLevel;

    #[test]
    fn a_stop_does_not_wait_for_what_is_computed() {
        let device = find_device(DeviceChoice::Cpu).unwrap();
        for level in [StopLevel::AfterCheckpoint, StopLevel::Now] {
            let stop = StopFlag::default();
            // Both jobs have begun when the flag is raised, and neither can end before the test lets it.
            let (started, wait_for_start) = mpsc::channel();
            let (release, held) = mpsc::channel::<()>();
            let jobs = [Some(held), None].map(|held| {
                let started = started.clone();
                Box::new(move || {
                    started.send(()).unwrap();
                    held.map(|held| held.recv())
                }) as Job<_>
            });
            let raise = stop.clone();
            let raiser = thread::spawn(move || {
                wait_for_start.iter().take(2).for_each(drop);
                raise.raise(level);
            });
            let result = Workers { device: &device, stop: &stop }.run(Vec::from(jobs)).unwrap();
            assert!(result.is_none(), "{level:?}");
            raiser.join().unwrap();
            drop(release);
        }
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let (cpu, stop) = (find_device(DeviceChoice::Cpu).unwrap(), StopFlag::default());
        let gpu = ComputeDevice { is_cpu: false, ..cpu.clone() };
        for device in [&cpu, &gpu] {
            let jobs = (0..8).map(|number| Box::new(move || number) as Job<i32>).collect();
            assert_eq!(Workers { device, stop: &stop }.run(jobs).unwrap(), Some((0..8).collect()));
        }
    }

    #[test]
    fn a_panic_in_a_job_reaches_the_trainer() {
        let (device, stop) = (find_device(DeviceChoice::Cpu).unwrap(), StopFlag::default());
        let run = || Workers { device: &device, stop: &stop }.run_one(|| panic!("out of range"));
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"out of range"));
    }
}
