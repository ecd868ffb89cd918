//! What is counted and timed, by thread; merged at the end.

use croupier_protocol::Kind;
use hdrhistogram::Histogram;

/// Latencies above this are recorded as this.
const LATENCY_NS_MAX: u64 = 120_000_000_000;
/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;
/// Refusal numbers that are counted one by one; the rest share the last counter.
pub const REFUSALS_COUNTED: usize = 64;

/// What a frame asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// New orders.
    Issue = 0,
    /// Orders issued before.
    LookUp = 1,
    /// A reserve and the commit that follows it, from the one's intended time to the other's answer. Never asked as such.
    Pair = 2,
    /// Cards put by.
    Reserve = 3,
    /// The cards that were put by.
    Commit = 4,
}

impl Operation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Issue,
        Self::LookUp,
        Self::Pair,
        Self::Reserve,
        Self::Commit,
    ];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::LookUp => "lookup",
            Self::Pair => "pair",
            Self::Reserve => "reserve",
            Self::Commit => "commit",
        }
    }

    /// The kind of a frame that answers it.
    #[inline]
    pub const fn reply(self) -> Kind {
        match self {
            Self::Issue => Kind::IssueReply,
            Self::LookUp => Kind::LookUpReply,
            Self::Reserve => Kind::ReserveReply,
            // A pair is answered when its commit is.
            Self::Commit | Self::Pair => Kind::CommitReply,
        }
    }
}

/// An empty histogram of latencies in nanoseconds.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("the bounds are valid")
}

/// Which answers count.
#[derive(Debug, Clone, Copy)]
pub enum Window {
    /// Closed loop: those received from start to end.
    Received,
    /// Open loop: those intended from start to end, however late they came.
    Intended,
}

/// One operation's figures.
#[derive(Debug)]
pub struct OperationRecord {
    /// From the intended time to the answer, in nanoseconds, by order.
    pub latency: Histogram<u64>,
    /// Orders answered with cards, or with a hold.
    pub orders: u64,
    /// Orders refused, by refusal number.
    pub refused: [u64; REFUSALS_COUNTED],
    /// Equal latencies not yet in the histogram: answers read together were often sent together.
    run_ns: u64,
    run_orders: u64,
}

impl OperationRecord {
    fn new() -> Self {
        Self {
            latency: latency_histogram(),
            orders: 0,
            refused: [0; REFUSALS_COUNTED],
            run_ns: 0,
            run_orders: 0,
        }
    }

    #[inline]
    fn record(&mut self, latency_ns: u64, orders: u64) {
        self.orders += orders;
        if latency_ns != self.run_ns {
            self.flush();
            self.run_ns = latency_ns;
        }
        self.run_orders += orders;
    }

    fn flush(&mut self) {
        if self.run_orders > 0 {
            self.latency
                .saturating_record_n(self.run_ns, self.run_orders);
            self.run_orders = 0;
        }
    }

    /// Orders refused, for whatever reason.
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }

    fn absorb(&mut self, mut other: Self) {
        other.flush();
        self.flush();
        self.latency
            .add(&other.latency)
            .expect("both have the same bounds");
        self.orders += other.orders;
        self.refused
            .iter_mut()
            .zip(other.refused)
            .for_each(|(mine, theirs)| *mine += theirs);
    }
}

/// One thread's figures.
#[derive(Debug)]
pub struct Recorder {
    window: Window,
    /// First and last nanosecond of the measured window, on the run's clock.
    pub start_ns: u64,
    /// See `start_ns`; a run that uses up its stock ends earlier than it was to.
    pub end_ns: u64,
    operations: [OperationRecord; Operation::ALL.len()],
    /// From the intended to the actual sending of frames: how late the generator itself was.
    pub lateness: Histogram<u64>,
    /// Orders sent and never answered.
    pub unanswered: u64,
    /// When the last counted answer came.
    pub last_answer_ns: u64,
}

impl Recorder {
    /// Counts what falls into the window.
    pub fn new(window: Window, start_ns: u64, end_ns: u64) -> Self {
        Self {
            window,
            start_ns,
            end_ns,
            operations: std::array::from_fn(|_| OperationRecord::new()),
            lateness: latency_histogram(),
            unanswered: 0,
            last_answer_ns: start_ns,
        }
    }

    #[inline]
    fn counts(&self, intended_ns: u64, received_ns: u64) -> bool {
        let judged_ns = match self.window {
            Window::Received => received_ns,
            Window::Intended => intended_ns,
        };
        (self.start_ns..self.end_ns).contains(&judged_ns)
    }

    /// Orders of one frame, answered together.
    #[inline]
    pub fn answered(
        &mut self,
        operation: Operation,
        intended_ns: u64,
        received_ns: u64,
        orders: u64,
    ) {
        if self.counts(intended_ns, received_ns) {
            self.operations[operation as usize]
                .record(received_ns.saturating_sub(intended_ns), orders);
            self.last_answer_ns = received_ns;
        }
    }

    /// Orders refused. Their latency is not recorded: a fast "no" must not look like speed.
    #[cold]
    pub fn refused(&mut self, operation: Operation, refusal: u16, orders: u64) {
        let index = usize::from(refusal).min(REFUSALS_COUNTED - 1);
        self.operations[operation as usize].refused[index] += orders;
    }

    /// A frame went out this much after its intended time.
    #[inline]
    pub fn sent_late(&mut self, intended_ns: u64, sent_ns: u64) {
        if intended_ns >= self.start_ns {
            self.lateness
                .saturating_record(sent_ns.saturating_sub(intended_ns).max(1));
        }
    }

    /// Merges another thread's figures.
    pub fn absorb(&mut self, other: Self) {
        self.lateness
            .add(&other.lateness)
            .expect("both have the same bounds");
        self.unanswered += other.unanswered;
        self.last_answer_ns = self.last_answer_ns.max(other.last_answer_ns);
        self.end_ns = self.end_ns.min(other.end_ns);
        for (mine, theirs) in self.operations.iter_mut().zip(other.operations) {
            mine.absorb(theirs);
        }
    }

    /// One operation's figures, complete.
    pub fn operation(&mut self, operation: Operation) -> &OperationRecord {
        let record = &mut self.operations[operation as usize];
        record.flush();
        record
    }

    /// True if the run ended before anything was to be counted.
    pub fn ended_in_warmup(&self) -> bool {
        self.end_ns <= self.start_ns
    }

    /// Seconds that the counted answers took to come. An open loop that falls behind is answered after its end, and a
    /// closed one that ends early is: both have to be waited for.
    pub fn measured_s(&self) -> f64 {
        let end_ns = self.end_ns.max(self.last_answer_ns);
        end_ns.saturating_sub(self.start_ns).max(1) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        for (window, counted) in [(Window::Received, 2), (Window::Intended, 1)] {
            let mut recorder = Recorder::new(window, 100, 200);
            recorder.answered(Operation::Issue, 90, 110, 1);
            recorder.answered(Operation::Issue, 110, 120, 1);
            recorder.answered(Operation::Issue, 90, 99, 1);
            recorder.answered(Operation::Issue, 210, 220, 1);
            assert_eq!(
                recorder.operation(Operation::Issue).orders,
                counted,
                "{window:?}"
            );
            assert_eq!(recorder.operation(Operation::Issue).latency.len(), counted);
        }
    }

    #[test]
    fn a_loop_that_ends_early_waits_for_its_last_answers() {
        let mut recorder = Recorder::new(Window::Received, 1_000, 9_000);
        recorder.answered(Operation::Issue, 1_500, 3_000, 1);
        recorder.end_ns = 2_000;
        assert_eq!(recorder.measured_s(), 2e-6);
        assert!(!recorder.ended_in_warmup());
        recorder.end_ns = 500;
        assert!(recorder.ended_in_warmup());
    }

    #[test]
    fn runs_of_equal_latencies_are_all_recorded_and_merged() {
        let mut one = Recorder::new(Window::Received, 0, 1000);
        let mut other = Recorder::new(Window::Received, 0, 900);
        for _ in 0..10 {
            one.answered(Operation::Issue, 0, 5, 2);
            other.answered(Operation::Issue, 0, 7, 1);
            other.refused(Operation::LookUp, 7, 3);
        }
        one.absorb(other);
        assert_eq!(one.end_ns, 900);
        assert_eq!(one.operation(Operation::Issue).latency.len(), 30);
        assert_eq!(one.operation(Operation::Issue).latency.count_at(5), 20);
        assert_eq!(one.operation(Operation::LookUp).refused_total(), 30);
    }
}
