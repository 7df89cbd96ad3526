//! Functions that queries have beside DataFusion's: PostgreSQL's.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::DataType,
    common::ScalarValue,
    error::Result,
    functions::math::signum,
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};

use super::session::{CATALOG, SCHEMA};

mod age;

pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    vec![
        constant("current_database", CATALOG),
        constant("current_catalog", CATALOG),
        constant("current_schema", SCHEMA),
        Arc::new(signum().as_ref().clone().with_aliases(["sign"])),
        Arc::new(ScalarUDF::from(age::Age::new())),
    ]
}

/// A function that always says the same.
fn constant(name: &str, says: &'static str) -> Arc<ScalarUDF> {
    let says =
        move |_: &[ColumnarValue]| -> Result<ColumnarValue> { Ok(ColumnarValue::Scalar(ScalarValue::from(says))) };
    Arc::new(create_udf(name, Vec::new(), DataType::Utf8, Volatility::Immutable, Arc::new(says)))
}
