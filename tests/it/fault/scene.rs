//! The scene of a schedule: its services, the gates before them, its workers, and the thread that brings the faults.
//!
//! Every scene has its own Redis, prefix of the bucket and workers, and kills its processes when it is dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agrpo_spec::Seed;

use super::fleet::{Death, Orders, Slot, log_name};
use super::kinds::Fault;
use super::ledger::Ledger;
use super::proxy::Gate;
use super::schedule::Schedule;
use super::services::{CLOCK, Objects, Redis, shared_s3};
use super::witness::Missed;
use crate::support::program::{Program, RUN};
use crate::support::s3::{S3Server, free_ports};

pub(super) const LOOK: Duration = Duration::from_millis(20);

/// A run of 63 stages that takes less than a second of computing.
pub(crate) fn run_text() -> String {
    RUN.replace("iterations = 4", "iterations = 8")
}

/// The program under a name that no other build replaces while schedules run.
pub(super) static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_agrpo"));
    // Files of earlier suites, which a process cannot remove at its very end.
    for file in std::fs::read_dir(built.parent().unwrap()).unwrap().flatten() {
        let name = file.file_name().into_string().unwrap_or_default();
        if let Some(pid) = name.strip_prefix("agrpo-fault-")
            && !Path::new("/proc").join(pid).exists()
        {
            std::fs::remove_file(file.path()).ok();
        }
    }
    let own = built.with_file_name(format!("agrpo-fault-{}", std::process::id()));
    std::fs::hard_link(&built, &own).unwrap();
    own
});

/// How the run ended, or did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Done,
    Failed,
    /// The watchdog's limit passed.
    Late,
}

/// Everything that a schedule needs.
pub(crate) struct Scene {
    /// The program, connected to the services past all gates.
    pub(crate) program: Program,
    pub(crate) redis: Mutex<Redis>,
    /// The bucket's server and the gate before it, unless the store is a folder.
    pub(super) s3: Option<(Arc<Mutex<S3Server>>, Gate)>,
    pub(super) redis_gates: Vec<Gate>,
    metrics_ports: [u16; 4],
    pub(crate) slots: Vec<Slot>,
    pub(crate) objects: Objects,
    /// Blobs that were deleted or flipped.
    pub(crate) damaged: Mutex<Vec<String>>,
    /// Entries of another run that were put into the run's index and notes.
    pub(crate) planted: Mutex<Vec<(String, Vec<u8>)>>,
    pub(crate) run: String,
    pub(crate) stages: usize,
    /// The outcomes of the faults so far, by their number in the schedule.
    pub(crate) brought: Mutex<BTreeMap<usize, Result<String, Missed>>>,
    over: AtomicBool,
    retried: AtomicU32,
    /// The processes of each worker, once all have ended.
    lives: Vec<Vec<u32>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn prefix(schedule: &Schedule) -> String {
    format!("{}-{}", schedule.name, schedule.seed)
}

/// The store that a schedule asks for, and the environment that reaches it.
#[expect(clippy::type_complexity, reason = "taken apart where it is called")]
fn open_store(
    schedule: &Schedule,
    seed: Seed,
) -> (Option<(Arc<Mutex<S3Server>>, Gate)>, Vec<(String, String)>) {
    if schedule.folder {
        return (None, vec![]);
    }
    let own = schedule.kills_s3();
    let server = if own { Arc::new(Mutex::new(S3Server::start())) } else { shared_s3() };
    let (address, mut environment) = {
        let server = lock(&server);
        (server.address(), server.environment().map(|(n, v)| (n.to_owned(), v.to_owned())))
    };
    environment[0].1 = format!("s3://agrpo/{}", prefix(schedule));
    (Some((server, Gate::open(address, true, seed))), environment.to_vec())
}

impl Scene {
    /// Starts services and workers, and hands the run to them.
    pub(crate) fn set(schedule: &Schedule) -> Self {
        Self::set_with(schedule, &[], &run_text())
    }

    /// The same, with fail points that every life of every worker has, and another run.
    pub(crate) fn set_with(schedule: &Schedule, always: &[String], run: &str) -> Self {
        let seed = Seed::new(schedule.seed);
        let redis = Redis::start(schedule.redis_keeps, schedule.tampers_with_redis_clock());
        let (s3, mut environment) = open_store(schedule, seed);
        environment.push(("AGRPO_REDIS".to_owned(), redis.url()));
        let borrowed: Vec<_> = environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let program = Program::new(&borrowed).using(&PROGRAM);
        let objects = if schedule.folder {
            std::fs::create_dir(program.store()).unwrap();
            Objects::of_folder(&program.store())
        } else {
            Objects::of_bucket(&borrowed, &prefix(schedule))
        };
        std::fs::write(program.folder().join("run.toml"), run).unwrap();
        std::os::unix::fs::symlink(&*PROGRAM, program.folder().join("agrpo")).unwrap();
        let gate = || Gate::open(redis.address, false, seed);
        let redis_gates: Vec<_> = (0..schedule.workers).map(|_| gate()).collect();
        let queued = program.json(&["enqueue", "run.toml", "--json"]);
        let mut scene = Self {
            run: queued["run"].as_str().unwrap().to_owned(),
            stages: usize::try_from(queued["stages"].as_u64().unwrap()).unwrap(),
            program,
            redis: Mutex::new(redis),
            s3,
            redis_gates,
            metrics_ports: free_ports(),
            slots: vec![],
            objects,
            damaged: Mutex::default(),
            planted: Mutex::default(),
            brought: Mutex::default(),
            lives: vec![],
            over: AtomicBool::new(false),
            retried: AtomicU32::new(0),
        };
        let orders = |worker| scene.orders(worker, schedule, always, &environment);
        scene.slots =
            (0..schedule.workers).map(|worker| Slot::start(worker, orders(worker))).collect();
        scene
    }

    fn orders(
        &self,
        number: usize,
        schedule: &Schedule,
        always: &[String],
        environment: &[(String, String)],
    ) -> Orders {
        let mut environment = environment.to_vec();
        let gate = |port| format!("127.0.0.1:{port}");
        let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
        set("AGRPO_REDIS", format!("redis://{}", gate(self.redis_gates[number].port)));
        if let Some((_, s3_gate)) = &self.s3 {
            set("AWS_ENDPOINT", format!("http://{}", gate(s3_gate.port)));
        }
        set("AGRPO_FAULT_LEDGER", self.ledger_path().display().to_string());
        // One host, one cache; never the user's.
        set("AGRPO_CACHE_DIR", self.cache_path().display().to_string());
        let mut once = vec![];
        for (_, fault) in &schedule.faults {
            match fault {
                Fault::Arm { worker, point } if *worker == number => once.push(point.clone()),
                Fault::Clock { worker, hours } if *worker == number => {
                    set("LD_PRELOAD", CLOCK.display().to_string());
                    set("AGRPO_CLOCK_OFF_S", (i64::from(*hours) * 3600).to_string());
                }
                _ => {}
            }
        }
        let folder = self.program.folder().to_owned();
        let (mut before, mut arguments) = (vec![], vec![]);
        if schedule.crowded() == Some(number) {
            before.extend(["prlimit", "--nofile=256"].map(str::to_owned));
            arguments.extend(["--metrics".to_owned(), gate(self.metrics_port(number))]);
        }
        Orders { folder, environment, before, arguments, once, always: always.to_vec() }
    }

    /// The port of a worker's metrics, if it serves them.
    pub(super) fn metrics_port(&self, worker: usize) -> u16 {
        self.metrics_ports[worker]
    }

    pub(super) fn cache_path(&self) -> PathBuf {
        self.program.folder().join("cache")
    }

    fn ledger_path(&self) -> PathBuf {
        self.program.folder().join("ledger")
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::read(&self.ledger_path())
    }

    pub(crate) fn deaths(&self) -> Vec<Death> {
        self.slots.iter().flat_map(Slot::deaths).collect()
    }

    /// Brings the faults at their moments, until the run has ended or the limit has passed.
    pub(crate) fn play(&self, schedule: &Schedule, limit: Duration) -> Ending {
        std::thread::scope(|scope| {
            for (number, (at, fault)) in schedule.faults.iter().enumerate() {
                scope.spawn(move || {
                    if self.await_moment(*at)
                        && let Some(found) = self.strike(fault)
                    {
                        lock(&self.brought).insert(number, found);
                    }
                });
            }
            let mut ending = self.await_end(limit);
            while ending == Ending::Failed
                && self.retried() < schedule.retries
                && self.is_worn_out()
            {
                self.retried.fetch_add(1, Ordering::Relaxed);
                self.program.run(&["retry", &self.run]);
                ending = self.await_end(limit);
            }
            self.over.store(true, Ordering::Relaxed);
            ending
        })
    }

    /// Whether all that is wrong is that a stage was begun three times and its worker died each time.
    fn is_worn_out(&self) -> bool {
        let said = self.program.run(&["status", &self.run, "--json"]);
        let status: serde_json::Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        let failures = status["failures"].as_array().cloned().unwrap_or_default();
        let error = |failure: &serde_json::Value| failure["error"].as_str().map(str::to_owned);
        let worn_out = |error: String| error.starts_with("begun 3 times");
        failures.iter().all(|failure| error(failure).is_some_and(worn_out))
    }

    pub(crate) fn retried(&self) -> u32 {
        self.retried.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Waits for the end of the run, by the records in the store.
    pub(crate) fn await_end(&self, limit: Duration) -> Ending {
        let deadline = Instant::now() + limit;
        let (stages, failures) =
            (format!("runs/{}/stages", self.run), format!("runs/{}/failures", self.run));
        while Instant::now() < deadline {
            std::thread::sleep(LOOK * 10);
            let complete = self.objects.list(&stages).is_ok_and(|done| done.len() >= self.stages);
            let failed = self.objects.list(&failures).is_ok_and(|failed| !failed.is_empty());
            if (complete || failed)
                && let Some(ending) = self.ending()
            {
                return ending;
            }
        }
        Ending::Late
    }

    /// Waits for the end of a run that shows an earlier failure for a while.
    pub(crate) fn await_done(&self, limit: Duration) -> Ending {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.ending() == Some(Ending::Done) {
                return Ending::Done;
            }
            std::thread::sleep(LOOK * 20);
        }
        Ending::Late
    }

    /// What `agrpo status` says.
    fn ending(&self) -> Option<Ending> {
        let said = self.program.run(&["status", &self.run, "--json"]);
        let status: serde_json::Value = serde_json::from_str(&said.stdout).ok()?;
        match status["runs"][0]["state"].as_str()? {
            "done" => Some(Ending::Done),
            "failed" => Some(Ending::Failed),
            _ => None,
        }
    }

    /// The processes of a worker so far.
    pub(crate) fn lives(&self, worker: usize) -> Vec<u32> {
        let gone = || self.lives.get(worker).cloned().unwrap_or_default();
        self.slots.get(worker).map_or_else(gone, Slot::lives)
    }

    /// What a worker's processes have logged.
    pub(crate) fn log(&self, worker: usize) -> String {
        let path = self.program.folder().join(log_name(worker));
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// The last lines of every worker's log.
    pub(crate) fn last_words(&self) -> String {
        let words = |worker| {
            let log = self.log(worker);
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n  ");
            format!("\nworker {worker}:\n  {tail}")
        };
        (0..self.slots.len()).map(words).collect()
    }

    /// Copies the logs and the ledger into a folder.
    pub(crate) fn save_logs(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let logs = (0..self.redis_gates.len()).map(log_name);
        for name in logs.chain(["ledger".to_owned()]) {
            std::fs::copy(self.program.folder().join(&name), folder.join(&name)).ok();
        }
    }

    /// Ends all workers, so that nothing changes any more.
    pub(crate) fn retire(&mut self) -> Vec<Death> {
        let deaths = self.deaths();
        self.lives = self.slots.iter().map(Slot::lives).collect();
        self.slots.clear();
        deaths
    }
}

/// Whether the small program that mounts file systems may do so here.
pub(crate) fn may_mount() -> bool {
    let mut try_it = Command::new("unshare");
    try_it.args(["-rm", "mount", "-t", "tmpfs", "-o", "size=4k", "none", "/mnt"]);
    try_it.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
