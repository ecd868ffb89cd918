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
        // Relaxed: ordered by the fence. The exchange lets only one of many ringers pay for the system call.
        let asleep = &self.asleep;
        if asleep.load(Ordering::Relaxed)
            && asleep
                .compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.sleeper.unpark();
        }
    }

    /// Rings if there is `work`; for whoever has just done the sleeper's work in its place. What others have made visible
    /// meanwhile, and found nobody asleep, is seen here.
    pub fn ring_if(&self, work: impl Fn() -> bool) {
        // Pairs with the fence in sleep_unless, as that of ring does.
        fence(Ordering::SeqCst);
        if work() && !planted::is(Bug::LeaveBehind) {
            self.ring();
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
    use loom::sync::{Arc, atomic::AtomicU64, mpsc};

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

    /// A counter as the log's ring is one: what was made, what was let go of, and what was made known, in that order.
    #[derive(Default)]
    struct Counter {
        made: AtomicU64,
        released: AtomicU64,
        known: AtomicU64,
    }

    impl Counter {
        fn has_ready(&self) -> bool {
            let at = self.known.load(Ordering::SeqCst);
            // Acquire: as the ring's.
            self.made.load(Ordering::Acquire) > at && self.released.load(Ordering::Acquire) <= at
        }

        fn commit(&self) {
            let end = self.made.load(Ordering::Acquire);
            self.released.store(end, Ordering::Release);
            self.known.store(end, Ordering::SeqCst);
        }
    }

    /// A lock, but none of loom's: that takes the wake-up of a thread that waits for a lock for the lock.
    fn take(taken: &AtomicBool) -> bool {
        taken
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Loom reports an endless loop if something stays behind while the sleeper sleeps.
    #[test]
    fn who_works_in_the_sleepers_place_leaves_nothing_behind() {
        crate::sync::model("bell: work in the sleeper's place", Some(3), || {
            let counter = Arc::new(Counter::default());
            let (taken, stopping) = (AtomicBool::new(false), AtomicBool::new(false));
            let (taken, stopping) = (Arc::new(taken), Arc::new(stopping));
            let (bell_out, bell_in) = mpsc::channel();
            let sleeper = {
                let (counter, taken, stopping) = (counter.clone(), taken.clone(), stopping.clone());
                loom::thread::spawn(move || {
                    let bell = Arc::new(Bell::for_this_thread());
                    bell_out.send(bell.clone()).unwrap();
                    while !stopping.load(Ordering::Acquire) {
                        while !take(&taken) {
                            loom::thread::yield_now();
                        }
                        counter.commit();
                        taken.store(false, Ordering::Release);
                        bell.sleep_unless(|| {
                            counter.has_ready() || stopping.load(Ordering::Acquire)
                        });
                    }
                })
            };
            let bell: Arc<Bell> = bell_in.recv().unwrap();
            let ringer = {
                let (counter, bell) = (counter.clone(), bell.clone());
                loom::thread::spawn(move || {
                    counter.made.fetch_add(1, Ordering::Release);
                    bell.ring();
                })
            };
            counter.made.fetch_add(1, Ordering::Release);
            if take(&taken) {
                counter.commit();
                taken.store(false, Ordering::Release);
            }
            bell.ring_if(|| counter.has_ready());
            ringer.join().unwrap();
            while counter.known.load(Ordering::SeqCst) < 2 {
                loom::thread::yield_now();
            }
            stopping.store(true, Ordering::Release);
            bell.ring();
            sleeper.join().unwrap();
        });
    }
}
