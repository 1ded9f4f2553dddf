//! Garbage collection: deletes objects that no run reaches, once they are older than the grace period.
//!
//! Marks from the runs' records, then sweeps records of stages, their specs, and blobs, in this order, so that no
//! record ever exists without its blobs. Safe beside running workers:
//!
//! * A worker writes an object again that it finds in the store, so what it uses is young. The store's own clock
//!   decides how old an object is, and its age is read once more right before it is deleted.
//! * A run indexes results that it takes over from others before it goes on. Runs are marked a second time after the
//!   sweep was planned, so objects that came into use meanwhile stay.
//! * Between that last check and the deletion, a result can still lose a blob. Every reader checks for this, and the
//!   stage is computed again to the same bytes: it costs time only.
//!
//! Refuses to sweep while a run or record that it has to follow cannot be read, and while a record to be deleted was
//! written by another version.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agrpo_spec::{ArtifactDigest, RunId};
use agrpo_store::{Entry, FOLDERS, JobsError, Store, is_leftover, paths};
use serde::Serialize;

pub use crate::maintenance::reachability::Totals;
use crate::maintenance::reachability::{Reachability, is_of_other_versions, reachable};
use crate::{Result, maintenance::retention, planning::steps::each};

/// How to sweep.
#[derive(Clone, Copy, Debug)]
pub struct GcOptions {
    /// Objects written more recently stay.
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
    /// Specs of stages.
    Specs,
    /// Results and imported files.
    Blobs,
    /// Temporary files of killed writers in a local store.
    Leftovers,
    /// Damaged objects in quarantine.
    Aside,
}

/// What a gc found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Whether nothing was deleted.
    pub dry_run: bool,
    /// Runs that were followed.
    pub runs: u64,
    /// Deleted, or to be deleted in a dry run.
    pub swept: BTreeMap<ObjectKind, Totals>,
    /// Reached by no run, but younger than the grace period.
    pub young: Totals,
    /// Reached by runs.
    #[serde(rename = "kept")]
    pub retained: Totals,
    /// In a local store and no regular file; not touched.
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

/// Deletes objects that no run reaches and that are older than the grace period. Data error, and nothing is deleted,
/// where a run cannot be followed.
pub async fn gc(store: &Store, options: GcOptions) -> Result<GcReport> {
    let (runs, reached) = mark(store, options.dry_run).await?;
    let now = store.objects.now_ms().await?;
    let grace = i64::try_from(options.grace.as_millis()).unwrap_or(i64::MAX);
    // Inclusive, so that a grace period of zero deletes everything.
    let is_old = |entry: &Entry| now.saturating_sub(entry.written_ms) >= grace;
    let dry_run = options.dry_run;
    let mut report = GcReport { dry_run, runs, ..GcReport::default() };
    let mut doomed: Vec<(ObjectKind, Entry)> = vec![];
    for (kind, entry) in everything(store).await? {
        if let Some(kind) = entry.odd {
            report.odd.push(Odd { name: entry.name, kind });
        } else if reached.contains(&entry.name) {
            report.retained.add(entry.size);
        } else if is_old(&entry) {
            doomed.push((kind, entry));
        } else {
            report.young.add(entry.size);
        }
    }
    report.odd.sort();
    if !dry_run && !doomed.is_empty() {
        // Runs that began or went on meanwhile may use objects that no run reached.
        let (_, again) = mark(store, false).await?;
        doomed.retain(|(_, entry)| {
            let is_reached = again.contains(&entry.name);
            if is_reached {
                report.retained.add(entry.size);
            }
            !is_reached
        });
    }
    // Blobs that a record of another version names are unknown here.
    let manifests = doomed.iter().filter(|(kind, _)| *kind == ObjectKind::Manifests);
    check_compatible(store, manifests.map(|(_, entry)| entry).collect()).await.map_err(unswept)?;
    doomed.sort_by(|(a, one), (b, two)| (a, &one.name).cmp(&(b, &two.name)));
    for batch in doomed.chunk_by(|(a, _), (b, _)| a == b) {
        let mut totals = Totals::default();
        let deletions = each(batch, |(_, entry)| async move {
            let goes = dry_run || delete(store, entry).await?;
            Ok((goes, entry.size))
        });
        for (goes, size) in deletions.await? {
            if goes { totals.add(size) } else { report.young.add(size) }
        }
        report.swept.insert(batch[0].0, totals);
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
            let file = entry.name.rsplit('/').next().unwrap_or_default();
            // Another program wrote a file whose name is no digest.
            let is_ours = folder == "aside" || file.parse::<ArtifactDigest>().is_ok();
            let kind = if is_leftover { Some(ObjectKind::Leftovers) } else { kind };
            let kind = kind.filter(|_| is_leftover || is_ours);
            all.extend(kind.map(|kind| (kind, entry)));
        }
    }
    Ok(all)
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

/// What a run reaches. Outputs that its retention deletes are noted first; in a dry run they only count as deleted.
async fn follow(store: &Store, id: RunId, dry_run: bool) -> Result<Reachability> {
    let name = id.short();
    let refuse = |error: JobsError| match error {
        // The error itself names the remedy.
        JobsError::Data(why) => JobsError::data(format!(
            "{why}; nothing was swept, because it is not known what run {name} needs (agrpo forget {name} \
             --force gives the run up)"
        )),
        error => unswept(error),
    };
    check_records(store, id).await.map_err(unswept)?;
    let run = store.records.run(id).await.map_err(refuse)?;
    let retention = store.records.retention(id).await.map_err(refuse)?;
    // Only a program of the run's versions decides what its retention deletes.
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
        Some(why) => Err(refuse(JobsError::data(why.clone()))),
        None => Ok(reach),
    }
}

/// Adds that nothing was swept, since it is unknown what a record of another version reaches.
fn unswept(error: JobsError) -> JobsError {
    match error {
        JobsError::Incompatible(why) => {
            JobsError::incompatible(format!("{why}; nothing was swept"))
        }
        error => error,
    }
}

/// Refuses records of the run that another version wrote: they may name what the run needs.
async fn check_records(store: &Store, id: RunId) -> Result<()> {
    let entries = store.objects.entries(&paths::run(id)).await?;
    check_compatible(store, entries.iter().filter(|entry| entry.odd.is_none()).collect()).await
}

/// Refuses records of other versions. Damaged ones are left to their readers.
async fn check_compatible(store: &Store, entries: Vec<&Entry>) -> Result<()> {
    let checks = each(entries, |entry| async {
        match store.records.inspect(&entry.name).await {
            Ok(_) | Err(JobsError::Data(_)) => Ok(()),
            Err(error) => Err(error),
        }
    });
    checks.await.map(drop)
}

/// Objects that only this run reaches: what forgetting it would free.
pub async fn only_of(store: &Store, run: RunId) -> Result<Totals> {
    let (mut own, mut others) = (BTreeSet::new(), BTreeSet::new());
    for id in store.records.runs().await? {
        let reach = reachable(store, id, &BTreeMap::new()).await?;
        if id == run { &mut own } else { &mut others }.extend(reach.names());
    }
    check_records(store, run).await?;
    let mut freed = Totals::default();
    for (_, entry) in everything(store).await? {
        if own.contains(&entry.name) && !others.contains(&entry.name) {
            freed.add(entry.size);
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests;
