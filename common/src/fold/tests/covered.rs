//! Every aggregate that there is has a case here, or a reason.

use std::collections::BTreeSet;

use datafusion::{common::tree_node::TreeNode, logical_expr::Expr};

use super::{AGGREGATES, DIGESTS, dataset, query};
use crate::fold::{
    plan::{logical_plan, session},
    planned,
};

/// Aggregates of DataFusion that no view has.
const NONE_OF_A_VIEW: &[(&str, &str)] = &[("grouping", "a view has no grouping sets")];

#[test]
fn every_aggregate_has_a_case() {
    let mut tried = BTreeSet::new();
    let cases = AGGREGATES.iter().copied().chain(DIGESTS.iter().map(|(aggregate, _)| *aggregate));
    for case in cases {
        let plan = logical_plan(&session(), &dataset(), &query(&format!("select {case} as v from t"))).unwrap();
        plan.apply(|node| {
            node.apply_expressions(|expression| {
                expression.apply(|part| {
                    if let Expr::AggregateFunction(call) = part {
                        tried.insert(call.func.name().to_owned());
                    }
                    Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
                })
            })
        })
        .unwrap();
    }
    let known: BTreeSet<String> = planned::AGGREGATES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(known.difference(&tried).collect::<Vec<_>>(), Vec::<&String>::new(), "aggregates without a case");
    let there: BTreeSet<String> =
        session().state().aggregate_functions().values().map(|function| function.name().to_owned()).collect();
    let left: Vec<&String> =
        there.difference(&known).filter(|name| NONE_OF_A_VIEW.iter().all(|(none, _)| none != name)).collect();
    assert_eq!(left, Vec::<&String>::new(), "aggregates that are neither in a view nor have a reason");
}
