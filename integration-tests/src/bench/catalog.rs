//! The benchmark's dataset and views.

use std::{path::Path, sync::Arc};

use anyhow::Result;
use common::catalog::Catalog;

/// The dataset and its views A (per product), B (per store and day) and C (per day).
pub const SQL: &str = "
CREATE TABLE sales (
  order_id    BIGINT NOT NULL,
  product_id  BIGINT NOT NULL,
  customer_id TEXT,
  store       INT NOT NULL,
  quantity    INT NOT NULL,
  amount      DECIMAL(12,2) NOT NULL,
  created_at  TIMESTAMP NOT NULL
) WITH (topic = 'sales', partitions = 4);

CREATE MATERIALIZED VIEW a WITH (refresh = 'never') AS
SELECT product_id, count(*) AS orders, sum(quantity) AS quantity, sum(amount) AS amount, avg(amount) AS average
FROM sales GROUP BY product_id;

CREATE MATERIALIZED VIEW b WITH (refresh = 'never') AS
SELECT store, date_trunc('day', created_at) AS day, count(*) AS orders, sum(amount) AS amount,
       approx_distinct(customer_id) AS customers, max(amount) AS largest
FROM sales GROUP BY 1, 2;

CREATE MATERIALIZED VIEW c WITH (refresh = 'never') AS
SELECT date_trunc('day', created_at) AS day, count(*) AS orders, sum(amount) AS amount,
       count(*) FILTER (WHERE amount > 500) AS large
FROM sales GROUP BY 1;
";

/// Writes the catalog into a folder, for the processes, and parses it.
pub fn write(folder: &Path) -> Result<Arc<Catalog>> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("sales.sql"), SQL)?;
    let catalog = Catalog::load(folder).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    Ok(Arc::new(catalog))
}
