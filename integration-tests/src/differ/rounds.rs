//! Many plans, one after the other and some side by side.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;

use super::{
    features::Features,
    plan::Plan,
    reference::Reference,
    shrink::{report, shrink},
    trial::{Verdict, run},
};

/// What to try.
#[derive(Clone, Debug)]
pub struct Rounds {
    /// How many queries.
    pub cases: usize,
    /// The first seed; the others follow.
    pub seed: u64,
    /// How many plans run side by side.
    pub workers: usize,
    /// What is drawn.
    pub features: Features,
    /// How many failing cases are cut down before it ends.
    pub faults: usize,
}

/// Queries a plan.
pub(super) const QUERIES: usize = 40;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Queries that were asked.
    pub cases: usize,
    /// Those that another engine could answer, or agreed to refuse.
    pub compared: usize,
    /// Views that were drawn.
    pub views: usize,
    /// Why views were refused, and how often.
    pub refused: BTreeMap<String, usize>,
    /// Why nobody else could answer, and how often.
    pub alone: BTreeMap<String, usize>,
    /// The failing cases, cut down.
    pub wrong: Vec<String>,
}

impl Tally {
    /// How many views were refused.
    pub fn refusals(&self) -> usize {
        self.refused.values().sum()
    }

    /// Whether most cases were compared, and most views let through.
    pub fn is_telling(&self) -> bool {
        self.compared * 5 >= self.cases * 4 && self.refusals() * 5 <= self.views * 2
    }

    /// In a few lines.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "{} cases, {} compared with another engine, {} wrong; {} views, {} refused",
            self.cases,
            self.compared,
            self.wrong.len(),
            self.views,
            self.refusals()
        );
        for (what, reasons) in [("refused", &self.refused), ("alone", &self.alone)] {
            let mut reasons: Vec<_> = reasons.iter().collect();
            reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            for (reason, count) in reasons.iter().take(12) {
                text.push_str(&format!("\n{what} {count}: {reason}"));
            }
        }
        text
    }
}

impl Rounds {
    /// Tries all, and says each failing case as it is found.
    pub async fn run(&self, say: impl Fn(&str) + Send + Sync + 'static) -> Result<Tally> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let next = Arc::new(AtomicU64::new(self.seed));
        let last = self.seed + u64::try_from(self.cases.div_ceil(QUERIES))?;
        let say: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(say);
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..self.workers {
            let (this, tally, next, say) = (self.clone(), tally.clone(), next.clone(), say.clone());
            workers.spawn(async move {
                let mut reference = Reference::start()?;
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = tally.lock().unwrap_or_else(PoisonError::into_inner).wrong.len() >= this.faults;
                    if seed >= last || enough {
                        break;
                    }
                    this.one(seed, &mut reference, &tally, say.as_ref()).await?;
                }
                reference.stop().await
            });
        }
        while let Some(ended) = workers.join_next().await {
            ended??;
        }
        let tally = tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(tally)
    }

    async fn one(
        &self,
        seed: u64,
        reference: &mut Reference,
        tally: &Mutex<Tally>,
        say: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<()> {
        let plan = Plan::draw(seed, &self.features, QUERIES);
        let verdicts = run(&plan, reference).await;
        let mut wrong = Vec::new();
        {
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.views += plan.views.len() + plan.refused.len();
            for reason in &plan.refused {
                *tally.refused.entry(short(reason)).or_default() += 1;
            }
            match verdicts {
                Ok(verdicts) => {
                    for (at, verdict) in verdicts.into_iter().enumerate() {
                        tally.cases += 1;
                        match verdict {
                            Verdict::Right => tally.compared += 1,
                            Verdict::Alone(reason) => *tally.alone.entry(short(&reason)).or_default() += 1,
                            Verdict::Wrong(found) => {
                                tally.compared += 1;
                                wrong.push((at, found));
                            }
                        }
                    }
                }
                Err(error) => {
                    let text = format!("seed {seed}: the layers failed: {error:#}\n{}", Plan::catalog(&plan.views));
                    say(&text);
                    tally.wrong.push(text);
                }
            }
        }
        // One of a plan is enough: the others are often the same.
        if let Some((at, found)) = wrong.into_iter().next() {
            let (plan, found) = shrink(&plan, at, found, reference).await;
            let text = format!("seed {seed}:\n{}", report(&plan, &found));
            say(&text);
            tally.lock().unwrap_or_else(PoisonError::into_inner).wrong.push(text);
        }
        Ok(())
    }
}

/// A reason without what differs from case to case.
pub(super) fn short(reason: &str) -> String {
    let line = reason.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let plain: String = line.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
    plain.chars().take(160).collect()
}
