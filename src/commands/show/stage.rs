//! Shows a stage: its manifest in readable form, and for trajectories a few completions.
//!
//! `--json` gives the manifest as it is stored.

use agrpo_spec::{Manifest, RolloutSpec, StageDigest, StageSpec};
use agrpo_store::Store;
use agrpo_view::trajectory::Trajectories;

use crate::exit::{Exit, Failure};
use crate::output;

/// Completions that are shown.
const SHOWN: usize = 8;

pub(super) async fn show(store: &Store, stage: StageDigest, json: bool) -> Result<(), Failure> {
    let manifest = store.manifest(stage).await?.ok_or_else(|| {
        Failure::new(
            Exit::Data,
            format!("the manifest of stage {stage} is missing in {}", store.url()),
        )
    })?;
    if json {
        return output::json(&manifest);
    }
    output::line(describe(&manifest))?;
    if let StageSpec::Rollout(spec) = &manifest.spec
        && let Some(completions) = completions(store, spec, &manifest).await
    {
        output::line(format!("\ncompletions (the first {}):", completions.len()))?;
        completions.iter().try_for_each(output::line)?;
    }
    Ok(())
}

fn describe(manifest: &Manifest) -> String {
    let Manifest { stage, spec, outputs, metrics, environment: made, phases } = manifest;
    let mut rows = vec![
        ("stage", stage.to_string()),
        ("kind", format!("{}, version {}", spec.kind(), spec.version())),
        ("numerics", spec.numerics().to_string()),
    ];
    let mut section = |name, values: Vec<String>| {
        let names = std::iter::once(name).chain(std::iter::repeat(""));
        rows.extend(names.zip(values));
    };
    section(
        "inputs",
        spec.inputs().iter().map(|(role, digest)| format!("{digest}  {role}")).collect(),
    );
    let output = |(name, record): (&String, &agrpo_spec::OutputRecord)| {
        format!("{}  {name}, {}", record.digest, output::size(record.size))
    };
    section("outputs", outputs.iter().map(output).collect());
    section("metrics", metrics.iter().map(|(name, value)| format!("{name} {value}")).collect());
    section(
        "made",
        vec![
            format!("{} by {}", utc(made.started_unix_ms), made.worker),
            format!("on {}, {}, {}", made.host, made.cpu, made.platform),
            format!("agrpo {}, libtorch {}, {} thread", made.agrpo, made.libtorch, made.threads),
        ],
    );
    section(
        "took",
        vec![format!(
            "{:.1} ms: fetch {:.1}, compute {:.1}, store {:.1}",
            phases.fetch_ms + phases.compute_ms + phases.store_ms,
            phases.fetch_ms,
            phases.compute_ms,
            phases.store_ms
        )],
    );
    let spec = serde_json::to_string_pretty(spec).unwrap_or_default();
    format!("{}\n\nspec:\n{spec}", output::fields(&rows))
}

/// A few prompts with their completions; `None` where the store has lost what it takes to read them.
async fn completions(
    store: &Store,
    spec: &RolloutSpec,
    manifest: &Manifest,
) -> Option<Vec<String>> {
    let all = Trajectories::read(store, spec, manifest).await.ok()?;
    let line = |(prompt, completion): (String, String)| format!("  {prompt:?}  {completion:?}");
    Some((0..SHOWN).map_while(|row| all.texts(row)).map(line).collect())
}

/// A time for people: `2026-11-23 05:13:09 UTC`. The calendar is the proleptic Gregorian one, counted
/// from 1 March of year 0 so that leap days come last.
fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let day = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_date_prints() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399_000), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_410_789_000), "2026-11-23 05:13:09 UTC");
    }
}
