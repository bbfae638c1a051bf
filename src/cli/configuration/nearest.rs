//! The known word that somebody meant who wrote another.

/// How many letters may be wrong.
const MOST_WRONG: usize = 3;

/// The word nearest to one that nobody knows, if one is near enough.
pub(super) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let measured = known.into_iter().map(|word| (distance(unknown, word), word));
    let near = measured.filter(|(wrong, word)| *wrong <= MOST_WRONG && *wrong < word.chars().count());
    near.min().map(|(_, word)| word)
}

/// How many letters have to be put in, taken out or changed to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let mut above: Vec<usize> = (0..=to.chars().count()).collect();
    for (row, letter) in from.chars().enumerate() {
        let mut left = row + 1;
        let mut line = vec![left];
        for (other, pair) in to.chars().zip(above.windows(2)) {
            let [diagonal, up] = pair else { continue };
            left = (diagonal + usize::from(letter != other)).min(up + 1).min(left + 1);
            line.push(left);
        }
        above = line;
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_none_that_is_far() {
        let known = ["store", "listen", "limits", "logs"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("limit", known), Some("limits"));
        assert_eq!(nearest("stroe", known), Some("store"));
        assert_eq!(nearest("completely", known), None);
        assert_eq!(nearest("x", ["logs"]), None);
        assert_eq!((distance("", "abc"), distance("abc", ""), distance("kitten", "sitting")), (3, 3, 3));
    }
}
