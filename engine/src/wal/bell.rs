//! The bell: how producers wake the one thread that sleeps when there is nothing to do.
//!
//! A producer first makes its work visible, then rings; the sleeper first says that it sleeps, then looks for work once
//! more. A `SeqCst` fence on both sides makes it impossible that both miss each other (Dekker's argument): if the
//! producer reads `asleep == false`, its fence came first, and the sleeper's last look sees the work.

use croupier_protocol::planted::{self, Bug};

use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::thread::{Thread, current, park};

/// One sleeper's bell. Made by the thread that will sleep.
pub struct Bell {
    asleep: AtomicBool,
    sleeper: Thread,
}

impl Bell {
    /// A bell for the calling thread.
    pub fn for_this_thread() -> Bell {
        Bell {
            asleep: AtomicBool::new(false),
            sleeper: current(),
        }
    }

    /// Wakes the sleeper if it sleeps. Costs a fence and a load when it does not.
    pub fn ring(&self) {
        // Pairs with the fence in sleep_unless.
        fence(Ordering::SeqCst);
        // Relaxed: ordered by the fence. The swap lets only one of many ringers pay for the system call.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.sleeper.unpark();
        }
    }

    /// Sleeps until rung, unless `work` says that there is something to do. May wake for no reason. Only for the
    /// thread that made the bell.
    pub fn sleep_unless(&self, work: impl Fn() -> bool) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in ring.
        fence(Ordering::SeqCst);
        if !work() || planted::is(Bug::LostWakeUp) {
            park();
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

#[cfg(all(test, croupier_loom))]
mod model {
    use super::*;
    use loom::sync::{Arc, atomic::AtomicU64};

    /// Loom reports a deadlock if the wake-up is lost.
    #[test]
    fn no_wake_up_is_lost() {
        // Without a bound there are millions of interleavings; a lost wake-up takes two switches.
        crate::sync::model("bell: no lost wake-up", Some(3), || {
            let bell = Arc::new(Bell::for_this_thread());
            let work = Arc::new(AtomicU64::new(0));
            let producers: Vec<_> = (0..2)
                .map(|_| {
                    let (bell, work) = (bell.clone(), work.clone());
                    loom::thread::spawn(move || {
                        // Release pairs with the Acquire below; the bell's fences order the rest.
                        work.fetch_add(1, Ordering::Release);
                        bell.ring();
                    })
                })
                .collect();
            while work.load(Ordering::Acquire) < 2 {
                bell.sleep_unless(|| work.load(Ordering::Acquire) >= 2);
            }
            for producer in producers {
                producer.join().unwrap();
            }
        });
    }
}
