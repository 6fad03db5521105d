//! The threads that share a kernel's work.
//!
//! A step is hundreds of kernels of a few milliseconds or less, one after the other. Threads that
//! sleep between kernels must be woken for each, which is slow on a virtual machine: a step with
//! Rayon's threads took 1.06 to 1.2 times as long (docs/results/speed.md). The threads of a team
//! keep polling for a while after their work is done, and only then sleep.

use std::any::Any;
use std::fmt;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

/// How often a helper polls before it sleeps: about a millisecond, longer than the gap between two
/// kernels.
const LOOKS: usize = if cfg!(miri) { 20 } else { 20_000 };

/// Helpers, and the state they share with the calling thread.
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

/// Work to be called for each number below a count.
#[derive(Clone, Copy)]
struct Call {
    work: &'static (dyn Fn(usize) + Sync),
    count: usize,
}

/// State changed by a call; each value has its own cache line, since all threads poll them.
struct Shared {
    /// Whether the helpers should end.
    is_closed: AtomicBool,
    /// Held by the thread whose call is being served.
    is_busy: AtomicBool,
    /// Counts the calls.
    calls: Line,
    /// The number of helpers at work, plus [`OPEN`] while others may join.
    gate: Line,
    /// The next number of each thread's share of the work.
    next: Vec<Line>,
    call: RwLock<Option<Call>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Which helpers are asleep, or about to sleep.
    asleep: Vec<AtomicBool>,
}

#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicUsize);

/// Helpers may join.
const OPEN: usize = 1 << (usize::BITS - 1);

impl Team {
    /// Starts a team of `threads`, or as many as the system allows, including the caller.
    pub fn new(threads: usize) -> Self {
        Self::start(threads.saturating_sub(1), LOOKS)
    }

    /// Starts `helpers` threads, which poll `looks` times before they sleep.
    fn start(helpers: usize, looks: usize) -> Self {
        let asleep = (0..helpers).map(|_| AtomicBool::new(false)).collect();
        let shared = Arc::new(Shared {
            is_closed: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
            calls: Line::default(),
            gate: Line::default(),
            next: (0..=helpers).map(|_| Line::default()).collect(),
            call: RwLock::default(),
            panic: Mutex::default(),
            asleep,
        });
        let start = |number: usize| {
            let shared = Arc::clone(&shared);
            let helper = thread::Builder::new().name("kernel".into());
            helper.spawn(move || shared.help(number, looks)).ok()
        };
        let helpers = (0..helpers).map_while(start).collect();
        Self { shared, helpers }
    }

    /// Number of threads that share the work, including the caller.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work` for each of `blocks`, on all threads.
    ///
    /// # Panics
    /// When `work` panics, with its message, after all threads have finished.
    pub fn for_each<T: Send>(&self, blocks: Vec<T>, work: impl Fn(T) + Sync) {
        let blocks: Vec<Mutex<Option<T>>> =
            blocks.into_iter().map(|block| Mutex::new(Some(block))).collect();
        self.share(blocks.len(), &|number| {
            let block = blocks[number].lock().unwrap_or_else(PoisonError::into_inner).take();
            work(block.expect("each number comes once"));
        });
    }

    /// Calls `work` for each number below `count`, on all threads; on the calling thread if there
    /// is only one number or the threads are already busy.
    #[expect(
        unsafe_code,
        reason = "the threads outlive the data they use, and finish with it in time"
    )]
    fn share(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        if count <= 1 || self.helpers.is_empty() || shared.is_busy.swap(true, Ordering::Acquire) {
            return (0..count).for_each(work);
        }
        // SAFETY: helpers use the reference only between entering and leaving the gate, and this
        // function neither returns nor unwinds before the gate is closed and all of them
        // have left.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        let call = Call { work, count };
        *shared.call.write().unwrap_or_else(PoisonError::into_inner) = Some(call);
        for (thread, next) in shared.next.iter().enumerate() {
            next.0.store(call.first(thread, shared.next.len()), Ordering::Relaxed);
        }
        shared.gate.0.store(OPEN, Ordering::Release);
        // Sequentially consistent, like the helper's check before it sleeps: one of the two sees
        // the other's change.
        shared.calls.0.fetch_add(1, Ordering::SeqCst);
        for (asleep, helper) in shared.asleep.iter().zip(&self.helpers).take(count - 1) {
            if asleep.load(Ordering::SeqCst) {
                helper.thread().unpark();
            }
        }
        shared.work_on(0, call);
        shared.gate.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut look = 0;
        while shared.gate.0.load(Ordering::Acquire) != 0 {
            wait_a_moment(look);
            look += 1;
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.is_busy.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// Ends the helpers.
impl Drop for Team {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.shared.calls.0.fetch_add(1, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper catches the panics of its work.
            let _ = helper.join();
        }
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Main loop of helper `number`.
    fn help(&self, number: usize, looks: usize) {
        let mut seen = 0;
        loop {
            seen = self.wait_for_call(number, seen, looks);
            if self.is_closed.load(Ordering::SeqCst) {
                return;
            }
            let enter = |gate| (gate & OPEN != 0).then_some(gate + 1);
            if self.gate.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, enter).is_ok() {
                let call = *self.call.read().unwrap_or_else(PoisonError::into_inner);
                self.work_on(number + 1, call.expect("a call is written before the gate opens"));
                self.gate.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Returns the number of a call after `seen`.
    fn wait_for_call(&self, number: usize, seen: usize, looks: usize) -> usize {
        for look in 0..looks {
            let calls = self.calls.0.load(Ordering::Acquire);
            if calls != seen {
                return calls;
            }
            wait_a_moment(look);
        }
        self.asleep[number].store(true, Ordering::SeqCst);
        let calls = loop {
            let calls = self.calls.0.load(Ordering::SeqCst);
            if calls != seen {
                break calls;
            }
            thread::park();
        };
        self.asleep[number].store(false, Ordering::SeqCst);
        calls
    }

    /// Takes the numbers of its own share, then those that other threads have not begun. The first
    /// panic is stored, and ends the call.
    fn work_on(&self, thread: usize, call: Call) {
        let threads = self.next.len();
        let work = || {
            for share in (thread..threads).chain(0..thread) {
                let end = call.first(share + 1, threads);
                loop {
                    let number = self.next[share].0.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        break;
                    }
                    (call.work)(number);
                }
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.next.iter().for_each(|next| next.0.store(call.count, Ordering::Relaxed));
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }
}

impl Call {
    /// Start of a thread's share: the same thread works on the same rows in kernel after kernel,
    /// and finds them in its cache.
    fn first(&self, thread: usize, threads: usize) -> usize {
        self.count * thread / threads
    }
}

/// Polls between two offers of the processor to other threads: some microseconds.
const PATIENCE: usize = 64;

/// Waits before the next poll. If more threads want to run than there are processors, another run's
/// included, a polling thread must not take a processor from a working one.
fn wait_a_moment(look: usize) {
    if look % PATIENCE == PATIENCE - 1 { thread::yield_now() } else { spin_loop() }
}

/// With few rounds under miri, which checks every access to shared memory: see tests/miri.
#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDS: usize = if cfg!(miri) { 5 } else { 200 };

    fn counts(team: &Team, count: usize) -> Vec<usize> {
        let calls: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        team.share(count, &|number| {
            calls[number].fetch_add(1, Ordering::Relaxed);
        });
        calls.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn each_number_is_worked_on_once() {
        for helpers in 0..5 {
            for looks in [0, 100] {
                let team = Team::start(helpers, looks);
                for round in 0..ROUNDS {
                    let size = (round * 37 + helpers) % 60;
                    assert_eq!(counts(&team, size), vec![1; size]);
                }
            }
        }
    }

    #[test]
    fn each_block_is_worked_on_in_its_place() {
        let team = Team::start(2, 10);
        for width in 1..20 {
            let mut values: Vec<usize> = (0..100).collect();
            let blocks = values.chunks_mut(width).collect();
            team.for_each(blocks, |block: &mut [usize]| {
                for value in block {
                    *value += 1;
                }
            });
            assert!(values.into_iter().eq(1..=100));
        }
    }

    #[test]
    fn helpers_take_part_even_if_they_slept() {
        for looks in [0, LOOKS] {
            let team = Team::start(2, looks);
            for _ in 0..ROUNDS / 2 {
                // All three must have arrived before any continues.
                let here = std::sync::Barrier::new(3);
                team.share(3, &|_| {
                    here.wait();
                });
            }
        }
    }

    #[test]
    fn work_that_shares_work_does_it_alone() {
        let team = Team::start(2, LOOKS);
        let sum = AtomicUsize::new(0);
        team.share(4, &|outer| {
            team.share(3, &|inner| {
                sum.fetch_add(10 * outer + inner, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 3 * 60 + 4 * 3);
    }

    #[test]
    fn several_threads_may_call() {
        let team = Team::start(2, 10);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for size in 0..ROUNDS {
                        assert_eq!(counts(&team, size), vec![1; size]);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_comes_back_and_the_team_goes_on() {
        let team = Team::start(2, LOOKS);
        for culprit in 0..ROUNDS.min(50) {
            let call = || team.share(50, &|number| assert!(number != culprit, "number {number}"));
            let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>(), Some(&format!("number {culprit}")));
            assert_eq!(counts(&team, 50), vec![1; 50]);
        }
    }
}
