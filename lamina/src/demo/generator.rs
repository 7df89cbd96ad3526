//! Made-up sales.

use common::jobs::rfc3339;

const PRODUCTS: u32 = 1000;
const STORES: u32 = 40;
const CUSTOMERS: u32 = 20_000;

/// Makes sales from a seed.
#[derive(Debug)]
pub(super) struct Generator {
    random: fastrand::Rng,
    order: u64,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), order: seed }
    }

    /// One sale, made now, as JSON.
    pub(super) fn sale(&mut self, now_ms: i64) -> Vec<u8> {
        self.order += 1;
        let random = &mut self.random;
        // The square makes some products and stores sell more than others.
        let often = |random: &mut fastrand::Rng, of: u32| random.u32(0..of) * random.u32(0..of) / of;
        let product = often(random, PRODUCTS);
        let store = often(random, STORES);
        let quantity = 1 + random.u32(0..4) * random.u32(0..2);
        let cents = (199 + u64::from(product) * 37 % 20_000) * u64::from(quantity);
        let customer = match random.u8(0..10) {
            0 => "null".to_owned(),
            _ => format!("\"c{}\"", random.u32(0..CUSTOMERS)),
        };
        format!(
            r#"{{"order_id": {}, "product_id": {product}, "customer_id": {customer}, "store": {store}, "quantity": {quantity}, "amount": {}.{:02}, "created_at": "{}"}}"#,
            self.order,
            cents / 100,
            cents % 100,
            rfc3339(now_ms)
        )
        .into_bytes()
    }
}
