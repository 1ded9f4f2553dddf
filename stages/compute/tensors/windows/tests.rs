//! Headers that lie, and tensors larger than a window.

use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, sync::Arc};

use agrpo_spec::{ArtifactDigest, Windows};
use bytes::Bytes;

use super::*;
use crate::tensors;

fn file(header: &str, tensors: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![0; tensors]].concat()
}

fn refused(bytes: Vec<u8>) -> String {
    let error = TensorWindows::open("f.safetensors", &bytes.into()).unwrap_err();
    assert!(matches!(error, StageError::Data(_)));
    let text = error.to_string();
    assert!(text.starts_with("f.safetensors"), "{text}");
    assert!(!text.contains('\n') && text.len() < 400, "{text}");
    text
}

/// One f32 tensor, written in other words each time.
fn tensor(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

#[test]
fn a_header_that_lies_is_one_line() {
    let one = |shape, offsets| file(&format!("{{{}}}", tensor("F32", shape, offsets)), 8);
    assert!(TensorWindows::open("f", &one("[2]", "[0,8]").into()).is_ok());
    for (bytes, expected) in [
        (vec![], "it has 0 bytes, expected at least 8"),
        (vec![1; 7], "it has 7 bytes"),
        (vec![0xff; 64], "a header of 18446744073709551615 bytes, expected at most 56"),
        (file("{}", 0)[..9].to_vec(), "a header of 2 bytes, expected at most 1"),
        (file("not JSON", 0), "expected"),
        (file("[]", 0), "tensors by name"),
        (file("{", 0), "EOF"),
        (file("{}", 3), "3 bytes of tensors, expected 0"),
        (file("", 0), "EOF"),
        (one("[-2]", "[0,8]"), "-2"),
        (one("[2.5]", "[0,8]"), "2.5"),
        (one("2", "[0,8]"), "expected"),
        (one("[3]", "[0,8]"), "invalid shape"),
        (one("[4294967296,4294967296]", "[0,8]"), "overflow"),
        (one("[9223372036854775808,2]", "[0,8]"), "overflow"),
        (one("[18446744073709551616]", "[0,8]"), "expected usize"),
        (one("[2]", "[8,16]"), "offset"),
        (one("[2]", "[8,0]"), "offset"),
        (one("[4]", "[0,16]"), "8 bytes of tensors, expected 16"),
        (one("[1]", "[0,4]"), "8 bytes of tensors, expected 4"),
        (one("[2]", "[0,-8]"), "-8"),
    ] {
        let text = refused(bytes);
        assert!(text.to_lowercase().contains(&expected.to_lowercase()), "{text}: {expected}");
    }
}

#[test]
fn tensors_neither_overlap_nor_come_twice() {
    let two = |first, second: String| file(&format!("{{{first},{second}}}"), 8);
    let t = tensor("F32", "[1]", "[0,4]");
    let other = |offsets| tensor("F32", "[1]", offsets).replace("\"t\"", "\"u\"");
    assert!(TensorWindows::open("f", &two(&t, other("[4,8]")).into()).is_ok());
    assert!(refused(two(&t, other("[0,4]"))).contains("offset"));
    assert!(refused(two(&t, other("[2,6]"))).contains("offset"));
    assert!(refused(two(&t, other("[5,9]"))).contains("offset"));
    assert!(refused(two(&t, tensor("F32", "[1]", "[4,8]"))).contains("a tensor comes twice: t "));
    let strange =
        tensor("F32", "[1]", "[4,8]").replace("\"t\"", &format!("\"{}\\n\"", "x".repeat(999)));
    let strange = format!("{{{strange},{}}}", strange.replace("[4,8]", "[0,4]"));
    assert!(refused(file(&strange, 8)).contains("a tensor comes twice: xxx"));
}

#[test]
fn numbers_that_nothing_computes_with_are_refused() {
    for dtype in ["F8_E4M3", "C64", "BOOL", "F4", "Q9\\n"] {
        let width = if dtype == "C64" { 8 } else { 1 };
        let header = tensor(dtype, "[2]", &format!("[0,{}]", 2 * width));
        refused(file(&format!("{{{header}}}"), 2 * width));
    }
}

/// A header of 100 MB is refused by its length alone, before it is parsed.
#[test]
fn a_long_header_is_not_read() {
    #[derive(Debug)]
    struct Endless(AtomicU64);
    impl Windows for Endless {
        fn size(&self) -> u64 {
            1 << 40
        }
        fn digest(&self) -> Option<ArtifactDigest> {
            None
        }
        fn window(&self, range: Range<u64>) -> io::Result<Bytes> {
            self.0.fetch_add(range.end - range.start, Ordering::Relaxed);
            Ok(Bytes::from_iter((LONGEST_HEADER + 1).to_le_bytes()))
        }
    }
    let file = Arc::new(Endless(AtomicU64::new(0)));
    let shared: Arc<dyn Windows> = Arc::<Endless>::clone(&file);
    let error = TensorWindows::open("f", &Content::Elsewhere(shared)).unwrap_err();
    assert!(error.to_string().contains("100000001 bytes, expected at most 100000000"), "{error}");
    assert_eq!(file.0.load(Ordering::Relaxed), 8);
}

#[test]
fn a_tensor_of_several_windows_comes_whole_in_any_kind() {
    let count = i64::try_from(WINDOW).unwrap() / 4 * 2 + 3;
    let numbers = Tensor::arange(count, (Kind::Float, Device::Cpu)).remainder(251.0);
    let kinds = [Kind::Float, Kind::BFloat16, Kind::Half];
    let named = kinds.map(|kind| (format!("{kind:?}"), numbers.to_kind(kind)));
    let bytes = tensors::write(&named.into_iter().collect()).unwrap();
    let windows = TensorWindows::open("f", &bytes.clone().into()).unwrap();
    for kind in kinds {
        for target in kinds {
            // Whole numbers below 256 are the same in every kind.
            let target = Tensor::empty([count], (target, Device::Cpu));
            windows.fill(&format!("{kind:?}"), &target, false).unwrap();
            assert_eq!(target.to_kind(Kind::Float), numbers);
        }
    }
    assert_eq!(tensors::write(&windows.read().unwrap()).unwrap(), bytes);
}
