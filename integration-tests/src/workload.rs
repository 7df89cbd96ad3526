//! Events of the `sales` workload: the shape that the design's measurements use, from a seed.

use std::io::Write;

/// Makes sales events: uniform products and customers, stores with a long tail, 30 days of times with jitter.
#[derive(Clone, Debug)]
pub struct Sales {
    random: fastrand::Rng,
    shares: Vec<f64>,
    next: u64,
    total: u64,
    products: u64,
}

const STORES: u32 = 200;
const CUSTOMERS: u64 = 200_000;
const DAYS: u64 = 30;
const DAY_MS: u64 = 86_400_000;

impl Sales {
    /// `total` events over `products` products.
    pub fn new(seed: u64, total: u64, products: u64) -> Self {
        let mut sum = 0.0;
        let weights: Vec<f64> = (1..=STORES).map(|rank| f64::from(rank).powf(-0.8)).collect();
        let whole: f64 = weights.iter().sum();
        let shares = weights
            .iter()
            .map(|weight| {
                sum += weight / whole;
                sum
            })
            .collect();
        Self { random: fastrand::Rng::with_seed(seed), shares, next: 0, total, products }
    }

    /// Writes the next event as one JSON object.
    #[allow(clippy::cast_possible_truncation, reason = "amounts are small")]
    pub fn write(&mut self, out: &mut Vec<u8>) {
        let random = &mut self.random;
        let share = random.f64();
        let store = self.shares.partition_point(|&sum| sum < share).min(STORES as usize - 1);
        // Box-Muller: a normal exponent makes amounts log-normal.
        let normal = (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
        let cents = ((4.2 + 1.2 * normal).exp() * 100.0).clamp(1.0, 99_999_999.0) as u64;
        let base = self.next * (DAYS * DAY_MS) / self.total.max(1);
        let jitter = random.u64(0..1_200_001);
        let at = (base + jitter).saturating_sub(600_000).min(DAYS * DAY_MS - 1);
        let (day, ms) = (at / DAY_MS, at % DAY_MS);
        let written = write!(
            out,
            r#"{{"order_id": {}, "product_id": {}, "customer_id": "c{}", "store": {}, "quantity": {}, "amount": {}.{:02}, "created_at": "2026-10-{:02}T{:02}:{:02}:{:02}.{:03}Z"}}"#,
            1_700_000_000_000_u64 + self.next,
            random.u64(0..self.products),
            random.u64(0..CUSTOMERS),
            store,
            random.u32(1..10),
            cents / 100,
            cents % 100,
            day + 1,
            ms / 3_600_000,
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000
        );
        debug_assert!(written.is_ok(), "memory takes everything");
        self.next += 1;
    }
}

impl Iterator for Sales {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        (self.next < self.total).then(|| {
            let mut event = Vec::with_capacity(180);
            self.write(&mut event);
            event
        })
    }
}

/// An event that nobody can use, of one of several kinds.
pub fn broken(random: &mut fastrand::Rng) -> Vec<u8> {
    let kinds: [&[u8]; 7] = [
        b"",
        b"null",
        b"{\"order_id\": 1",
        b"{\"order_id\": 1}{\"order_id\": 2}",
        br#"{"order_id": 1, "product_id": 2, "store": 3, "quantity": 0, "amount": 1.00, "created_at": "2026-10-01T00:00:00Z"}"#,
        br#"{"order_id": 1, "product_id": 2, "store": 3, "quantity": 1, "amount": 1.005, "created_at": "2026-10-01T00:00:00Z"}"#,
        br#"{"order_id": 1, "product_id": 2, "store": 3, "quantity": 1, "amount": 1.00, "created_at": 17}"#,
    ];
    kinds[random.usize(0..kinds.len())].to_vec()
}
