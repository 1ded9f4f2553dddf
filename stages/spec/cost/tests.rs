//! Formulas of cost against numbers worked out by hand, and against proportions that were measured.

use super::*;
use crate::Family;
use crate::memory::{PassSizes, Sizes};
use crate::run::Numerics;

const SMOKE: &str = include_str!("../../../jobs/runs/smoke.toml");

fn costs(change: impl Fn(&str) -> String) -> Vec<StageCost> {
    let run = Run::parse(&change(SMOKE)).unwrap();
    Workload::of(&run, 24, 8).costs(&run, &Rates::assumed(Numerics::CpuPortable))
}

fn of(costs: &[StageCost], kind: StageKind) -> &StageCost {
    costs.iter().find(|cost| cost.kind == kind).unwrap()
}

fn part(cost: &StageCost, name: &str) -> f64 {
    cost.parts.iter().find(|part| part.name == name).map_or(0.0, |part| part.one)
}

/// On the published model, a token costs about two operations a weight beside attention's.
#[test]
fn a_pass_costs_two_operations_a_weight() {
    let llada = Sizes {
        family: Family::Llada,
        d_model: 4096,
        n_layers: 32,
        n_heads: 32,
        n_kv_heads: 32,
        head_size: 128,
        mlp_hidden_size: 12_288,
        n_experts: 1,
        experts_per_token: 1,
        vocabulary: 126_464,
    };
    let dream = Sizes {
        family: Family::Dream,
        d_model: 3584,
        n_layers: 28,
        n_heads: 28,
        n_kv_heads: 4,
        head_size: 128,
        mlp_hidden_size: 18_944,
        n_experts: 1,
        experts_per_token: 1,
        vocabulary: 152_064,
    };
    let pass = PassSizes { sequences: 3, length: 1, queried: 1 };
    for (sizes, all) in [(llada, 8_015_581_184.0), (dream, 7_615_616_512.0)] {
        // All matrices but the embedding, which is looked up.
        let weights = all - (sizes.vocabulary * sizes.d_model) as f64;
        assert!((sizes.forward_flops(&pass) / (6.0 * weights) - 1.0).abs() < 1e-3);
    }
}

/// Keys and values are made of fewer numbers where queries share them; attention's own work is that of the queries.
#[test]
fn grouped_queries_cost_fewer_keys() {
    let flops = |keys: &str| {
        let family = format!("\nfamily = \"dream\"\nn_heads = 4{keys}");
        of(&costs(|text| text.replacen("\nn_heads = 4", &family, 1)), StageKind::Sft).flops
    };
    // Two heads of 16 fewer, of keys and of values, in two blocks of 16 tokens: 4 64 32 operations each.
    assert_eq!(flops("") - flops("\nn_kv_heads = 2"), 3.0 * 2.0 * 16.0 * 8192.0 * 128.0 * 50.0);
}

/// D 64, n 2, M 160, V 24, L 16 of which 8 are a completion: worked out by hand.
#[test]
fn fine_tuning_and_rollouts_of_smoke_cost_what_their_passes_ask_for() {
    let plain = costs(str::to_owned);
    // A token of a block: 8 64^2 + 6 64 160 = 94,208, and 4 16 64 = 4,096 of attention. The last block: keys and
    // values of 16 tokens, the rest of 8, and 2 24 64 of the head for each of them.
    let pass = 16.0 * 98_304.0 + 16.0 * 16_384.0 + 8.0 * (98_304.0 - 16_384.0 + 3072.0);
    let fine_tuning = of(&plain, StageKind::Sft);
    assert_eq!(fine_tuning.flops, 3.0 * pass * 128.0 * 50.0);
    // In order of confidence, a step looks at 8, 7, ... 1 masked positions: 4.5. In their first step, the eight
    // completions of each of 32 prompts are in one state.
    let pass = 16.0 * 98_304.0 + 16.0 * 16_384.0 + 4.5 * (98_304.0 - 16_384.0 + 3072.0);
    assert_eq!(of(&plain, StageKind::Rollout).flops, pass * (256.0 * 8.0 - 224.0));
    let random = |text: &str| text.replacen("\"low-confidence\"", "\"random\"", 1);
    let pass = 16.0 * 98_304.0 + 16.0 * 16_384.0 + 98_304.0 - 16_384.0 + 3072.0;
    assert_eq!(of(&costs(random), StageKind::Rollout).flops, pass * (256.0 * 8.0 - 224.0));
    let every = f64::from(450u32 / 50);
    assert_eq!(fine_tuning.stages as f64, every);
}

#[test]
fn the_cost_of_a_kind_is_in_proportion_to_its_work() {
    let plain = costs(str::to_owned);
    let total: u64 = plain.iter().map(|cost| cost.stages).sum();
    assert_eq!(total, crate::Plan::total_stages(&Run::parse(SMOKE).unwrap()));
    let inner = SMOKE.replace("inner_updates = 1 ", "inner_updates = 24 ");
    let fused = inner.replace("fused_updates = false", "fused_updates = true");
    let [inner, fused] = [inner, fused].map(|text| {
        let costs = costs(|_| text.clone());
        let stages: u64 = costs.iter().map(|cost| cost.stages).sum();
        assert_eq!(stages, crate::Plan::total_stages(&Run::parse(&text).unwrap()));
        costs.iter().map(|cost| cost.stages as f64 * cost.flops).sum::<f64>()
    });
    assert!((fused / inner - 1.0).abs() < 1e-12, "the same work in fewer stages");
    let lora = "[lora]\nhead = true\n[training]";
    let kept = costs(|text| text.replace("[training]", lora));
    let again = |text: &str| {
        let text = text.replace("[training]", lora);
        text.replace("checkpointing = false", "checkpointing = true")
    };
    let passes = |costs: &[StageCost]| {
        let gradient = of(costs, StageKind::Gradient);
        // Products alone, without what is made between them.
        gradient.flops - part(gradient, "adapters") * 98e9
    };
    // Backward passes cost two of forward with all weights, one with a frozen base; one more again.
    assert!((passes(&kept) / passes(&plain) - 2.0 / 3.0).abs() < 1e-9);
    assert!((passes(&costs(again)) / passes(&plain) - 1.0).abs() < 1e-9);
    // 64 (I + O) numbers of each of seven matrices, two operations each.
    let numbers = 64.0 * (4.0 * 128.0 + 3.0 * 224.0);
    let (keys, head) = (64.0 * 2.0 * 128.0, 64.0 * (64.0 + 24.0));
    let of_state = 16.0 * numbers + 16.0 * keys + 4.5 * (numbers - keys + head);
    let adapters = part(of(&kept, StageKind::Rollout), "adapters");
    assert!((adapters * 98e9 / (2.0 * of_state * 1824.0) - 1.0).abs() < 1e-9);
    assert_eq!(part(of(&plain, StageKind::Rollout), "adapters"), 0.0);
}

/// The policy that sampled is computed for ratios that it did not record, from the second inner update on.
#[test]
fn other_policies_are_counted_where_they_compute() {
    let flops = |changes: &[(&str, &str)]| {
        let costs = costs(|text| {
            changes.iter().fold(text.to_owned(), |text, (from, to)| {
                assert!(text.contains(from), "{from}");
                text.replacen(from, to, 1)
            })
        });
        let of_kind = |kind| {
            let cost = of(&costs, kind);
            cost.stages as f64 * cost.flops
        };
        of_kind(StageKind::Gradient) + of_kind(StageKind::Updates)
    };
    let plain = flops(&[]);
    // A pass forward and two back; one more of another policy is a third.
    let others = |found: f64, updates: f64| (found / plain / updates - 1.0) * 3.0;
    let fused = ("fused_updates = false", "fused_updates = true");
    let twice = ("inner_updates = 1 ", "inner_updates = 2 ");
    let positions = ("position_gradient = false", "position_gradient = true");
    let kl = ("kl = 0.0", "kl = 0.1");
    for (changes, updates, expected) in [
        (vec![fused], 1.0, 0.0),
        (vec![twice], 2.0, 0.0),
        (vec![fused, twice], 2.0, 0.0),
        (vec![fused, twice, kl], 2.0, 1.0),
    ] {
        let found = others(flops(&changes), updates);
        assert!((found - expected).abs() < 1e-9, "{changes:?}: {found}");
    }
    // The choice of positions is read at more positions of the same states.
    let once = flops(&[positions]);
    for changes in [vec![twice, positions], vec![fused, twice, positions]] {
        let found = (flops(&changes) / once / 2.0 - 1.0) * 3.0;
        assert!((found - 0.5).abs() < 1e-9, "in the second of two: {changes:?}: {found}");
    }
}

/// Every part is the work over the rate that it names.
#[test]
fn a_rate_moves_its_own_part() {
    let run = Run::parse(SMOKE).unwrap();
    let workload = Workload::of(&run, 24, 8);
    let rates = Rates::assumed(Numerics::CpuPortable);
    let changed = |change: fn(&mut Rates)| {
        let mut rates = rates;
        change(&mut rates);
        let after = workload.costs(&run, &rates);
        let mut names = vec![];
        for (before, after) in workload.costs(&run, &rates_of_smoke()).iter().zip(&after) {
            for (before, after) in before.parts.iter().zip(&after.parts) {
                if before.one.to_bits() != after.one.to_bits() {
                    names.push(before.name);
                }
            }
        }
        names.dedup();
        names.join(" ")
    };
    assert_eq!(changed(|rates| rates.products *= 2.0), "passes");
    assert_eq!(changed(|rates| rates.grading *= 2.0), "grading");
    assert_eq!(changed(|rates| rates.hash *= 2.0), "update");
    assert_eq!(changed(|rates| rates.step *= 2.0), "steps update");
    assert_eq!(changed(|rates| rates.load *= 2.0), "load");
    assert_eq!(changed(|rates| rates.choice.unfiltered *= 2.0), "choice");
}

fn on(threads: f64) -> Places {
    Places { device: threads, host: threads }
}

fn rates_of_smoke() -> Rates {
    Rates::assumed(Numerics::CpuPortable)
}

/// Two shards on one, two and three GPUs: they wait for one another in waves, and all wait for the update.
#[test]
fn stages_wait_for_one_another() {
    let run = Run::parse(SMOKE).unwrap();
    let workload = Workload::of(&run, 24, 8);
    let mut costs = workload.costs(&run, &Rates::assumed(Numerics::CpuPortable));
    costs.iter_mut().for_each(|cost| cost.parts.retain(|part| part.by != By::After));
    let second = |cost: &StageCost| match cost.kind {
        StageKind::Rollout => 4.0,
        StageKind::Gradient => 2.0,
        StageKind::Update | StageKind::Sft => 1.0,
        StageKind::Evaluation => 10.0,
        StageKind::Reward | StageKind::Updates => 0.0,
    };
    let machine = |gpus| Machine { gpus: Some(gpus), threads: 1, workers: 1 };
    let chain = |gpus| machine(gpus).chain(&run, &costs, second);
    // Nine chunks, ten iterations of two waves; two evaluations between and one at the end.
    assert_eq!(chain(1).iteration, 2.0 * 6.0 + 1.0);
    assert_eq!(chain(1).seconds, 9.0 + 10.0 * 13.0 + 3.0 * 10.0);
    // While an evaluation has one of two GPUs, two shards take two waves instead of one: half of its time is lost.
    assert_eq!(chain(2).iteration, 7.0);
    assert_eq!(chain(2).seconds, 9.0 + 10.0 * 7.0 + 2.0 * 5.0 + 10.0);
    // Three GPUs have one to spare.
    assert_eq!(chain(3).seconds, 9.0 + 10.0 * 7.0 + 10.0);
    // In two shards, an evaluation has both of two GPUs for half as long.
    let text = SMOKE.replace("problems = 500", "shards = 2\nproblems = 500");
    let shared = Run::parse(&text).unwrap();
    let mut shared_costs = Workload::of(&shared, 24, 8).costs(&shared, &rates_of_smoke());
    shared_costs.iter_mut().for_each(|cost| cost.parts.retain(|part| part.by != By::After));
    let half = |cost: &StageCost| match cost.kind {
        StageKind::Evaluation => 5.0,
        _ => second(cost),
    };
    let seconds = machine(2).chain(&shared, &shared_costs, half).seconds;
    assert_eq!(seconds, 9.0 + 10.0 * 7.0 + 3.0 * 5.0);
    // Of two gradients on one GPU, the first is stored while the second is computed.
    let stored = |cost: &mut StageCost| cost.parts.push(TimePart::new("writes", By::After, 0.5));
    let mut stored_costs = costs.clone();
    stored_costs.iter_mut().filter(|cost| cost.kind == StageKind::Gradient).for_each(stored);
    assert_eq!(machine(1).chain(&run, &stored_costs, second).iteration, 13.0 - 0.5);
    assert!(chain(1).busy > chain(2).busy && chain(2).busy > chain(3).busy);
}

/// An update's time follows the trained numbers and the shards; fine-tuning's follows its steps.
#[test]
fn more_of_what_is_counted_takes_more_time() {
    let seconds = |kind, change: fn(&str) -> String| of(&costs(change), kind).seconds(on(1.0));
    let plain = |kind| seconds(kind, str::to_owned);
    let shards = |text: &str| text.replace("shards = 2", "shards = 8");
    assert!(seconds(StageKind::Update, shards) > plain(StageKind::Update));
    let longer = |text: &str| text.replace("steps_per_stage = 50", "steps_per_stage = 100");
    let ratio = seconds(StageKind::Sft, longer) / plain(StageKind::Sft);
    assert!((1.9..2.0).contains(&ratio), "{ratio}");
    let quicker = of(&costs(str::to_owned), StageKind::Sft).seconds(on(2.0));
    assert!((0.5..0.52).contains(&(quicker / plain(StageKind::Sft))));
}
