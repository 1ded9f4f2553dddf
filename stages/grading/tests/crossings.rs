//! Forms of sets and of transposed matrices, each as the answer to each of its kind: 490 forms, 84,606 pairs, with
//! what math_verify 0.8.0 pays.
//!
//! Sets are named, written as intervals and joined by every sign, as one would and at random; transposes are marked in
//! every way. This project may pay nothing that math_verify does not pay.

use std::collections::BTreeMap;

use serde_json::Value;

use agrpo_mathematics::{parse_latex, same};

const FORMS: &str = include_str!("crossings.jsonl");

/// Pairs of each kind that math_verify pays and this project does not, by what docs/grading.md says of them.
const UNPAID: [(&str, usize); 3] = [("sets", 62), ("transposes", 0), ("random sets", 92)];

#[test]
fn no_set_and_no_transpose_is_paid_where_math_verify_does_not_pay() {
    let mut kinds: BTreeMap<String, Vec<(String, Vec<usize>)>> = BTreeMap::new();
    for line in FORMS.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        let paid = serde_json::from_value(row["paid"].clone()).unwrap();
        kinds.entry(text("kind")).or_default().push((text("form"), paid));
    }
    for (kind, most) in UNPAID {
        let forms = &kinds[kind];
        let parsed: Vec<_> = forms.iter().map(|(form, _)| parse_latex(form)).collect();
        let (mut too_much, mut unpaid) = (Vec::new(), Vec::new());
        for (gold, (form, paid)) in parsed.iter().zip(forms) {
            for (place, found) in parsed.iter().enumerate() {
                let pair = || format!("{form} | {}", forms[place].0);
                match (same(gold, found), paid.contains(&place)) {
                    (true, false) => too_much.push(pair()),
                    (false, true) => unpaid.push(pair()),
                    _ => {}
                }
            }
        }
        assert!(too_much.is_empty(), "{kind}: {too_much:#?}");
        assert_eq!(unpaid.len(), most, "{kind}: {unpaid:#?}");
    }
}
