//! "Did you mean": the known word nearest to a mistyped one.

/// The known word that needs the fewest changes, if they are few for its length.
pub fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    // A longer word is no slip of the finger, and distances cost its length squared.
    if word.len() > 24 {
        return None;
    }
    let distance = |known: &&str| edits(word, known);
    let best = known.iter().min_by_key(|known| distance(known))?;
    let allowed = (best.len() / 3).clamp(1, 3);
    (distance(best) <= allowed).then_some(*best)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words
/// (optimal string alignment).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_guessed_and_a_foreign_word_is_not() {
        let known = ["FROM", "RUN", "COPY", "ENTRYPOINT", "HEALTHCHECK"];
        for (word, want) in [
            ("FORM", Some("FROM")),
            ("FRM", Some("FROM")),
            ("RUNN", Some("RUN")),
            ("ENTRPOINT", Some("ENTRYPOINT")),
            ("HEALTCHEKC", Some("HEALTHCHECK")),
            ("~", None),
            ("SELECT", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known), want, "{word}");
        }
    }
}
