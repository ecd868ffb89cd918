//! Waits for sockets and for the next intended time: epoll and one timer, both without a runtime in between.
//!
//! A timer of its own because the time-outs of epoll are rounded to a millisecond, which at 1,500 orders a second is
//! more than the gap between two of them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

const EVENTS_MAX: usize = 1024;
/// From here on a millisecond's rounding does not matter, and the timer's system call is saved.
const COARSE_NS: u64 = 10_000_000;
/// Event data of the timer; sockets have their index.
const TIMER: u64 = u64::MAX;

/// One thread's epoll.
pub struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<Event>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller")
            .field("epoll", &self.epoll)
            .finish_non_exhaustive()
    }
}

/// A socket that can go on.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The index it was registered with.
    pub index: usize,
    /// There is something to read, or an error to be read.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
}

impl Poller {
    /// An epoll without sockets.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Self {
            epoll,
            timer,
            events: Vec::with_capacity(EVENTS_MAX),
        })
    }

    /// Watches a socket for reading.
    pub fn add(&self, socket: impl AsFd, index: usize) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            socket,
            EventData::new_u64(index as u64),
            EventFlags::IN,
        )?)
    }

    /// Watches a socket for writing too, or no longer.
    pub fn watch_writes(&self, socket: impl AsFd, index: usize, watch: bool) -> io::Result<()> {
        let flags = if watch {
            EventFlags::IN | EventFlags::OUT
        } else {
            EventFlags::IN
        };
        Ok(epoll::modify(
            &self.epoll,
            socket,
            EventData::new_u64(index as u64),
            flags,
        )?)
    }

    /// Waits until a socket is ready, at most `timeout_ns`. Level-triggered: what is left unread is reported again.
    pub fn wait(&mut self, timeout_ns: u64) -> io::Result<()> {
        // A timer that is still armed from an earlier wait ends this one early, which does no harm.
        let timeout = match timeout_ns {
            0 => Some(Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
            COARSE_NS.. => Some(whole_milliseconds(timeout_ns)),
            _ => {
                timerfd_settime(
                    &self.timer,
                    TimerfdTimerFlags::empty(),
                    &once_after(timeout_ns),
                )?;
                None
            }
        };
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if self.events.iter().any(|event| event.data.u64() == TIMER) {
            // The expiration has to be read away, or every wait would end at once; there may be none by now.
            let _ = rustix::io::read(&self.timer, &mut [0u8; 8]);
        }
        Ok(())
    }

    /// How many events the last [`Poller::wait`] brought; see [`Poller::ready`].
    #[inline]
    pub fn ready_count(&self) -> usize {
        self.events.len()
    }

    /// The socket of one event; `None` for the timer.
    #[inline]
    pub fn ready(&self, event: usize) -> Option<Ready> {
        let event = &self.events[event];
        let (index, flags) = (event.data.u64(), event.flags);
        (index != TIMER).then(|| Ready {
            index: index as usize,
            readable: flags
                .intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP | EventFlags::RDHUP),
            writable: flags.contains(EventFlags::OUT),
        })
    }
}

fn whole_milliseconds(timeout_ns: u64) -> Timespec {
    let milliseconds = (timeout_ns / 1_000_000) as i64;
    Timespec {
        tv_sec: milliseconds / 1000,
        tv_nsec: milliseconds % 1000 * 1_000_000,
    }
}

fn once_after(timeout_ns: u64) -> Itimerspec {
    let value = Timespec {
        tv_sec: (timeout_ns / 1_000_000_000) as i64,
        tv_nsec: (timeout_ns % 1_000_000_000) as i64,
    };
    Itimerspec {
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: value,
    }
}
