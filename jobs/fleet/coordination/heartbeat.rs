//! A worker's heartbeat: a thread that registers the worker as alive and renews its leases.
//!
//! It has its own runtime and connection, so neither a stage nor other tasks delay it. It retries while Redis is
//! unavailable, for a limited time. It ends the worker when a lease was lost, when Redis stays away, refuses or is
//! misconfigured, and when the clocks disagree. From then on nothing new is published; the program ends the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::{collections::BTreeMap, time::Duration};

use agrpo_spec::StageDigest;
use agrpo_store::{Clock, JobsError, locked, retry::pauses};
use backon::BackoffBuilder;
use redis::RedisResult;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::coordination::leases::stages::{self, Acquired};
use crate::coordination::leases::{StageLease, release};
use crate::coordination::redis::refusal::{plain, refusal};
use crate::coordination::redis::{self as connection, Fleet, diagnosis};
use crate::coordination::registry::{StageInProgress, WorkerInfo};
use crate::{Result, coordination::liveness::Liveness, metrics};

/// Intervals between two checks of Redis' settings.
const LOOK: u32 = 10;

/// The shortest time between two beats. Stages that begin or end within it are shown together.
const SHOWN: Duration = Duration::from_millis(500);

/// The largest difference allowed between a worker's clock and that of Redis.
const SKEW: Duration = Duration::from_secs(4);

/// The difference of two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// By how much this machine's clock is ahead, in milliseconds; negative where it is behind.
    pub ahead_ms: i64,
    /// Whether workers would refuse it.
    pub is_too_much: bool,
}

impl Skew {
    /// Our clock read `before` and `after` the other clock, which read `other` and shows times to `grain` milliseconds.
    pub(crate) fn between(before: u64, other: u64, after: u64, grain: u64) -> Self {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let ahead = before.saturating_sub(other.saturating_add(grain));
        let behind = other.saturating_sub(after.max(before));
        let is_too_much = u128::from(ahead.max(behind)) > SKEW.as_millis();
        Self { ahead_ms: signed(ahead) - signed(behind), is_too_much }
    }
}

/// What the thread is given.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) about: WorkerInfo,
    pub(crate) clock: Clock,
    pub(crate) lease: Duration,
    /// How long Redis is retried while it is unavailable.
    pub(crate) retry_for: Duration,
    /// Updated by every beat, for a watchdog.
    pub(crate) liveness: Liveness,
}

struct Shared {
    fleet: Fleet,
    settings: Settings,
    held: Mutex<Held>,
    /// Held during a beat: releasing a lease waits for the renewal in progress.
    beating: tokio::sync::Mutex<()>,
    closed: AtomicBool,
    /// The grace time is over: every lease is released.
    releasing: AtomicBool,
    wake: Notify,
    end: watch::Sender<Option<JobsError>>,
}

#[derive(Default)]
struct Held {
    leases: BTreeMap<StageDigest, Arc<StageLease>>,
    computing: Option<StageInProgress>,
    done: u64,
}

/// The handle; dropping it ends the thread.
pub(crate) struct Heartbeat {
    shared: Arc<Shared>,
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.wake.notify_one();
    }
}

impl Heartbeat {
    /// Sends the first heartbeat, then starts the thread. Unavailable if the clocks disagree.
    pub(crate) async fn start(fleet: &Fleet, settings: Settings) -> Result<Self> {
        let shared = Arc::new(Shared {
            fleet: fleet.clone(),
            settings,
            held: Mutex::default(),
            beating: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
            releasing: AtomicBool::new(false),
            wake: Notify::new(),
            end: watch::Sender::new(None),
        });
        fleet.explained(shared.beat(&mut fleet.connection()).await).await?;
        let refused = shared.end.borrow().clone();
        if let Some(error) = refused {
            stages::sign_off(fleet, &shared.settings.about.name).await.ok();
            return Err(error);
        }
        let heartbeat = Self { shared: Arc::clone(&shared) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let started = runtime.and_then(|runtime| {
            let thread = std::thread::Builder::new().name("heartbeat".to_owned());
            // Never joined: it ends by itself after the beat in progress.
            thread.spawn(move || runtime.block_on(shared.live())).map(drop)
        });
        started.map_err(|error| JobsError::internal(format!("cannot start a thread: {error}")))?;
        Ok(heartbeat)
    }

    /// Resolves when the worker has to end, with the reason.
    pub(crate) async fn fatal(&self) -> JobsError {
        let mut end = self.shared.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
            Ok(Some(error)) => error,
            _ => JobsError::Internal("the worker's heartbeat stopped".into()),
        }
    }

    /// Whether the worker has to end.
    pub(crate) fn is_fatal(&self) -> bool {
        self.shared.end.borrow().is_some()
    }

    /// How long a service is retried while it is unavailable.
    pub(crate) fn retry_for(&self) -> Duration {
        self.shared.settings.retry_for
    }

    /// Asks for a stage's lease; it is renewed from then on.
    pub(crate) async fn acquire(
        &self,
        stage: StageDigest,
        run: &str,
    ) -> Result<Result<Arc<StageLease>, Acquired>> {
        let Shared { fleet, settings, .. } = &*self.shared;
        let key = fleet.keys.lease(stage);
        let (asked, name) = (Instant::now(), &settings.about.name);
        let acquired = stages::acquire(fleet, settings.lease, &key, name, run).await?;
        let Acquired::Token(token) = acquired else { return Ok(Err(acquired)) };
        let lease = Arc::new(StageLease::new(stage, key, token, asked, settings.lease));
        locked(&self.shared.held).leases.insert(stage, Arc::clone(&lease));
        if self.shared.releasing.load(Ordering::SeqCst) {
            lease.release();
        }
        Ok(Ok(lease))
    }

    /// Releases a lease and renews it no more.
    pub(crate) async fn release(&self, lease: &StageLease) -> Result<()> {
        let Shared { fleet, beating, .. } = &*self.shared;
        locked(&self.shared.held).leases.remove(&lease.stage);
        // A renewal in progress would set the lease again.
        drop(beating.lock().await);
        release(fleet, &lease.key, &lease.token).await
    }

    /// Releases every lease that is not being published, and each that is acquired from now on.
    pub(crate) fn release_all(&self) {
        self.shared.releasing.store(true, Ordering::SeqCst);
        for lease in locked(&self.shared.held).leases.values() {
            lease.release();
        }
    }

    /// Sets the stage that the registry shows for this worker.
    pub(crate) fn show(&self, computing: Option<StageInProgress>) {
        locked(&self.shared.held).computing = computing;
        self.shared.wake.notify_one();
    }

    /// Counts a published stage for the registry.
    pub(crate) fn count(&self) {
        locked(&self.shared.held).done += 1;
    }

    /// Removes the worker from the registry and sends no further heartbeat.
    pub(crate) async fn sign_off(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        drop(self.shared.beating.lock().await);
        let (fleet, name) = (&self.shared.fleet, &self.shared.settings.about.name);
        if let Err(error) = stages::sign_off(fleet, name).await {
            tracing::debug!(%error, "the worker could not sign off");
        }
    }
}

impl Shared {
    /// Ends the worker; the first reason counts. Computed results may still be published.
    fn end(&self, error: JobsError) {
        for lease in locked(&self.held).leases.values() {
            lease.abandon();
        }
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(error);
            first
        });
    }

    /// Beats until closed or ended.
    async fn live(&self) {
        let interval = stages::interval(self.settings.lease);
        let (mut seen, mut looked) = (Instant::now(), Instant::now());
        let mut connection = None;
        loop {
            // Quick stages share a beat.
            sleep(interval.min(SHOWN)).await;
            tokio::select! {
                () = sleep(interval.saturating_sub(SHOWN)) => {}
                () = self.wake.notified() => {}
            }
            let mut pauses = pauses(interval.min(Duration::from_secs(1))).build();
            let mut lost = false;
            while let Err(error) = self.beat_over(&mut connection, &mut looked).await {
                lost = true;
                self.show_liveness();
                if self.is_over() {
                    return;
                }
                connection = None;
                let meaning = self.fleet.failed(&error).await;
                if !meaning.may_pass() {
                    self.end(meaning);
                } else if seen.elapsed() >= self.settings.retry_for {
                    self.end(match refusal(&error) {
                        Some(_) => meaning,
                        None => JobsError::unavailable(format!(
                            "Redis at {} was away for {} s ({}): finished stages are safe in the store; start the \
                             worker again once Redis answers",
                            self.fleet.address(),
                            self.settings.retry_for.as_secs(),
                            plain(&error)
                        )),
                    });
                } else {
                    tracing::warn!(%error, "cannot send the heartbeat to Redis; retrying");
                }
                sleep(pauses.next().unwrap_or(interval)).await;
            }
            self.show_liveness();
            if lost {
                metrics::redis_reconnected();
            }
            if self.is_over() {
                return;
            }
            seen = Instant::now();
        }
    }

    /// Notes that the thread runs, whether or not Redis answered.
    fn show_liveness(&self) {
        self.settings.liveness.turn();
        metrics::heartbeat((self.settings.clock)());
    }

    fn is_over(&self) -> bool {
        self.closed.load(Ordering::SeqCst) || self.end.borrow().is_some()
    }

    async fn beat_over(
        &self,
        connection: &mut Option<MultiplexedConnection>,
        looked: &mut Instant,
    ) -> RedisResult<()> {
        let (is_new, interval) = (connection.is_none(), stages::interval(self.settings.lease));
        let mut open = match connection.take() {
            Some(open) => open,
            None => connection::open(&self.fleet.client, interval).await?,
        };
        self.beat(&mut open).await?;
        // Redis announces no changed setting, and reads its file again at a restart.
        if is_new || looked.elapsed() >= interval * LOOK {
            if let Some(error) = diagnosis::changed(self.fleet.address(), &mut open).await? {
                self.end(error);
            }
            *looked = Instant::now();
        }
        *connection = Some(open);
        Ok(())
    }

    /// One beat: registers the worker as alive, renews its leases, compares the clocks.
    async fn beat(&self, connection: &mut impl ConnectionLike) -> RedisResult<()> {
        let _beating = self.beating.lock().await;
        if self.closed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (leases, about) = {
            let held = locked(&self.held);
            let leases: Vec<Arc<StageLease>> = held.leases.values().cloned().collect();
            let (computing, stages_done) = (held.computing.clone(), held.done);
            (leases, WorkerInfo { computing, stages_done, ..self.settings.about.clone() })
        };
        let text = serde_json::to_string(&about).unwrap_or_default();
        let tokens: Vec<_> =
            leases.iter().map(|lease| (lease.key.as_str(), lease.token.as_str())).collect();
        let (asked, before) = (Instant::now(), (self.settings.clock)());
        let (redis, ours) =
            stages::beat(&self.fleet, connection, self.settings.lease, &about.name, &text, &tokens)
                .await?;
        let after = (self.settings.clock)();
        for (lease, ours) in leases.iter().zip(ours) {
            if ours {
                lease.renewed(asked, self.settings.lease);
            } else if lease.lose() {
                metrics::lease_lost();
                self.end(JobsError::unavailable(format!(
                    "the lease of stage {} was lost to another worker: this one was silent for too \
                     long, and has to be started again",
                    lease.stage.short()
                )));
            }
        }
        self.compare_clocks(redis, before, after);
        Ok(())
    }

    fn compare_clocks(&self, redis: u64, before: u64, after: u64) {
        let skew = Skew::between(before, redis, after, 0);
        if skew.is_too_much {
            let side = if skew.ahead_ms > 0 { "ahead of" } else { "behind" };
            self.end(JobsError::unavailable(format!(
                "this machine's clock is {:.1} s {side} that of Redis at {}: workers judge by \
                 their clocks which of them are alive; set both by NTP (`timedatectl set-ntp true`), then start the \
                 worker again",
                Duration::from_millis(skew.ahead_ms.unsigned_abs()).as_secs_f64(),
                self.fleet.address()
            )));
        }
    }
}
