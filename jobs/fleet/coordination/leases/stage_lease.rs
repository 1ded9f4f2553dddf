//! A stage lease that this worker holds, from its acquisition to its end.
//!
//! One lock guards the state, so a stage is either published, released or lost. A lease that may have expired has to
//! be renewed before its result is published; the store alone decides which result counts. Talks to no service:
//! `heartbeat.rs` renews, the worker publishes.

use std::time::Duration;

use agrpo_spec::StageDigest;
use tokio::{sync::watch, time::Instant};

/// The state of a leased stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is being computed.
    Computing,
    /// It is computed; its outputs are being stored.
    Storing,
    /// Its manifest is being written: too late to release it.
    Publishing,
    /// It was released; its result is discarded.
    Released,
    /// Another worker holds its lease, or the worker has to end.
    Lost,
}

/// Whether a result may be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The state is Publishing now.
    Open,
    /// It was released or lost.
    Closed,
    /// The lease may have expired: ask again once it was renewed.
    Unsure,
}

#[derive(Clone, Copy, Debug)]
struct Status {
    state: State,
    /// Until then no other worker can have acquired the lease.
    safe_until: Instant,
}

#[derive(Debug)]
pub(crate) struct StageLease {
    pub(crate) stage: StageDigest,
    /// The lease's key; `token` is its value, which no other lease has.
    pub(crate) key: String,
    pub(crate) token: String,
    status: watch::Sender<Status>,
}

impl StageLease {
    /// A stage whose lease was asked for at `asked` and lasts for `ttl`.
    pub(crate) fn new(
        stage: StageDigest,
        key: String,
        token: String,
        asked: Instant,
        ttl: Duration,
    ) -> Self {
        let status = Status { state: State::Computing, safe_until: asked + ttl };
        Self { stage, key, token, status: watch::Sender::new(status) }
    }

    pub(crate) fn state(&self) -> State {
        self.status.borrow().state
    }

    /// Notes that a heartbeat that began at `asked` renewed the lease.
    pub(crate) fn renewed(&self, asked: Instant, ttl: Duration) {
        self.status.send_modify(|status| status.safe_until = asked + ttl);
    }

    /// Begins storing; false where it was released or lost before.
    pub(crate) fn computed(&self) -> bool {
        self.shift(&[State::Computing], State::Storing)
    }

    /// Releases it; false where it is being published.
    pub(crate) fn release(&self) -> bool {
        self.shift(&[State::Computing, State::Storing], State::Released)
    }

    /// Notes that another worker holds the lease; false where it is being published.
    pub(crate) fn lose(&self) -> bool {
        self.shift(&[State::Computing, State::Storing], State::Lost)
    }

    /// Stops computing, since the worker has to end; false where it is computed.
    pub(crate) fn abandon(&self) -> bool {
        self.shift(&[State::Computing], State::Lost)
    }

    /// Asks to publish. `certain`: Redis can no longer be asked about the lease, so the store alone decides.
    pub(crate) fn publish(&self, certain: bool) -> Gate {
        let mut gate = Gate::Closed;
        self.status.send_if_modified(|status| {
            gate = match status.state {
                State::Released | State::Lost => Gate::Closed,
                State::Publishing => Gate::Open,
                _ if certain || Instant::now() < status.safe_until => Gate::Open,
                _ => Gate::Unsure,
            };
            let begins = gate == Gate::Open && status.state != State::Publishing;
            if begins {
                status.state = State::Publishing;
            }
            begins
        });
        gate
    }

    /// Resolves once it is released or lost.
    pub(crate) async fn ended(&self) -> State {
        let mut status = self.status.subscribe();
        let ended = |status: &Status| matches!(status.state, State::Released | State::Lost);
        // `self` holds the sender, so there is no error.
        status.wait_for(ended).await.map_or(State::Lost, |status| status.state)
    }

    /// Resolves at the next renewal or change of state.
    pub(crate) async fn changed(&self) {
        self.status.subscribe().changed().await.unwrap_or_default();
    }

    fn shift(&self, from: &[State], to: State) -> bool {
        self.status.send_if_modified(|status| {
            let may = from.contains(&status.state);
            if may {
                status.state = to;
            }
            may
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use agrpo_spec::Plan;

    use super::*;
    use crate::testing;

    fn lease(ttl: Duration) -> StageLease {
        let stage = Plan::new(testing::run()).pending().values().next().unwrap().digest();
        StageLease::new(stage, "k".to_owned(), "1 w".to_owned(), Instant::now(), ttl)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn publish_and_release_exclude_each_other() {
        for _ in 0..200 {
            let lease = Arc::new(lease(Duration::from_secs(9)));
            assert!(lease.computed());
            let other = Arc::clone(&lease);
            let releasing = std::thread::spawn(move || other.release());
            let published = lease.publish(false) == Gate::Open;
            assert!(published ^ releasing.join().unwrap());
        }
    }

    #[tokio::test]
    async fn a_lease_that_may_have_expired_is_asked_for_before_publishing() {
        let ttl = Duration::from_millis(20);
        let stale = lease(ttl);
        assert!(stale.computed());
        tokio::time::sleep(ttl * 2).await;
        assert_eq!(stale.publish(false), Gate::Unsure);
        stale.renewed(Instant::now(), Duration::from_secs(9));
        assert_eq!(stale.publish(false), Gate::Open);
        assert!(!stale.lose() && !stale.release());

        let lost = lease(Duration::from_secs(9));
        assert!(lost.lose() && !lost.computed());
        assert_eq!(lost.publish(true), Gate::Closed);
        assert_eq!(lost.ended().await, State::Lost);

        let cut_off = lease(ttl);
        assert!(cut_off.computed() && !cut_off.abandon());
        tokio::time::sleep(ttl * 2).await;
        assert_eq!(cut_off.publish(true), Gate::Open, "the store decides");
    }
}
