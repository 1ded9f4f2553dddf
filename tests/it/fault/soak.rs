//! Many random schedules, several at a time: `make soak`. Ends with a table and the log of all of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::judge::Row;
use super::scene::lock;
use super::schedule::Schedule;
use super::{play, say, setting};

/// One schedule in so many has a fault that costs half a minute and more.
const COSTLY: u64 = 10;

/// The number-th schedule of a soak.
fn schedule(seed: u64, number: u64) -> Schedule {
    let drawn = seed.wrapping_mul(1_000_003).wrapping_add(number);
    Schedule::mix(&format!("soak-{number:04}"), drawn, number % COSTLY == COSTLY - 1)
}

#[test]
#[ignore = "half an hour: make soak"]
fn soak() {
    let (seed, count) = (setting("SEED", 1), setting("SCHEDULES", 200));
    let (next, all) = (AtomicU64::new(setting("FIRST", 0)), Mutex::new(vec![]));
    let end = setting("FIRST", 0) + count;
    let begin = Instant::now();
    say(&format!("soak of {count} schedules, seed {seed}\n{}", Row::head()));
    std::thread::scope(|scope| {
        for _ in 0..setting("PARALLEL", 4) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    let schedule = schedule(seed, number);
                    let (row, words) = play(&schedule);
                    say(&format!("{row}\n    {schedule}"));
                    if !row.complaints.is_empty() {
                        say(&format!("    {:?}{words}", row.complaints));
                    }
                    lock(&all).push((schedule, row));
                }
            });
        }
    });
    let all = lock(&all);
    say(&summary(&all, seed, begin.elapsed().as_secs()));
    let broken: Vec<_> = all.iter().filter(|(_, row)| !row.complaints.is_empty()).collect();
    assert!(broken.is_empty(), "{} of {} schedules are broken", broken.len(), all.len());
}

fn summary(all: &[(Schedule, Row)], seed: u64, seconds: u64) -> String {
    // How many took place, of how many.
    let mut kinds = BTreeMap::<_, (u32, u32)>::new();
    for witness in all.iter().flat_map(|(_, row)| &row.witness) {
        let (struck, drawn) = kinds.entry(witness.kind).or_default();
        *struck += u32::from(witness.found.is_ok());
        *drawn += 1;
    }
    let sum = |of: fn(&Row) -> usize| all.iter().map(|(_, row)| of(row)).sum::<usize>();
    let broken = all.iter().filter(|(_, row)| !row.complaints.is_empty()).count();
    let mut text = format!(
        "\nsoak, seed {seed}: {} schedules in {seconds} s, {broken} broken\n\
         stages begun {}, begun again {}, results that came twice {}, worker processes that ended {}\n\
         faults that took place, of those drawn:",
        all.len(),
        sum(|row| row.begun),
        sum(|row| row.extra),
        all.iter().map(|(_, row)| row.twice).sum::<u64>(),
        sum(|row| row.deaths),
    );
    for (kind, (struck, drawn)) in kinds {
        write!(text, " {kind} {struck} of {drawn}").unwrap();
    }
    let longest = all.iter().filter_map(|(_, row)| row.redelivery_ms).max().unwrap_or_default();
    let mut slowest: Vec<_> = all.iter().map(|(_, row)| row).collect();
    slowest.sort_by_key(|row| std::cmp::Reverse(row.wall));
    write!(text, "\nlongest redelivery {longest} ms; the slowest:\n{}", Row::head()).unwrap();
    for row in slowest.iter().take(5) {
        write!(text, "\n{row}").unwrap();
    }
    text
}
