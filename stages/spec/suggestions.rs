//! The known word that a misspelt one is nearest to. Knows words, not what they stand for.

/// Letters from which on a beginning identifies a word.
const SHORTEST_PREFIX: usize = 3;
/// Letters beyond which a word is no typing error, and too long to be compared with all others.
const LONGEST: usize = 64;

/// The candidate at the smallest edit distance from `word` (a letter left out, added, changed, or two swapped),
/// if that is at most one edit for every three letters; else the first that begins with `word`, if that has at
/// least three letters.
///
/// Of equally near candidates the first is taken.
pub fn nearest<'a, I>(word: &str, candidates: I) -> Option<&'a str>
where
    I: IntoIterator<Item = &'a str>,
    I::IntoIter: Clone,
{
    let (small, letters) = (word.to_lowercase(), word.chars().count());
    if letters > LONGEST {
        return None;
    }
    let (all, most_edits) = (candidates.into_iter(), (letters / 3).max(1));
    let distance = |candidate: &str| strsim::damerau_levenshtein(&small, &candidate.to_lowercase());
    all.clone()
        .map(|candidate| (distance(candidate), candidate))
        .filter(|&(distance, candidate)| {
            distance <= most_edits && distance < letters.max(candidate.chars().count())
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
        .or_else(|| {
            let begins = |candidate: &&str| candidate.to_lowercase().starts_with(&small);
            all.clone().find(begins).filter(|_| letters >= SHORTEST_PREFIX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_forgiven_and_another_word_is_not() {
        let words = ["seed", "steps", "prompts", "learning_rate"];
        let of = |word| nearest(word, words);
        assert_eq!(of("sed"), Some("seed"));
        assert_eq!(of("setps"), Some("steps"));
        assert_eq!(of("Learning-Rate"), Some("learning_rate"));
        assert_eq!(of("prompt"), Some("prompts"));
        assert_eq!(of("learn"), Some("learning_rate"), "a beginning");
        assert_eq!(of("le"), None, "too short a beginning");
        assert_eq!(of("rate"), None);
        assert_eq!(of(""), None);
        assert_eq!(of(&"seed".repeat(100_000)), None, "not compared at all");
        assert_eq!(nearest("x", ["y"]), None, "not every letter may differ");
    }
}
