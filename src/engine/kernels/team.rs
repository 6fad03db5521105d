//! The threads that share a kernel's work.
//!
//! A step is hundreds of kernels of a few milliseconds or less, one after the other. Threads that
//! sleep between kernels must be woken for each, which is slow on a virtual machine: a step with
//! Rayon's threads took 1.06 to 1.2 times as long (docs/results/speed.md). The threads of a team
//! keep polling for a while after their work is done, and only then sleep.

use std::any::Any;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::{self, Thread};

/// How often a helper polls before it sleeps: about a millisecond, longer than the gap between two
/// kernels.
const LOOKS: usize = 20_000;

/// Calls `work` for each number below `count`, on all threads; on the calling thread if there is
/// only one number or the threads are already busy.
///
/// # Panics
/// When `work` panics, with its message, after all threads have finished.
pub(super) fn share(count: usize, work: impl Fn(usize) + Sync) {
    static TEAM: OnceLock<Team> = OnceLock::new();
    // One per thread of the compute pool, whose size the configuration sets.
    TEAM.get_or_init(|| Team::start(rayon::current_num_threads() - 1, LOOKS)).share(count, &work);
}

/// Number of threads that share the work, including the caller.
pub(super) fn threads() -> usize {
    rayon::current_num_threads()
}

/// Helpers, and the state they share with the calling thread.
struct Team {
    shared: Arc<Shared>,
    helpers: Vec<Thread>,
}

/// Work to be called for each number below a count.
#[derive(Clone, Copy)]
struct Call {
    work: &'static (dyn Fn(usize) + Sync),
    count: usize,
}

/// State changed by a call; each value has its own cache line, since all threads poll them.
struct Shared {
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
    /// Starts `helpers` threads, or as many as the system allows, which poll `looks` times before
    /// they sleep.
    fn start(helpers: usize, looks: usize) -> Self {
        let asleep = (0..helpers).map(|_| AtomicBool::new(false)).collect();
        let shared = Arc::new(Shared {
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
            thread::Builder::new()
                .name("kernel".into())
                .spawn(move || shared.help(number, looks))
                .ok()
        };
        // A helper ends with the process.
        let helpers = (0..helpers).map_while(start).map(|handle| handle.thread().clone()).collect();
        Self { shared, helpers }
    }

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
                helper.unpark();
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

impl Shared {
    /// Main loop of helper `number`.
    fn help(&self, number: usize, looks: usize) {
        let mut seen = 0;
        loop {
            seen = self.wait_for_call(number, seen, looks);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(team: &Team, count: usize) -> Vec<usize> {
        let calls: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        team.share(count, &|number| {
            calls[number].fetch_add(1, Ordering::Relaxed);
        });
        calls.into_iter().map(AtomicUsize::into_inner).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn each_number_is_worked_on_once(helpers in 0..5_usize, looks in prop_oneof![Just(0), Just(100)], sizes in prop::collection::vec(0..60_usize, 1..200)) {
            let team = Team::start(helpers, looks);
            for size in sizes {
                prop_assert_eq!(counts(&team, size), vec![1; size]);
            }
        }
    }

    #[test]
    fn helpers_take_part_even_if_they_slept() {
        for looks in [0, LOOKS] {
            let team = Team::start(2, looks);
            for _ in 0..100 {
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
                    (0..200).for_each(|size| assert_eq!(counts(&team, size), vec![1; size]))
                });
            }
        });
    }

    #[test]
    fn a_panic_comes_back_and_the_team_goes_on() {
        let team = Team::start(2, LOOKS);
        for culprit in 0..50 {
            let call = || team.share(50, &|number| assert!(number != culprit, "number {number}"));
            let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>(), Some(&format!("number {culprit}")));
            assert_eq!(counts(&team, 50), vec![1; 50]);
        }
    }
}
