//! What the generator makes, by name: any of it can be left out (`--without nan,overflow`).

use std::collections::BTreeSet;

use anyhow::{Result, bail};

/// Every feature and what it is.
pub const FEATURES: &[(&str, &str)] = &[
    ("nan", "NaN and infinities in floating-point columns"),
    ("zero", "-0.0 beside 0.0"),
    ("overflow", "extremes of integers and decimals, and arithmetic that leaves its type"),
    ("far_times", "times before 1678 and after 2261"),
    ("precedence", "operators side by side without parentheses"),
    ("decimal_literals", "literals with a point"),
    ("casts", "casts that round"),
    ("not_in", "`IN` and `NOT IN` subqueries wherever an expression may stand"),
    ("percentiles", "`median` and `percentile_cont`"),
    ("regression", "`corr`, `covar_*` and `regr_*`"),
    ("by_position", "ordered aggregates by `_partition`, `_offset` and `_timestamp`"),
    ("zones", "`AT TIME ZONE`"),
    ("times_as_keys", "group keys that are computed from times"),
    ("row_errors", "divisions, casts and roots that fail for some rows"),
    ("time_literals", "TIMESTAMP literals in views, TIMESTAMPTZ literals anywhere"),
    ("two_orders", "ordered aggregates in queries, where another may have another order"),
    ("truth", "`IS [NOT] TRUE`, `FALSE` and `UNKNOWN`"),
    ("mixed", "decimals compared with floating-point numbers"),
    ("ordered_union", "`UNION` and the like with `ORDER BY`"),
    ("inner_order", "`ORDER BY` and `LIMIT` in subqueries"),
    ("constants", "columns and conditions that read nothing"),
    ("restarts", "layers that are stopped and started again"),
    ("large", "a world in fifty of more than 100,000 events of high cardinality"),
];

/// What is not drawn unless it is asked for: with it, rare cases are still wrong, or references differ.
pub const KNOWN_WRONG: &[&str] = &[
    "far_times",
    "overflow",
    "row_errors",
    "casts",
    "truth",
    "constants",
    "large",
    "time_literals",
    "inner_order",
    "ordered_union",
    "two_orders",
    "mixed",
    "zones",
    "percentiles",
    "regression",
    "times_as_keys",
    "not_in",
];

/// The features that are on.
#[derive(Clone, Debug)]
pub struct Features(BTreeSet<&'static str>);

impl Features {
    /// All but those named.
    pub fn without<S: AsRef<str>>(names: &[S]) -> Result<Self> {
        for name in names.iter().map(AsRef::as_ref) {
            if !FEATURES.iter().any(|(known, _)| *known == name) {
                let known: Vec<&str> = FEATURES.iter().map(|(name, _)| *name).collect();
                bail!("there is no feature `{name}`: write some of {}", known.join(", "));
            }
        }
        Ok(Self(
            FEATURES
                .iter()
                .map(|(name, _)| *name)
                .filter(|known| !names.iter().any(|name| name.as_ref() == *known))
                .collect(),
        ))
    }

    /// Whether a feature is on; the empty name is always.
    pub fn has(&self, name: &str) -> bool {
        name.is_empty() || self.0.contains(name)
    }
}
