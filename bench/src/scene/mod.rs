//! `croupier-bench scene`: three issuers fall ill in the middle of a load, and get well again.
//!
//! Orders of one SKU are filled from local stock, those of another by three issuers. In the middle one of these hangs, one answers ten
//! times slower, and one answers after its lease. Orders go on at their intended times all the while. Read in this order: what is asked
//! for (`args`), who makes the cards (`suppliers`), who orders them (`load`), what the server says of its channels (`watch`), and what
//! is concluded (`report`).

mod args;
mod load;
mod report;
mod suppliers;
mod watch;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use croupier_client::Client;
use croupier_protocol::SkuId;
use tokio::runtime::{Builder, Runtime};

pub use args::SceneArgs;
pub use report::SceneReport;

use crate::control::Control;
use crate::driver::Clock;
use crate::embedded::EmbeddedServer;
use crate::error::BenchError;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::stock::{SecretShape, cards_needed};
use crate::workload::Workload;

use load::{Load, Loaded, Phases};
use report::Facts;
use suppliers::Suppliers;
use watch::Watch;

/// The two SKUs, by their index in the workload: from stock, and from issuers.
pub const STOCK_SKU: &str = "scene-stock";
/// See [`STOCK_SKU`].
pub const ISSUED_SKU: &str = "scene-issued";
/// Bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Not counted: connections and queues get under way.
const WARMUP: Duration = Duration::from_secs(1);
/// Between the start of the threads and the first order, so that all of them are there.
const LEAD_NS: u64 = 50_000_000;
/// How long suppliers have for what is under way at the end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The channels, and what becomes of each in the middle.
pub const CHANNELS: [(&str, suppliers::Illness); 3] = [
    ("a", suppliers::Illness::Hangs),
    ("b", suppliers::Illness::Slow),
    ("c", suppliers::Illness::Late),
];

/// Starts a server, plays the scene on it, and reports.
pub fn run(args: &SceneArgs) -> Result<SceneReport, BenchError> {
    args.check()?;
    let server = EmbeddedServer::start(&args.server())?;
    let played = Scene::set(args, &server).and_then(Scene::play);
    if played.is_err() {
        eprintln!("the server said: {}", server.last_words());
    }
    played
}

/// Everything that is there before the first order.
struct Scene<'a> {
    args: &'a SceneArgs,
    server: &'a EmbeddedServer,
    runtime: Runtime,
    client: Client,
    oracle: Oracle,
    workload: Arc<Workload>,
    shape: SecretShape,
    table: String,
}

/// A failure of the client, in the bench's words.
fn of_client(what: &str) -> impl Fn(croupier_client::Error) -> BenchError {
    move |error| BenchError::Peer {
        peer: what.to_owned(),
        detail: error.to_string(),
    }
}

impl<'a> Scene<'a> {
    /// Imports the stock, makes the other SKU and loads the table.
    fn set(args: &'a SceneArgs, server: &'a EmbeddedServer) -> Result<Self, BenchError> {
        let run_id = uuid::Uuid::new_v4().as_u128();
        let shape = SecretShape::new(run_id, SECRET_BYTES);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(BenchError::io("make a runtime"))?;
        let url = format!("croupier://{}", server.address());
        let client = runtime
            .block_on(Client::connect(&url))
            .map_err(of_client("connect"))?;

        let seconds = (WARMUP + args.length()).as_secs_f64();
        let cards = cards_needed(args.rate * seconds, args.stock_share, 1);
        let mut control = Control::connect(server.address())?;
        let imported = control.import(STOCK_SKU, 0, 0..cards as u32, &shape, |_| ())?;
        let issued = runtime
            .block_on(client.sku_create(ISSUED_SKU))
            .map_err(of_client("create a SKU"))?;
        let table = args.table();
        runtime
            .block_on(client.routes_load(&table))
            .map_err(of_client("load the route table"))?;

        let skus = vec![SkuId(imported.sku), issued];
        let workload = Workload::new(args.seed, run_id, skus, args.stock_share, 1);
        let workload = Arc::new(workload);
        let oracle = Oracle::new(workload.clone(), shape.clone(), 2);
        Ok(Self {
            args,
            server,
            runtime,
            client,
            oracle,
            workload,
            shape,
            table,
        })
    }

    fn play(self) -> Result<SceneReport, BenchError> {
        let Self {
            args,
            server,
            runtime,
            client,
            oracle,
            workload,
            shape,
            table,
        } = self;
        let info = Control::connect(server.address())?.server_info()?;
        let streams = (0..args.connections)
            .map(|_| Control::connect(server.address()).map(Control::into_stream))
            .collect::<Result<Vec<_>, _>>()?;
        let suppliers = runtime.block_on(Suppliers::start(args, server.address(), &shape))?;
        let clock = Clock::start();
        let watch = Watch::new(clock);
        let watching = runtime.spawn(watch.clone().run(client.clone()));
        let switches = suppliers.switches();
        let phases = Phases::new(args, clock.now_ns() + LEAD_NS);

        // The runtime is driven by a thread of its own; orders are sent by another; this one turns the pages.
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (loaded, runtime) = thread::scope(|scope| {
            let driven = scope.spawn(move || {
                let _ = runtime.block_on(ended);
                runtime
            });
            let loading = scope.spawn(move || {
                Load::new(args, clock, phases, workload, shape, oracle, streams)?.run()
            });
            let until = |ns: u64| {
                let left = ns.saturating_sub(clock.now_ns());
                thread::sleep(Duration::from_nanos(left));
            };
            until(phases.during_ns);
            switches.fall_ill();
            until(phases.after_ns);
            switches.get_well();
            let loaded = loading.join().expect("the load does not panic");
            let _ = end.send(());
            (loaded, driven.join().expect("the runtime does not panic"))
        });
        let Loaded {
            figures,
            mut oracle,
        } = loaded?;

        // Whoever has just got well is given the time that the scene had after it.
        runtime.block_on(watch.until_all_are_well(args.after));
        watching.abort();
        let supplied = runtime.block_on(suppliers.stop(PATIENCE));
        let mut control = Control::connect(server.address())?;
        oracle.look_samples_up(&mut control)?;
        let facts = Facts {
            machine: Machine::detect(),
            file_system: server.file_system(),
            version: info.version,
            durability: info.sync,
            cores: info.cores,
            table,
            stock: control.stock()?,
        };
        Ok(SceneReport::new(
            args,
            facts,
            phases,
            figures,
            &watch.seen(),
            supplied,
            oracle.report().clone(),
        ))
    }
}
