//! Splits a long text into sequences that fit the context length.
//!
//! Pure functions on ids. Start at [`rolling_windows`] and [`blocks`].

use crate::tasks::Scored;

/// Splits `ids` so that each id is scored once, like lm-eval's rolling log-likelihood with one
/// token of context.
///
/// The first window begins with `prefix`, which is the context of the first id. Every full window
/// has one earlier id as context; the last window is moved back until it is full, and scores only
/// the remaining ids. `max_length`: context length.
///
/// Source: lm-eval 0.4.13, `utils.py`, `get_rolling_token_windows` and `make_disjoint_window`.
#[must_use]
pub fn rolling_windows(ids: &[u32], prefix: u32, max_length: usize) -> Vec<Scored> {
    let mut windows = Vec::new();
    let mut predicted = 0;
    while predicted < ids.len() {
        let num_scored = max_length.min(ids.len() - predicted);
        let end = predicted + num_scored;
        let window = match end.checked_sub(max_length + 1) {
            Some(start) if predicted > 0 => ids[start..end].to_vec(),
            _ => [&[prefix], &ids[..end]].concat(),
        };
        windows.push(Scored { ids: window, num_scored });
        predicted = end;
    }
    windows
}

/// Splits `ids` into blocks of `length` and drops the rest; all ids of a block except the first are
/// scored.
#[must_use]
pub fn blocks(ids: &[u32], length: usize) -> Vec<Scored> {
    ids.chunks_exact(length)
        .map(|block| Scored { ids: block.to_vec(), num_scored: length - 1 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(count: u32, max_length: usize) -> Vec<(Vec<u32>, usize)> {
        let ids: Vec<u32> = (1..=count).collect();
        rolling_windows(&ids, 0, max_length)
            .into_iter()
            .map(|window| (window.ids, window.num_scored))
            .collect()
    }

    #[test]
    fn windows_are_those_of_lm_eval() {
        assert_eq!(windows(0, 4), []);
        assert_eq!(windows(3, 4), [(vec![0, 1, 2, 3], 3)]);
        assert_eq!(windows(4, 4), [(vec![0, 1, 2, 3, 4], 4)]);
        assert_eq!(windows(5, 4), [(vec![0, 1, 2, 3, 4], 4), (vec![1, 2, 3, 4, 5], 1)]);
        assert_eq!(
            windows(9, 4),
            [(vec![0, 1, 2, 3, 4], 4), (vec![4, 5, 6, 7, 8], 4), (vec![5, 6, 7, 8, 9], 1)]
        );
        assert_eq!(windows(3, 1), [(vec![0, 1], 1), (vec![1, 2], 1), (vec![2, 3], 1)]);
    }

    #[test]
    fn blocks_drop_the_tail() {
        assert_eq!(
            blocks(&[1, 2, 3, 4, 5, 6, 7], 3),
            [
                Scored { ids: vec![1, 2, 3], num_scored: 2 },
                Scored { ids: vec![4, 5, 6], num_scored: 2 }
            ]
        );
        assert_eq!(blocks(&[1, 2], 3), []);
    }
}
