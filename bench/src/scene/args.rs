//! The flags of `croupier-bench scene`, and the route table that follows from them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{CHANNELS, ISSUED_SKU, STOCK_SKU};
use crate::embedded::EmbeddedOptions;
use crate::error::BenchError;
use crate::units;

/// More is no scene but a load: see `run`.
const RATE_MAX: f64 = 100_000.0;

/// Flags of `croupier-bench scene`.
#[derive(Debug, Clone, Args)]
pub struct SceneArgs {
    /// The croupier binary to start; default: the one beside croupier-bench
    #[arg(long, value_name = "PATH")]
    pub croupier: Option<PathBuf>,
    /// Where the temporary store is made; default: the system's temporary directory (never one in memory)
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A further argument of `croupier serve`, as --serve-arg=--cores --serve-arg=1; may be given several times
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub serve_arg: Vec<String>,

    /// Orders a second, in an open loop
    #[arg(long, default_value = "5000", value_name = "ORDERS_PER_S", value_parser = units::rate_per_s)]
    pub rate: f64,
    /// Share of the orders that local stock fills, from 0 to 1; the issuers fill the rest
    #[arg(long, default_value = "0.5", value_parser = units::share)]
    pub stock_share: f64,
    /// While all are well
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = units::duration)]
    pub before: Duration,
    /// While one hangs, one is slow, and one is late
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = units::duration)]
    pub during: Duration,
    /// When all are well again
    #[arg(long, default_value = "15s", value_name = "DURATION", value_parser = units::duration)]
    pub after: Duration,
    /// How long answers are waited for when nothing is sent any more
    #[arg(long, default_value = "30s", value_parser = units::duration)]
    pub drain: Duration,

    /// How long an issuer that is well takes for a card
    #[arg(long, default_value = "5ms", value_name = "DURATION", value_parser = units::duration)]
    pub delay: Duration,
    /// Lease of a job
    #[arg(long, default_value = "250ms", value_name = "DURATION", value_parser = units::duration)]
    pub lease: Duration,
    /// A job that takes longer is a slow one: half of them eject their channel; 0 = none is
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = units::duration_or_zero)]
    pub slow_call: Duration,
    /// How long a channel is out the first time
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = units::duration)]
    pub base_ejection: Duration,
    /// Most jobs of an issuer at a time
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub jobs: u32,
    /// Which issuer is asked: `weights` or `least-latency`
    #[arg(long, default_value = "weights", value_parser = ["weights", "least-latency"])]
    pub balance: String,

    /// Connections of the load
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,
    /// Decides which order is of which SKU; order ids are new in every run
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

impl SceneArgs {
    /// Before, during and after.
    pub fn length(&self) -> Duration {
        self.before + self.during + self.after
    }

    /// How to start the server.
    pub fn server(&self) -> EmbeddedOptions {
        EmbeddedOptions {
            binary: self.croupier.clone(),
            parent: self.dir.clone(),
            serve_args: self.serve_arg.clone(),
        }
    }

    /// Checks what single flags cannot say.
    pub fn check(&self) -> Result<(), BenchError> {
        let usage = |text: &str| Err(BenchError::Usage(text.to_owned()));
        if self.rate > RATE_MAX {
            return usage("a scene has 100,000 orders a second at most: use run for more");
        }
        if self.stock_share >= 1.0 {
            return usage("--stock-share 1 leaves nothing to the issuers: say less");
        }
        if self.delay * 2 > self.lease {
            return usage(
                "an issuer that is well takes half of a lease at most: say a longer --lease, or a shorter --delay",
            );
        }
        Ok(())
    }

    /// The route table: stock for one SKU, three issuers that share the other. A channel that is ill is known after five jobs.
    pub fn table(&self) -> String {
        let ms = |duration: Duration| format!("{}ms", duration.as_millis().max(1));
        let (lease, base) = (ms(self.lease), ms(self.base_ejection));
        let slow = match self.slow_call.is_zero() {
            true => "slow_percentage = 0".to_owned(),
            false => format!(
                "slow_percentage = 50, slow_call = \"{}\"",
                ms(self.slow_call)
            ),
        };
        let mut table = format!(
            "[retry]\nbase = \"{lease}\"\ncap = \"2s\"\nattempts = 100\n\n[outlier]\nmax_ejection_percent = 70\n"
        );
        for (name, _) in CHANNELS {
            table += &format!(
                "\n[[channel]]\nname = \"{name}\"\nkind = \"issuer\"\ntimeout = \"{lease}\"\njobs = 4096\noutlier = {{ consecutive_failures = 5, window = \"2s\", {slow}, base_ejection_time = \"{base}\" }}\n"
            );
        }
        let [a, b, c] = CHANNELS.map(|(name, _)| name);
        let balance = &self.balance;
        table
            + &format!("\n[[rule]]\nname = \"stock\"\nsku = \"{STOCK_SKU}\"\npools = [\"main\"]\n")
            + &format!(
                "\n[[rule]]\nname = \"issued\"\nsku = \"{ISSUED_SKU}\"\nchannels = [{{ {a} = 40, {b} = 30, {c} = 30 }}]\nbalance = \"{balance}\"\n"
            )
    }
}
