//! Runs a function over the rows of a batch, on several threads.
//!
//! The answer for a row does not depend on the thread that computes it. So whenever a thread has finished its rows, it takes
//! the next few. The threads live only as long as the call. A call with too little work to be worth starting a thread runs
//! entirely on the caller's.
//!
//! # Fork
//!
//! A process may fork while other threads are running code of this file. The child gets a copy of every lock, and a lock that
//! another thread held stays locked in the child for ever. So nothing here waits for a lock that outlives a call: scratch
//! memory is taken with `try_lock`, which skips a locked slot. Values that are computed once (`cores`, `Isa::current`) are
//! computed when the Python module is imported.
//!
//! When a thread begins or ends, it changes tables of the whole process: Rust's standard library keeps one of the stacks of
//! its threads, under a lock, and the C library keeps a list of stacks to use again. A child that inherits such a table locked
//! or half changed hangs when it starts a thread, or frees memory twice. We have seen both, once in some thousand forks. So a
//! fork waits while threads begin or end here, which takes some ten microseconds, and threads that are about to begin or end
//! wait for a fork ([`Gate`]).

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::RowError;
use crate::recipe::Scratch;

/// Going through this many logits takes about as long as starting a thread.
const WORTH_A_THREAD: usize = 1 << 18;

/// A call never uses more threads than this, whatever the caller asks for.
const MOST_THREADS: usize = 256;

/// A thread takes rows with at most about this many logits at once, and then looks at the clock.
const WORTH_A_LOOK: usize = 1 << 20;

/// A thread takes at most this many rows at once.
const MOST_ROWS: usize = 64;

/// The number of threads to use for `rows` rows of `tokens` tokens: `wanted`, or as many as are worth starting, up to `limit`.
pub fn threads(wanted: Option<usize>, limit: Option<usize>, rows: usize, tokens: usize) -> usize {
    let most = match wanted {
        Some(n) => n,
        None => (rows.saturating_mul(tokens) / WORTH_A_THREAD).min(limit.unwrap_or(usize::MAX)).min(cores()),
    };
    most.clamp(1, rows.clamp(1, MOST_THREADS))
}

/// The number of cores that this process may use. Asking the system takes 30 microseconds, so this is done only once.
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get))
}

/// The jobs of a batch that no thread has taken yet.
#[derive(Debug)]
pub struct Batch<I> {
    jobs: Mutex<I>,
    threads: usize,
    at_once: usize,
}

impl<J: Send, I: ExactSizeIterator<Item = J> + Send> Batch<I> {
    /// `jobs` has an item for each row, which has `tokens` tokens. The item is what `run_until` passes to its function.
    pub fn new(jobs: I, threads: usize, tokens: usize) -> Self {
        // A thread takes few jobs at a time, so that none has much left to do when the others are done.
        let fair = jobs.len() / (threads * 8);
        let at_once = fair.min(WORTH_A_LOOK / tokens.max(1)).clamp(1, MOST_ROWS);
        Batch { jobs: Mutex::new(jobs), threads, at_once }
    }

    /// Runs the next jobs until there are none left or the time is up. Returns false if there may be jobs left. All threads
    /// that this starts have ended when it returns.
    pub fn run_until(&self, deadline: Instant, run: impl Fn(J) + Sync) -> bool {
        let work = || {
            loop {
                let jobs = self.next_jobs();
                if jobs.is_empty() {
                    return true;
                }
                jobs.into_iter().for_each(&run);
                if Instant::now() >= deadline {
                    return false;
                }
            }
        };
        if self.threads <= 1 {
            return work();
        }
        let crew = Crew::default();
        let caller = thread::current();
        let begin_work_and_end = || {
            crew.begun.fetch_add(1, Ordering::Release);
            let is_done = {
                let _told = Told(&crew.ended, &caller); // dropped even if the work panics
                work()
            };
            while !crew.may_leave.load(Ordering::Acquire) {
                thread::park();
            }
            is_done
        };
        thread::scope(|scope| {
            let others: Vec<_> = GATE.pass(|| {
                // If the system refuses to start a thread, the others do its work.
                let start = |_| thread::Builder::new().spawn_scoped(scope, begin_work_and_end).ok();
                let others: Vec<_> = (1..self.threads).filter_map(start).collect();
                while crew.begun.load(Ordering::Acquire) < others.len() {
                    thread::yield_now();
                }
                others
            });
            let done = catch_unwind(AssertUnwindSafe(work)); // even after a panic, the others must be allowed to leave
            while crew.ended.load(Ordering::Acquire) < others.len() {
                thread::park();
            }
            let all_done: Vec<_> = GATE.pass(|| {
                crew.may_leave.store(true, Ordering::Release);
                others.iter().for_each(|other| other.thread().unpark());
                others.into_iter().map(|other| other.join()).collect()
            });
            // The batch is done as soon as one thread has found no jobs left to take.
            [done]
                .into_iter()
                .chain(all_done)
                .fold(false, |is_done, one| is_done | one.unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    fn next_jobs(&self) -> Vec<J> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).by_ref().take(self.at_once).collect()
    }
}

/// The state of the threads that work on a batch together with the caller's thread.
#[derive(Debug, Default)]
struct Crew {
    /// The number of threads that have begun.
    begun: AtomicUsize,
    /// The number of threads that have finished their work.
    ended: AtomicUsize,
    /// Set when the threads may end. They wait for this, so that they end only while the caller has passed the gate.
    may_leave: AtomicBool,
}

/// When dropped, counts a thread as finished and wakes the caller.
struct Told<'a>(&'a AtomicUsize, &'a thread::Thread);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
        self.1.unpark();
    }
}

/// Makes sure that no fork happens while threads begin or end.
#[derive(Debug)]
pub struct Gate {
    /// The number of callers whose threads are beginning or ending.
    passing: AtomicUsize,
    /// The number of threads that are forking, or waiting to fork.
    forking: AtomicUsize,
}

/// The gate of this process.
pub static GATE: Gate = Gate { passing: AtomicUsize::new(0), forking: AtomicUsize::new(0) };

impl Gate {
    /// Neither side waits longer than this, whatever the other does.
    const LONGEST: Duration = Duration::from_secs(1);

    /// Waits until `is_busy` returns false, but no longer than [`Gate::LONGEST`].
    fn wait(is_busy: impl Fn() -> bool) {
        let begun = Instant::now();
        while is_busy() && begun.elapsed() < Gate::LONGEST {
            thread::yield_now();
        }
    }

    /// Runs `work`, in which threads begin or end, while no thread forks.
    fn pass<R>(&self, work: impl FnOnce() -> R) -> R {
        /// Leaves the gate when dropped, even if the work panics.
        struct Passing<'a>(&'a Gate);
        impl Drop for Passing<'_> {
            fn drop(&mut self) {
                self.0.passing.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let begun = Instant::now();
        loop {
            self.passing.fetch_add(1, Ordering::SeqCst);
            let passing = Passing(self);
            if self.forking.load(Ordering::SeqCst) == 0 || begun.elapsed() >= Gate::LONGEST {
                let result = work();
                drop(passing);
                return result;
            }
            drop(passing);
            Gate::wait(|| self.forking.load(Ordering::SeqCst) > 0);
        }
    }

    /// Closes the gate before a fork, and waits for callers that are passing it.
    pub fn close(&self) {
        self.forking.fetch_add(1, Ordering::SeqCst);
        Gate::wait(|| self.passing.load(Ordering::SeqCst) > 0);
    }

    /// Opens the gate again, in the parent.
    pub fn open(&self) {
        self.forking.fetch_sub(1, Ordering::SeqCst);
    }

    /// Opens the gate in a child, where no other thread exists.
    pub fn open_in_child(&self) {
        self.passing.store(0, Ordering::SeqCst);
        self.forking.store(0, Ordering::SeqCst);
    }
}

/// Runs `run` with scratch memory for a row of `tokens` tokens, or returns an error if there is not enough memory. The scratch
/// memory is kept for later calls, so that a warm call allocates nothing that grows with the vocabulary.
pub fn with_scratch<R>(tokens: usize, run: impl FnOnce(&mut Scratch) -> Result<R, RowError>) -> Result<R, RowError> {
    const SLOTS: usize = 64;
    // Boxed, so that unused slots are small.
    static IDLE: [Mutex<Option<Box<Scratch>>>; SLOTS] = [const { Mutex::new(None) }; SLOTS];
    for slot in &IDLE {
        let mut idle = match slot.try_lock() {
            Ok(idle) => idle,
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Poisoned(poisoned)) => {
                slot.clear_poison();
                let mut idle = poisoned.into_inner();
                *idle = None;
                idle
            }
        };
        let scratch = idle.get_or_insert_default();
        scratch.reserve(tokens)?;
        return run(scratch);
    }
    // There are more calls at once than slots, or a fork has left slots locked.
    let mut scratch = Scratch::default();
    scratch.reserve(tokens)?;
    run(&mut scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_once() {
        let later = Instant::now() + Duration::from_secs(1000);
        for rows in [0, 1, 2, 7, 64, 1000] {
            for threads in [1, 2, 3, 8, 100] {
                let mut done = vec![0; rows];
                let batch = Batch::new(done.iter_mut().enumerate(), threads, 1000);
                assert!(batch.run_until(later, |(row, done)| *done += row + 1));
                assert_eq!(done, (1..=rows).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_batch_stops_when_the_time_is_up_and_goes_on_where_it_was() {
        for threads in [1, 3] {
            let (rows, done) = (10_000, AtomicUsize::new(0));
            let batch = Batch::new(0..rows, threads, 1000);
            let mut calls = 1;
            while !batch.run_until(Instant::now(), |_| _ = done.fetch_add(1, Ordering::Relaxed)) {
                assert!(done.load(Ordering::Relaxed) <= calls * threads * MOST_ROWS);
                calls += 1;
            }
            assert_eq!(done.into_inner(), rows);
            assert!(calls > 10);
        }
    }

    #[test]
    fn little_work_gets_one_thread_unless_more_are_asked_for() {
        assert_eq!(threads(None, None, 8, 1000), 1);
        assert_eq!(threads(Some(4), None, 8, 1000), 4);
        assert_eq!(threads(Some(4), Some(1), 8, 1000), 4);
        assert_eq!(threads(Some(4), None, 2, 1000), 2);
        assert_eq!(threads(Some(4), None, 0, 1000), 1);
        assert_eq!(threads(None, Some(1), 1 << 10, 1 << 20), 1);
        assert_eq!(threads(Some(usize::MAX), None, usize::MAX, 1), MOST_THREADS);
    }

    #[test]
    fn a_panic_in_any_thread_ends_the_batch() {
        let later = Instant::now() + Duration::from_secs(1000);
        for bad in [0, 50, 99] {
            let batch = Batch::new(0..100, 3, 1000);
            let run = || batch.run_until(later, |row| assert_ne!(row, bad));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }
    }

    #[test]
    fn threads_wait_for_a_fork_to_be_over() {
        let later = Instant::now() + Duration::from_secs(1000);
        GATE.close();
        let opened = thread::spawn(|| {
            thread::sleep(Duration::from_millis(50));
            let opened = Instant::now();
            GATE.open();
            opened
        });
        let batch = Batch::new(0..100, 3, 1000);
        assert!(batch.run_until(later, |_| ()));
        let ended = Instant::now();
        assert!(opened.join().unwrap() <= ended);
    }

    #[test]
    fn scratch_that_a_panic_left_or_that_is_held_is_not_waited_for() {
        let panicked = std::panic::catch_unwind(|| with_scratch(64, |_| -> Result<(), _> { panic!("on purpose") }));
        assert!(panicked.is_err());
        // Each nested call holds one more slot, until there are none left.
        fn nested(depth: usize) -> usize {
            if depth == 0 { 0 } else { with_scratch(64, |_| Ok(1 + nested(depth - 1))).unwrap() }
        }
        assert_eq!(nested(100), 100);
    }
}
