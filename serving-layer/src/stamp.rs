//! The stamp: which exact prefix of the log an answer equals the view's SQL over.

use std::collections::{BTreeMap, BTreeSet};

use common::position::{Frontier, Partition};
use serde::{Deserialize, Serialize};

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_none(count: &i64) -> bool {
    *count == 0
}

/// What every answer carries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    /// By dataset, the next offset of every partition: the answer is over exactly what is below.
    pub head: BTreeMap<String, Frontier>,
    /// By view, what the answer was made from.
    pub views: BTreeMap<String, ViewStamp>,
    /// The age of the oldest logged event that the answer lacks; 0 if it lacks none, null when the log's end cannot be
    /// told.
    pub freshness_ms: Option<i64>,
    /// By dataset, why the head stands still: the answer is as exact as ever, and gets old. Only there when it does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stopped: BTreeMap<String, String>,
    /// By dataset, partitions that no worker of the speed layer held: the answer has nothing of them above its views'
    /// cuts. Only there when the query allowed it and it came to that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, BTreeSet<Partition>>,
}

/// What one view's part of an answer was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewStamp {
    /// The view's definition.
    pub definition: String,
    /// The batch view version; null before the first.
    pub batch_version: Option<i64>,
    /// Where that version ends and the speed layer's states begin.
    pub cut: Frontier,
    /// How many events below the head are in no row because the view cannot be computed over them. Only there when there
    /// are some.
    #[serde(default, skip_serializing_if = "is_none")]
    pub failed_events: i64,
    /// Of how many groups that the answer asked for by their keys something could not be computed, and is NULL. Only there
    /// when there are some.
    #[serde(default, skip_serializing_if = "is_none")]
    pub failed_groups: i64,
}
