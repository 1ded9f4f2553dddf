//! Regressions: damaged bytes that once caused a panic, a hang or an unbounded allocation.

use agrpo_compute::trajectories::Trajectories;
use agrpo_decoders::Decoder;
use agrpo_spec::{Rewards, Run, decode, encode, sources};

fn accepts(decoder: &str, bytes: &[u8]) -> bool {
    (Decoder::named(decoder).expect("a decoder's name").accepts)(bytes)
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn rewards_of_as_many_rows_as_they_say() {
    for rows in [1 << 40, u64::MAX / 64, u64::MAX] {
        assert!(decode::<Rewards>(&encode(&(rows, 0u64))).is_none());
    }
}

#[test]
fn a_tensor_of_a_huge_size_and_none() {
    for shape in ["[0,18446744073709551615]", "[0,9223372036854775807,9223372036854775807]"] {
        let header = format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#);
        assert!(!accepts("tensor-windows", &safetensors(&header, 0)), "{shape}");
    }
}

/// A reader goes through their rows, of which there would be 2^40.
#[test]
fn trajectories_of_many_rows_without_tokens() {
    let names = ["completion_ids", "prompt_ids", "token_entropies", "token_logps", "unmask_steps"];
    let tensor = |name: &str| {
        let kind = if name.starts_with("token") { "F32" } else { "I64" };
        format!(r#""{name}":{{"dtype":"{kind}","shape":[1099511627776,0],"data_offsets":[0,0]}}"#)
    };
    let header = format!("{{{}}}", names.map(tensor).join(","));
    let refused = Trajectories::from_bytes(&safetensors(&header, 0)).unwrap_err().to_string();
    assert_eq!(refused, "trajectories: 1099511627776 rows of 0 + 0 tokens, expected some of each");
}

#[test]
fn a_run_file_of_megabytes() {
    let text = " ".repeat((1 << 20) + 1);
    let refused = Run::parse(&text).unwrap_err().to_string();
    assert_eq!(refused, "1048577 bytes, expected at most 1048576: this is no run file");
    // The run's own reader says why.
    assert_eq!(sources(&text).unwrap(), []);
}

#[test]
fn patterns_of_an_adapter_that_take_megabytes() {
    let config = |pattern: &str| {
        let seed = String::from_utf8(Decoder::named("adapter-config").unwrap().seeds()[1].clone());
        let mut document: serde_json::Value = serde_json::from_str(&seed.unwrap()).unwrap();
        document["target_modules"] = pattern.into();
        document.to_string().into_bytes()
    };
    assert!(!accepts("adapter-config", &config(&"(".repeat(20_000))));
    assert!(!accepts("adapter-config", &config(r"(?:\w{100}){100}")));
}

/// The crate that reads tokenizers accepts a value of which it has read a half.
#[test]
fn a_tokenizer_that_is_cut_inside_a_decoder() {
    let whole = Decoder::named("tokenizer").unwrap().seeds()[0].clone();
    let text = String::from_utf8(whole).unwrap();
    for cut in [r#""decoder":{"add_prefix_space""#, r#""decoder":{"add_prefix_space":true"#] {
        let end = text.find(cut).unwrap() + cut.len();
        assert!(!accepts("tokenizer", &text.as_bytes()[..end]));
        assert!(!accepts("tokenizer", format!("{}}}}}", &text[..end]).as_bytes()));
    }
}

/// The unpacked size of a page was allocated and zeroed before anything was unpacked.
#[test]
fn a_page_of_gigabytes() {
    let decoder = Decoder::named("rows-parquet").unwrap();
    let whole = &decoder.seeds()[1];
    // The first page: its kind (0x15 and a number), then its unpacked size (0x15 and a number of two bytes).
    let at = whole.windows(3).position(|part| part[0] == 0x15 && part[2] == 0x15).unwrap() + 3;
    let long = whole[at] >= 0x80;
    let end = at + 1 + usize::from(long);
    let huge = [&whole[..at], &[0xfe, 0xff, 0xff, 0xff, 0x0f], &whole[end..]].concat();
    assert!(accepts("rows-parquet", whole));
    assert!(!accepts("rows-parquet", &huge));
}
