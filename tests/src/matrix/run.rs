//! All runs of the matrix: first one of each scene that counts, then one for each call and fault.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::judge::judge;
use super::play::{Played, play};
use super::scene::{Begin, SCENES, Scene, Stage};
use super::stage::{Staged, make_all};
use super::strace::{LASTING, Orders, log_of};
use super::trace::{Spot, file_kind, spots};
use super::{Fault, Log, Phase, Problem};
use crate::{Dice, Ramfs};

/// A fault that did not meet its call is tried so often.
const TRIES: u32 = 6;
/// A scene that does not write the log as wanted is counted anew so often.
const COUNTS: u32 = 20;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Phases, all if empty.
    pub phases: Vec<Phase>,
    /// Faults, all if empty.
    pub faults: Vec<Fault>,
    /// Ways of the log, all if empty.
    pub logs: Vec<Log>,
    /// Only every so many'th call; 1 is all.
    pub sample: usize,
    /// Chooses which ones.
    pub seed: u64,
    /// Runs at a time.
    pub jobs: usize,
    /// Only calls whose description contains this.
    pub only: Option<String>,
}

/// A call that a fault is to be put into.
#[derive(Debug, Clone)]
pub struct Case {
    /// The scene, by its place in [`SCENES`].
    pub scene: usize,
    /// How the log is written.
    pub log: Log,
    /// What is done.
    pub fault: Fault,
    /// Where.
    pub spot: Spot,
}

impl Case {
    /// The scene.
    pub fn scene(&self) -> &'static Scene {
        &SCENES[self.scene]
    }

    /// Kind of the file.
    pub fn kind(&self) -> &'static str {
        file_kind(&self.spot.path)
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Spot {
            thread,
            syscall,
            path,
            nth,
            ..
        } = &self.spot;
        let (scene, fault, log) = (self.scene().name, self.fault.name(), self.log.name());
        write!(
            f,
            "{scene} ({log}): {fault} at {syscall} #{nth} of {path} by {thread}"
        )
    }
}

/// What became of a case.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The fault met its call, and all that must hold does.
    Held {
        /// What the client saw.
        saw: String,
        /// What the server did.
        did: String,
    },
    /// The fault never met its call.
    Missed,
    /// Something that must hold does not.
    Broken(String),
}

/// A case that was run.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The case.
    pub case: Case,
    /// What became of it.
    pub verdict: Verdict,
    /// How long it took, with all tries.
    pub took: Duration,
}

/// All that the matrix found out.
#[derive(Debug)]
pub struct Findings {
    /// Calls on the write path by scene and way of the log, before any sampling.
    pub counted: BTreeMap<(usize, Log), usize>,
    /// Calls among them that no fault can be aimed at, since another thread makes the same call on the same file before:
    /// other scenes have them without that.
    pub shadowed: Vec<(usize, Log, Spot)>,
    /// What was run.
    pub judged: Vec<Judged>,
    /// How long it all took.
    pub took: Duration,
}

/// Where the stores of one way of the log lie.
struct Place {
    log: Log,
    root: PathBuf,
    staged: BTreeMap<Stage, Staged>,
    _temporary: Option<TempDir>,
    _ramfs: Option<Ramfs>,
}

impl Place {
    fn new(log: Log, runtime: &Runtime) -> Option<Self> {
        let (temporary, ramfs) = match log {
            Log::Direct => {
                let root = TempDir::with_prefix("croupier-matrix-").expect("a temporary directory");
                (Some(root), None)
            }
            Log::Fdatasync => (None, Some(Ramfs::mount()?)),
        };
        let root = match (&temporary, &ramfs) {
            (Some(root), _) => root.path().to_owned(),
            (_, Some(root)) => root.path().to_owned(),
            (None, None) => unreachable!("one of them was made"),
        };
        let staged = runtime.block_on(make_all(&root.join("stages")));
        Some(Self {
            log,
            root,
            staged,
            _temporary: temporary,
            _ramfs: ramfs,
        })
    }

    fn staged(&self, scene: &Scene) -> Option<&Staged> {
        match scene.begin {
            Begin::Init => None,
            Begin::Launch(stage) | Begin::Attach(stage) => Some(&self.staged[&stage]),
        }
    }

    /// The directory of one worker.
    fn desk(&self, worker: usize) -> PathBuf {
        let desk = self.root.join(format!("job-{worker}"));
        std::fs::create_dir_all(&desk).expect("a directory can be made");
        desk
    }
}

thread_local! {
    static PANICKED: RefCell<String> = const { RefCell::new(String::new()) };
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Runs the plan. `tell` is called with the number of cases once that is known, and after each.
///
/// # Errors
/// If strace does not do its part.
pub fn run(plan: &Plan, tell: &(dyn Fn(Told<'_>) + Sync)) -> Result<Findings, Problem> {
    let begun = Instant::now();
    let own = runtime();
    let logs = [Log::Direct, Log::Fdatasync];
    let wanted = logs
        .into_iter()
        .filter(|log| plan.logs.is_empty() || plan.logs.contains(log));
    let places: Vec<_> = wanted.filter_map(|log| Place::new(log, &own)).collect();
    let (mut counted, mut shadowed, mut cases) = (BTreeMap::new(), Vec::new(), Vec::new());
    for place in &places {
        for (index, scene) in SCENES.iter().enumerate() {
            if plan.phases.is_empty() || plan.phases.contains(&scene.phase) {
                let spots = own.block_on(count(place, scene))?;
                counted.insert((index, place.log), spots.len());
                let attached = matches!(scene.begin, Begin::Attach(_));
                let (spots, behind) = aimable(spots, attached);
                shadowed.extend(behind.into_iter().map(|spot| (index, place.log, spot)));
                cases.extend(cases_of(plan, index, place.log, &spots));
            }
        }
    }
    let cases = sampled(plan, cases);
    tell(Told::Cases(cases.len()));
    // What a case panics with is its verdict, and stderr is the progress bar's.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|info| PANICKED.set(info.to_string())));
    let judged = work(plan, &places, cases, tell);
    panic::set_hook(hook);
    Ok(Findings {
        counted,
        shadowed,
        judged: judged?,
        took: begun.elapsed(),
    })
}

/// What [`run`] tells on its way.
#[derive(Debug)]
pub enum Told<'a> {
    /// So many cases there are.
    Cases(usize),
    /// One is done.
    Done(&'a Judged),
}

async fn count(place: &Place, scene: &Scene) -> Result<Vec<Spot>, Problem> {
    let desk = place.desk(0);
    let orders = Orders {
        trace: place.root.join("trace-0"),
        root: &desk,
        log: place.log,
        fault: None,
    };
    let mut played = play(scene, place.staged(scene), &desk, &orders).await?;
    for _ in 0..COUNTS {
        // Init writes no log; a start that chose the other way is counted anew.
        let server = played.alive.as_ref().map(|(server, _)| server.pid());
        if server.and_then(log_of).is_none_or(|log| log == place.log) {
            break;
        }
        drop(played.alive.take());
        played = play(scene, place.staged(scene), &desk, &orders).await?;
    }
    assert_eq!(
        played.saw, "nothing",
        "{}: without a fault\n{}",
        scene.name, played.log
    );
    if let Some((server, attached)) = played.alive.take() {
        server.kill();
        if let Some(attached) = attached {
            attached.finish();
        }
    }
    Ok(spots(&played.calls()))
}

/// Divides calls into those that a fault can be aimed at, and those that stand behind another: see
/// [`strace`](super::strace).
fn aimable(spots: Vec<Spot>, attached: bool) -> (Vec<Spot>, Vec<Spot>) {
    let mut met = HashSet::new();
    spots.into_iter().partition(|spot| {
        let lasting = LASTING.contains(&spot.thread.as_str());
        let aim = (spot.syscall.clone(), spot.path.clone(), spot.nth);
        met.insert(aim) || lasting && attached
    })
}

fn cases_of<'a>(
    plan: &'a Plan,
    scene: usize,
    log: Log,
    spots: &'a [Spot],
) -> impl Iterator<Item = Case> + 'a {
    let faults = [Fault::Kill, Fault::Eio, Fault::Enospc];
    let wanted = move |fault: &Fault| plan.faults.is_empty() || plan.faults.contains(fault);
    let faults = faults.into_iter().filter(wanted);
    let case = move |fault| {
        move |spot: &Spot| Case {
            scene,
            log,
            fault,
            spot: spot.clone(),
        }
    };
    faults.flat_map(move |fault| spots.iter().map(case(fault)))
}

fn sampled(plan: &Plan, mut cases: Vec<Case>) -> Vec<Case> {
    if let Some(only) = &plan.only {
        cases.retain(|case| case.to_string().contains(only.as_str()));
    }
    let first = Dice::new(plan.seed).within(0..plan.sample as u64) as usize;
    cases.into_iter().skip(first).step_by(plan.sample).collect()
}

fn work(
    plan: &Plan,
    places: &[Place],
    cases: Vec<Case>,
    tell: &(dyn Fn(Told<'_>) + Sync),
) -> Result<Vec<Judged>, Problem> {
    let queue = Mutex::new(VecDeque::from(cases));
    let judged = Mutex::new(Vec::new());
    let next = || queue.lock().expect("no one panics with it").pop_front();
    let worker = |number: usize| -> Result<(), Problem> {
        let runtime = runtime();
        while let Some(case) = next() {
            let place = places
                .iter()
                .find(|place| place.log == case.log)
                .expect("it was counted there");
            let one = run_case(&runtime, place, case, number)?;
            tell(Told::Done(&one));
            judged.lock().expect("no one panics with it").push(one);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.jobs)
            .map(|number| scope.spawn(move || worker(number)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a case's panic is caught"))
    })?;
    Ok(judged.into_inner().expect("no one panicked with it"))
}

fn run_case(
    runtime: &Runtime,
    place: &Place,
    case: Case,
    worker: usize,
) -> Result<Judged, Problem> {
    let begun = Instant::now();
    let mut verdict = Verdict::Missed;
    for _ in 0..TRIES {
        let run = || runtime.block_on(try_case(place, &case, worker));
        verdict = match panic::catch_unwind(AssertUnwindSafe(run)) {
            Ok(verdict) => verdict?,
            Err(panic) => Verdict::Broken(why(&*panic)),
        };
        if !matches!(verdict, Verdict::Missed) {
            break;
        }
    }
    Ok(Judged {
        case,
        verdict,
        took: begun.elapsed(),
    })
}

fn why(panic: &(dyn Any + Send)) -> String {
    let told = PANICKED.take();
    match told.is_empty() {
        false => told,
        true => format!("{panic:?}"),
    }
}

async fn try_case(place: &Place, case: &Case, worker: usize) -> Result<Verdict, Problem> {
    let (scene, desk) = (case.scene(), place.desk(worker));
    let trace: &Path = &place.root.join(format!("trace-{worker}"));
    let orders = Orders {
        trace: trace.to_owned(),
        root: &desk,
        log: place.log,
        fault: Some((case.fault, &case.spot)),
    };
    let staged = place.staged(scene);
    let mut played = play(scene, staged, &desk, &orders).await?;
    let met = |played: &Played| was_met(&case.spot, &played.calls());
    if played.alive.is_some() && (case.fault == Fault::Kill || !met(&played)) {
        return Ok(Verdict::Missed);
    }
    let sku = staged.map(|staged| staged.sku);
    let did = judge(sku, case.fault, &case.spot, &mut played).await;
    if !met(&played) {
        return Ok(Verdict::Missed);
    }
    Ok(Verdict::Held {
        saw: played.saw,
        did,
    })
}

/// Whether the fault met the call it was meant for. Of a thread that was traced alone there is no name, and its calls
/// stand by themselves.
fn was_met(spot: &Spot, calls: &[super::trace::Call]) -> bool {
    let hits: Vec<_> = calls.iter().map(|call| call.hit).collect();
    let all: Vec<_> = calls.iter().cloned().map(|call| call.as_write()).collect();
    let found = spots(&all);
    found.iter().zip(hits).any(|(found, hit)| {
        let same = found.syscall == spot.syscall && found.path == spot.path;
        let place = match found.thread.is_empty() {
            true => found.nth_of_thread == spot.nth_of_thread,
            false => found.thread == spot.thread && found.nth == spot.nth,
        };
        hit && same && place
    })
}
