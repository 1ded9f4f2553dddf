//! Garbage collection: what no run reaches goes, once it is old enough.
//!
//! Marks from the runs' records, then sweeps records of stages, their specs, and blobs, in this order, so
//! that no record ever stands without its blobs. Safe beside running workers:
//!
//! * What a worker writes is young, and what it finds already there it writes again, which makes it
//!   young; only what is older than the grace period goes, by the store's own clock, looked at once
//!   more right before.
//! * What a run takes over from others stands in its index before it goes on; the runs are marked a
//!   second time after the sweep was planned, so what came into use meanwhile stays.
//! * In the instant that is left between a look and a deletion, a result can lose a blob. It is then
//!   incomplete, which every reader checks, and is computed again to the same bytes: the price is time.
//!
//! Refuses to sweep while any run or record that it would have to follow cannot be read, and while a record
//! that is to go is another version's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agrpo_spec::{ArtifactDigest, RunId, StageDigest};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::maintenance::reachability::{Reachability, is_of_other_versions, reachable};
use crate::maintenance::retention;
use agrpo_store::JobsError;
use agrpo_store::{Entry, Store, is_leftover};

/// Objects deleted at a time.
const AT_ONCE: usize = 16;

/// How to sweep.
#[derive(Clone, Copy, Debug)]
pub struct GcOptions {
    /// What was written more recently stays.
    pub grace: Duration,
    /// Deletes nothing.
    pub dry_run: bool,
}

/// The kinds of objects that are swept, in the order in which they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// Records of stages.
    Manifests,
    /// What was asked of stages.
    Specs,
    /// Results, and what was imported.
    Blobs,
    /// What killed writers left in a local store.
    Leftovers,
    /// Damaged objects that were put aside.
    Aside,
}

/// So many objects of so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many.
    pub objects: u64,
    /// Their lengths together.
    pub bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// What a gc found and did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Whether nothing was deleted.
    pub dry_run: bool,
    /// Runs that were followed.
    pub runs: u64,
    /// What went, or would have.
    pub swept: BTreeMap<ObjectKind, Tally>,
    /// What no run reaches but is too young to go.
    pub young: Tally,
    /// What runs reach.
    pub kept: Tally,
    /// What lies in a local store and is no file; it stays where it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub odd: Vec<Odd>,
}

/// Something in a local store that no program of ours wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Odd {
    /// Where in the store.
    pub name: String,
    /// What it is.
    pub kind: &'static str,
}

/// What all runs reach.
#[derive(Debug, Default)]
struct Marked {
    runs: BTreeSet<RunId>,
    stages: BTreeSet<StageDigest>,
    blobs: BTreeSet<ArtifactDigest>,
}

impl Marked {
    fn add(&mut self, id: RunId, reach: Reachability) {
        self.runs.insert(id);
        self.stages.extend(reach.stages.into_keys());
        self.blobs.extend(reach.held.into_keys());
    }

    fn has(&self, kind: ObjectKind, name: &str) -> bool {
        let file = name.rsplit('/').next().unwrap_or_default();
        match kind {
            ObjectKind::Manifests | ObjectKind::Specs => {
                file.parse().is_ok_and(|stage| self.stages.contains(&stage))
            }
            ObjectKind::Blobs => file.parse().is_ok_and(|blob| self.blobs.contains(&blob)),
            ObjectKind::Leftovers | ObjectKind::Aside => false,
        }
    }
}

/// Deletes what no run reaches and is older than the grace period. Data error, and nothing deleted, where
/// a run cannot be followed.
pub async fn gc(store: &Store, options: GcOptions) -> Result<GcReport, JobsError> {
    let marked = mark(store, options.dry_run).await?;
    let now = store.now_ms().await?;
    let grace = i64::try_from(options.grace.as_millis()).unwrap_or(i64::MAX);
    // As old as the grace period is old enough, so that none at all takes everything.
    let is_old = |entry: &Entry| now.saturating_sub(entry.written_ms) >= grace;
    let mut report = GcReport {
        dry_run: options.dry_run,
        runs: marked.runs.len() as u64,
        swept: BTreeMap::new(),
        young: Tally::default(),
        kept: Tally::default(),
        odd: vec![],
    };
    let mut doomed: Vec<(ObjectKind, Entry)> = vec![];
    for (kind, entry) in everything(store).await? {
        if let Some(kind) = entry.odd {
            report.odd.push(Odd { name: entry.name, kind });
        } else if marked.has(kind, &entry.name) {
            report.kept.add(entry.size);
        } else if is_old(&entry) {
            doomed.push((kind, entry));
        } else {
            report.young.add(entry.size);
        }
    }
    report.odd.sort();
    if !options.dry_run && !doomed.is_empty() {
        // Runs that began or went on meanwhile may have taken over what no run reached.
        let again = mark(store, false).await?;
        doomed.retain(|(kind, entry)| {
            let is_reached = again.has(*kind, &entry.name);
            if is_reached {
                report.kept.add(entry.size);
            }
            !is_reached
        });
    }
    check_known(store, &doomed).await?;
    doomed.sort_by(|(a, one), (b, two)| (a, &one.name).cmp(&(b, &two.name)));
    for batch in doomed.chunk_by(|(a, _), (b, _)| a == b) {
        let mut tally = Tally::default();
        let deletions = batch.iter().map(|(_, entry)| async move {
            let goes = options.dry_run || delete(store, entry).await?;
            Ok::<_, JobsError>((goes, entry.size))
        });
        let mut deletions = futures::stream::iter(deletions).buffer_unordered(AT_ONCE);
        while let Some((goes, size)) = deletions.try_next().await? {
            if goes { tally.add(size) } else { report.young.add(size) }
        }
        report.swept.insert(batch[0].0, tally);
    }
    Ok(report)
}

/// Deletes an object unless it was written since it was listed.
async fn delete(store: &Store, listed: &Entry) -> Result<bool, JobsError> {
    match store.object(&listed.name).await? {
        Some(found) if found.written_ms != listed.written_ms => Ok(false),
        Some(_) => store.delete_object(&listed.name).await.map(|()| true),
        None => Ok(true),
    }
}

/// Everything that may be swept, with its kind.
async fn everything(store: &Store) -> Result<Vec<(ObjectKind, Entry)>, JobsError> {
    let mut all = vec![];
    for (folder, kind) in [
        ("stages", ObjectKind::Manifests),
        ("specs", ObjectKind::Specs),
        ("cas", ObjectKind::Blobs),
        ("aside", ObjectKind::Aside),
        ("runs", ObjectKind::Leftovers),
    ] {
        for entry in store.objects(folder).await? {
            if is_leftover(&entry.name) || entry.odd.is_some() {
                all.push((ObjectKind::Leftovers, entry));
            } else if kind != ObjectKind::Leftovers {
                all.push((kind, entry));
            }
        }
    }
    Ok(all)
}

async fn mark(store: &Store, dry_run: bool) -> Result<Marked, JobsError> {
    let mut marked = Marked::default();
    for id in store.runs().await? {
        marked.add(id, follow(store, id, dry_run).await?);
    }
    Ok(marked)
}

/// What a run reaches. What its retention does not keep is let go first, or counted so.
async fn follow(store: &Store, id: RunId, dry_run: bool) -> Result<Reachability, JobsError> {
    let refuse = |error: JobsError| match error {
        // What is wrong says what mends it.
        JobsError::Data(why) => JobsError::Data(format!(
            "{why}; nothing was swept, because it is not known what run {} needs (agrpo forget {} --force \
             gives the run up)",
            id.short(),
            id.short()
        )),
        error => unswept(error),
    };
    check_records(store, id).await.map_err(unswept)?;
    let run = store.run(id).await.map_err(refuse)?;
    let retention = store.retention(id).await.map_err(refuse)?;
    // What a run of other versions may delete is for them to say.
    let due = match retention.keeps_all() || is_of_other_versions(store, id).await? {
        true => BTreeMap::new(),
        false => retention::due(store, &run, retention).await.map_err(refuse)?,
    };
    if !dry_run {
        for (stage, dropped) in &due {
            store.note_dropped(id, *stage, dropped).await?;
        }
    }
    let reach = reachable(store, id, &due).await.map_err(refuse)?;
    if let Some((_, error)) = reach.corrupt.first() {
        return Err(refuse(error.clone()));
    }
    match &reach.unlisted {
        Some((_, why)) => Err(refuse(JobsError::Data(why.clone()))),
        None => Ok(reach),
    }
}

/// What a record of another version reaches, only that version knows.
fn unswept(error: JobsError) -> JobsError {
    match error {
        JobsError::Incompatible(why) => {
            JobsError::Incompatible(format!("{why}; nothing was swept"))
        }
        error => error,
    }
}

/// Refuses where the record of a stage that is to go is another version's: it may name blobs.
async fn check_known(store: &Store, doomed: &[(ObjectKind, Entry)]) -> Result<(), JobsError> {
    let manifests = doomed.iter().filter(|(kind, _)| *kind == ObjectKind::Manifests);
    check_compatible(store, manifests.map(|(_, entry)| entry)).await.map_err(unswept)
}

/// Refuses where a record of the run is another version's: it may say what the run needs.
async fn check_records(store: &Store, id: RunId) -> Result<(), JobsError> {
    let entries = store.objects(&format!("runs/{id}")).await?;
    check_compatible(store, entries.iter().filter(|entry| entry.odd.is_none())).await
}

/// Refuses records of other versions. What is damaged is found by its readers.
async fn check_compatible<'a>(
    store: &Store,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<(), JobsError> {
    let checks: Vec<_> = entries.map(|entry| store.inspect(&entry.name)).collect();
    let mut checks = futures::stream::iter(checks).buffer_unordered(AT_ONCE);
    while let Some(checked) = checks.next().await {
        match checked {
            Ok(_) | Err(JobsError::Data(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What only this run reaches: what forgetting it would free.
pub async fn only_of(store: &Store, run: RunId) -> Result<Tally, JobsError> {
    let mut others = Marked::default();
    for id in store.runs().await? {
        if id != run {
            others.add(id, reachable(store, id, &BTreeMap::new()).await?);
        }
    }
    check_records(store, run).await?;
    let mut own = Marked::default();
    own.add(run, reachable(store, run, &BTreeMap::new()).await?);
    let mut freed = Tally::default();
    for (kind, entry) in everything(store).await? {
        if own.has(kind, &entry.name) && !others.has(kind, &entry.name) {
            freed.add(entry.size);
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests;
