//! The history of a run that an export reads, whole or not at all.

use agrpo_spec::RunId;
use agrpo_view::history::RunHistory;

use crate::commands::prelude::{Failure, Result, Store, output};
use crate::commands::recovery::move_away;

/// A run's history; refuses one of which records are missing, corrupt or of another version.
pub(super) async fn whole_history(store: &Store, run: RunId) -> Result<RunHistory> {
    store.records.require_own_versions(run).await?;
    let history = RunHistory::read(store, run).await?;
    let lost = history.lost_evaluations();
    let (incompatible, damaged): (Vec<_>, Vec<_>) =
        history.unreadable_stages().partition(|record| record.is_incompatible);
    let mut odd = 0;
    for record in &damaged {
        odd += u64::from(store.objects.is_no_file(&record.object).await?);
    }
    let (incompatible, damaged) = (incompatible.len() as u64, (damaged.len() + lost) as u64);
    if damaged + incompatible == 0 {
        return Ok(history);
    }
    let part = |(number, what): (u64, &str)| {
        let verb = if number == 1 { "is" } else { "are" };
        format!("{} {verb} {what}", output::count(number, "record"))
    };
    let parts = [(damaged, "missing or corrupt"), (incompatible, "of another version of agrpo")];
    let parts = parts.into_iter().filter(|(number, _)| *number > 0).map(part);
    let parts = parts.collect::<Vec<_>>().join(" and ");
    let (title, run, url) = (output::run(history.run()), run.short(), store.url());
    let message = format!("{title}: {parts} in {url}; an export would be incomplete");
    Err(Failure::data(message)
        .hint(format!("agrpo verify {run} lists them"))
        .hint_if(odd > 0, move_away(url))
        .hint_if(damaged > odd, "agrpo run FILE --repair, with the run's file, computes them again")
        .hint_if(incompatible > 0, "use the newest version of agrpo that works on this store"))
}

/// The refusal of a run that has no policy yet.
pub(super) fn not_begun(history: &RunHistory) -> Failure {
    let run = output::run(history.run());
    Failure::usage(format!("{run} has no policy yet, so there is nothing to export"))
        .hint("agrpo run FILE computes it, from the run's file")
}
