//! A small run and a fake of its stages, for the unit tests of the store and of the fleet.
//!
//! The fake's bytes depend on the whole spec and on every input byte, as real ones do, so that any mix-up shows in the
//! final policy.

use std::collections::BTreeMap;

use agrpo_spec::{
    Artifact, ArtifactDigest, Environment, EvaluationSpec, Inputs, Outputs, Run, StageError,
    StageKind, StageSpec,
};
use bytes::Bytes;

use self::run_file::run_file;

#[path = "run_file.rs"]
mod run_file;

/// A run of 3 sft chunks, then `iterations` of 2 shards with an evaluation every 2.
pub(crate) fn run_named(name: &str, iterations: u32) -> Run {
    run_of(name, iterations, 2)
}

/// The same with so many shards of two prompts each.
pub(crate) fn run_of(name: &str, iterations: u32, shards: u32) -> Run {
    run_seeded(name, iterations, shards, 3)
}

/// The same with a seed of its own, so that it shares no stage with another run.
pub(crate) fn run_seeded(name: &str, iterations: u32, shards: u32, seed: u64) -> Run {
    let prompts = 2 * shards;
    let text = run_file(&[
        ("name", &format!("\"{name}\"")),
        ("seed", &seed.to_string()),
        ("rollout.prompts", &prompts.to_string()),
        ("rollout.shards", &shards.to_string()),
        ("training.iterations", &iterations.to_string()),
    ]);
    Run::parse(&text).unwrap()
}

pub(crate) fn run() -> Run {
    run_named("small", 3)
}

pub(crate) fn environment() -> Environment {
    Environment { worker: "test".into(), threads: 1, ..Environment::default() }
}

/// 32 * `blocks` bytes that follow from a text.
fn expand(text: &str, blocks: usize) -> Bytes {
    (0..blocks)
        .flat_map(|i| ArtifactDigest::of(format!("{text} {i}").as_bytes()).to_string().into_bytes())
        .collect()
}

fn digest_of_inputs(spec: &StageSpec, inputs: &Inputs) -> Result<String, StageError> {
    let mut all = spec.digest().to_string();
    for (role, digest) in spec.inputs() {
        let bytes = match role {
            "policy" | "behaviour" | "reference" => {
                inputs.folder(digest)?["model.safetensors"].bytes(1 << 20).unwrap()
            }
            _ => inputs.blob(digest)?.clone(),
        };
        all.push_str(&ArtifactDigest::of(&bytes).to_string());
    }
    Ok(ArtifactDigest::of(all.as_bytes()).to_string())
}

/// The outputs of the fake stage.
pub(crate) fn fake_outputs(spec: &StageSpec, inputs: &Inputs) -> Result<Outputs, StageError> {
    let seed = digest_of_inputs(spec, inputs)?;
    let blob = |name: &str| Artifact::Blob(expand(&format!("{seed} {name}"), 4).into());
    let policy = || {
        Artifact::Folder(BTreeMap::from([
            ("config.json".to_owned(), Bytes::from_static(b"{\"d_model\": 8}").into()),
            ("model.safetensors".to_owned(), expand(&format!("{seed} model"), 64).into()),
        ]))
    };
    let artifacts = match spec.kind() {
        StageKind::Sft | StageKind::Update | StageKind::Updates => {
            BTreeMap::from([("policy", policy()), ("optimizer", blob("optimizer"))])
        }
        StageKind::Rollout => BTreeMap::from([("trajectories", blob("trajectories"))]),
        StageKind::Reward => BTreeMap::from([("rewards", blob("rewards"))]),
        StageKind::Gradient => BTreeMap::from([("gradient", blob("gradient"))]),
        StageKind::Evaluation => BTreeMap::from([("evaluation", blob("evaluation"))]),
    };
    let share = u32::from_str_radix(&seed[..4], 16).unwrap();
    let share = f64::from(share) / 65_536.0;
    let mut metrics = BTreeMap::from([("accuracy".to_owned(), share)]);
    if let StageSpec::Evaluation(EvaluationSpec { problems, shard, .. }) = spec
        && !shard.is_none()
    {
        let problems = f64::from(*problems);
        let counts = [("earned", share * problems), ("possible", problems), ("problems", problems)];
        metrics.extend(counts.map(|(name, value)| (name.to_owned(), value)));
    }
    Ok(Outputs { artifacts, metrics })
}
