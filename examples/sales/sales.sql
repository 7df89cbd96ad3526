-- A shop's sales, and three views of them.
--
-- A catalog is a folder of files like this one, with two kinds of statements: CREATE TABLE says what the events of one
-- topic are, CREATE MATERIALIZED VIEW what is kept computed from them. `lamina check examples/sales` says what is wrong
-- with it, and everything at once.

-- Each event is one JSON object in the topic `sales`:
--
--   {"order_id": 17, "product_id": 7, "customer_id": "c42", "store": 3, "quantity": 2, "amount": 19.90,
--    "created_at": "2026-01-03T17:05:00Z"}
--
-- Members that no column names are ignored. An event that lacks a NOT NULL column, has a value of another type or fails
-- a CHECK is kept as a dead letter, and the views go on without it.
CREATE TABLE sales (
  order_id    BIGINT NOT NULL,
  product_id  BIGINT NOT NULL,
  customer_id TEXT,                                  -- NULL for somebody who paid cash
  store       INT NOT NULL,
  quantity    INT NOT NULL CHECK (quantity > 0),
  amount      DECIMAL(12,2) NOT NULL,                -- exact: decimals are never rounded
  created_at  TIMESTAMP NOT NULL                     -- when it was sold, in UTC
) WITH (
  topic = 'sales',
  format = 'json',
  key = 'product_id',                                -- sales of one product go to one partition, in order
  partitions = 4                                     -- when Lamina creates the topic
);

-- How each product sells. `refresh` is how often the batch layer computes the view again from all events; answers have
-- new events in them at once, whatever it says.
CREATE MATERIALIZED VIEW product_sales WITH (refresh = '30 seconds') AS
SELECT product_id,
       count(*)      AS orders,
       sum(quantity) AS total_quantity,
       sum(amount)   AS total_amount,
       avg(amount)   AS average_amount
FROM sales
GROUP BY product_id;

-- Each store's days. The customers are counted approximately: an exact count(DISTINCT …) would keep every one of them.
CREATE MATERIALIZED VIEW daily_store_sales WITH (refresh = '30 seconds') AS
SELECT store,
       date_trunc('day', created_at) AS day,
       count(*)                      AS orders,
       sum(amount)                   AS total_amount,
       approx_distinct(customer_id)  AS customers,
       max(amount)                   AS largest_amount
FROM sales
GROUP BY 1, 2;

-- All stores' days, and how many of the sales were large.
CREATE MATERIALIZED VIEW daily_sales WITH (refresh = '15 seconds') AS
SELECT date_trunc('day', created_at)         AS day,
       count(*)                              AS orders,
       sum(amount)                           AS total_amount,
       count(*) FILTER (WHERE amount > 500)  AS large_orders
FROM sales
GROUP BY 1;
