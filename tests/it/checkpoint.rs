//! A checkpoint with a tokenizer, trained on a dataset by a published protocol: fetched, checked, adapted and
//! replayed. Every wrong file is refused before anything is computed.
//!
//! The checkpoint is small and random. Its head favours whole tags, so that completions differ in
//! reward.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use agrpo_compute::model::{ModelConfig, Policy};
use agrpo_spec::{ArtifactDigest, Seed};
use insta::assert_snapshot;
use serde_json::{Map, Value, json};

use crate::lora::manifests;
use crate::support;
use crate::support::program::Program;
use crate::support::redis::RedisServer;
use crate::support::s3::S3Server;

pub(crate) const TAGS: [&str; 6] =
    ["<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "8}"];
const SPECIAL: [&str; 6] = [
    "<|startoftext|>",
    "<|endoftext|>",
    "<|mdm_mask|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
];

/// A run of a checkpoint: unlike the runs of `run_file.rs`, it has no `[model]` and no `[sft]`.
pub(crate) const RUN: &str = r#"
name = "words"
seed = 5
[task.benchmark]
name = "gsm8k"
protocol = "agrpo"
train = { from = "train.jsonl" }
test = { from = "test.jsonl" }
prompt_tokens = 480
[checkpoint]
folder = { from = "checkpoint" }
[checkpoint.shape]
d_model = 32
n_layers = 2
n_heads = 2
mlp_hidden_size = 48
embedding_size = 272
max_sequence_length = 512
[lora]
rank = 2
alpha = 4.0
head = false
[rollout]
prompts = 4
group = 6
shards = 2
micro_batch = 8
completion_tokens = 16
block_tokens = 8
steps = 8
temperature = 0.7
[estimator]
k = 2
micro_batch = 8
checkpointing = true
[optimizer]
learning_rate = 1e-2
[training]
iterations = 2
[evaluation]
problems = 2
every = 2
steps = [8]
micro_batch = 4
"#;

/// A byte-level `tokenizer.json`: bytes are tokens, then come the tags and the special tokens. Bytes that
/// have no character of their own borrow one from 256 on, as in GPT-2.
pub(crate) fn tokenizer(special: &[&str]) -> Value {
    let mut borrowed = 256..;
    let vocabulary = (0..=255u8).map(|byte| {
        let own = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let code = if own { u32::from(byte) } else { borrowed.next().unwrap() };
        (char::from_u32(code).unwrap().to_string(), Value::from(byte))
    });
    let added = (256..).zip(TAGS.iter().chain(special)).map(|(id, text)| {
        json!({
            "id": id, "content": text, "special": special.contains(text), "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    json!({
        "version": "1.0", "added_tokens": added.collect::<Vec<_>>(), "pre_tokenizer": byte_level,
        "decoder": byte_level, "normalizer": null, "post_processor": null,
        "model": { "type": "BPE", "vocab": vocabulary.collect::<Map<_, _>>(), "merges": [] },
    })
}

fn id(text: &str) -> i64 {
    let index = TAGS.iter().chain(&SPECIAL).position(|other| *other == text).unwrap();
    256 + i64::try_from(index).unwrap()
}

pub(crate) fn checkpoint(folder: &Path) {
    let shape = support::checkpoint::shape(32, 2, 2, 48);
    let config = ModelConfig::new(&shape, 272, id("<|endoftext|>"), id("<|mdm_mask|>"), 512);
    let policy = Policy::draw(config, 0.1, Seed::new(1)).unwrap();
    // The same memory as the policy's.
    let head = &policy.parameters()["model.transformer.ff_out.weight"];
    drop(head.narrow(0, 0, 256).zero_());
    drop(head.narrow(0, 256, 6).g_mul_scalar_(4.0));
    drop(head.narrow(0, 262, 10).zero_());
    fs::create_dir_all(folder).unwrap();
    for (name, content) in policy.to_files().unwrap() {
        fs::write(folder.join(name), content.bytes(1 << 24).unwrap()).unwrap();
    }
    fs::write(folder.join("tokenizer.json"), tokenizer(&SPECIAL).to_string()).unwrap();
    fs::write(folder.join("README.md"), "made up").unwrap();
}

/// Seven problems for training and three for evaluation.
fn rows(path: &Path, numbers: std::ops::Range<u32>) {
    let row = |n: u32| {
        format!("{{\"question\": \"What is {n} + {n}?\", \"answer\": \"It is #### {}\"}}\n", 2 * n)
    };
    fs::write(path, numbers.map(row).collect::<String>()).unwrap();
}

/// A folder with the run, its checkpoint and its datasets.
pub(crate) fn program(environment: &[(&str, &str)]) -> Program {
    let program = Program::new(environment);
    let folder = program.folder();
    fs::write(folder.join("run.toml"), RUN).unwrap();
    checkpoint(&folder.join("checkpoint"));
    rows(&folder.join("train.jsonl"), 1..8);
    rows(&folder.join("test.jsonl"), 20..23);
    program
}

#[test]
fn a_checkpoint_is_adapted_to_a_dataset_and_every_stage_replays() {
    let program = program(&[]);
    let said = program.run(&["run", "run.toml", "--workers", "2"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    for part in [
        "task.benchmark.train has the SHA-256 ",
        "checkpoint.folder: left out README.md",
        "memory, estimated: ",
    ] {
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    let (policy, state) = program.policy();
    assert_eq!(state, "done");
    let rewards = manifests(&program, "reward");
    assert!(rewards.iter().any(|stage| stage["metrics"]["nonzero_advantages"] != 0.0));
    for stage in manifests(&program, "gradient") {
        assert_eq!(stage["metrics"]["ratio_deviation"], 0.0, "on bf16 weights too");
    }
    let replayed = program.run(&["replay", "--run", "words"]);
    assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);

    // The run knows contents alone: without its files, and with one worker, it is the same.
    for name in ["train.jsonl", "test.jsonl"] {
        let text = fs::read(program.folder().join(name)).unwrap();
        let digest = ArtifactDigest::of(&text);
        fs::remove_file(program.folder().join(name)).unwrap();
        let path = program.folder().join("run.toml");
        let run = fs::read_to_string(&path).unwrap();
        fs::write(
            &path,
            run.replace(&format!("{{ from = \"{name}\" }}"), &format!("\"{digest}\"")),
        )
        .unwrap();
    }
    let again = program.run(&["run", "run.toml", "--workers", "1"]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stdout.contains("0 stages computed"), "{}", again.stdout);
    assert_eq!(program.policy().0, policy);

    // Base and trained policy can be measured, though no stage made the base.
    let measured = program.json(&["evaluate", "words", "--steps", "8,4", "--json"]);
    let policies = measured["evaluations"].as_array().map(Vec::len);
    assert_eq!(policies, Some(4), "{measured}");
    program.json(&[
        "tune",
        "words",
        "--k",
        "1,2",
        "--repeats",
        "4",
        "--prompts",
        "7",
        "--iteration",
        "base",
        "--json",
    ]);
}

#[test]
fn a_benchmark_run_is_measured_by_either_protocol_at_any_length() {
    let program = program(&[]);
    assert_eq!(program.run(&["run", "run.toml"]).code, Some(0));
    let by = |protocol: &str| {
        let question = ["evaluate", "words", "--grid", "16x8,32", "--protocol", protocol, "--json"];
        program.json(&question)
    };
    let own = by("agrpo");
    let latest = &program.json(&["status", "--json"])["runs"][0]["accuracy"]["latest"];
    assert_eq!((&own["protocol"], &own["evaluations"][2]["score"]), (&json!("agrpo"), latest));
    let d1 = by("d1");
    assert_eq!((&d1["protocol"], &d1["stages"]["computed"]), (&json!("d1"), &json!(4)));
    assert_eq!((&d1["run"], by("d1")["stages"]["reused"].as_u64()), (&own["run"], Some(4)));
    let said = program.run(&["evaluate", "words", "--grid", "48"]);
    assert_eq!(said.code, Some(2));
    let expected = "error: --grid 48x24: task.benchmark.prompt_tokens = 480: expected at most 464";
    assert!(said.stderr.starts_with(expected), "{}", said.stderr);
}

#[test]
fn a_fleet_fetches_what_the_run_names_from_its_bucket() {
    let alone = program(&[]);
    assert_eq!(alone.run(&["run", "run.toml"]).code, Some(0));
    let (redis, s3) = (RedisServer::start(&[]), S3Server::start());
    let url = redis.url();
    let fleet = program(&[&s3.environment()[..], &[("AGRPO_REDIS", &url)]].concat());
    let first = fleet.json(&["enqueue", "run.toml", "--json"]);

    // From its own blob in the bucket the dataset is the same, and so is the run.
    let path = fleet.folder().join("test.jsonl");
    let digest = ArtifactDigest::of(&fs::read(&path).unwrap());
    fs::remove_file(path).unwrap();
    let source = format!("task.benchmark.test=s3://agrpo/cas/{digest}");
    let second = fleet.json(&["enqueue", "run.toml", "--source", &source, "--json"]);
    assert_eq!(second["run"], first["run"]);

    let said = fleet.run(&["worker", "--exit-when-idle", "8"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(fleet.policy(), alone.policy());
}

/// Each fault is one line of error, and nothing is computed.
fn refused(change: impl Fn(&Path), arguments: &[&str]) -> String {
    let program = program(&[]);
    change(program.folder());
    let said = program.run(&[&["run", "run.toml"], arguments].concat());
    assert_eq!(said.code, Some(2), "{}{}", said.stdout, said.stderr);
    assert!(!program.store().join("stages").exists());
    let folder = program.folder().display().to_string();
    let lines = said.stderr.lines().filter(|line| line.starts_with("error: "));
    lines.collect::<Vec<_>>().join("\n").replace(&folder, "[folder]")
}

fn edited(name: &'static str, from: &'static str, to: &'static str) -> impl Fn(&Path) {
    move |folder| {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }
}

/// A server that answers one request with 404.
fn empty_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    format!("http://{address}/test.jsonl")
}

#[test]
fn wrong_files_are_refused_before_anything_is_computed() {
    let server = empty_server();
    let all = [
        refused(edited("run.toml", "rank = 2", "rank = 2\ntargets = [\"o_proj\"]"), &[]),
        refused(edited("checkpoint/config.json", "\"llada\"", "\"Dream\""), &[]),
        refused(
            edited("checkpoint/config.json", "\"mask_token_id\": 264", "\"mask_token_id\": 9"),
            &[],
        ),
        refused(|folder| fs::remove_file(folder.join("checkpoint/tokenizer.json")).unwrap(), &[]),
        refused(edited("run.toml", "d_model = 32", "d_model = 64"), &[]),
        refused(edited("run.toml", "prompt_tokens = 480", "prompt_tokens = 500"), &[]),
        refused(edited("run.toml", "prompt_tokens = 480", "prompt_tokens = 64"), &[]),
        refused(edited("train.jsonl", "\"answer\": \"It is #### 6\"", "\"reply\": \"6\""), &[]),
        refused(edited("train.jsonl", "It is #### 6", "It is six"), &[]),
        refused(edited("train.jsonl", "What is 2 + 2?", "What is <|eot_id|>?"), &[]),
        refused(edited("test.jsonl", "What is 21 + 21?", "Say <|mdm_mask|>."), &[]),
        refused(edited("run.toml", "problems = 2", "problems = 4"), &[]),
        refused(
            edited("run.toml", "[rollout]", "[reward]\nweights = { integer = 1.0 }\n[rollout]"),
            &[],
        ),
        refused(|folder| fs::remove_file(folder.join("test.jsonl")).unwrap(), &[]),
        refused(|_| (), &["--source", "task.benchmark.test=train.parquet"]),
        refused(|_| (), &["--source", "task.test=train.jsonl"]),
        refused(|_| (), &["--source", &format!("task.benchmark.test={server}")])
            .replace(&server, "[address]"),
        refused(
            edited(
                "run.toml",
                "\"test.jsonl\" }",
                "\"test.jsonl\", sha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\" }",
            ),
            &[],
        ),
    ];
    assert_snapshot!(all.join("\n"), @r##"
    error: run.toml: lora.targets = "o_proj": expected modules of a block of LLaDA: q_proj, k_proj, v_proj, attn_out, ff_proj, up_proj, ff_out; lora.head is for the head
    error: run.toml: checkpoint.folder: checkpoint: config.json: missing field `hidden_size`; expected a Dream configuration
    error: run.toml: checkpoint.folder: checkpoint: tokenizer.json: <|mdm_mask|> is token 264, but config.json has mask_token_id = 9: tokenizer and model are not of one checkpoint
    error: run.toml: checkpoint.folder: the folder has no tokenizer.json
    error: run.toml: checkpoint.shape.d_model = 64: the checkpoint's config.json has 32
    error: run.toml: task.benchmark.prompt_tokens = 500: expected at most 496: with completions of 16 tokens the model's context of 512 is full
    error: run.toml: task.benchmark.prompt_tokens = 64: the prompt that ends in "hink>\n...\n</think>\n<answer>\n\\boxed{...}\n</answer>user\n\nWhat is 1 + 1?assistant\n\n" has 283 tokens; raise the key, or leave the problem out of the dataset
    error: run.toml: task.benchmark.train: row 3 has no answer: expected the solution with #### before its number, or the number alone
    error: run.toml: task.benchmark.train: row 3, answer = "It is six": expected the solution with #### before its number, or the number alone
    error: run.toml: task.benchmark.train: row 2: a message spells a special token such as <|eot_id|>; leave it out
    error: run.toml: task.benchmark.test: row 2: a message spells a special token such as <|eot_id|>; leave it out
    error: run.toml: evaluation.problems = 4: expected at most 3, which task.benchmark.test has
    error: run.toml: reward.weights = integer: expected one of thinking_format, answer_format, correctness
    error: run.toml: task.benchmark.test: test.jsonl: cannot be read: entity not found
    error: run.toml: task.benchmark.test: train.parquet: cannot be read: entity not found
    error: run.toml: --source task.test: the run file names these files: task.benchmark.train, task.benchmark.test, checkpoint.folder
    error: run.toml: task.benchmark.test: [address]: the server answered 404 Not Found; check the address and the right to read it
    error: run.toml: task.benchmark.test: test.jsonl has the SHA-256 d89f7065ee692ed1f40283f0069941a6455e488ca3f33e812c7be0cec67b2911, expected ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad: it is not the file that the run was written for
    "##);
}

/// So many workers at once that no machine has memory for all of them.
#[test]
fn a_run_that_cannot_fit_is_refused_with_the_numbers() {
    let program = program(&[]);
    let said = program.run(&["run", "run.toml", "--workers", "4096"]);
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    for part in [" needs about ", " of memory, ", "program 130 MiB", "--ignore-memory"] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
    assert!(!program.store().exists(), "not even its files are fetched");
}

#[test]
fn a_dry_run_needs_none_of_the_files() {
    let program = Program::new(&[]);
    fs::write(program.folder().join("run.toml"), RUN).unwrap();
    let said = program.run(&["run", "run.toml", "--dry-run", "--threads", "2", "--tflops", "0.1"]);
    assert!(!program.store().exists());
    assert_snapshot!(said.stdout, @r"
    run       d89217e10dbff8bb96e54422ce8195e51894454e7525ef7d6a968cc3806ac99d (words, cpu-portable)
              without task.benchmark.train, task.benchmark.test, checkpoint.folder: its id is another one once they are fetched
    stages    16 in all
    kind        stages  TFLOP  seconds  writes     memory
    rollout     4       0.004  0.070    281.09 kB  142.74 MB
    reward      4       0.000  0.0016   768 B      -
    gradient    4       0.003  0.059    7.94 kB    148.72 MB
    update      2       0.000  0.0016   23.81 kB   136.48 MB
    evaluation  2       0.001  0.014    16.38 kB   139.57 MB
    seconds   rollout: passes 0.067, adapters 0.0011, writes 0.0004, records 0.0015
    seconds   reward: grading 0.0001, records 0.0015
    seconds   gradient: passes 0.057, adapters 0.0011, records 0.0015
    seconds   update: records 0.0015
    seconds   evaluation: passes 0.012, adapters 0.0002, records 0.0015
    memory    rollout: program 136.31 MB, weights 69.95 kB, adapters 7.94 kB, block at work 6.35 MB
    memory    gradient: program 136.31 MB, weights 69.95 kB, adapters 7.94 kB, gradients 7.94 kB, block inputs 507.90 kB, block at work 11.79 MB, gradients of passes 7.94 kB, output 7.94 kB
    memory    update: program 136.31 MB, inputs 109.63 kB, gradients 7.94 kB, moments 15.87 kB, new policy 7.94 kB, output 23.81 kB
    memory    evaluation: program 136.31 MB, weights 69.95 kB, adapters 7.94 kB, block at work 3.17 MB
    memory    process: 230.05 MB, with 2 stages in hand and what its allocator keeps
    store     1.24 MB over the whole run
    assumed   products 0.10 TFLOP/s of a thread (--tflops N says better), adapters 0.10; hashes 1.8 GB/s of a thread, the store 0.7 GB/s; docs/scale.md says from what
    time      up to 0s on 2 threads, with the longest prompts; an iteration 0.132 s; computing 94.8% of the time
    ");
}
