//! Threads that compute, and how a stop gets past them.
//!
//! A computation on the CPU cannot be interrupted, and one micro-batch may take many seconds. What can be given up is its
//! result: at a stop the trainer no longer waits, the thread ends by itself or with the process, and what it computed is
//! dropped. This changes no number, since a computation only reads what it shares with the trainer. Start at
//! [`Workers::run`].

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::device::ComputeDevice;
use crate::engine::error::EngineError;
use crate::run::{COMPUTE_STACK, StopFlag};

/// How long a stop may go unnoticed while a computation runs.
const STOP_CHECK: Duration = Duration::from_millis(20);

/// One computation; it must own what it reads, since it may outlive its caller.
pub type Computation<T> = Box<dyn FnOnce() -> T + Send>;

/// Compute threads, and the flag that ends the waiting for them.
#[derive(Debug)]
pub struct Workers {
    /// The device that computes.
    pub device: ComputeDevice,
    /// Raised when the run is to end.
    pub stop: StopFlag,
    /// Threads without a job. They are kept, since starting one and warming up its memory may take longer than a small job.
    idle: RefCell<Vec<Worker>>,
}

/// Runs `job` on a thread of its own; `None` if the run is to end and the job does not end within `grace` of that.
///
/// # Errors
/// When the system cannot start another thread.
pub fn run_unless_stopped<T: Send + 'static>(stop: &StopFlag, grace: Duration, job: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>, EngineError> {
    let result = Worker::start()?.begin(Box::new(job));
    Ok(wait(&result, stop, grace))
}

impl Workers {
    /// Workers on `device` that are no longer waited for once `stop` is raised.
    pub fn new(device: ComputeDevice, stop: StopFlag) -> Self {
        Self { device, stop, idle: RefCell::default() }
    }

    /// Runs all `jobs` and returns their results in order, or `None` if the run is to end.
    ///
    /// On the CPU each job has a thread of its own. On a GPU they run here, one after the other: the host only queues the
    /// work, and each thread would have a queue of its own.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub fn run<T: Send + 'static>(&self, jobs: Vec<Computation<T>>) -> Result<Option<Vec<T>>, EngineError> {
        if self.stop.is_raised() {
            return Ok(None);
        }
        if !self.device.is_cpu {
            return Ok(Some(jobs.into_iter().map(|job| job()).collect()));
        }
        let mut running = Vec::with_capacity(jobs.len());
        for job in jobs {
            let known = self.idle.borrow_mut().pop();
            let worker = known.map_or_else(Worker::start, Ok)?;
            let result = worker.begin(job);
            running.push((worker, result));
        }
        let mut results = Vec::with_capacity(running.len());
        for (worker, result) in running {
            let Some(result) = wait(&result, &self.stop, Duration::ZERO) else { return Ok(None) };
            results.push(result);
            self.idle.borrow_mut().push(worker);
        }
        Ok(Some(results))
    }

    /// As [`Self::run`], for one job.
    ///
    /// # Errors
    /// When the system cannot start another thread.
    pub fn run_one<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<Option<T>, EngineError> {
        Ok(self.run(vec![Box::new(job) as Computation<T>])?.and_then(|mut results| results.pop()))
    }
}

/// A thread that runs jobs; dropped, it ends after its current job.
#[derive(Debug)]
struct Worker {
    jobs: Sender<Computation<()>>,
}

/// What a job returns, or how it panicked.
type Ended<T> = Result<T, Box<dyn Any + Send>>;

impl Worker {
    fn start() -> Result<Self, EngineError> {
        let (jobs, todo) = mpsc::channel::<Computation<()>>();
        let thread = thread::Builder::new().name("compute".into()).stack_size(COMPUTE_STACK);
        thread.spawn(move || todo.iter().for_each(|job| job())).map_err(EngineError::Thread)?;
        Ok(Self { jobs })
    }

    fn begin<T: Send + 'static>(&self, job: Computation<T>) -> Receiver<Ended<T>> {
        let (sender, result) = mpsc::channel();
        // After a stop nobody receives the result, and nobody needs it. Nothing that the job holds is used after a panic.
        let job = Box::new(move || drop(sender.send(catch_unwind(AssertUnwindSafe(job)))));
        // A worker that waits for jobs has not ended.
        let _ = self.jobs.send(job);
        result
    }
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
            Err(RecvTimeoutError::Disconnected) => unreachable!("a worker sends what became of every job"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

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
                }) as Computation<_>
            });
            let raise = stop.clone();
            let raiser = thread::spawn(move || {
                wait_for_start.iter().take(2).for_each(drop);
                raise.raise(level);
            });
            let result = Workers::new(device.clone(), stop).run(Vec::from(jobs)).unwrap();
            assert!(result.is_none(), "{level:?}");
            raiser.join().unwrap();
            drop(release);
        }
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let cpu = find_device(DeviceChoice::Cpu).unwrap();
        let gpu = ComputeDevice { is_cpu: false, ..cpu.clone() };
        for device in [&cpu, &gpu] {
            let jobs = (0..8).map(|number| Box::new(move || number) as Computation<i32>).collect();
            assert_eq!(Workers::new(device.clone(), StopFlag::default()).run(jobs).unwrap(), Some((0..8).collect()));
        }
    }

    #[test]
    fn a_job_that_ends_soon_after_a_stop_is_waited_for() {
        let stop = StopFlag::default();
        stop.raise(StopLevel::AfterCheckpoint);
        assert_eq!(run_unless_stopped(&stop, Duration::from_mins(5), || "cleaned up").unwrap(), Some("cleaned up"));
        let (release, held) = mpsc::channel::<()>();
        assert_eq!(run_unless_stopped(&stop, Duration::ZERO, move || held.recv()).unwrap(), None);
        drop(release);
    }

    /// Uses about a kilobyte of stack for each of `frames`.
    fn descend(frames: usize) -> usize {
        let frame = black_box([frames; 128]);
        if frames == 0 { 0 } else { descend(frames - 1) + usize::from(frame[frames % 128] == frames) }
    }

    #[test]
    fn a_job_has_as_much_stack_as_the_trainer() {
        let frames = COMPUTE_STACK / 4096;
        let workers = Workers::new(find_device(DeviceChoice::Cpu).unwrap(), StopFlag::default());
        assert_eq!(workers.run_one(move || descend(frames)).unwrap(), Some(frames));
    }

    #[test]
    fn a_panic_in_a_job_reaches_the_trainer() {
        let workers = Workers::new(find_device(DeviceChoice::Cpu).unwrap(), StopFlag::default());
        let run = || workers.run_one(|| panic!("out of range"));
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"out of range"));
    }
}
