//! The word that was probably meant. Pure; knows nothing of manifests.

/// The one of `known` that `word` is closest to, if it is close enough to be a slip: another way to
/// join words, or about one wrong letter in three.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = plain(word);
    known
        .into_iter()
        .map(|candidate| (distance(&plain, &self::plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().min(word.len()) / 3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Lower case, and without what joins words: `warm_up`, `warm-up` and `warmUp` are one.
fn plain(word: &str) -> Vec<char> {
    word.chars().filter(|c| !"_-. ".contains(*c)).flat_map(char::to_lowercase).collect()
}

/// How many letters must be added, left out, changed or swapped with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: [Vec<usize>; 2] = [Vec::new(), (0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        let [before_last, last] = rows;
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let changed = get(&last, j) + usize::from(x != y);
            let mut least = changed.min(get(&last, j + 1) + 1).min(get(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                least = least.min(get(&before_last, j - 1) + 1);
            }
            row.push(least);
        }
        rows = [last, row];
    }
    let [_, last] = rows;
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["minimum", "maximum", "warmUp", "sql", "success", "schedule", "parameters"];
        for (word, expected) in [
            ("minimun", Some("minimum")),
            ("maximmum", Some("maximum")),
            ("warm_up", Some("warmUp")),
            ("warmup", Some("warmUp")),
            ("sqll", Some("sql")),
            ("slq", Some("sql")),
            ("sucess", Some("success")),
            ("params", None),
            ("paramaters", Some("parameters")),
            ("x", None),
            ("", None),
            ("replicas", None),
        ] {
            assert_eq!(closest(word, known), expected, "{word}");
        }
    }
}
