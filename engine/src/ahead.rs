//! Reading on one thread what several apply.
//!
//! Orders commute: whoever puts two of them into a state may do it in any order, or both at once. Other facts do not. So
//! items are handed out in their order, and one that must be alone waits for all before it and holds up all behind it.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::EngineError;

/// Items read and not yet applied; each is a block of the log or a chunk of an order file, a megabyte at most.
const AHEAD: usize = 8;
/// Threads that apply, at most: more would wait for the one that reads.
const APPLIERS_MAX: usize = 4;

/// Shared by those who apply side by side.
#[expect(
    clippy::disallowed_types,
    reason = "there are no cores yet that could wait"
)]
type Turn = std::sync::RwLock<()>;

/// Something that is applied.
pub trait Item: Send {
    /// Whether it must be applied behind everything before it, and before everything behind it.
    fn is_alone(&self) -> bool;
}

/// Somebody who applies.
pub trait Apply<T>: Send {
    /// Applies an item; `Break`: nothing behind this item is wanted, as only an item that is alone may say.
    fn apply(&mut self, item: T) -> Result<ControlFlow<()>, EngineError>;
}

/// Has everything that `read` gives applied, until it gives nothing, somebody has enough, or anything fails. Returns those
/// who have applied. `threads`: whether threads are started, one to read and several to apply; without them one applies
/// what was read, in turns, as a simulation needs it.
pub fn read_ahead<T: Item, A: Apply<T>>(
    threads: bool,
    mut read: impl FnMut() -> Result<Option<T>, EngineError> + Send,
    applier: impl Fn() -> A,
) -> Result<Vec<A>, EngineError> {
    if !threads {
        let mut one = applier();
        while let Some(item) = read()? {
            if one.apply(item)?.is_break() {
                break;
            }
        }
        return Ok(vec![one]);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let appliers: Vec<A> = (0..cores.min(APPLIERS_MAX)).map(|_| applier()).collect();
    let (items, ready) = sync_channel(AHEAD);
    let queue = &Queue {
        ready: Mutex::new(Some(ready)),
        turn: Turn::default(),
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                let item = read().transpose();
                let last = !matches!(item, Some(Ok(_)));
                // Nobody takes it: applying has ended.
                if item.is_none_or(|item| items.send(item).is_err()) || last {
                    return;
                }
            }
        });
        let threads: Vec<_> = appliers
            .into_iter()
            .map(|applier| scope.spawn(move || queue.apply_all(applier)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("applying does not panic"))
            .collect()
    })
}

/// What was read and waits to be applied.
struct Queue<T> {
    /// None when nothing more is wanted; the reader then finds nobody to send to, and ends.
    ready: Mutex<Option<Ready<T>>>,
    /// Taken, in the order of the items, before the queue is let go.
    turn: Turn,
}

type Ready<T> = Receiver<Result<T, EngineError>>;

/// Ends the queue when somebody who applies ends, in whatever way.
struct Ends<'q, T>(&'q Queue<T>);

impl<T> Drop for Ends<'_, T> {
    fn drop(&mut self) {
        self.0.lock().take();
    }
}

impl<T> Queue<T> {
    /// Somebody who panicked has not left anything half done in it.
    fn lock(&self) -> MutexGuard<'_, Option<Ready<T>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Item> Queue<T> {
    fn apply_all<A: Apply<T>>(&self, mut applier: A) -> Result<A, EngineError> {
        let _ends = Ends(self);
        loop {
            let mut ready = self.lock();
            let Some(item) = ready.as_ref().and_then(|ready| ready.recv().ok()) else {
                return Ok(applier);
            };
            let item = item?;
            let more = if item.is_alone() {
                let _turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
                let more = applier.apply(item);
                if !matches!(more, Ok(ControlFlow::Continue(()))) {
                    // Nobody shall take the next one.
                    *ready = None;
                }
                more
            } else {
                let _turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
                drop(ready);
                applier.apply(item)
            };
            if more?.is_break() {
                return Ok(applier);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow::{Break, Continue};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Every tenth number must be alone.
    impl Item for usize {
        fn is_alone(&self) -> bool {
            self.is_multiple_of(10)
        }
    }

    struct Applier<'t> {
        applied: &'t AtomicUsize,
        fails: usize,
        enough: usize,
        seen: Vec<usize>,
    }

    impl Apply<usize> for Applier<'_> {
        fn apply(&mut self, item: usize) -> Result<ControlFlow<()>, EngineError> {
            if item == self.fails {
                return Err(EngineError::Config("apply".into()));
            }
            let before = self.applied.fetch_add(1, Ordering::SeqCst);
            if item.is_alone() {
                assert_eq!(before, item, "all before it, and none behind it");
            }
            self.seen.push(item);
            Ok(if item == self.enough {
                Break(())
            } else {
                Continue(())
            })
        }
    }

    #[test]
    fn all_is_applied_once_and_what_must_be_alone_in_its_place() {
        const COUNT: usize = 2000;
        for threads in [false, true] {
            for (read_fails, apply_fails, enough, told) in [
                (usize::MAX, usize::MAX, usize::MAX, None),
                (777, usize::MAX, usize::MAX, Some("read")),
                (usize::MAX, 500, usize::MAX, Some("apply")),
                (usize::MAX, usize::MAX, 1000, None),
            ] {
                let applied = AtomicUsize::new(0);
                let mut next = 0;
                let read = || match next {
                    COUNT => Ok(None),
                    at if at == read_fails => Err(EngineError::Config("read".into())),
                    at => {
                        next += 1;
                        Ok(Some(at))
                    }
                };
                let done = read_ahead(threads, read, || Applier {
                    applied: &applied,
                    fails: apply_fails,
                    enough,
                    seen: Vec::new(),
                });
                match (done, told) {
                    (Ok(appliers), None) => {
                        let mut seen: Vec<_> =
                            appliers.into_iter().flat_map(|one| one.seen).collect();
                        seen.sort_unstable();
                        assert!(seen.into_iter().eq(0..COUNT.min(enough.saturating_add(1))));
                    }
                    (Err(error), Some(told)) => assert!(error.to_string().contains(told)),
                    (done, told) => panic!("{told:?} expected, not {:?}", done.err()),
                }
            }
        }
    }
}
