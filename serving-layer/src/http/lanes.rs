//! Lanes: threads that queries are planned and run on, apart from everything else.
//!
//! Constants are computed while a query is planned, and an expression is computed for a whole batch of rows: neither
//! gives way to other tasks, nor can it be stopped. So each query has a thread of its own, and each of the tasks that
//! it is split into. A query whose time is over, or whose client has left, is given up on: it stops where it can be
//! stopped, and nobody waits for that. One that does not is frozen, and few may be.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use futures::{
    FutureExt,
    future::{AbortHandle, Abortable, Aborted, BoxFuture},
};
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{JoinError, JoinHandle},
};

use super::{FROZEN, GIVEN_UP};

/// A query that can be stopped has stopped by then.
const STOPS_WITHIN: Duration = Duration::from_millis(250);
/// More threads there are not at once,
const THREADS: usize = 2048;
/// and no more of them by processor for the tasks that queries are split into: each keeps some megabytes. The other tasks
/// share one by processor, so that none waits for a thread that is held by one that waits for it.
const THREADS_OF_TASKS: usize = 16;

tokio::task_local! {
    /// The query that the present task is of.
    static QUERY: Query;
}

/// A query's threads.
#[derive(Clone)]
struct Query {
    threads: Threads,
    /// Each of its threads has it: what is frozen may be any of them.
    at_end: Arc<AtEnd>,
}

/// Where threads come from, and how many are at work.
#[derive(Clone, Debug)]
struct Threads {
    handle: Handle,
    busy: Arc<AtomicUsize>,
    of_tasks_max: usize,
}

/// Threads for queries. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Lanes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
    threads: Threads,
    frozen_max: usize,
    given_up: Mutex<Vec<GivenUp>>,
    frozen: IntGauge,
    total: IntCounter,
}

#[derive(Debug)]
struct GivenUp {
    over: Arc<AtomicBool>,
    at: Instant,
    counted: bool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Lanes {
    /// Lanes for `parallelism` processors, counted in `registry`.
    pub(super) fn new(parallelism: usize, registry: &Registry) -> Result<Self, prometheus::Error> {
        let frozen = IntGauge::new(FROZEN, "Queries that were given up on, and are still at work")?;
        let total = IntCounter::new(GIVEN_UP, "Queries that did not stop when they were given up on")?;
        registry.register(Box::new(frozen.clone()))?;
        registry.register(Box::new(total.clone()))?;
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .worker_threads(parallelism)
            .max_blocking_threads(THREADS)
            .thread_stack_size(common::process::STACK_BYTES)
            .thread_name("lamina-query")
            .build()
            .map_err(|error| prometheus::Error::Msg(format!("there are no threads for queries: {error}")))?;
        // It is the process', and there for good once it is there.
        let _ = set_join_set_tracer(&Apart);
        let given_up = Mutex::default();
        // Each holds a processor up; what else there is must still come to its turn.
        let frozen_max = parallelism.max(2) * 2;
        let of_tasks_max = parallelism.saturating_mul(THREADS_OF_TASKS).min(THREADS / 2);
        let threads = Threads { handle: runtime.handle().clone(), busy: Arc::default(), of_tasks_max };
        Ok(Self(Arc::new(Shared { runtime: Some(runtime), threads, frozen_max, given_up, frozen, total })))
    }

    /// Runs a query, or a part of one. It is given up on where what this gives is dropped.
    pub(super) fn run<T: Send + 'static>(&self, query: impl Future<Output = T> + Send + 'static) -> Lane<T> {
        let over = Arc::new(AtomicBool::new(false));
        let of = Query { threads: self.0.threads.clone(), at_end: Arc::new(AtEnd(over.clone())) };
        Lane { thread: Some(Thread::start(&of, query)), over, lanes: self.clone() }
    }

    /// How many queries are frozen: an error where no more may begin beside them.
    pub(super) fn look(&self) -> Result<usize, usize> {
        let mut given_up = self.0.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.retain(|query| !query.over.load(Ordering::Acquire));
        let mut frozen: usize = 0;
        for query in given_up.iter_mut().filter(|query| query.at.elapsed() >= STOPS_WITHIN) {
            frozen += 1;
            if !std::mem::replace(&mut query.counted, true) {
                self.0.total.inc();
            }
        }
        self.0.frozen.set(i64::try_from(frozen).unwrap_or(i64::MAX));
        if frozen < self.0.frozen_max { Ok(frozen) } else { Err(frozen) }
    }

    fn give_up(&self, over: Arc<AtomicBool>) {
        let mut given_up = self.0.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.push(GivenUp { over, at: Instant::now(), counted: false });
    }
}

/// Tells that all of a query is over, also where it never began.
struct AtEnd(Arc<AtomicBool>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A query at work, or a part of one: what it comes to. Dropped, it is given up on.
#[derive(Debug)]
pub(super) struct Lane<T> {
    thread: Option<Thread<T>>,
    over: Arc<AtomicBool>,
    lanes: Lanes,
}

impl<T> Future for Lane<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.thread {
            Some(thread) => thread.poll_unpin(context),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        self.thread = None;
        if !self.over.load(Ordering::Acquire) {
            self.lanes.give_up(self.over.clone());
        }
    }
}

/// A thread at work, or about to be.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn begin(busy: &Arc<AtomicUsize>) -> Self {
        busy.fetch_add(1, Ordering::Relaxed);
        Self(busy.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A future on a thread of its own. Dropped, it is stopped where it gives way.
struct Thread<T> {
    task: JoinHandle<Result<T, Aborted>>,
    abort: AbortHandle,
}

impl<T> fmt::Debug for Thread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Thread<T> {
    fn start(of: &Query, work: impl Future<Output = T> + Send + 'static) -> Self {
        let (abort, registration) = AbortHandle::new_pair();
        let work = Abortable::new(QUERY.scope(of.clone(), work), registration);
        let Query { threads: Threads { handle, busy, .. }, at_end } = of.clone();
        let (on, busy) = (handle.clone(), Busy::begin(&busy));
        let task = handle.spawn_blocking(move || {
            let _until_it_ends = (busy, at_end);
            on.block_on(work)
        });
        Self { task, abort }
    }
}

impl<T> Future for Thread<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(self.task.poll_unpin(context)) {
            Ok(Ok(outcome)) => Poll::Ready(Ok(outcome)),
            Err(error) if error.is_panic() => Poll::Ready(Err(error)),
            // The process stops.
            Ok(Err(Aborted)) | Err(_) => Poll::Pending,
        }
    }
}

impl<T> Drop for Thread<T> {
    fn drop(&mut self) {
        self.abort.abort();
        self.task.abort();
    }
}

/// Gives each task that DataFusion splits a query into a thread of its own as well.
struct Apart;

impl JoinSetTracer for Apart {
    fn trace_future(&self, task: BoxFuture<'static, Box<dyn Any + Send>>) -> BoxFuture<'static, Box<dyn Any + Send>> {
        let Ok(query) = QUERY.try_with(Query::clone) else { return task };
        if query.threads.busy.load(Ordering::Relaxed) >= query.threads.of_tasks_max {
            return task;
        }
        Box::pin(async move {
            match Thread::start(&query, task).await {
                Ok(outcome) => outcome,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        })
    }

    fn trace_block(
        &self,
        block: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> {
        block
    }
}

#[cfg(test)]
impl Lanes {
    /// Lanes that nothing else has.
    pub(super) fn for_tests() -> Self {
        Self::new(2, &Registry::new()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    async fn until(what: &str, is: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn what_can_be_stopped_is_not_frozen() {
        let lanes = Lanes::for_tests();
        assert_eq!(lanes.run(async { 7 }).await.unwrap(), 7);
        let (held, is_held) = (Arc::new(()), |held: &Arc<()>| Arc::strong_count(held) > 1);
        let holds = held.clone();
        let waits = lanes.run(async move {
            std::future::pending::<()>().await;
            drop(holds);
        });
        drop(waits);
        until("a query that waits is stopped", || !is_held(&held)).await;
        tokio::time::sleep(STOPS_WITHIN).await;
        assert_eq!(lanes.look(), Ok(0));
        assert!(lanes.run(async { panic!("broken") }).await.unwrap_err().is_panic());
    }

    #[tokio::test]
    async fn few_may_be_frozen_and_the_others_go_on() {
        let lanes = Lanes::for_tests();
        let most = lanes.0.frozen_max;
        let mut thaw = Vec::new();
        for _ in 0..most {
            let (sender, receiver) = mpsc::sync_channel::<()>(0);
            thaw.push(sender);
            let query = lanes.run(async move { receiver.recv().unwrap_err() });
            tokio::time::timeout(Duration::from_millis(20), query).await.unwrap_err();
        }
        until("they are frozen", || lanes.look() == Err(most)).await;
        assert_eq!((lanes.0.total.get(), lanes.0.frozen.get()), (4, 4));
        // Tasks that a query is split into have threads of their own as well.
        let split = lanes.run(async {
            let mut tasks = datafusion::common::runtime::JoinSet::new();
            for n in 0..10 {
                tasks.spawn(async move {
                    std::thread::sleep(Duration::from_millis(100));
                    n
                });
            }
            tasks.join_all().await.into_iter().sum::<i32>()
        });
        let began = Instant::now();
        assert_eq!(split.await.unwrap(), 45);
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        // A part of one may be what is frozen.
        let (sender, receiver) = mpsc::sync_channel::<()>(0);
        thaw.push(sender);
        let query = lanes.run(async move {
            let mut tasks = datafusion::common::runtime::JoinSet::new();
            tasks.spawn(async move { receiver.recv().unwrap_err() });
            tasks.join_all().await.len()
        });
        tokio::time::timeout(Duration::from_millis(20), query).await.unwrap_err();
        until("the part is frozen too", || lanes.look() == Err(most + 1)).await;
        drop(thaw);
        until("they have thawed", || lanes.look() == Ok(0)).await;
        assert_eq!((lanes.0.total.get(), lanes.0.frozen.get()), (5, 0));
    }
}
