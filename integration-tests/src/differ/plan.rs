//! What a seed draws: views, events, what happens to the layers, and queries.

use common::catalog::Catalog;

use super::{
    features::Features,
    ops::{AGGREGATES, OPS, ORDERED},
    query::{From, Query},
    sql::{Dialect, Node, Op},
    values::{COLUMNS, Pool, json, type_name},
};

/// The dataset's name.
pub(super) const DATASET: &str = "ev";
/// Its partitions.
pub(super) const PARTITIONS: i32 = 2;

/// What is tried.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// The views.
    pub views: Vec<(String, Query)>,
    /// What happens, one after the other.
    pub steps: Vec<Step>,
    /// How many views were refused while it was drawn, and why.
    pub refused: Vec<String>,
    /// Whether an expression may fail for some rows.
    pub may_fail: bool,
    /// Whether columns may read nothing.
    pub constants: bool,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Events come.
    Append(i32, Vec<String>),
    /// Everything is archived.
    Archive,
    /// A view is recomputed.
    Recompute(String),
    /// The layers stop, and start again.
    Restart,
    /// Others start while these are still at work.
    Takeover,
    /// A query is asked.
    Ask(Box<Query>),
}

impl Plan {
    /// The catalog of these views, in Lamina's words.
    pub(super) fn catalog(views: &[(String, Query)]) -> String {
        let column = |(name, kind, required): &(&str, char, bool)| {
            format!("{name} {}{}", type_name(*kind, false), if *required { " NOT NULL" } else { "" })
        };
        let columns: Vec<String> = COLUMNS.iter().map(column).collect();
        let mut sql = format!("CREATE TABLE {DATASET} ({}) WITH (partitions = {PARTITIONS});\n", columns.join(", "));
        for (name, query) in views {
            let definition = query.sql(Dialect::Lamina);
            sql.push_str(&format!("CREATE MATERIALIZED VIEW {name} WITH (refresh = 'never') AS {definition};\n"));
        }
        sql
    }

    /// Whether a query can be asked over the plain events. What reads nothing goes below a `count(*)` of all of them.
    pub(super) fn is_over_events(&self, query: &Query) -> bool {
        let used = |(name, view): &&(String, Query)| query.mentions(name) && view.keys.is_empty();
        self.constants || !self.views.iter().any(|view| used(&view))
    }

    /// Draws one.
    pub(super) fn draw(seed: u64, features: &Features, queries: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let pool = Pool::draw(&mut random, features);
        let large = features.has("large") && seed % 50 == 49;
        let turn = usize::try_from(seed).unwrap_or_default().wrapping_mul(5);
        let mut maker = Maker { random, features, pool, turn, large, in_view: true };
        let may_fail = features.has("row_errors") || features.has("overflow") || features.has("far_times");
        let mut plan = Self { may_fail, constants: features.has("constants"), ..Self::default() };
        let wanted = if large { 2 } else { maker.random.usize(3..6) };
        for _ in 0..wanted * 3 {
            if plan.views.len() == wanted {
                break;
            }
            let view = (format!("v{}", plan.views.len()), maker.view());
            match Catalog::parse(&[("catalog.sql".to_owned(), Self::catalog(std::slice::from_ref(&view)))]) {
                Ok(_) => plan.views.push(view),
                Err(faults) => plan.refused.push(faults.to_string()),
            }
        }
        maker.in_view = false;
        maker.steps(&mut plan, if large { 8 } else { queries });
        plan
    }
}

/// The expressions that others are grown from.
type Scope = [Node];

struct Maker<'a> {
    random: fastrand::Rng,
    features: &'a Features,
    pool: Pool,
    /// The aggregate whose turn it is: none is left to chance alone.
    turn: usize,
    /// Whether there are so many groups that answers are made of few of them.
    large: bool,
    in_view: bool,
}

/// The types that an expression can go on from.
const FREE: &str = "bsilrdfnpetxDTZ";

impl Maker<'_> {
    fn one_in(&mut self, n: u8) -> bool {
        self.random.u8(0..n) == 0
    }

    fn pick<'b, T>(&mut self, from: &'b [T]) -> &'b T {
        &from[self.random.usize(0..from.len())]
    }

    /// A type that the scope has something of.
    fn kind(&mut self, scope: &Scope) -> char {
        let kinds: Vec<char> = scope.iter().map(Node::kind).filter(|kind| FREE.contains(*kind)).collect();
        if kinds.is_empty() { 'l' } else { *self.pick(&kinds) }
    }

    fn grow(&mut self, kind: char, scope: &Scope, depth: u8) -> Node {
        let ops: Vec<&'static Op> =
            OPS.iter().filter(|op| (op.gives == kind || op.gives == '*') && self.features.has(op.needs)).collect();
        if depth == 0 || (kind != 'b' && self.one_in(3)) || ops.is_empty() {
            let leaves: Vec<&Node> = scope.iter().filter(|leaf| leaf.kind() == kind).collect();
            let may_be_literal = match kind {
                'T' => !self.in_view || self.features.has("time_literals"),
                'Z' => self.features.has("time_literals"),
                _ => true,
            };
            if leaves.is_empty() || (may_be_literal && self.one_in(4)) {
                return self.pool.literal(kind, &mut self.random);
            }
            return (*self.pick(&leaves)).clone();
        }
        let op = *self.pick(&ops);
        let star = if op.gives == '*' { kind } else { self.kind(scope) };
        let args = op.takes.chars().map(|take| self.grow(if take == '*' { star } else { take }, scope, depth - 1));
        let args = args.collect();
        Node::Call { op, kind: star, args, filter: None }
    }

    /// An expression that reads something of the scope, unless constants are wanted too.
    fn grown(&mut self, kind: char, scope: &Scope, depth: u8) -> Node {
        for _ in 0..8 {
            let node = self.grow(kind, scope, depth);
            let reads = scope.iter().any(|leaf| node.mentions(&leaf.sql(Dialect::Lamina)));
            if reads || self.features.has("constants") {
                return node;
            }
        }
        let leaves: Vec<&Node> = scope.iter().filter(|leaf| leaf.kind() == kind).collect();
        if leaves.is_empty() { self.grow(kind, scope, 0) } else { (*self.pick(&leaves)).clone() }
    }

    fn aggregate(&mut self, scope: &Scope, ordered: bool) -> Node {
        let more = if ordered { ORDERED } else { &[] };
        let ops: Vec<&'static Op> = AGGREGATES.iter().chain(more).filter(|op| self.features.has(op.needs)).collect();
        let op = if self.one_in(2) { ops[self.turn % ops.len()] } else { *self.pick(&ops) };
        self.turn = self.turn.wrapping_add(1);
        let star = self.kind(scope);
        let depth = u8::from(self.one_in(3));
        let args = op.takes.chars().map(|take| self.grown(if take == '*' { star } else { take }, scope, depth));
        let args = args.collect();
        let filter = self.one_in(5).then(|| Box::new(self.grown('b', scope, 1)));
        Node::Call { op, kind: star, args, filter }
    }

    /// A view's columns, or a grouping query's.
    fn fold(&mut self, query: &mut Query, scope: &Scope, ordered: bool, keys: usize) {
        query.grouped = true;
        for at in 0..keys {
            let kind = self.kind(scope);
            let depth = if self.one_in(3) { 2 } else { 0 };
            let key = self.grown(kind, scope, depth);
            let known = query.keys.iter().any(|(known, _)| known.sql(Dialect::Lamina) == key.sql(Dialect::Lamina));
            // A literal as a key is a position in `GROUP BY`, and columns that are there twice are refused.
            if !known && scope.iter().any(|leaf| key.mentions(&leaf.sql(Dialect::Lamina))) {
                query.keys.push((key, format!("k{at}")));
            }
        }
        let aggregates: Vec<Node> = (0..self.random.usize(2..6)).map(|_| self.aggregate(scope, ordered)).collect();
        for (at, aggregate) in aggregates.iter().enumerate() {
            let node = if self.one_in(4) {
                let kind = self.kind(&aggregates);
                self.grown(kind, &aggregates, 2)
            } else {
                aggregate.clone()
            };
            query.outputs.push((node, format!("a{at}")));
        }
        if self.one_in(6) {
            query.having = Some(self.grown('b', &aggregates, 2));
        }
    }

    fn view(&mut self) -> Query {
        let scope: Vec<Node> = COLUMNS.iter().map(|(name, kind, _)| Node::column(*kind, name)).collect();
        let mut query = Query::over(DATASET, "");
        let keys = if self.one_in(8) { 0 } else { self.random.usize(1..4) };
        self.fold(&mut query, &scope, true, keys);
        if self.large {
            query.keys.insert(0, (Node::column('l', "id"), "kid".to_owned()));
        }
        if self.one_in(3) {
            query.filter = Some(self.grown('b', &scope, 3));
        }
        query
    }

    fn event(&mut self, id: usize) -> String {
        let mut fields = vec![format!("\"id\":{id}")];
        for (name, kind, _) in &COLUMNS[1..] {
            match self.pool.value(*kind, &mut self.random).map(str::to_owned) {
                Some(value) => fields.push(format!("\"{name}\":{}", json(*kind, &value, &mut self.random))),
                None if self.one_in(2) => fields.push(format!("\"{name}\":null")),
                None => {}
            }
        }
        if self.one_in(40) {
            let broken = ["\"id\":1.5", "\"id\":null", "\"n\":0.001", "\"ts\":17", "\"b\":1", "\"s\":40000"];
            let broken = *self.pick(&broken);
            fields.retain(|field| field.split(':').next() != broken.split(':').next());
            fields.push(broken.to_owned());
        }
        format!("{{{}}}", fields.join(","))
    }

    fn steps(&mut self, plan: &mut Plan, queries: usize) {
        let large = self.large;
        let views: Vec<String> = plan.views.iter().map(|(name, _)| name.clone()).collect();
        let (mut id, mut asked) = (0, 0);
        let phases = self.random.usize(2..5);
        for phase in 0..phases {
            for _ in 0..self.random.usize(1..4) {
                let few = if self.one_in(2) { 4 } else { 60 };
                let count = if large && id == 0 { 100_200 } else { self.random.usize(1..few) };
                let events = (0..count).map(|at| self.event(id + at)).collect();
                id += count;
                plan.steps.push(Step::Append(self.random.i32(0..PARTITIONS), events));
                match self.random.u8(0..6) {
                    0 => plan.steps.push(Step::Archive),
                    1 if !views.is_empty() => plan.steps.push(Step::Recompute(self.pick(&views).clone())),
                    2 if self.features.has("restarts") && !large => {
                        plan.steps.push(if self.one_in(3) { Step::Takeover } else { Step::Restart });
                    }
                    _ => {}
                }
            }
            if large && !views.is_empty() {
                plan.steps.push(Step::Recompute(views[0].clone()));
            }
            let until = if phase + 1 == phases { queries } else { queries * (phase + 1) / (phases * 2) };
            while asked < until && !views.is_empty() {
                let query = self.query(&plan.views, 0);
                plan.steps.push(Step::Ask(Box::new(query)));
                asked += 1;
            }
        }
    }

    fn scope_of(query: &Query, alias: &str) -> Vec<Node> {
        query.columns().map(|(node, name)| Node::column(node.kind(), &format!("{alias}.{name}"))).collect()
    }

    /// A query over views.
    fn query(&mut self, views: &[(String, Query)], inner: u8) -> Query {
        let alias = if inner == 0 { "a" } else { "z" };
        let (name, view) = self.pick(views);
        let mut query = Query::over(name, alias);
        let mut scope = Self::scope_of(view, alias);
        if self.large {
            // A row for each event is for the comparison inside; out come sums over them, or what one key has.
            scope.retain(|leaf| !leaf.mentions("kid"));
        } else if inner == 0 && self.one_in(6) {
            let other = self.pick(views);
            self.join(&mut query, name, &mut scope, other);
        } else if inner == 0 && self.one_in(10) {
            let below = self.query(views, 1);
            scope = Self::scope_of(&below, "s");
            query.from = From::Query(Box::new(below));
        }
        if self.large || self.one_in(5) {
            // What reads nothing goes below an aggregate that has no keys.
            let least = usize::from(inner == 1 && !self.features.has("constants"));
            let keys = self.random.usize(least..if self.large { 2 } else { 3 });
            self.fold(&mut query, &scope, false, keys);
        } else if self.one_in(2) {
            for (at, leaf) in scope.iter().enumerate() {
                query.outputs.push((leaf.clone(), format!("c{at}")));
            }
        } else {
            for at in 0..self.random.usize(1..4) {
                let kind = self.kind(&scope);
                query.outputs.push((self.grown(kind, &scope, 2), format!("c{at}")));
            }
        }
        self.filter(&mut query, &scope, view, alias, views);
        self.finish(&mut query, views, inner);
        query
    }

    fn join(&mut self, query: &mut Query, left: &str, scope: &mut Vec<Node>, (right, view): &(String, Query)) {
        let others = Self::scope_of(view, "b");
        let pairs: Vec<(Node, Node)> = scope
            .iter()
            .filter(|a| FREE.contains(a.kind()))
            .flat_map(|a| others.iter().filter(|b| b.kind() == a.kind()).map(|b| (a.clone(), b.clone())))
            .collect();
        if pairs.is_empty() {
            return;
        }
        let (a, b) = self.pick(&pairs).clone();
        let op = if self.one_in(4) { &OPS[7] } else { &OPS[0] };
        let on = Node::Call { op, kind: a.kind(), args: vec![a, b], filter: None };
        let how = *self.pick(&["", "LEFT", "FULL"]);
        // A full join in PostgreSQL needs a condition that can be hashed or merged.
        let how = if how == "FULL" && std::ptr::eq(op, &raw const OPS[7]) { "LEFT" } else { how };
        query.from = From::Join { left: left.to_owned(), right: right.clone(), how, on };
        scope.extend(others);
    }

    fn filter(&mut self, query: &mut Query, scope: &Scope, view: &Query, alias: &str, views: &[(String, Query)]) {
        let mut parts = Vec::new();
        if matches!(&query.from, From::Table { .. }) && !view.keys.is_empty() && self.one_in(2) {
            for (key, name) in &view.keys {
                let key = Node::column(key.kind(), &format!("{alias}.{name}"));
                if self.one_in(4) {
                    continue;
                }
                let ops: [&'static Op; 7] = [&OPS[0], &OPS[0], &OPS[0], &OPS[7], &OPS[8], &OPS[10], &OPS[12]];
                let op = *self.pick(&ops);
                let kind = key.kind();
                let mut args = vec![key];
                while args.len() < op.takes.len() {
                    args.push(self.pool.literal(kind, &mut self.random));
                }
                parts.push(Node::Call { op, kind, args, filter: None });
            }
        } else if self.one_in(2) {
            parts.push(self.grown('b', scope, 3));
        }
        if !self.large && self.one_in(8) {
            parts.push(self.subquery(scope, views));
        }
        query.filter = parts.into_iter().reduce(|left, right| Node::Call {
            op: &OPS[14],
            kind: 'b',
            args: vec![left, right],
            filter: None,
        });
    }

    fn subquery(&mut self, scope: &Scope, views: &[(String, Query)]) -> Node {
        let kind = self.kind(scope);
        let (name, view) = self.pick(views);
        let inner = Self::scope_of(view, "y");
        let mut query = Query::over(name, "y");
        let value = self.grow(kind, &inner, 1);
        let arg = self.grow(kind, scope, 0);
        if self.one_in(3) {
            query.filter = Some(self.grown('b', &inner, 1));
        }
        let texts: &[&'static str] = if self.features.has("not_in") {
            &[
                "({0} IN ({q}))",
                "({0} NOT IN ({q}))",
                "(NOT {0} IN ({q}) OR {0} IS NULL)",
                "EXISTS ({q})",
                "({0} < ({q}))",
            ]
        } else {
            &["({0} IN ({q}))", "EXISTS ({q})", "({0} < ({q}))"]
        };
        let sql = *self.pick(texts);
        if sql.starts_with("EXISTS") {
            let equal = Node::Call { op: &OPS[0], kind, args: vec![value.clone(), arg.clone()], filter: None };
            query.filter = Some(equal);
        }
        let aggregate = AGGREGATES.iter().find(|op| op.sql[0].starts_with("max("));
        let value = match aggregate {
            Some(op) if sql.contains('<') => Node::Call { op, kind, args: vec![value], filter: None },
            _ => value,
        };
        query.outputs.push((value, "y0".to_owned()));
        Node::Sub { sql, kind: 'b', args: vec![arg], query: Box::new(query) }
    }

    /// Distinct rows, sets, orders and limits, where the columns are exact.
    fn finish(&mut self, query: &mut Query, views: &[(String, Query)], inner: u8) {
        let kinds = query.kinds();
        if !kinds.iter().all(|kind| FREE.contains(*kind)) {
            return;
        }
        if !query.grouped && self.one_in(8) {
            query.distinct = true;
        }
        if !query.grouped && inner == 0 && self.one_in(12) {
            let may_be_ordered = self.features.has("ordered_union");
            let (name, view) = self.pick(views);
            let scope = Self::scope_of(view, "w");
            let mut other = Query::over(name, "w");
            for (at, kind) in kinds.iter().enumerate() {
                other.outputs.push((self.grow(*kind, &scope, 1), format!("c{at}")));
            }
            let how = *self.pick(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]);
            query.also = Some((how, Box::new(other)));
            if !may_be_ordered {
                return;
            }
        }
        if self.one_in(4) && (inner == 0 || self.features.has("inner_order")) {
            query.ordered = true;
            if self.one_in(2) {
                query.limit = Some((self.random.usize(0..6), self.random.usize(0..3)));
            }
        }
    }
}
