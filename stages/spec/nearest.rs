//! The word that somebody may have meant. Knows words, not what they stand for.

/// The candidate that takes the fewest slips (a letter left out, added, changed, or two swapped) to
/// become `word`; none where that takes more than a slip for every three letters.
///
/// Of equally near ones the first is taken.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (small, slips) = (word.to_lowercase(), (word.chars().count() / 3).max(1));
    candidates
        .into_iter()
        .map(|candidate| {
            (strsim::damerau_levenshtein(&small, &candidate.to_lowercase()), candidate)
        })
        .filter(|&(distance, candidate)| distance <= slips && distance < candidate.chars().count())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_forgiven_and_another_word_is_not() {
        let words = ["seed", "steps", "prompts", "learning_rate"];
        let of = |word| nearest(word, words);
        assert_eq!(of("sed"), Some("seed"));
        assert_eq!(of("setps"), Some("steps"));
        assert_eq!(of("Learning-Rate"), Some("learning_rate"));
        assert_eq!(of("prompt"), Some("prompts"));
        assert_eq!(of("rate"), None);
        assert_eq!(of(""), None);
        assert_eq!(nearest("x", ["y"]), None, "all of a word cannot be a slip");
    }
}
