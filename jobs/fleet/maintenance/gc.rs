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

use agrpo_spec::{ArtifactDigest, RunId};
use agrpo_store::{Entry, FOLDERS, JobsError, Store, is_leftover, paths};
use serde::Serialize;

pub use crate::maintenance::reachability::Tally;
use crate::maintenance::reachability::{Reachability, is_of_other_versions, reachable};
use crate::{Result, maintenance::retention, planning::steps::each};

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

/// What a gc found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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

/// Deletes what no run reaches and is older than the grace period. Data error, and nothing deleted, where
/// a run cannot be followed.
pub async fn gc(store: &Store, options: GcOptions) -> Result<GcReport> {
    let (runs, reached) = mark(store, options.dry_run).await?;
    let now = store.objects.now_ms().await?;
    let grace = i64::try_from(options.grace.as_millis()).unwrap_or(i64::MAX);
    // As old as the grace period is old enough, so that none at all takes everything.
    let is_old = |entry: &Entry| now.saturating_sub(entry.written_ms) >= grace;
    let dry_run = options.dry_run;
    let mut report = GcReport { dry_run, runs, ..GcReport::default() };
    let mut doomed: Vec<(ObjectKind, Entry)> = vec![];
    for (kind, entry) in everything(store).await? {
        if let Some(kind) = entry.odd {
            report.odd.push(Odd { name: entry.name, kind });
        } else if reached.contains(&entry.name) {
            report.kept.add(entry.size);
        } else if is_old(&entry) {
            doomed.push((kind, entry));
        } else {
            report.young.add(entry.size);
        }
    }
    report.odd.sort();
    if !dry_run && !doomed.is_empty() {
        // Runs that began or went on meanwhile may have taken over what no run reached.
        let (_, again) = mark(store, false).await?;
        doomed.retain(|(_, entry)| {
            let is_reached = again.contains(&entry.name);
            if is_reached {
                report.kept.add(entry.size);
            }
            !is_reached
        });
    }
    // A record of another version may name blobs.
    let manifests = doomed.iter().filter(|(kind, _)| *kind == ObjectKind::Manifests);
    check_compatible(store, manifests.map(|(_, entry)| entry)).await.map_err(unswept)?;
    doomed.sort_by(|(a, one), (b, two)| (a, &one.name).cmp(&(b, &two.name)));
    for batch in doomed.chunk_by(|(a, _), (b, _)| a == b) {
        let mut tally = Tally::default();
        let deletions = each(batch, |(_, entry)| async move {
            let goes = dry_run || delete(store, entry).await?;
            Ok((goes, entry.size))
        });
        for (goes, size) in deletions.await? {
            if goes { tally.add(size) } else { report.young.add(size) }
        }
        report.swept.insert(batch[0].0, tally);
    }
    Ok(report)
}

/// Deletes an object unless it was written since it was listed.
async fn delete(store: &Store, listed: &Entry) -> Result<bool> {
    match store.objects.entry(&listed.name).await? {
        Some(found) if found.written_ms != listed.written_ms => Ok(false),
        Some(_) => store.objects.delete(&listed.name).await.map(|()| true),
        None => Ok(true),
    }
}

/// Everything in a store that may be swept, with its kind; and what no program of ours wrote.
pub(crate) async fn everything(store: &Store) -> Result<Vec<(ObjectKind, Entry)>> {
    let mut all = vec![];
    for folder in FOLDERS {
        let kind = match folder {
            "stages" => Some(ObjectKind::Manifests),
            "specs" => Some(ObjectKind::Specs),
            "cas" => Some(ObjectKind::Blobs),
            "aside" => Some(ObjectKind::Aside),
            _ => None,
        };
        for entry in store.objects.entries(folder).await? {
            let is_leftover = is_leftover(&entry.name) || entry.odd.is_some();
            // A file that no digest names is another program's.
            let is_ours = folder == "aside" || is_digest(&entry.name);
            let kind = if is_leftover { Some(ObjectKind::Leftovers) } else { kind };
            let kind = kind.filter(|_| is_leftover || is_ours);
            all.extend(kind.map(|kind| (kind, entry)));
        }
    }
    Ok(all)
}

fn is_digest(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|file| file.parse::<ArtifactDigest>().is_ok())
}

/// How many runs there are, and the names of the objects that they reach.
async fn mark(store: &Store, dry_run: bool) -> Result<(u64, BTreeSet<String>)> {
    let (mut runs, mut reached) = (0, BTreeSet::new());
    for id in store.records.runs().await? {
        runs += 1;
        reached.extend(follow(store, id, dry_run).await?.names());
    }
    Ok((runs, reached))
}

/// What a run reaches. What its retention does not keep is noted as deleted first, or counted so.
async fn follow(store: &Store, id: RunId, dry_run: bool) -> Result<Reachability> {
    let name = id.short();
    let refuse = |error: JobsError| match error {
        // What is wrong says what mends it.
        JobsError::Data(why) => JobsError::Data(format!(
            "{why}; nothing was swept, because it is not known what run {name} needs (agrpo forget {name} \
             --force gives the run up)"
        )),
        error => unswept(error),
    };
    check_records(store, id).await.map_err(unswept)?;
    let run = store.records.run(id).await.map_err(refuse)?;
    let retention = store.records.retention(id).await.map_err(refuse)?;
    // What a run of other versions may delete is for them to say.
    let due = match retention.keeps_all() || is_of_other_versions(store, id).await? {
        true => BTreeMap::new(),
        false => retention::due(store, &run, retention).await.map_err(refuse)?,
    };
    if !dry_run {
        for (stage, dropped) in &due {
            store.records.note_dropped(id, *stage, dropped).await?;
        }
    }
    let reach = reachable(store, id, &due).await.map_err(refuse)?;
    if let Some((_, error)) = reach.corrupt.first() {
        return Err(refuse(error.clone()));
    }
    match &reach.unlisted {
        Some(why) => Err(refuse(JobsError::Data(why.clone()))),
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

/// Refuses where a record of the run is another version's: it may say what the run needs.
async fn check_records(store: &Store, id: RunId) -> Result<()> {
    let entries = store.objects.entries(&paths::run(id)).await?;
    check_compatible(store, entries.iter().filter(|entry| entry.odd.is_none())).await
}

/// Refuses records of other versions. What is damaged is found by its readers.
async fn check_compatible<'a>(
    store: &Store,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<()> {
    let checks = each(entries, |entry| async {
        match store.records.inspect(&entry.name).await {
            Ok(_) | Err(JobsError::Data(_)) => Ok(()),
            Err(error) => Err(error),
        }
    });
    checks.await.map(drop)
}

/// What only this run reaches: what forgetting it would free.
pub async fn only_of(store: &Store, run: RunId) -> Result<Tally> {
    let (mut own, mut others) = (BTreeSet::new(), BTreeSet::new());
    for id in store.records.runs().await? {
        let reach = reachable(store, id, &BTreeMap::new()).await?;
        if id == run { &mut own } else { &mut others }.extend(reach.names());
    }
    check_records(store, run).await?;
    let mut freed = Tally::default();
    for (_, entry) in everything(store).await? {
        if own.contains(&entry.name) && !others.contains(&entry.name) {
            freed.add(entry.size);
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests;
