//! A plan, run: Lamina's answers and whether they are right.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use common::{
    catalog::Catalog,
    clock::{Clock, System},
    fault::Fault as _,
    log::{Log, NewRecord},
    storage::Storage,
};
use datafusion::arrow::array::RecordBatch;
use futures::TryStreamExt;
use serving_layer::engine;
use tokio::task::JoinSet;

use super::{
    compare::{Rows, rows, same, show},
    plan::{DATASET, PARTITIONS, Plan, Step},
    query::Query,
    reference::{Answers, Reference},
    sql::Dialect,
};
use crate::{
    memory_log::MemoryLog,
    world::{Settings, World, at_least},
};

/// What came of one query.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It was compared, and is right.
    Right,
    /// Nobody else could compute it.
    Alone(String),
    /// It is wrong.
    Wrong(Wrong),
}

/// An answer that is not what it must be.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    /// Against whom.
    pub against: &'static str,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub got: String,
}

/// The layers, their log and store.
pub(super) struct Bench {
    log: Arc<dyn Log>,
    storage: Storage,
    catalog: Arc<Catalog>,
    world: Option<World>,
}

type Answer = Result<Rows, String>;

impl Bench {
    pub(super) async fn start(plan: &Plan) -> Result<Self> {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(0, Arc::new(System)));
        let store = Arc::new(object_store::memory::InMemory::new());
        let storage = Storage::with_store("memory:///lamina/".parse()?, store)?;
        let sql = Plan::catalog(&plan.views);
        let catalog =
            Catalog::parse(&[("catalog.sql".to_owned(), sql)]).map_err(|faults| anyhow::anyhow!("{faults}"))?;
        log.ensure_topic(DATASET, PARTITIONS).await?;
        let mut bench = Self { log, storage, catalog: Arc::new(catalog), world: None };
        bench.restart().await?;
        Ok(bench)
    }

    async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.world = Some(World::start(&self.storage, &self.log, &self.catalog, Settings::hasty()).await?);
        Ok(())
    }

    pub(super) async fn stop(&mut self) -> Result<()> {
        match self.world.take() {
            Some(world) => world.stop().await,
            None => Ok(()),
        }
    }

    fn world(&self) -> Result<&World> {
        self.world.as_ref().context("the layers run")
    }

    /// Asks until the layers are ready to say something.
    pub(super) async fn answer(&self, sql: &str) -> Result<Answer> {
        let end = self.log.bounds(DATASET).await?.end;
        let options = at_least(DATASET, &end, Duration::from_secs(60));
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (engine, sql, options) = (self.world()?.engine.clone(), sql.to_owned(), options.clone());
            // A task of its own, as a panic is an answer too.
            let mut task = JoinSet::new();
            task.spawn(async move {
                let answer = engine.sql(&sql, &options).await?;
                Ok::<_, engine::Error>(answer.rows.try_collect::<Vec<RecordBatch>>().await)
            });
            match task.join_next().await.context("the query was asked")? {
                Ok(Ok(Ok(batches))) => return Ok(Ok(rows(&batches)?)),
                Ok(Ok(Err(error))) => return Ok(Err(common::fault::chain(&error))),
                Ok(Err(error)) if error.retryable() && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(Err(error)) => return Ok(Err(common::fault::chain(&error))),
                Err(panic) => return Ok(Err(format!("a panic: {panic}"))),
            }
        }
    }
}

/// The query over the plain events: no fold, no states, no cut.
fn plain(views: &[(String, Query)], query: &Query) -> String {
    let used = views.iter().filter(|(name, _)| query.mentions(name));
    let with: Vec<String> = used.map(|(name, view)| format!("{name} AS ({})", view.sql(Dialect::Plain))).collect();
    format!("WITH {} {}", with.join(", "), query.sql(Dialect::Plain))
}

/// Runs a plan: a verdict for each of its queries, in order.
pub(super) async fn run(plan: &Plan, reference: &mut Reference) -> Result<Vec<Verdict>> {
    reference.reset().await?;
    let mut bench = Bench::start(plan).await?;
    let outcome = steps(plan, reference, &mut bench).await;
    bench.stop().await?;
    outcome
}

async fn steps(plan: &Plan, reference: &mut Reference, bench: &mut Bench) -> Result<Vec<Verdict>> {
    let (mut verdicts, mut since) = (Vec::new(), Vec::new());
    let mut fresh = false;
    for step in &plan.steps {
        match step {
            Step::Append(partition, events) => {
                let records = events.iter().map(|text| NewRecord { key: None, value: Some(text.clone().into()) });
                let before = System.now_ms();
                let offsets = bench.log.append(DATASET, *partition, records.collect()).await?;
                let loaded = offsets.iter().zip(events).map(|(at, text)| (*partition, *at, before, text.clone()));
                reference.load(&loaded.collect::<Vec<_>>()).await?;
                since.clear();
                fresh = false;
            }
            Step::Archive => drop(bench.answer(&format!("SELECT count(*) FROM {DATASET}")).await?),
            Step::Recompute(view) => drop(bench.world()?.recompute(view).await?),
            Step::Restart => bench.restart().await?,
            Step::Takeover => {
                let before = bench.world.take();
                bench.restart().await?;
                if let Some(before) = before {
                    // It may have failed: two append at once, and one of them loses.
                    drop(before.stop().await);
                }
            }
            Step::Ask(query) => {
                if !std::mem::replace(&mut fresh, true) {
                    reference.views(&plan.views).await?;
                }
                let got = bench.answer(&query.sql(Dialect::Lamina)).await?;
                // The dearest of them, so for some queries only.
                let over_events = match verdicts.len() % 3 {
                    0 if plan.is_over_events(query) => Some(bench.answer(&plain(&plan.views, query)).await?),
                    _ => None,
                };
                let others = reference.ask(query).await?;
                since.push((verdicts.len(), query, got.clone()));
                verdicts.push(judge(query, &got, over_events.as_ref(), &others, plan.may_fail));
            }
        }
    }
    for (view, _) in &plan.views {
        bench.world()?.recompute(view).await?;
    }
    for (at, query, before) in since {
        let after = bench.answer(&query.sql(Dialect::Lamina)).await?;
        if let (Verdict::Right | Verdict::Alone(_), Some(wrong)) =
            (&verdicts[at], differs(query, &before, &after, "itself after a recompute at the same head"))
        {
            verdicts[at] = Verdict::Wrong(wrong);
        }
    }
    Ok(verdicts)
}

pub(super) fn text(answer: &Answer) -> String {
    match answer {
        Ok(rows) => show(rows),
        Err(error) => format!("  error: {error}"),
    }
}

fn differs(query: &Query, got: &Answer, expected: &Answer, against: &'static str) -> Option<Wrong> {
    let is_same = match (got, expected) {
        (Ok(got), Ok(expected)) => same(got, expected, &query.kinds(), query.ordered),
        (Err(_), Err(_)) => true,
        _ => false,
    };
    (!is_same).then(|| Wrong { against, expected: text(expected), got: text(got) })
}

fn judge(query: &Query, got: &Answer, over_events: Option<&Answer>, others: &Answers, may_fail: bool) -> Verdict {
    let Answers { duck, postgres } = others;
    // A row that cannot be computed costs a view that row, and the plain query all of them.
    let differs_from_events = || match over_events {
        // A view's aggregates have an order each, a plain query's one for all.
        Some(Err(error)) if error.contains("Conflicting ordering requirements") => None,
        Some(plain) if plain.is_ok() || !may_fail => differs(query, got, plain, "the same SQL over the plain events"),
        _ => None,
    };
    let wrong = match (got, postgres, duck) {
        (_, Ok(_), _) => differs(query, got, postgres, "PostgreSQL"),
        (Err(_), Err(_), _) => None,
        (Ok(_), Err(_), Ok(_)) => differs(query, got, duck, "DuckDB"),
        (Ok(_), Err(error), Err(_)) => {
            return differs_from_events().map_or_else(|| Verdict::Alone(error.clone()), Verdict::Wrong);
        }
    };
    wrong.or_else(differs_from_events).map_or(Verdict::Right, Verdict::Wrong)
}
