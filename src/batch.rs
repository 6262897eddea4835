//! Runs a function over the rows of a batch, on several threads.
//!
//! Which thread takes a row changes nothing in its answer, so each takes the next few rows whenever it has done the ones before.
//! The threads live for the call alone: no pool, nothing that a fork could break. A call on too little work to repay the
//! start of a thread runs on the caller's.

use std::num::NonZero;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use crate::recipe::Scratch;

/// Logits that one thread goes through in about the time that it takes to start one.
const WORTH_A_THREAD: usize = 1 << 18;

/// The threads to use for `rows` rows of `tokens` tokens; `wanted` is what the caller asked for.
pub fn threads(wanted: Option<usize>, rows: usize, tokens: usize) -> usize {
    let most = match wanted {
        Some(n) => n,
        None => (rows * tokens / WORTH_A_THREAD).min(cores()),
    };
    most.clamp(1, rows.max(1))
}

/// The cores that this process may use. Asked for once: the answer takes 30 microseconds.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get))
}

/// The results of `run` on each job (a row and what it writes to), in their order.
pub fn map<J: Send, R: Send>(
    jobs: impl ExactSizeIterator<Item = J> + Send,
    threads: usize,
    run: impl Fn(J, &mut Scratch) -> R + Sync,
) -> Vec<R> {
    if threads <= 1 {
        return with_scratch(|scratch| jobs.map(|job| run(job, scratch)).collect());
    }
    // So few at a time that no thread has much left to do when the others have ended.
    let each = (jobs.len() / (threads * 8)).max(1);
    let queue = Mutex::new(jobs.enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().take(each).collect::<Vec<_>>();
    let work = || {
        with_scratch(|scratch| {
            let mut results = Vec::new();
            loop {
                let jobs = next();
                if jobs.is_empty() {
                    return results;
                }
                results.extend(jobs.into_iter().map(|(place, job)| (place, run(job, scratch))));
            }
        })
    };
    let mut results = thread::scope(|scope| {
        // A system that starts no more threads leaves the rest to the others.
        let others: Vec<_> =
            (1..threads).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let mut results = work();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|&(place, _)| place);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Lends one of the scratches that earlier calls left, so that a warm call allocates nothing that grows with the vocabulary.
/// There are never more of them than calls and threads that ran at once.
pub fn with_scratch<R>(run: impl FnOnce(&mut Scratch) -> R) -> R {
    // Boxed, for a scratch is more than 10 kB: moving it in and out took longer than a draw from a short row.
    #[allow(clippy::vec_box)]
    static IDLE: Mutex<Vec<Box<Scratch>>> = Mutex::new(Vec::new());
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut scratch = idle().pop().unwrap_or_default();
    let result = run(&mut scratch);
    idle().push(scratch);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for rows in [0, 1, 2, 7, 64] {
            for threads in [1, 2, 3, 8, 100] {
                let results = map(0..rows, threads, |job, _| job * 10);
                assert_eq!(results, (0..rows).map(|job| job * 10).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn little_work_gets_one_thread_unless_more_are_asked_for() {
        assert_eq!(threads(None, 8, 1000), 1);
        assert_eq!(threads(Some(4), 8, 1000), 4);
        assert_eq!(threads(Some(4), 2, 1000), 2);
        assert_eq!(threads(Some(4), 0, 1000), 1);
    }
}
