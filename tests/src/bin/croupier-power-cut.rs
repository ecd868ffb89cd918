//! `croupier-power-cut`: what `tests/power-cut` runs on the machine that it boots. Prints a line for each cut.
#![forbid(unsafe_code)]

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use croupier_tests::power_cut::{Checked, Disks, Plan, Problem, load_and_cut};
use croupier_tests::use_binary;
use tokio::runtime::Builder;

/// Cut the power of a disk under load, and check what each cut leaves
///
/// Exit codes: 0 nothing lost and nothing dealt twice, 1 something was, or it could not be tried, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "croupier-power-cut")]
struct Args {
    /// The binary under test
    #[arg(long, value_name = "PATH")]
    binary: PathBuf,
    #[command(flatten)]
    plan: Plan,
}

fn main() -> ExitCode {
    let Args { binary, plan } = Args::parse();
    use_binary(binary);
    match run(&plan) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// How many cuts left what must not be.
fn run(plan: &Plan) -> Result<usize, Problem> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let begun = Instant::now();
    let books = runtime.block_on(load_and_cut(plan))?;
    println!(
        "{} cuts under load in {:.1} s",
        books.len(),
        begun.elapsed().as_secs_f64()
    );
    let mut disks = Disks::open(plan)?;
    let (mut broken, mut acknowledged_of_all) = (0, 0);
    for (number, oracle) in books.iter().enumerate() {
        let begun = Instant::now();
        let check = || runtime.block_on(disks.check(plan, number, oracle));
        match panic::catch_unwind(AssertUnwindSafe(check)) {
            Ok(checked) => {
                let Checked {
                    acknowledged,
                    found,
                    sectors_in_flight,
                    sectors_kept,
                } = checked?;
                acknowledged_of_all += acknowledged;
                println!(
                    "cut {number}: {acknowledged} orders acknowledged, {found} found, 0 lost, 0 twice; the disk kept \
                     {sectors_kept} of {sectors_in_flight} sectors in flight; {:.1} s",
                    begun.elapsed().as_secs_f64()
                );
            }
            Err(_) => {
                broken += 1;
                println!("cut {number}: BROKEN, see above");
            }
        }
    }
    println!(
        "{} cuts, {acknowledged_of_all} orders looked for, {} held, {broken} broken; seed {}; {:.0} s",
        books.len(),
        books.len() - broken,
        plan.seed,
        begun.elapsed().as_secs_f64()
    );
    Ok(broken)
}
