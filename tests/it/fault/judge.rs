//! Judges the outcome of a schedule: the bytes are those of the undisturbed run, each stage is recorded once, nothing
//! is lost or left over. Reports the cost as a row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use agrpo_spec::{ArtifactDigest, Manifest};

use super::fleet::Death;
use super::scene::{Ending, PROGRAM, Scene, lock, run_text};
use super::schedule::Schedule;
use super::witness::{Witness, witnesses};
use crate::support::program::Program;

/// The results of the undisturbed run.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) run: String,
    pub(crate) policy: String,
    /// Stage keys and digests.
    pub(crate) index: BTreeMap<String, String>,
}

/// Computed once, in one process and in a folder.
pub(crate) static REFERENCE: LazyLock<Reference> = LazyLock::new(|| {
    let program = Program::new(&[]).using(&PROGRAM);
    std::fs::write(program.folder().join("run.toml"), run_text()).unwrap();
    let done = program.json(&["run", "run.toml", "--json"]);
    let run = done["run"].as_str().unwrap().to_owned();
    let files = std::fs::read_dir(program.store().join("runs").join(&run).join("stages")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let index: BTreeMap<_, _> = names.map(|name| split(&name)).collect();
    assert!(index.len() >= 60, "a run of {} stages is too short", index.len());
    Reference { run, policy: done["policy"].as_str().unwrap().to_owned(), index }
});

fn split(name: &str) -> (String, String) {
    let (key, digest) = name.split_once('.').expect("a key and a digest");
    (key.to_owned(), digest.to_owned())
}

/// What a schedule cost.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) wall: Duration,
    pub(crate) begun: usize,
    /// Computations beyond the first of each stage, for whatever reason.
    pub(crate) extra: usize,
    /// Results that came a second time, as `agrpo status` counts them.
    pub(crate) twice: u64,
    /// Stages computed again because a result of theirs was lost, as `agrpo status` counts them.
    pub(crate) recomputed: u64,
    /// Damaged blobs that no stage needed again: `agrpo verify` names exactly them.
    pub(crate) damaged: usize,
    /// Objects that were moved aside.
    pub(crate) aside: usize,
    /// How often `agrpo retry` gave a stage new attempts after three failed ones.
    pub(crate) retried: u32,
    pub(crate) deaths: usize,
    /// The codes that worker processes ended with; none of those that a signal ended.
    pub(crate) codes: Vec<i32>,
    pub(crate) redelivery_ms: Option<i64>,
    /// The evidence that each fault took place.
    pub(crate) witness: Vec<Witness>,
    pub(crate) complaints: Vec<String>,
}

impl Row {
    pub(crate) fn head() -> String {
        format!(
            "{:<34} {:>7} {:>6} {:>6} {:>6} {:>8} {:>7} {:>11}  verdict",
            "schedule", "wall s", "begun", "extra", "twice", "rewound", "deaths", "redelivered"
        )
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let redelivery = self
            .redelivery_ms
            .map_or_else(|| "-".to_owned(), |ms| format!("{}.{} s", ms / 1000, ms % 1000 / 100));
        let verdict = if self.complaints.is_empty() { "ok" } else { "BROKEN" };
        write!(
            f,
            "{:<34} {:>7.1} {:>6} {:>6} {:>6} {:>8} {:>7} {:>11}  {verdict}",
            self.name,
            self.wall.as_secs_f64(),
            self.begun,
            self.extra,
            self.twice,
            self.recomputed,
            self.deaths,
            redelivery
        )?;
        match self.retried {
            0 => {}
            1 => f.write_str(", one retry")?,
            retried => write!(f, ", {retried} retries")?,
        }
        match self.damaged {
            0 => {}
            1 => f.write_str(", 1 damaged blob reported")?,
            damaged => write!(f, ", {damaged} damaged blobs reported")?,
        }
        self.witness.iter().try_for_each(|witness| write!(f, "\n    {witness}"))
    }
}

/// Judges a run that should have ended as the reference did.
pub(crate) fn judge(
    scene: &Scene,
    schedule: &Schedule,
    ending: &Ending,
    deaths: &[Death],
    wall: Duration,
) -> Row {
    let ledger = scene.ledger();
    let mut row = Row {
        name: schedule.name.clone(),
        wall,
        begun: ledger.begun.len(),
        extra: ledger.extra(),
        twice: 0,
        recomputed: 0,
        damaged: 0,
        aside: scene.objects.list("aside").map_or(0, |aside| aside.len()),
        retried: scene.retried(),
        deaths: deaths.len(),
        codes: deaths.iter().filter_map(|death| death.code).collect(),
        redelivery_ms: ledger.redelivery_ms(deaths),
        witness: witnesses(scene, schedule, &ledger, deaths),
        complaints: vec![],
    };
    row.complaints.extend(row.witness.iter().filter_map(|witness| witness.complaint(schedule)));
    let struck = row.witness.iter().filter(|witness| witness.found.is_ok()).count();
    if struck == 0 && !row.witness.is_empty() {
        row.complaints.push("no fault took place".to_owned());
    }
    if *ending != Ending::Done {
        row.complaints.push(format!("the run ended {ending:?} after {:.0} s", wall.as_secs_f64()));
        return row;
    }
    let mut killed = deaths.to_vec();
    killed.retain(|death| death.code.is_none());
    let unexplained = ledger.unexplained(&killed);
    if schedule.only_kills() && !unexplained.is_empty() {
        row.complaints.push(format!("computed again for no reason: {unexplained:?}"));
    }
    if schedule.only_kills() && row.redelivery_ms.is_some_and(|ms| ms > 15_000) {
        row.complaints
            .push("a stage waited for more than 15 s after its worker was killed".to_owned());
    }
    if let Some(wrong) = schedule.only_clock_of()
        && deaths.iter().any(|death| death.worker != wrong)
    {
        row.complaints.push("a worker whose clock is right was thrown out".to_owned());
    }
    (row.twice, row.recomputed) = outcome(scene, &mut row.complaints);
    row.complaints.extend(planted(scene));
    match records(scene) {
        Ok(damaged) => {
            row.damaged = damaged.len();
            row.complaints.extend(cleanliness(scene, &damaged));
        }
        Err(complaint) => row.complaints.push(complaint),
    }
    row
}

/// The same policy, and as many stages as planned. Returns how many stages status counts as computed twice, and how
/// many as recomputed.
fn outcome(scene: &Scene, complaints: &mut Vec<String>) -> (u64, u64) {
    let status = scene.program.json(&["status", &scene.run, "--json"]);
    let (run, reference) = (&status["runs"][0], &*REFERENCE);
    for (name, is, should) in [
        ("run", run["run"].as_str(), reference.run.as_str()),
        ("policy", run["policy"].as_str(), reference.policy.as_str()),
        ("state", run["state"].as_str(), "done"),
    ] {
        if is != Some(should) {
            complaints.push(format!("{name}: {is:?}, undisturbed {should}"));
        }
    }
    if run["stages"]["done"] != reference.index.len() {
        complaints.push(format!("status counts {}", run["stages"]));
    }
    let count = |name: &str| run["stages"][name].as_u64().unwrap_or_default();
    (count("computed_twice"), count("rewound"))
}

/// Entries planted in the index decided nothing, and `agrpo verify` reports them; then they are removed here.
fn planted(scene: &Scene) -> Vec<String> {
    let planted = lock(&scene.planted).clone();
    // Entries that are unchanged: the program may have repaired some.
    let stands = |(name, bytes): &(String, Vec<u8>)| {
        scene.objects.read(name).is_ok_and(|now| now == *bytes).then(|| name.clone())
    };
    let names: Vec<_> = planted.iter().filter_map(stands).collect();
    if names.is_empty() {
        return vec![];
    }
    let said = scene.program.run(&["verify", &scene.run, "--json"]).stdout;
    let unreported = names.iter().filter(|name| !said.contains(name.as_str()));
    let complaints = unreported.map(|name| format!("verify says nothing of {name}")).collect();
    names.iter().for_each(|name| scene.objects.delete(name).unwrap());
    complaints
}

/// Exactly the reference's stages, by index and by listing; every blob of theirs whole, but for those that
/// a fault damaged and no stage needed again. Returns these.
fn records(scene: &Scene) -> Result<BTreeSet<String>, String> {
    let text = |error: object_store::Error| error.to_string();
    let index = scene.objects.list(&format!("runs/{}/stages", scene.run)).map_err(text)?;
    let found: BTreeMap<_, _> = index.iter().map(|name| split(name)).collect();
    if index.len() != found.len() || found != REFERENCE.index {
        return Err(format!("the index of {} entries is not the undisturbed one", index.len()));
    }
    let manifests: BTreeSet<_> = scene.objects.list("stages").map_err(text)?.into_iter().collect();
    let wanted: BTreeSet<_> = REFERENCE.index.values().cloned().collect();
    if manifests != wanted {
        let (more, less) = (manifests.difference(&wanted), wanted.difference(&manifests));
        return Err(format!("manifests: {} too many, {} missing", more.count(), less.count()));
    }
    let damaged = lock(&scene.damaged).clone();
    let mut blobs = BTreeSet::new();
    for stage in &manifests {
        let bytes = scene.objects.read(&format!("stages/{stage}")).map_err(text)?;
        let stage = stage.parse().expect("its name is a digest");
        let opened = Manifest::open(stage, &bytes).map_err(|error| error.to_string())?;
        blobs.extend(opened.value.outputs.values().map(|record| record.digest));
    }
    let mut wrong = BTreeSet::new();
    for digest in blobs {
        let name = format!("cas/{digest}");
        let whole =
            scene.objects.read(&name).is_ok_and(|bytes| ArtifactDigest::of(&bytes) == digest);
        if whole {
            continue;
        }
        if !damaged.contains(&digest.to_string()) {
            return Err(format!("{name} is lost or corrupt"));
        }
        wrong.insert(name);
    }
    Ok(wrong)
}

/// `agrpo verify` finds exactly what is damaged; `agrpo gc` leaves nothing over and takes nothing that the
/// run needs.
fn cleanliness(scene: &Scene, damaged: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = vec![];
    let mut ask = |arguments: &[&str], code| {
        let said = scene.program.run(arguments);
        if said.code != Some(code) {
            complaints.push(format!("{arguments:?}: {:?} {}", said.code, said.stderr));
        }
        serde_json::from_str(&said.stdout).unwrap_or(serde_json::Value::Null)
    };
    let code = if damaged.is_empty() { 0 } else { 5 };
    let before = ask(&["verify", &scene.run, "--json"], code);
    let swept = ask(&["gc", "--grace", "0s", "--json"], 0);
    let again = ask(&["gc", "--grace", "0s", "--dry-run", "--json"], 0);
    let after = ask(&["verify", "--json"], code);
    for (when, report) in [("before gc", &before), ("after gc", &after)] {
        let found: BTreeSet<_> = ["missing", "corrupt"]
            .iter()
            .flat_map(|verdict| report[verdict].as_array().into_iter().flatten())
            .map(|finding| finding["object"].as_str().unwrap_or_default().to_owned())
            .collect();
        if found != *damaged {
            complaints.push(format!("{when} verify finds {found:?}, damaged are {damaged:?}"));
        }
    }
    let nothing = serde_json::json!({});
    let none = serde_json::json!({ "objects": 0, "bytes": 0 });
    if again["swept"] != nothing || again["young"] != none || after["orphaned"] != none {
        complaints
            .push(format!("left over after gc: {again} {}; it took {swept}", after["orphaned"]));
    }
    complaints
}
