//! What stands in `FROM`.

use sqlparser::ast::{
    FunctionArg, Join, JoinConstraint, JoinOperator, Spanned, TableFactor, TableFunctionArgs, TableWithJoins,
};

use super::{Found, none_of, query::table_alias, refuse};

pub(super) const NO_SAMPLE: &str = "leave it out, or write a condition such as `WHERE random() < 0.1`";

pub(super) fn check(relation: &TableFactor) -> Found {
    let at = relation.span();
    let alias = match relation {
        TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            if let Some(TableFunctionArgs { args, settings }) = args {
                let hint = "write the function's name alone";
                none_of(
                    at,
                    &[
                        (settings.is_some(), "SETTINGS", "leave it out"),
                        (name.0.len() > 1, "a function's schema", hint),
                    ],
                )?;
                args.iter().try_for_each(argument)?;
            }
            none_of(
                at,
                &[
                    (sample.is_some(), "TABLESAMPLE", NO_SAMPLE),
                    (
                        version.is_some(),
                        "a version of a table",
                        "an answer is at its head: say the oldest with `min_position`",
                    ),
                    (!with_hints.is_empty() || !index_hints.is_empty(), "a hint after a table", "leave it out"),
                    (*with_ordinality, "WITH ORDINALITY", "write `row_number() OVER (…)`"),
                    (!partitions.is_empty(), "PARTITION after a table", "filter by a column"),
                    (json_path.is_some(), "a path after a table", "read the field in an expression"),
                ],
            )?;
            alias
        }
        TableFactor::Derived { lateral: _, subquery: _, alias, sample } => {
            none_of(at, &[(sample.is_some(), "TABLESAMPLE", NO_SAMPLE)])?;
            alias
        }
        TableFactor::Function { lateral: _, name: _, args, with_ordinality, alias } => {
            none_of(at, &[(*with_ordinality, "WITH ORDINALITY", "write `row_number() OVER (…)`")])?;
            args.iter().try_for_each(argument)?;
            alias
        }
        TableFactor::UNNEST { alias, array_exprs: _, with_offset, with_offset_alias, with_ordinality } => {
            let has_place = *with_offset || with_offset_alias.is_some() || *with_ordinality;
            none_of(at, &[(has_place, "WITH ORDINALITY or WITH OFFSET", "write `row_number() OVER (…)`")])?;
            alias
        }
        TableFactor::NestedJoin { table_with_joins, alias } => {
            let TableWithJoins { relation: _, joins } = table_with_joins.as_ref();
            joins.iter().try_for_each(join)?;
            alias
        }
        TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => {
            return refuse(at, "PIVOT", "write an aggregate a column: `sum(x) FILTER (WHERE …)`");
        }
        TableFactor::TableFunction { expr: _, alias: _ } => {
            return refuse(at, "TABLE(…)", "write the function in `FROM`");
        }
        TableFactor::JsonTable { .. }
        | TableFactor::OpenJsonTable { .. }
        | TableFactor::XmlTable { .. }
        | TableFactor::MatchRecognize { .. }
        | TableFactor::SemanticView { .. } => {
            return refuse(at, "this table", "read views, datasets, subqueries and functions");
        }
    };
    alias.as_ref().map_or(Ok(()), table_alias)
}

/// Functions in `FROM` take their arguments by their order, whatever they are named.
fn argument(argument: &FunctionArg) -> Found {
    match argument {
        FunctionArg::Unnamed(_) => Ok(()),
        FunctionArg::Named { name: _, arg: _, operator: _ }
        | FunctionArg::ExprNamed { name: _, arg: _, operator: _ } => {
            refuse(argument.span(), "an argument's name", "write the arguments in their order")
        }
    }
}

pub(super) fn join(join: &Join) -> Found {
    let Join { relation: _, global, join_operator } = join;
    let at = join.span();
    none_of(at, &[(*global, "GLOBAL", "leave it out")])?;
    match join_operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint) => match constraint {
            JoinConstraint::On(_) | JoinConstraint::Using(_) | JoinConstraint::Natural | JoinConstraint::None => Ok(()),
        },
        JoinOperator::CrossJoin(constraint) => {
            let has_condition = !matches!(constraint, JoinConstraint::None);
            none_of(at, &[(has_condition, "a condition of CROSS JOIN", "write `JOIN … ON …`")])
        }
        JoinOperator::CrossApply | JoinOperator::OuterApply => {
            refuse(at, "APPLY", "write `CROSS JOIN LATERAL (…)`, or `LEFT JOIN LATERAL (…) ON true`")
        }
        JoinOperator::Semi(_) | JoinOperator::Anti(_) | JoinOperator::StraightJoin(_) => {
            refuse(at, "this join", "write `JOIN … ON …`, `LEFT SEMI JOIN` or `LEFT ANTI JOIN`")
        }
        JoinOperator::AsOf { match_condition: _, constraint: _ } => {
            refuse(at, "ASOF JOIN", "write `JOIN LATERAL (SELECT … ORDER BY … LIMIT 1)`")
        }
        JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
            refuse(at, "ARRAY JOIN", "write `CROSS JOIN unnest(…)`")
        }
    }
}
