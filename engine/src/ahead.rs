//! Reading ahead: one thread reads and checks, the caller's applies.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::error::EngineError;

/// Items read and not yet applied; each is a block of the log or a chunk of an order file, a megabyte at most.
const AHEAD: usize = 8;

/// Hands everything that `read` gives to `apply`, in its order, until it gives nothing, `apply` has enough or either fails.
/// `on_thread`: a thread of its own reads, some items ahead; without it the two take turns, as a simulation needs it.
pub fn read_ahead<T: Send>(
    on_thread: bool,
    mut read: impl FnMut() -> Result<Option<T>, EngineError> + Send,
    mut apply: impl FnMut(T) -> Result<ControlFlow<()>, EngineError>,
) -> Result<(), EngineError> {
    if !on_thread {
        while let Some(item) = read()? {
            if apply(item)?.is_break() {
                break;
            }
        }
        return Ok(());
    }
    std::thread::scope(|scope| {
        let (items, ready) = sync_channel(AHEAD);
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
        apply_all(ready, &mut apply)
    })
}

/// Drops the receiver on its way out, so that the reader ends.
fn apply_all<T>(
    ready: Receiver<Result<T, EngineError>>,
    apply: &mut impl FnMut(T) -> Result<ControlFlow<()>, EngineError>,
) -> Result<(), EngineError> {
    for item in ready {
        if apply(item?)?.is_break() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow::{Break, Continue};

    use super::*;

    fn fault(what: &str) -> EngineError {
        EngineError::Config(what.into())
    }

    #[test]
    fn all_is_applied_in_order_up_to_the_first_failure_of_either_side() {
        for on_thread in [false, true] {
            for (read_fails, apply_fails, enough, applied, told) in [
                (99, 99, 99, 40, None),
                (7, 99, 99, 7, Some("read")),
                (99, 5, 99, 5, Some("apply")),
                (20, 5, 99, 5, Some("apply")),
                (20, 20, 5, 6, None),
            ] {
                let (mut next, mut seen) = (0, Vec::new());
                let read = || match next {
                    40 => Ok(None),
                    at if at == read_fails => Err(fault("read")),
                    at => {
                        next += 1;
                        Ok(Some(at))
                    }
                };
                let done = read_ahead(on_thread, read, |item| {
                    if item == apply_fails {
                        return Err(fault("apply"));
                    }
                    seen.push(item);
                    Ok(if item == enough {
                        Break(())
                    } else {
                        Continue(())
                    })
                });
                assert_eq!(seen, (0..applied).collect::<Vec<_>>());
                let text = done.err().map(|error| error.to_string());
                assert_eq!(text.is_some(), told.is_some());
                assert!(told.is_none_or(|told| text.unwrap().contains(told)));
            }
        }
    }
}
