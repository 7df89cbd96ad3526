//! What a query's filters say of group keys: `key = literal` and `key IN (literals)`.
//!
//! What is left out of a scan for it has to fail the query's own filter as well. So only literals of the key's own type
//! count, as group keys have them, and everything else that a filter can say leaves nothing out.

use common::{
    catalog::View,
    speed::{KeyFilter, canonical},
};
use datafusion::{
    arrow::{array::ArrayRef, datatypes::DataType},
    common::ScalarValue,
    error::Result,
    logical_expr::{Expr, Operator, expr::InList},
};

/// A group key that equals one of some values.
#[derive(Clone, Debug)]
pub(super) struct Equality {
    /// Which of the group keys.
    pub(super) key: usize,
    /// Which of the finished columns holds it.
    pub(super) place: usize,
    /// The values; there is one at least, none twice, and none is null.
    pub(super) values: ArrayRef,
}

impl Equality {
    /// All of them that `filters` say.
    pub(super) fn all(view: &View, filters: &[Expr]) -> Result<Vec<Self>> {
        let fold = &view.fold;
        let mut all = Vec::new();
        for (name, literals) in filters.iter().filter_map(literals) {
            let key = fold.keys().iter().position(|&place| fold.finished().field(place).name() == name);
            let Some((key, place)) = key.and_then(|key| Some((key, *fold.keys().get(key)?))) else { continue };
            if let Some(values) = values(&literals, fold.finished().field(place).data_type())? {
                all.push(Self { key, place, values });
            }
        }
        Ok(all)
    }

    /// The same over rows of states.
    pub(super) fn of_states(&self) -> KeyFilter {
        KeyFilter::new(self.key, &self.values)
    }

    /// The same over finished rows.
    pub(super) fn of_finished(&self) -> KeyFilter {
        KeyFilter::new(self.place, &self.values)
    }
}

/// The literals as values of a key, each once; `None` where they are of another type, or all are null.
fn values(literals: &[&ScalarValue], key: &DataType) -> Result<Option<ArrayRef>> {
    if literals.iter().any(|literal| literal.data_type() != *key) {
        return Ok(None);
    }
    // Nothing equals NULL.
    let mut present = literals.iter().filter(|literal| !literal.is_null()).map(|&literal| literal.clone()).peekable();
    if present.peek().is_none() {
        return Ok(None);
    }
    let all = canonical(&ScalarValue::iter_to_array(present)?);
    let mut distinct: Vec<ScalarValue> = Vec::with_capacity(all.len());
    let mut seen = std::collections::HashSet::with_capacity(all.len());
    for row in 0..all.len() {
        let value = ScalarValue::try_from_array(&all, row)?;
        if seen.insert(value.clone()) {
            distinct.push(value);
        }
    }
    Ok(Some(ScalarValue::iter_to_array(distinct)?))
}

/// The column and the literals of `column = literal` and `column IN (literals)`.
fn literals(filter: &Expr) -> Option<(&str, Vec<&ScalarValue>)> {
    match filter {
        Expr::BinaryExpr(binary) if binary.op == Operator::Eq => match (binary.left.as_ref(), binary.right.as_ref()) {
            (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column)) => {
                Some((&column.name, vec![value]))
            }
            _ => None,
        },
        Expr::InList(InList { expr, list, negated: false }) => {
            let Expr::Column(column) = expr.as_ref() else { return None };
            let literals: Option<Vec<&ScalarValue>> = list
                .iter()
                .map(|item| match item {
                    Expr::Literal(value, _) => Some(value),
                    _ => None,
                })
                .collect();
            Some((&column.name, literals?))
        }
        // A short list comes as equalities with `OR` between them.
        Expr::BinaryExpr(binary) if binary.op == Operator::Or => {
            let (left, mut values) = literals(&binary.left)?;
            let (right, more) = literals(&binary.right)?;
            values.extend(more);
            (left == right).then_some((left, values))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use common::catalog::Catalog;
    use datafusion::logical_expr::{col, in_list, lit};

    use super::*;

    fn view() -> std::sync::Arc<View> {
        let sql = "CREATE TABLE m (k INT, x DOUBLE, d DECIMAL(12,2));
                   CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, x, d, k FROM m GROUP BY k, x, d;";
        let catalog = Catalog::parse(&[("m.sql".to_owned(), sql.to_owned())]).unwrap();
        catalog.views["v"].clone()
    }

    #[test]
    fn literals_of_the_keys_type_are_values() {
        let view = view();
        let check = |filter: Expr, expected: Option<(usize, &str)>| {
            let found = Equality::all(&view, std::slice::from_ref(&filter)).unwrap();
            let found: Vec<(usize, String)> = found
                .iter()
                .map(|equality| {
                    let values = (0..equality.values.len())
                        .map(|row| ScalarValue::try_from_array(&equality.values, row).unwrap().to_string());
                    (equality.key, values.collect::<Vec<_>>().join(" "))
                })
                .collect();
            let expected: Vec<(usize, String)> =
                expected.into_iter().map(|(key, values)| (key, values.to_owned())).collect();
            assert_eq!(found, expected, "{filter}");
        };
        let none = ScalarValue::Int32(None);
        let decimal = |precision, scale| lit(ScalarValue::Decimal128(Some(11_789), precision, scale));
        check(col("k").eq(lit(7)), Some((0, "7")));
        check(lit(7).eq(col("k")), Some((0, "7")));
        check(in_list(col("k"), vec![lit(7), lit(8), lit(7)], false), Some((0, "7 8")));
        check(in_list(col("k"), vec![lit(7), lit(none.clone())], false), Some((0, "7")));
        check(col("k").eq(lit(7)).or(col("k").eq(lit(9))), Some((0, "7 9")));
        check(col("x").eq(lit(-0.0)), Some((1, "0")));
        check(in_list(col("x"), vec![lit(-0.0), lit(0.0), lit(-f64::NAN), lit(f64::NAN)], false), Some((1, "0 NaN")));
        check(col("d").eq(decimal(12, 2)), Some((2, "117.89")));
        // What leaves nothing out.
        for filter in [
            col("k").eq(lit(none)),
            col("k").eq(lit(7_i64)),
            col("d").eq(decimal(13, 3)),
            col("k").eq(lit(7)).or(col("x").eq(lit(1.0))),
            in_list(col("k"), vec![lit(7)], true),
            in_list(col("k"), vec![], false),
            in_list(col("k"), vec![lit(7), lit(8_i64)], false),
            col("n").eq(lit(7_i64)),
            col("k").gt(lit(7)),
        ] {
            check(filter, None);
        }
    }
}
