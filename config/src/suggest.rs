//! Finds the word that somebody probably meant.

/// The one of `known` that is nearest to `word`, if it is near enough to be a slip.
///
/// Words that differ only in case, `-` and `_` count as equal, so that `AllowedIPs` finds `allowed_ips`.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let plain_word = plain(word);
    let distances = known.iter().map(|&near| (strsim::damerau_levenshtein(&plain_word, &plain(near)), near));
    let (distance, near) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= plain_word.chars().count().max(near.len()) / 3).then_some(near)
}

fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_word_and_other_words_find_none() {
        let known = ["listen_port", "allowed_ips", "mtu"];
        assert_eq!(nearest("lisen_port", &known), Some("listen_port"));
        assert_eq!(nearest("AllowedIPs", &known), Some("allowed_ips"));
        assert_eq!(nearest("ListenPort", &known), Some("listen_port"));
        assert_eq!(nearest("mut", &known), Some("mtu"));
        assert_eq!(nearest("post_up", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(nearest(&"x".repeat(100_000), &known), None);
    }
}
