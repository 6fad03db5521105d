//! Which known name was probably meant by an unknown one.

/// Number of letters to insert, remove, replace or swap to get from `a` to `b`.
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    strsim::damerau_levenshtein(a, b)
}

/// The value whose name is nearest to `text`, at most `limit` letters away; the first of equals.
pub fn nearest_name<T>(
    text: &str,
    limit: usize,
    known: impl IntoIterator<Item = (impl AsRef<str>, T)>,
) -> Option<T> {
    known
        .into_iter()
        .map(|(name, value)| (distance(name.as_ref(), text), value))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, value)| value)
}
