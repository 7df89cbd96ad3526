//! Rows of a view by equalities, without SQL.

use std::collections::BTreeSet;

use common::values::parameter;
use datafusion::{
    datasource::provider_as_source,
    logical_expr::{Expr, LogicalPlanBuilder, ident, in_list},
};

use super::{
    Answer, Engine, Error, Options,
    query::{Frame, again},
};

impl Engine {
    /// Rows of a view: `filters` are equalities on its columns, several values of one column mean IN. The values are
    /// text, as an answer shows them, and are taken as the column's type: one that it does not have is refused.
    pub async fn rows(
        &self,
        view: &str,
        filters: &[(String, Vec<String>)],
        limit: usize,
        options: &Options,
    ) -> Result<Answer, Error> {
        let definition = self.view_named(view, &options.scope)?.clone();
        let schema = crate::merged::visible(&definition);
        let mut conditions: Vec<Expr> = Vec::new();
        for (column, values) in filters {
            let Ok(field) = schema.field_with_name(column) else {
                let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
                return Err(Error::unknown("column", column, &columns));
            };
            let values: Result<Vec<Expr>, Error> = values
                .iter()
                .map(|value| {
                    let parsed = parameter::parse(value, field.data_type());
                    parsed.map(|value| Expr::Literal(value, None)).map_err(|why| {
                        let reason = format!("the value of column `{column}` is wrong: {why}");
                        Error::refused(reason, "write the value as an answer shows it, without quotes")
                    })
                })
                .collect();
            conditions.push(in_list(ident(column), values?, false));
        }
        again(|| self.rows_once(view, &conditions, limit, options)).await
    }

    async fn rows_once(
        &self,
        view: &str,
        conditions: &[Expr],
        limit: usize,
        options: &Options,
    ) -> Result<Answer, Error> {
        let Frame { mut tables, stamp, failed_groups } =
            self.frame(&BTreeSet::from([view.to_owned()]), options).await?;
        let table = tables.remove(view).ok_or_else(|| Error::unknown("view", view, tables.keys()))?;
        let stop = options.stop.clone();
        let rows = async {
            let mut plan = LogicalPlanBuilder::scan(view, provider_as_source(table), None)?;
            for condition in conditions {
                plan = plan.filter(condition.clone())?;
            }
            let plan = plan.limit(0, Some(limit))?.build()?;
            self.base.run(&self.base.session(tables, &stop)?, &plan).await
        };
        let rows = rows.await.map_err(|error| self.planning(error))?;
        Ok(Answer { rows, stamp: Frame::planned(stamp, &failed_groups), stop })
    }
}
