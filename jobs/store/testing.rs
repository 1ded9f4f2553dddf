//! What the store's tests share: stores of each kind, a small run, and the results that its stages leave.

use agrpo_spec::{Manifest, Phases, Plan, Run};

use crate::{Control, Hold, Repair, Store, Versions};

#[path = "../../tests/support/stages.rs"]
mod stages;
#[expect(dead_code, reason = "the fleet's tests use the rest")]
#[path = "../../tests/support/stores.rs"]
mod stores;

pub(crate) use stages::{environment, run, run_named};
pub(crate) use stores::{TestStore, other_versions, with_large};

/// Computes a run stage by stage, and stores what a worker stores.
pub(crate) async fn finished(store: &Store, run: Run) {
    store.records.put_run(&run).await.unwrap();
    let (id, mut plan) = (run.id(), Plan::new(run));
    while let Some((&key, spec)) = plan.pending().first_key_value() {
        let spec = spec.clone();
        let inputs = store.cas.load_inputs(&spec).await.unwrap();
        let outputs = stages::fake_outputs(&spec, &inputs).unwrap();
        let manifest = Manifest {
            stage: spec.digest(),
            spec,
            outputs: store.cas.put_outputs(&outputs).await.unwrap(),
            metrics: outputs.metrics,
            environment: environment(),
            phases: Phases::default(),
        };
        store.records.publish(&manifest).await.unwrap();
        store.records.record_stage(id, key, manifest.stage).await.unwrap();
        store.records.note_policy(id, key, &manifest).await.unwrap();
        plan.finished(key, |name| manifest.output(name)).unwrap();
    }
}
