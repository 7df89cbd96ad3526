//! A failing plan, cut down to what it takes to fail.

use super::{
    plan::{Plan, Step},
    query::Query,
    reference::Reference,
    rounds::short,
    trial::{Verdict, Wrong, run},
};

/// How many smaller plans are tried.
const TRIES: usize = 250;

/// The smallest plan found in which the query numbered `failing` is still wrong in the same way.
pub(super) async fn shrink(plan: &Plan, failing: usize, wrong: Wrong, reference: &mut Reference) -> (Plan, Wrong) {
    let mut smallest = (alone(plan, failing), wrong);
    let mut tries = 0;
    // Alone it may be right: then the plan stays as it is.
    match still_wrong(&smallest.0, &smallest.1, reference).await {
        Some(wrong) => smallest.1 = wrong,
        None => return (plan.clone(), smallest.1),
    }
    'again: while tries < TRIES {
        for smaller in candidates(&smallest.0) {
            tries += 1;
            if tries > TRIES {
                break 'again;
            }
            if let Some(wrong) = still_wrong(&smaller, &smallest.1, reference).await {
                smallest = (smaller, wrong);
                continue 'again;
            }
        }
        break;
    }
    smallest
}

async fn still_wrong(plan: &Plan, before: &Wrong, reference: &mut Reference) -> Option<Wrong> {
    let verdicts = run(plan, reference).await.ok()?;
    verdicts.into_iter().find_map(|verdict| match verdict {
        Verdict::Wrong(wrong) if alike(&wrong, before) => Some(wrong),
        _ => None,
    })
}

/// Whether it is the same kind of wrong: errors stay errors, rows stay rows.
fn alike(left: &Wrong, right: &Wrong) -> bool {
    // The message is part of it, but for what is of this query alone.
    let error =
        |text: &str| text.trim_start().starts_with("error").then(|| short(text).chars().take(40).collect::<String>());
    left.against == right.against
        && error(&left.got) == error(&right.got)
        && error(&left.expected).is_some() == error(&right.expected).is_some()
}

/// The plan with just one of its queries.
fn alone(plan: &Plan, failing: usize) -> Plan {
    let mut plan = plan.clone();
    let mut asked = 0;
    plan.steps.retain(|step| {
        let keep = !matches!(step, Step::Ask(_)) || asked == failing;
        asked += usize::from(matches!(step, Step::Ask(_)));
        keep
    });
    if let Some(last) = plan.steps.iter().rposition(|step| matches!(step, Step::Ask(_))) {
        plan.steps.truncate(last + 1);
    }
    plan
}

fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        all.push(smaller);
    };
    let text: Vec<String> =
        plan.steps.iter().filter_map(asked).map(|query| query.sql(super::sql::Dialect::Lamina)).collect();
    for (at, (name, _)) in plan.views.iter().enumerate() {
        if !text.iter().any(|text| text.contains(name.as_str())) {
            with(&|plan| {
                let (name, _) = plan.views.remove(at);
                plan.steps.retain(|step| !matches!(step, Step::Recompute(view) if *view == name));
            });
        }
    }
    for (at, step) in plan.steps.iter().enumerate() {
        match step {
            Step::Ask(_) => {}
            Step::Append(_, events) if events.len() > 1 => {
                with(&|plan| drop(plan.steps.remove(at)));
                let size = (events.len() / 2).max(1);
                for start in (0..events.len()).step_by(size) {
                    with(&|plan| {
                        if let Step::Append(_, events) = &mut plan.steps[at] {
                            drop(events.drain(start..(start + size).min(events.len())));
                        }
                    });
                }
                for one in 0..if events.len() <= 8 { events.len() } else { 0 } {
                    with(&|plan| {
                        if let Step::Append(_, events) = &mut plan.steps[at] {
                            drop(events.remove(one));
                        }
                    });
                }
            }
            _ => with(&|plan| drop(plan.steps.remove(at))),
        }
    }
    for (at, step) in plan.steps.iter().enumerate() {
        for less in asked(step).iter().flat_map(|query| query.smaller()) {
            with(&|plan| plan.steps[at] = Step::Ask(Box::new(less.clone())));
        }
    }
    for (at, (_, view)) in plan.views.iter().enumerate() {
        for less in view.smaller() {
            with(&|plan| plan.views[at].1 = less.clone());
        }
    }
    all
}

fn asked(step: &Step) -> Option<&Query> {
    match step {
        Step::Ask(query) => Some(query),
        _ => None,
    }
}

/// A case as anyone can paste it.
pub(super) fn report(plan: &Plan, wrong: &Wrong) -> String {
    let mut text = format!("-- catalog\n{}-- steps\n", Plan::catalog(&plan.views));
    for step in &plan.steps {
        match step {
            Step::Append(partition, events) => {
                text.push_str(&format!("append to partition {partition}:\n"));
                for event in events.iter().take(50) {
                    text.push_str(&format!("{event}\n"));
                }
                if events.len() > 50 {
                    text.push_str(&format!("… {} events\n", events.len()));
                }
            }
            Step::Archive => text.push_str("archive\n"),
            Step::Recompute(view) => text.push_str(&format!("recompute {view}\n")),
            Step::Restart => text.push_str("restart\n"),
            Step::Takeover => text.push_str("start others, then stop these\n"),
            Step::Ask(query) => {
                text.push_str(&format!("ask: {}\n", query.sql(super::sql::Dialect::Lamina)));
            }
        }
    }
    let Wrong { against, expected, got } = wrong;
    text + &format!("-- expected, by {against}\n{expected}\n-- got\n{got}\n")
}
