//! The workers of a schedule, each a process with its own supervisor. As systemd does, the supervisor restarts a
//! process that ended after a short while, until the schedule is over.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

/// From the end of a process to its successor.
const PAUSE: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(10);

/// Milliseconds of this machine's monotonic clock, which worker processes write into the ledger as well.
pub(crate) fn now_ms() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// How a worker is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    pub(crate) folder: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    /// What comes before the program, and after `worker`.
    pub(crate) before: Vec<String>,
    pub(crate) arguments: Vec<String>,
    /// `FAILPOINTS` of the first life.
    pub(crate) once: Vec<String>,
    /// `FAILPOINTS` of every life.
    pub(crate) always: Vec<String>,
}

/// The end of a worker process.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) worker: usize,
    pub(crate) pid: u32,
    pub(crate) ms: i64,
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
}

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    orders: Orders,
    ending: bool,
    lives: Vec<u32>,
    deaths: Vec<Death>,
}

/// A slot of the fleet: one worker process at a time.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Arc<Mutex<State>>,
    supervisor: Option<JoinHandle<()>>,
}

impl Slot {
    /// Starts the number-th worker and its supervisor.
    pub(crate) fn start(number: usize, orders: Orders) -> Self {
        let state = Arc::new(Mutex::new(State { orders, ..State::default() }));
        let supervised = Arc::clone(&state);
        let supervisor = Some(std::thread::spawn(move || supervise(number, &supervised)));
        Self { state, supervisor }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals the process, if one lives, and returns its number. The number is not reused, as only this handle reaps
    /// the process.
    pub(crate) fn signal(&self, signal: Signal) -> Option<u32> {
        let state = self.lock();
        let child = state.child.as_ref()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).ok().map(|()| child.id())
    }

    /// Stops the process, if one lives, and returns its number once it is stopped.
    pub(crate) fn stop(&self) -> Option<u32> {
        let pid = self.signal(Signal::STOP)?;
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            if stands_still(pid) {
                return Some(pid);
            }
            std::thread::sleep(LOOK / 10);
        }
        None
    }

    /// The processes of this slot so far.
    pub(crate) fn lives(&self) -> Vec<u32> {
        self.lock().lives.clone()
    }

    /// Starts later processes without fail points.
    pub(crate) fn disarm(&self) {
        let mut state = self.lock();
        state.orders.once.clear();
        state.orders.always.clear();
    }

    pub(crate) fn deaths(&self) -> Vec<Death> {
        self.lock().deaths.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.lock().ending = true;
        self.signal(Signal::KILL);
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.join().ok();
        }
    }
}

fn supervise(number: usize, state: &Mutex<State>) {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        {
            let mut state = lock();
            if state.ending {
                return;
            }
            let child = spawn(number, &state.orders);
            state.orders.once.clear();
            state.lives.push(child.id());
            state.child = Some(child);
        }
        loop {
            std::thread::sleep(LOOK);
            let mut state = lock();
            let child = state.child.as_mut().expect("this thread alone takes it");
            let Some(status) = child.try_wait().unwrap() else { continue };
            let (pid, code) = (child.id(), status.code());
            state.deaths.push(Death { worker: number, pid, ms: now_ms(), code });
            state.child = None;
            break;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether a process is stopped.
pub(crate) fn stands_still(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('T'))
}

/// Where a worker's lives are logged, in the scene's folder.
pub(crate) fn log_name(number: usize) -> String {
    format!("worker-{number}.log")
}

fn spawn(number: usize, orders: &Orders) -> Child {
    let log = orders.folder.join(log_name(number));
    let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
    let points: Vec<_> = orders.once.iter().chain(&orders.always).cloned().collect();
    let program = orders.folder.join("agrpo").display().to_string();
    let mut words = orders.before.iter().chain([&program]);
    Command::new(words.next().unwrap())
        .args(words)
        .arg("worker")
        .args(&orders.arguments)
        .current_dir(&orders.folder)
        .env_clear()
        .envs(orders.environment.iter().cloned())
        .env("FAILPOINTS", points.join(";"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
