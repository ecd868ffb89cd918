//! `croupier-bench run`: loads one server and says how it did.
//!
//! Server, stock, load, look-ups of the sample, report: in this order, and nothing of it overlaps.

mod args;
mod session;
mod stocking;
mod target;

use std::rc::Rc;

pub use args::{CONNECTIONS_MAX, Mode, RunArgs, ServerArgs, Step};
pub use session::{Session, Stream};
pub use target::Target;

use crate::error::BenchError;
use crate::machine::Machine;
use crate::report::{LoadFacts, RunReport, Verdict};

/// Loads the server that the flags name and reports.
pub fn run(args: &RunArgs) -> Result<RunReport, BenchError> {
    args.check()?;
    let target = Rc::new(Target::open(&args.server_with_room())?);
    target.explain(run_against(args, target.clone()))
}

/// As [`run`], with a server that is there already.
pub fn run_against(args: &RunArgs, target: Rc<Target>) -> Result<RunReport, BenchError> {
    let server = target.control()?.server_info()?;
    let mut session = Session::open(args.clone(), target.clone())?;
    session.stock_up()?;
    let mut steps = Vec::new();
    for step in args.steps() {
        steps.push(session.step(step)?);
    }
    let oracle = session.look_samples_up()?;
    let verdict = Verdict::of(&steps, &oracle, args.p99_limit());
    Ok(RunReport {
        machine: Machine::detect(),
        server: target.facts(&server),
        load: LoadFacts::new(args, session.run_id()),
        import: session.imported(),
        steps,
        oracle,
        verdict,
    })
}
