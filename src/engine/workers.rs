//! Compute threads, and how a stop can interrupt waiting for them.
//!
//! A computation on the CPU cannot be interrupted, and one micro-batch may take many seconds. Its
//! result can be abandoned, though: at a stop the trainer no longer waits, the thread ends by
//! itself or with the process, and its result is dropped. This changes no number, since a
//! computation only reads what it shares with the trainer. Start at [`Workers::run`].

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::engine::compute::Compute;
use crate::engine::error::EngineError;
use crate::steer::{COMPUTE_STACK, StopFlag};

/// Maximum delay in noticing a stop during a computation.
const STOP_CHECK: Duration = Duration::from_millis(20);

/// Where operations are computed, threads to wait for, and the flag that ends waiting.
#[derive(Debug)]
pub struct Workers {
    /// Where and how operations are computed.
    pub compute: Compute,
    /// Raised when the run should end.
    pub stop: StopFlag,
    /// Threads of jobs and of Burn's own operations; `None` for a GPU.
    pool: Option<ThreadPool>,
}

/// The result of a job, or its panic.
type Ended<T> = Result<T, Box<dyn Any + Send>>;

/// Runs `job` on its own thread; `None` if the run should end and the job does not end within
/// `grace` of that.
///
/// # Errors
/// When the system cannot start another thread.
pub fn run_unless_stopped<T: Send + 'static>(
    stop: &StopFlag,
    grace: Duration,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, EngineError> {
    let (job, result) = reporting(job);
    thread::Builder::new()
        .name("compute".into())
        .stack_size(COMPUTE_STACK)
        .spawn(job)
        .map_err(EngineError::Thread)?;
    Ok(wait(&result, stop, grace))
}

impl Workers {
    /// Starts threads for `compute`. Waiting ends once `stop` is raised.
    ///
    /// # Errors
    /// When the system cannot start them.
    pub fn start(compute: Compute, stop: StopFlag) -> Result<Self, EngineError> {
        let threads = ThreadPoolBuilder::new()
            .num_threads(compute.team.threads())
            .stack_size(COMPUTE_STACK)
            .thread_name(|_| "compute".into());
        let pool = if compute.device.is_cpu {
            Some(
                threads
                    .build()
                    .map_err(|error| EngineError::Thread(std::io::Error::other(error)))?,
            )
        } else {
            None
        };
        Ok(Self { compute, stop, pool })
    }

    /// Runs `job`, which may share its work with all threads, and returns its result, or `None` if
    /// the run should end.
    ///
    /// A job for a GPU runs on the calling thread: the host only queues the work, and each thread
    /// would have its own queue.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        if self.stop.is_raised() {
            return None;
        }
        let Some(pool) = &self.pool else { return Some(job()) };
        let (job, result) = reporting(job);
        pool.spawn(job);
        wait(&result, &self.stop, Duration::ZERO)
    }
}

/// `job`, sending its result to the receiver.
fn reporting<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> (impl FnOnce() + Send + 'static, Receiver<Ended<T>>) {
    let (sender, result) = mpsc::channel();
    // After a stop nobody receives the result. Nothing that the job holds is used after a panic.
    (move || drop(sender.send(catch_unwind(AssertUnwindSafe(job)))), result)
}

/// The result of a job; `None` if `stop` was raised and the job did not end within `grace` of that.
///
/// # Panics
/// When the job panicked, with its message.
fn wait<T>(result: &Receiver<Ended<T>>, stop: &StopFlag, grace: Duration) -> Option<T> {
    let mut stopped_at = None;
    loop {
        match result.recv_timeout(STOP_CHECK) {
            Ok(Ok(result)) => return Some(result),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(RecvTimeoutError::Timeout) if stop.is_raised() => {
                if stopped_at.get_or_insert_with(Instant::now).elapsed() >= grace {
                    return None;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("a job reports what became of it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;
    use crate::config::Precision;
    use crate::engine::device::ComputeDevice;
    use crate::steer::StopLevel;

    fn workers(stop: StopFlag) -> Workers {
        Workers::start(Compute::cpu(), stop).unwrap()
    }

    #[test]
    fn a_stop_does_not_wait_for_what_is_computed() {
        for level in [StopLevel::AfterCheckpoint, StopLevel::Now] {
            let stop = StopFlag::default();
            // The job is running when the flag is raised, and cannot end before the test allows it.
            let (started, wait_for_start) = mpsc::channel();
            let (release, held) = mpsc::channel::<()>();
            let raise = stop.clone();
            let raiser = thread::spawn(move || {
                wait_for_start.recv().unwrap();
                raise.raise(level);
            });
            let result = workers(stop).run(move || {
                started.send(()).unwrap();
                held.recv()
            });
            assert!(result.is_none(), "{level:?}");
            raiser.join().unwrap();
            drop(release);
        }
    }

    #[test]
    fn a_gpu_gets_its_work_from_this_thread() {
        let here = thread::current().id();
        for is_cpu in [true, false] {
            let device = ComputeDevice { is_cpu, ..ComputeDevice::cpu() };
            let compute = Compute::new(device, Precision::F32);
            let workers = Workers::start(compute, StopFlag::default()).unwrap();
            assert_eq!(workers.run(|| thread::current().id()).unwrap() == here, !is_cpu);
        }
    }

    #[test]
    fn a_job_that_ends_soon_after_a_stop_is_waited_for() {
        let stop = StopFlag::default();
        stop.raise(StopLevel::AfterCheckpoint);
        assert_eq!(
            run_unless_stopped(&stop, Duration::from_mins(5), || "cleaned up").unwrap(),
            Some("cleaned up")
        );
        let (release, held) = mpsc::channel::<()>();
        assert_eq!(run_unless_stopped(&stop, Duration::ZERO, move || held.recv()).unwrap(), None);
        drop(release);
    }

    /// Uses about a kilobyte of stack for each of `frames`.
    fn descend(frames: usize) -> usize {
        let frame = black_box([frames; 128]);
        if frames == 0 {
            0
        } else {
            descend(frames - 1) + usize::from(frame[frames % 128] == frames)
        }
    }

    #[test]
    fn a_job_has_as_much_stack_as_the_trainer() {
        let frames = COMPUTE_STACK / 4096;
        assert_eq!(workers(StopFlag::default()).run(move || descend(frames)), Some(frames));
    }

    #[test]
    fn a_panic_in_a_job_reaches_the_trainer() {
        let workers = workers(StopFlag::default());
        let run = || workers.run(|| panic!("out of range"));
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"out of range"));
    }
}
