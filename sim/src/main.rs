//! `croupier-sim`: runs seeds until a budget is used up, or one seed again.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use croupier_protocol::planted;
use croupier_sim::plan::Plan;
use croupier_sim::run::{Done, Violation, run, shrink, trace};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulate a whole Croupier from seeds, crash it everywhere, and let the oracle judge
///
/// One seed decides everything: who acts next, what the disk forgets, tears and reorders, when it fails, when the clock
/// jumps. Before every change of the disk crashes are tried on copies. A violation prints its seed; that seed alone does
/// the same again.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  croupier-sim --budget 300s                 seeds from 1 on, for five minutes, on all cores
  croupier-sim --seed 4711 --trace           one seed, with everything that happens in it
  croupier-sim --crashes 1000000             until a million crashes have been tried

Exit codes: 0 no violation, 1 a violation, 2 usage."
)]
struct Cli {
    /// Run one seed
    #[arg(long, conflicts_with_all = ["budget", "crashes"])]
    seed: Option<u64>,
    /// Run seeds for so long, such as 90s or 10m
    #[arg(long, value_parser = duration)]
    budget: Option<Duration>,
    /// Run seeds until so many crashes have been tried
    #[arg(long)]
    crashes: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Steps of a run
    #[arg(long, default_value_t = 3000)]
    steps: u64,
    /// Threads; each runs seeds of its own [default: one per core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Tell a violation as it was found, without looking for a shorter run
    #[arg(long)]
    no_shrink: bool,
    /// List the bugs that can be planted, and what must find each: a layer, and a test of it
    #[arg(long)]
    list_planted: bool,
    /// With --seed: print what happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) =
        text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is no time: write 90s or 10m"))?;
    let seconds = match unit {
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time: s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[derive(Clone, Debug, Default, Serialize)]
struct Sum {
    seeds: u64,
    steps: u64,
    simulated_hours: f64,
    disk_changes: u64,
    crashes: croupier_sim::crash::Crashes,
    starts: u64,
    power_cuts: u64,
    kills: u64,
    stops: u64,
    log_failures: u64,
    checkpoints: u64,
    imports: u64,
    delivered: u64,
    channels: croupier_sim::world::Channelled,
    moves: u64,
    expired_cards: u64,
    expired_holds: u64,
    picks: u64,
    /// Orders that were refused because their holders had as much as they may.
    capped: u64,
    uses_added: u64,
    /// Canaries that were begun, came into force, and were rolled back.
    canaries: [u64; 3],
    issued: u64,
    repeats: u64,
    refused: u64,
    unknown: u64,
    holds: u64,
    waits: u64,
    seconds: f64,
    simulated_hours_per_second: f64,
    violations: u64,
}

impl Sum {
    fn add(&mut self, done: &Done) {
        let Done {
            tally,
            crashes,
            answers: [issued, repeats, refused, unknown, holds, waits],
        } = done;
        self.seeds += 1;
        self.steps += tally.steps;
        self.simulated_hours += tally.simulated_us as f64 / 3.6e9;
        self.disk_changes += tally.changes;
        self.crashes.add(crashes);
        self.starts += tally.starts;
        self.power_cuts += tally.power_cuts;
        self.kills += tally.kills;
        self.stops += tally.stops;
        self.log_failures += tally.log_failures;
        self.checkpoints += tally.folds;
        self.imports += tally.imports;
        self.delivered += tally.delivered;
        self.channels.add(&tally.channels);
        self.moves += tally.moves;
        self.expired_cards += tally.expired[0];
        self.expired_holds += tally.expired[1];
        self.picks += tally.picks;
        self.capped += tally.capped;
        self.uses_added += tally.uses;
        for (sum, more) in self.canaries.iter_mut().zip(tally.canaries) {
            *sum += more;
        }
        self.issued += issued;
        self.repeats += repeats;
        self.refused += refused;
        self.unknown += unknown;
        self.holds += holds;
        self.waits += waits;
    }

    fn print(&self) {
        let crashes = &self.crashes;
        println!("seeds                {:>12}", self.seeds);
        println!("steps                {:>12}", self.steps);
        println!(
            "simulated hours      {:>12.1}   {:.1} per second",
            self.simulated_hours, self.simulated_hours_per_second
        );
        println!("changes of the disk  {:>12}", self.disk_changes);
        println!(
            "crashes tried        {:>12}   {:.0} per second",
            crashes.tried,
            crashes.tried as f64 / self.seconds
        );
        println!("  torn tail found    {:>12}", crashes.torn);
        println!(
            "  in recovery        {:>12}   and {} in the recovery from that",
            crashes.nested[0], crashes.nested[1]
        );
        println!("  folded, compared   {:>12}", crashes.folded);
        println!(
            "flipped bits         {:>12}   {} told as damage, {} harmless",
            crashes.flips_told + crashes.flips_harmless,
            crashes.flips_told,
            crashes.flips_harmless
        );
        println!(
            "starts               {:>12}   after {} power cuts, {} kills, {} failures of the log, {} stops",
            self.starts, self.power_cuts, self.kills, self.log_failures, self.stops
        );
        println!(
            "checkpoints          {:>12}   {} imports, {} cards delivered, {} moves of cards, {} picks, {} uses added, {} orders beyond the caps of holders; {} cards expired in stock, and {} holds for want of them",
            self.checkpoints,
            self.imports,
            self.delivered,
            self.moves,
            self.picks,
            self.uses_added,
            self.capped,
            self.expired_cards,
            self.expired_holds
        );
        let channels = &self.channels;
        println!(
            "jobs of channels     {:>12}   {} filled, {} deliveries late; {} orders accepted, {} buried, {} kicked; {} ejections",
            channels.jobs,
            channels.filled,
            channels.late,
            channels.accepted,
            channels.buried,
            channels.kicked,
            channels.ejections
        );
        let [begun, in_force, rolled_back] = self.canaries;
        println!(
            "canaries             {begun:>12}   {in_force} came into force, {rolled_back} were rolled back"
        );
        println!(
            "orders issued        {:>12}   {} repeats, {} refused, {} never known; {} answers about holds, {} about waits",
            self.issued, self.repeats, self.refused, self.unknown, self.holds, self.waits
        );
        println!(
            "violations           {:>12}   in {:.1} s",
            self.violations, self.seconds
        );
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A violation is a panic that is caught, told and shrunk: its first words need no printing.
    std::panic::set_hook(Box::new(|_| {}));
    if cli.list_planted {
        for (_, name, layer) in planted::BUGS {
            let (layer, test) = layer.name_and_test();
            println!("{}", format!("{name} {layer} {test}").trim_end());
        }
        return ExitCode::SUCCESS;
    }
    match cli.seed {
        Some(seed) => one(&cli, seed),
        None => many(&cli),
    }
}

fn one(cli: &Cli, seed: u64) -> ExitCode {
    let plan = Plan::new(seed, cli.steps);
    let begun = Instant::now();
    if cli.trace {
        let (trace, journal, ended) = trace(&plan);
        println!("seed {seed}: {}", plan.describe());
        trace.iter().for_each(|line| println!("{line}"));
        println!("the disk's last changes:");
        journal.iter().for_each(|line| println!("  {line}"));
        return match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(what) => {
                println!("VIOLATION: {what}");
                ExitCode::FAILURE
            }
        };
    }
    match run(&plan) {
        Ok(done) => {
            let mut sum = Sum::default();
            sum.add(&done);
            report(cli, sum, begun)
        }
        Err(violation) => {
            tell(cli, &violation);
            ExitCode::FAILURE
        }
    }
}

fn many(cli: &Cli) -> ExitCode {
    let jobs = cli
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let budget = match (cli.budget, cli.crashes) {
        (None, None) => Some(Duration::from_secs(60)),
        (budget, _) => budget,
    };
    let (next, over) = (AtomicU64::new(cli.from), AtomicBool::new(false));
    let (sum, found) = (Mutex::new(Sum::default()), Mutex::new(None));
    let begun = Instant::now();
    let bar = indicatif::ProgressBar::new_spinner();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    match run(&Plan::new(seed, cli.steps)) {
                        Ok(done) => {
                            let mut sum = sum.lock().expect("nobody panics with it");
                            sum.add(&done);
                            let enough = cli.crashes.is_some_and(|most| sum.crashes.tried >= most)
                                || budget.is_some_and(|budget| begun.elapsed() >= budget);
                            over.fetch_or(enough, Ordering::Relaxed);
                            bar.set_message(format!(
                                "seed {seed}: {} crashes tried, {} orders issued",
                                sum.crashes.tried, sum.issued
                            ));
                            bar.tick();
                        }
                        Err(violation) => {
                            over.store(true, Ordering::Relaxed);
                            found
                                .lock()
                                .expect("nobody panics with it")
                                .get_or_insert(violation);
                        }
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut sum = sum.into_inner().expect("nobody panicked with it");
    if let Some(violation) = found.into_inner().expect("nobody panicked with it") {
        sum.violations = 1;
        tell(cli, &violation);
    }
    report(cli, sum, begun)
}

fn report(cli: &Cli, mut sum: Sum, begun: Instant) -> ExitCode {
    sum.seconds = begun.elapsed().as_secs_f64();
    sum.simulated_hours_per_second = sum.simulated_hours / sum.seconds;
    if cli.json {
        println!("{}", serde_json::to_string(&sum).expect("plain numbers"));
    } else {
        sum.print();
    }
    if sum.violations == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn tell(cli: &Cli, violation: &Violation) {
    eprintln!(
        "VIOLATION in seed {} at step {}: {}",
        violation.plan.seed, violation.step, violation.what
    );
    if cli.no_shrink {
        return;
    }
    let least = shrink(violation, |smaller| {
        eprintln!("  still there within {} steps", smaller.step);
    });
    eprintln!(
        "the shortest run found has {} steps: {}",
        least.step,
        least.plan.describe()
    );
    eprintln!("  {}", least.what);
    let (trace, journal, _) = trace(&least.plan);
    eprintln!("its last steps:");
    let from = trace.len().saturating_sub(60);
    trace[from..].iter().for_each(|line| eprintln!("  {line}"));
    eprintln!("the disk's last changes:");
    journal.iter().for_each(|line| eprintln!("  {line}"));
    eprintln!("again: croupier-sim --seed {} --trace", violation.plan.seed);
}
