//! A view's plan as one aggregation over its dataset.
//!
//! Whatever a query has between its columns and its dataset (`WITH`, queries in `FROM`, projections, filters) is put into
//! the expressions themselves: what is left are group keys, aggregates and a filter over the dataset's own columns, and
//! columns over those. Group keys and aggregates have names of their own there ([`key`], [`aggregate`]), so that no two
//! of them can have the same.

use datafusion::{
    common::{
        Column, DFSchema, Result,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{Aggregate, Distinct, Expr, LogicalPlan, utils::conjunction},
};

use super::{
    Refusal,
    plan::{refusal, refused},
};

/// A view as columns over keys and aggregates over rows.
pub(super) struct Shape {
    /// The view's columns: their names, and their expressions over keys and aggregates.
    pub(super) outputs: Vec<(String, Expr)>,
    /// `HAVING`, over keys and aggregates.
    pub(super) having: Option<Expr>,
    /// The group keys, over the dataset's columns.
    pub(super) keys: Vec<Expr>,
    /// The aggregates, over the dataset's columns.
    pub(super) aggregates: Vec<Expr>,
    /// `WHERE`, over the dataset's columns.
    pub(super) predicate: Option<Expr>,
}

/// How expressions call a group key.
pub(super) fn key(index: usize) -> Expr {
    Expr::Column(Column::new_unqualified(key_name(index)))
}

/// How expressions call an aggregate.
pub(super) fn aggregate(index: usize) -> Expr {
    Expr::Column(Column::new_unqualified(aggregate_name(index)))
}

/// How the names of group keys begin.
pub(super) const KEY: &str = "__key";

pub(super) fn key_name(index: usize) -> String {
    format!("{KEY}{index}")
}

pub(super) fn aggregate_name(index: usize) -> String {
    format!("__aggregate{index}")
}

impl Shape {
    /// The shape of a plan; what has another one is refused.
    pub(super) fn of(plan: &LogicalPlan) -> Result<Self, Refusal> {
        let Level { columns, predicate, grouped } = Level::of(plan)?;
        let Some(Grouped { keys, aggregates, having }) = grouped else {
            return Err(refused(
                "a view needs group keys or aggregates",
                "write `SELECT key, count(*) AS n FROM … GROUP BY key`; to read single events, query the dataset",
            ));
        };
        let names = plan.schema().fields().iter().map(|field| field.name().clone());
        let outputs = names.zip(columns).collect();
        Ok(Self { outputs, having: conjunction(having), keys, aggregates, predicate: conjunction(predicate) })
    }

    /// Every expression of the view.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let columns = self.outputs.iter().map(|(_, output)| output);
        columns.chain(&self.having).chain(&self.predicate).chain(&self.keys).chain(&self.aggregates)
    }
}

/// What a part of the plan gives out.
struct Level {
    /// Its columns: over the dataset's, or over keys and aggregates once there are any.
    columns: Vec<Expr>,
    /// All of these hold for the rows that are aggregated.
    predicate: Vec<Expr>,
    grouped: Option<Grouped>,
}

struct Grouped {
    keys: Vec<Expr>,
    aggregates: Vec<Expr>,
    /// All of these hold for the groups that are given out.
    having: Vec<Expr>,
}

impl Level {
    fn of(plan: &LogicalPlan) -> Result<Self, Refusal> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let fields = scan.projected_schema.fields().iter();
                let columns = fields.map(|field| Expr::Column(Column::new_unqualified(field.name()))).collect();
                Ok(Self { columns, predicate: Vec::new(), grouped: None })
            }
            LogicalPlan::SubqueryAlias(alias) => Self::of(&alias.input),
            LogicalPlan::Projection(projection) => {
                let mut level = Self::of(&projection.input)?;
                level.columns = level.resolve_all(&projection.expr, projection.input.schema())?;
                Ok(level)
            }
            LogicalPlan::Filter(filter) => {
                let mut level = Self::of(&filter.input)?;
                let condition = level.resolve(&filter.predicate, filter.input.schema())?;
                match &mut level.grouped {
                    Some(grouped) => grouped.having.push(condition),
                    None => level.predicate.push(condition),
                }
                Ok(level)
            }
            LogicalPlan::Aggregate(aggregate) => Self::of(&aggregate.input)?.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => Self::of(input)?.distinct(),
            LogicalPlan::Window(_) => {
                Err(refused("windows are not allowed in a view", "compute them when you query the view"))
            }
            LogicalPlan::Unnest(_) => Err(refused(
                "a view has one row for each event, and `unnest` would give several",
                "write one event for each element; or keep the array as `array_to_string(tags, ',')`, or keep \
                 `array_agg(tags ORDER BY _offset)`, and unnest it when you query the view",
            )),
            LogicalPlan::EmptyRelation(_) => {
                Err(refused("the view is over nothing", "write `SELECT … FROM dataset GROUP BY …`"))
            }
            _ => Err(refused(
                "a view is one aggregation over one dataset",
                "write `SELECT … FROM dataset WHERE … GROUP BY … HAVING …`, and combine views when you query them",
            )),
        }
    }

    fn aggregate(mut self, aggregate: &Aggregate) -> Result<Self, Refusal> {
        if self.grouped.is_some() {
            return Err(twice());
        }
        let below = aggregate.input.schema();
        let keys = self.resolve_all(&aggregate.group_expr, below)?;
        let aggregates = self.resolve_all(&aggregate.aggr_expr, below)?;
        self.columns = (0..keys.len()).map(key).chain((0..aggregates.len()).map(self::aggregate)).collect();
        self.grouped = Some(Grouped { keys, aggregates, having: Vec::new() });
        Ok(self)
    }

    /// Distinct rows are the groups by all columns. Groups are distinct already where every key is among their columns.
    fn distinct(mut self) -> Result<Self, Refusal> {
        match &self.grouped {
            None => {
                let keys = std::mem::take(&mut self.columns);
                self.columns = (0..keys.len()).map(key).collect();
                self.grouped = Some(Grouped { keys, aggregates: Vec::new(), having: Vec::new() });
                Ok(self)
            }
            Some(grouped) if (0..grouped.keys.len()).all(|index| self.columns.contains(&key(index))) => Ok(self),
            Some(_) => Err(twice()),
        }
    }

    fn resolve_all(&self, expressions: &[Expr], below: &DFSchema) -> Result<Vec<Expr>, Refusal> {
        expressions.iter().map(|expression| self.resolve(expression, below)).collect()
    }

    /// An expression over this level's columns, which are `below` for it, in what those are made of.
    fn resolve(&self, expression: &Expr, below: &DFSchema) -> Result<Expr, Refusal> {
        let resolved = expression.clone().unalias_nested().data.transform_up(|part| match part {
            Expr::Column(column) => {
                let index = below.index_of_column(&column)?;
                Ok(Transformed::yes(self.columns[index].clone()))
            }
            other => Ok(Transformed::no(other)),
        });
        Ok(resolved.map_err(refusal)?.data)
    }
}

fn twice() -> Refusal {
    refused(
        "a view groups once, and this query groups groups",
        "make a view of the inner query, and aggregate it when you query it",
    )
}
