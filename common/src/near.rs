//! Names like one that nobody knows, for "did you mean".

/// The names among `candidates` that a slip of the keyboard could have turned into `name`, the nearest first, at most 3.
pub fn near<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let name = name.to_lowercase();
    let limit = (name.chars().count() / 3).max(1);
    let mut found: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let distance = match lower.contains(&name) || (name.contains(&lower) && lower.len() > 2) {
                true => limit.min(1),
                false => edits(&name, &lower),
            };
            (distance <= limit).then_some((distance, candidate))
        })
        .collect();
    found.sort();
    found.into_iter().take(3).map(|(_, candidate)| candidate.to_owned()).collect()
}

/// How many letters must change: the Levenshtein distance.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        let names = ["daily_sales", "product_sales", "amount"];
        let check = |name: &str, expected: &[&str]| assert_eq!(near(name, names), expected, "{name}");
        check("daily_sale", &["daily_sales"]);
        check("dayly_sales", &["daily_sales"]);
        check("AMOUNT", &["amount"]);
        check("sales", &["daily_sales", "product_sales"]);
        check("zebra", &[]);
    }
}
