//! Names that somebody may have meant.

/// The candidates nearest to `name`, the nearest first, at most three. Those that are too far off are left out.
pub fn near<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = name.to_lowercase();
    // Of a name of one or two letters every other one would be near.
    let within = match wanted.chars().count() {
        0..3 => 0,
        letters => letters / 3,
    };
    let mut found: Vec<(usize, &str)> = candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= within || is_part(&wanted, &candidate.to_lowercase()))
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().map(|(_, candidate)| candidate).take(3).collect()
}

/// `did you mean `a` or `b`?` for a hint; `None` when nothing is near.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let names: Vec<String> = near(name, candidates).iter().map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(" or ")))
}

/// Whether one name begins or ends with the other: `sale` is near `sales_by_day`.
fn is_part(wanted: &str, candidate: &str) -> bool {
    let (short, long) = if wanted.len() < candidate.len() { (wanted, candidate) } else { (candidate, wanted) };
    short.len() >= 3 && (long.starts_with(short) || long.ends_with(short))
}

/// How many letters must be put in, taken out, replaced or swapped with their neighbour to make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names() {
        let views = ["daily_sales", "daily_store_sales", "product_sales"];
        let check = |name: &str, expected: &[&str]| assert_eq!(near(name, views), expected, "near `{name}`");
        check("daily_sale", &["daily_sales"]);
        check("dialy_sales", &["daily_sales"]);
        check("Daily_Sales", &["daily_sales"]);
        check("sales", &["daily_sales", "product_sales", "daily_store_sales"]);
        check("customers", &[]);
        check("", &[]);
    }

    #[test]
    fn distances() {
        let check = |a: &str, b: &str, expected: usize| assert_eq!(distance(a, b), expected, "{a} {b}");
        check("topic", "topic", 0);
        check("tpoic", "topic", 1);
        check("topc", "topic", 1);
        check("", "abc", 3);
        check("größe", "grösse", 2);
    }
}
