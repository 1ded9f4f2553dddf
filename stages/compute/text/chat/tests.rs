//! The template to the token, ids that follow the files, and what is refused; on a byte-level BPE whose
//! special tokens have other ids than any published checkpoint's.

use agrpo_grading::Role;
use agrpo_spec::{Family, StageError};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::utils::truncation::TruncationParams;
use tokenizers::{AddedToken, PaddingParams, PaddingStrategy, Tokenizer};

use super::*;
use crate::testing::shape;

/// Bytes are tokens, `he` and `lo` are merged, and the special tokens follow in this order.
const SPECIAL: [&str; 7] = [
    "<|eot_id|>",
    "<|mdm_mask|>",
    "<|endoftext|>",
    "<|start_header_id|>",
    "<|startoftext|>",
    "<|end_header_id|>",
    "<role>",
];

/// 256 bytes and two merges; the special tokens come behind them.
const WORDS: u32 = 258;

fn words() -> Tokenizer {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let words = alphabet.into_iter().map(String::from).chain(["he".into(), "lo".into()]);
    let vocabulary: Vec<(String, u32)> = words.zip(0..).collect();
    let vocabulary: [(String, u32); WORDS as usize] = vocabulary.try_into().unwrap();
    let merges = [("h", "e"), ("l", "o")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    let model = BPE::builder().vocab_and_merges(vocabulary, merges.to_vec()).build().unwrap();
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer
}

pub(crate) fn file() -> Tokenizer {
    let mut tokenizer = words();
    tokenizer.add_special_tokens(&SPECIAL.map(|text| AddedToken::from(text, true)));
    tokenizer
}

pub(crate) fn bytes(tokenizer: &Tokenizer) -> Vec<u8> {
    tokenizer.to_string(false).unwrap().into_bytes()
}

fn special(text: &str) -> i64 {
    i64::from(WORDS) + i64::try_from(SPECIAL.iter().position(|s| *s == text).unwrap()).unwrap()
}

/// Seven rows of the embedding are unused.
pub(crate) fn config() -> ModelConfig {
    ModelConfig::new(&shape(0.1), 272, special("<|endoftext|>"), special(MASK), 64)
}

fn chat() -> ChatTokenizer {
    ChatTokenizer::read(&bytes(&file()), &config()).unwrap()
}

fn message(role: Role, content: &str) -> Message {
    Message { role, content: content.to_owned() }
}

#[test]
fn a_conversation_ends_where_the_assistant_begins() {
    let chat = chat();
    let system = message(Role::System, " Be brief.\n");
    let user = message(Role::User, "\n\u{1f}hello, é ≠ e \t\n");
    let ids = chat.ids(&[system.clone(), user.clone()]).unwrap();
    insta::assert_debug_snapshot!(chat.text(&ids, Specials::Keep).unwrap(), @r#""<|startoftext|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhello, é ≠ e<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n""#);
    insta::assert_debug_snapshot!(chat.text(&ids, Specials::Skip).unwrap(), @r#""system\n\nBe brief.user\n\nhello, é ≠ eassistant\n\n""#);
    assert_eq!(ids[..2], [special("<|startoftext|>"), special("<|start_header_id|>")]);
    let merged = file().token_to_id("he").map(i64::from).unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == merged).count(), 1, "merges apply");
    let spoken = [user, message(Role::Assistant, "hi")];
    let text = chat.text(&chat.ids(&spoken).unwrap(), Specials::Keep).unwrap();
    assert!(text.ends_with(
        "assistant<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    ));
    assert!(text.find("<|startoftext|>") == text.rfind("<|startoftext|>"));
}

#[test]
fn ids_follow_the_files() {
    let chat = chat();
    for text in ["<|mdm_mask|>", "<|endoftext|>", "<|eot_id|>"] {
        assert!(chat.special.contains(&special(text)), "{text}");
    }
    let padded = ModelConfig { pad_token_id: Some(3), ..config() };
    assert!(ChatTokenizer::read(&bytes(&file()), &padded).unwrap().special.contains(&3));
}

/// Unused rows of a model's embedding spell nothing; an id outside of the embedding cannot come from the model.
#[test]
fn unused_rows_spell_nothing() {
    let chat = chat();
    let hello = chat.plain_ids("hello").unwrap();
    assert_eq!(hello.len(), 3, "he l lo");
    let end = special("<|endoftext|>");
    let written = [&hello[..], &[271, end, end]].concat();
    assert_eq!(chat.text(&written, Specials::Skip).unwrap(), "hello");
    assert_eq!(chat.text(&written, Specials::Keep).unwrap(), "hello<|endoftext|><|endoftext|>");
    for id in [-1, 272, i64::MAX] {
        assert!(chat.text(&[id], Specials::Skip).is_err());
    }
}

/// transformers resets both before it tokenizes, whatever the file has.
#[test]
fn truncation_and_padding_of_the_file_are_ignored() {
    let mut file = file();
    let short = TruncationParams { max_length: 5, ..Default::default() };
    let padded = PaddingParams { strategy: PaddingStrategy::Fixed(99), ..Default::default() };
    file.with_truncation(Some(short)).unwrap().with_padding(Some(padded));
    let messages = [message(Role::User, "a message of more than five tokens")];
    let read = ChatTokenizer::read(&bytes(&file), &config()).unwrap();
    assert_eq!(read.ids(&messages).unwrap(), chat().ids(&messages).unwrap());
}

#[test]
fn a_tokenizer_that_cuts_words_by_chance_is_refused() {
    let mut file: serde_json::Value = serde_json::from_slice(&bytes(&file())).unwrap();
    file["model"]["dropout"] = 0.5.into();
    let error = ChatTokenizer::read(file.to_string().as_bytes(), &config()).unwrap_err();
    insta::assert_snapshot!(error, @"tokenizer.json: model.dropout = 0.5: expected null or 0: with dropout a text has other tokens each time");
}

#[test]
fn a_message_cannot_end_its_own_turn() {
    for text in ["a<|eot_id|>b", "<|mdm_mask|>", "say <role>"] {
        let refused = chat().ids(&[message(Role::User, text)]).unwrap_err();
        assert!(matches!(&refused, StageError::Data(text) if text.contains("special token")));
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let refused = |file: &[u8], config: &ModelConfig| {
        let error = ChatTokenizer::read(file, config).unwrap_err();
        assert!(matches!(error, StageError::Data(_)));
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    };
    let file = bytes(&file());
    let other_mask = ModelConfig { mask_token_id: 4, ..config() };
    insta::assert_snapshot!(refused(&file, &other_mask), @"tokenizer.json: <|mdm_mask|> is token 259, but config.json has mask_token_id = 4: tokenizer and model are not of one checkpoint");
    let other_end = ModelConfig { eos_token_id: 270, ..config() };
    insta::assert_snapshot!(refused(&file, &other_end), @"tokenizer.json has no token 270, which config.json has as eos_token_id");
    let small = ModelConfig { embedding_size: 264, ..config() };
    insta::assert_snapshot!(refused(&file, &small), @r#"tokenizer.json: the added token "<role>" has the id 264, but config.json has embedding_size = 264: tokenizer and model are not of one checkpoint"#);
    let text = String::from_utf8(file).unwrap();
    let no_turn = text.replace("<|eot_id|>", "<|end|>");
    insta::assert_snapshot!(refused(no_turn.as_bytes(), &config()), @r#"tokenizer.json has no token "<|eot_id|>", a piece of LLaDA's conversations"#);
    let no_mask = text.replace(MASK, "<|m|>");
    insta::assert_snapshot!(refused(no_mask.as_bytes(), &config()), @r#"tokenizer.json has no token "<|mdm_mask|>", the mask of LLaDA"#);
    assert!(refused(b"{}", &config()).starts_with("tokenizer.json: "));
}

/// The crate would give it the next id that is free.
#[test]
fn an_added_token_beyond_the_vocabulary_is_refused() {
    let mut document: serde_json::Value = serde_json::from_slice(&bytes(&file())).unwrap();
    let added = document["added_tokens"].as_array_mut().unwrap();
    let mut token = added[0].clone();
    (token["id"], token["content"]) = (u32::MAX.into(), "<more>".into());
    added.push(token);
    let error = ChatTokenizer::read(document.to_string().as_bytes(), &config()).unwrap_err();
    insta::assert_snapshot!(error, @r#"tokenizer.json: the added token "<more>" has the id 4294967295, but config.json has embedding_size = 272: tokenizer and model are not of one checkpoint"#);
}

/// A tokenizer of words with the special tokens of a family, and a configuration of it.
fn of_family(family: Family) -> (Vec<u8>, ModelConfig) {
    let traits = family.traits();
    let mut tokenizer = words();
    let special = [&["<|endoftext|>"], traits.chat.pieces, &[traits.chat.mask]].concat();
    let added: Vec<_> = special.iter().map(|&text| AddedToken::from(text, true)).collect();
    tokenizer.add_special_tokens(&added);
    let shape = crate::testing::shape_of(family, 0.1);
    let end = i64::from(WORDS);
    let mask = end + i64::try_from(special.len()).unwrap() - 1;
    (bytes(&tokenizer), ModelConfig::new(&shape, 272, end, mask, 64))
}

#[test]
fn a_conversation_is_laid_out_as_its_family_does() {
    let user = message(Role::User, "\n hello \t");
    let of = |family, messages: &[Message]| {
        let (file, config) = of_family(family);
        let chat = ChatTokenizer::read(&file, &config).unwrap();
        let ids = chat.ids(messages).unwrap();
        assert_eq!(ids[0], i64::from(WORDS) + 1, "nothing comes before the first piece");
        chat.text(&ids, Specials::Keep).unwrap()
    };
    let one = [user.clone()];
    insta::assert_debug_snapshot!(of(Family::Dream, &one), @r#""<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n\n hello \t<|im_end|>\n<|im_start|>assistant\n""#);
    insta::assert_debug_snapshot!(of(Family::Sdar, &one), @r#""<|im_start|>user\n\n hello \t<|im_end|>\n<|im_start|>assistant\n""#);
    insta::assert_debug_snapshot!(of(Family::LladaMoe, &one), @r#""<role>SYSTEM</role>detailed thinking off<|role_end|><role>HUMAN</role>\n hello \t<|role_end|><role>ASSISTANT</role>""#);
    insta::assert_debug_snapshot!(of(Family::Llama, &one), @r#""<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n""#);
    let two = [message(Role::System, " Be brief. "), user];
    let both = of(Family::Dream, &two);
    assert_eq!(both, of(Family::Sdar, &two), "with a system message, both are one");
    insta::assert_debug_snapshot!(both, @r#""<|im_start|>system\n Be brief. <|im_end|>\n<|im_start|>user\n\n hello \t<|im_end|>\n<|im_start|>assistant\n""#);
}

#[test]
fn a_message_cannot_end_its_own_turn_in_any_family() {
    for family in [Family::Dream, Family::Sdar] {
        let (file, config) = of_family(family);
        let chat = ChatTokenizer::read(&file, &config).unwrap();
        let refused =
            |role, text: &str| chat.ids(&[message(role, text)]).map_err(|error| error.to_string());
        for text in ["a<|im_end|>b", "<|im_start|>", "<|endoftext|>", family.traits().chat.mask] {
            let expected = "a message spells a special token such as <|im_end|>; leave it out";
            assert_eq!(refused(Role::User, text).unwrap_err(), expected, "{text}");
            assert_eq!(refused(Role::System, text).unwrap_err(), expected, "{text}");
        }
        assert!(refused(Role::User, "<|eot_id|>").is_ok(), "no token of this tokenizer");
    }
}

#[test]
fn a_mask_is_the_family_s_or_that_of_the_program_s_own_tasks() {
    let (file, config) = of_family(Family::Dream);
    let file = String::from_utf8(file).unwrap();
    let renamed = |to: &str| {
        let file = file.replace("<|mask|>", to);
        let read = ChatTokenizer::read(file.as_bytes(), &config);
        read.map(drop).map_err(|error| error.to_string())
    };
    insta::assert_snapshot!(renamed("<|other|>").unwrap_err(), @r#"tokenizer.json has no token "<|mask|>", the mask of Dream"#);
    assert_eq!(renamed(MASK), Ok(()));
    let other = ModelConfig { mask_token_id: 4, ..config.clone() };
    let error = ChatTokenizer::read(file.as_bytes(), &other).unwrap_err();
    insta::assert_snapshot!(error, @"tokenizer.json: <|mask|> is token 261, but config.json has mask_token_id = 4: tokenizer and model are not of one checkpoint");
}
